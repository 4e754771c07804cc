// The map of the model. `data` holds the numbers of each released size; a box is a link where the page
// around it has a link to its chapter, so that the map never points to a page that is not there.
const PAGES = { "02": "02_tokenizer", "03": "03_residual_stream", "04": "04_rope", "05": "05_grouped_query_attention",
  "06": "06_swiglu", "07": "07_sliding_window_attention", "08": "08_mixture_of_experts", "09": "09_the_whole_model",
  "11": "11_generation" };
const DOORS = ["text", "token ids", "embeddings", "a normalised copy", "queries, keys, values", "attention weights",
  "after attention", "inside the feed-forward layer", "after all blocks", "after the final norm", "logits",
  "probabilities", "the next token"];

/** What passes each door: shapes, and one sentence. */
function passing(door, c, n) {
  const stream = [[1, n, c.hidden]], key = [1, c.kv_heads, n, c.head_dim];
  return [
    [[], "The prompt as you typed it."],
    [[[1, n]], "batch, seq: one whole number for each token."],
    [stream, "batch, seq, hidden: each number has picked its row of the table."],
    [stream, "Attention reads a normalised copy; the main road stays as it is."],
    [[[1, c.heads, n, c.head_dim], key, key], `batch, heads, seq, head size: ${c.heads} heads of queries share ${c.kv_heads} of keys and values. These three have a bias; queries and keys are turned by position.`],
    [[[1, c.heads, n, n]], "batch, heads, query, key: each token over itself and those before it; the rest is masked."],
    [stream, "Added to the main road: the shape is what it was."],
    c.experts ? [[[n * c.chosen, c.inner], [1, n, c.shared]], `Each token runs through ${c.chosen} of ${c.experts} experts, and through the shared one.`]
      : [[[1, n, c.inner]], "Each token alone, in a wider room; then back to hidden and added."],
    [stream, `${c.layers} blocks later, and the same shape.`],
    [stream, "The only norm on the main road."],
    [[[1, n, c.rows]], "batch, seq, vocab: a score for every row of the table, after every token."],
    [[[c.rows]], "Softmax of the last position's scores: the next token's chances."],
    [[[1, 1]], "The sampler has picked one. It joins the prompt, and the walk begins again."],
  ][door];
}

function render({ model, el }) {
  const data = model.get("data"), notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "door", "door"), slider(model, "tokens", "prompt", (n) => `${n} token${n > 1 ? "s" : ""}`));
  const chosen = choice(model, "size", "size", data.map((c, i) => [i, c.name]));
  chosen.style.gridColumn = "1 / -1";
  controls.append(chosen);
  const house = picture(330, 432), inside = picture(330, 432);
  for (const svg of [house, inside]) svg.setAttribute("role", "group");  // its boxes may be links
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, house, inside), result));

  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", "text-anchor": "middle", ...more }, words);
  const line = (d, more = {}) => shape("path", { d, fill: "none", stroke: "var(--q2b-ink)", "stroke-width": 1.5, ...more });
  const link = (chapter) => PAGES[chapter] && document.querySelector(`a[href*="${PAGES[chapter]}"]:not(.q2b-box)`);

  /** A box with a name, a remark and its chapter; orange while the prompt is in it. */
  function box(x, y, wide, name, remark, chapter, on) {
    const found = link(chapter), high = remark ? 36 : 24;
    const parts = [
      shape("rect", { x, y, width: wide, height: high, rx: 5, fill: "var(--q2b-paper)",
        stroke: on ? "var(--q2b-orange)" : "var(--q2b-blue)", "stroke-width": on ? 3 : 1.3 }),
      text(x + wide / 2, y + 16, name, { "font-weight": 600, ...(found ? { "text-decoration": "underline" } : {}) }),
      remark ? text(x + wide / 2, y + 29, remark, { "font-size": 9.5 }) : "",
      chapter ? text(x + wide - 3, y + 9, chapter, { "font-size": 8, "text-anchor": "end", fill: found ? "var(--q2b-blue)" : "var(--q2b-grey)" }) : "",
    ].filter(Boolean);
    if (!found) return shape("g", {}, ...parts);
    const a = shape("a", { href: found.href, class: "q2b-box", "aria-label": `${name}: chapter ${chapter}` }, ...parts);
    a.addEventListener("click", (event) => { event.preventDefault(); found.click(); });
    return a;
  }
  const dot = (x, y, door, now) => shape("g", { "data-door": door, style: "cursor:pointer" },
    shape("circle", { cx: x, cy: y, r: 9, fill: door === now ? "var(--q2b-orange)" : "var(--q2b-paper)",
      stroke: door === now ? "var(--q2b-orange)" : "var(--q2b-grey)", "stroke-width": 1.3 }),
    text(x, y + 4, door, { "font-size": 10, fill: door === now ? "var(--q2b-paper)" : "var(--q2b-ink)" }));
  for (const svg of [house, inside]) svg.addEventListener("click", (event) => {
    const found = event.target.closest?.("[data-door]");
    if (found) { model.set("door", Number(found.dataset.door)); model.save_changes(); }
  });

  redraw(model, ["door", "tokens", "size"], () => {
    const door = inLimits(model, "door"), n = inLimits(model, "tokens"), c = data[inLimits(model, "size")];
    const at = (...doors) => doors.includes(door), X = 165, sheet = (o) => shape("rect", { x: 75 + o, y: 172 - o, width: 180,
      height: 54, rx: 5, fill: "var(--q2b-paper)", stroke: door > 2 && door < 8 ? "var(--q2b-orange)" : "var(--q2b-blue)", "stroke-width": 1.3 });
    house.replaceChildren(
      line("M165 20V400"),
      text(X, 14, "“The capital of France is”", { "font-style": "italic", "font-size": 11 }),
      box(75, 44, 180, "tokenizer", "", "02", at(0, 1)),
      box(75, 96, 180, "embedding", `${c.rows.toLocaleString("en")} rows of ${c.hidden.toLocaleString("en")}`, "03", at(2)),
      sheet(8), sheet(4), sheet(0),
      text(X, 196, `decoder block × ${c.layers}`, { "font-weight": 600 }),
      text(X, 213, "opened in the other drawing", { "font-size": 9 }),
      box(75, 252, 180, "final norm", "", "03", at(9)),
      box(75, 302, 180, "head", c.tied ? "the embedding matrix again" : "a matrix of its own", "09", at(10)),
      box(75, 362, 180, "softmax", "", "05", at(11)),
      box(75, 406, 180, "sampler", "", "11", at(12)),
      line("M255 418H306V10H246", { "stroke-dasharray": "4 3", stroke: "var(--q2b-grey)" }),
      text(318, 214, "the new token joins the prompt", { transform: "rotate(-90 318 214)", "font-size": 9.5, fill: "var(--q2b-grey)" }),
      dot(X, 32, 0, door), dot(X, 82, 1, door), dot(X, 147, 2, door), dot(X, 239, 8, door), dot(X, 289, 9, door),
      dot(X, 350, 10, door), dot(X, 396, 11, door), dot(282, 418, 12, door));
    const moe = c.experts > 0;
    inside.replaceChildren(
      text(165, 12, "inside one block", { "font-weight": 600 }),
      line("M30 22V412", { "stroke-width": 3 }),
      text(16, 220, "main road: the residual stream", { transform: "rotate(-90 16 220)", "font-size": 10 }),
      line("M30 36H195V44M195 68V84M195 84H95V98M195 84V98M195 84H295V98M95 134V150M195 134V150M95 174V196M155 174V196M295 134V184H205V196M140 232V252H44"),
      line("M230 214H244", { "stroke-dasharray": "3 2" }),
      box(130, 44, 130, "RMSNorm", "", "03", at(3)),
      box(50, 98, 90, "query", `${c.heads} heads + bias`, "05", at(4)),
      box(150, 98, 90, "key", `${c.kv_heads} heads + bias`, "05", at(4)),
      box(250, 98, 78, "value", `${c.kv_heads} heads + bias`, "05", at(4)),
      box(50, 150, 190, "turn by position", "", "04", at(4)),
      box(50, 196, 180, "causal attention", "itself and all before it", "05", at(5)),
      box(244, 196, 84, "window", "off in all releases", "07", false),
      text(222, 248, "output matrix without bias", { "font-size": 9.5 }),
      line("M30 296H195V304M195 328V340M195 376V396H44"),
      box(130, 304, 130, "RMSNorm", "", "03", false),
      box(70, 340, 250, moe ? "router and experts" : "SwiGLU",
        moe ? `${c.chosen} of ${c.experts} for each token, and a shared one` : `hidden → ${c.inner.toLocaleString("en")} → hidden`, moe ? "08" : "06", at(7)),
      ...[252, 396].flatMap((y) => [shape("circle", { cx: 30, cy: y, r: 12, fill: "var(--q2b-paper)", stroke: "var(--q2b-ink)", "stroke-width": 1.5 }),
        text(30, y + 5, "+", { "font-size": 16 })]),
      dot(195, 84, 3, door), dot(145, 142, 4, door), dot(64, 214, 5, door), dot(30, 278, 6, door), dot(195, 386, 7, door));
    house.setAttribute("aria-label", `The model from the prompt to the next token; the prompt is at door ${door}`);
    inside.setAttribute("aria-label", "One block: norm, queries, keys and values with bias, turning, causal attention, added; norm, " +
      `${moe ? "experts" : "SwiGLU"}, added`);
    const [shapes, words] = passing(door, c, n), show = (s) => `(${s.join(", ")}${s.length === 1 ? "," : ""})`;
    const numbers = shapes.reduce((sum, s) => sum + s.reduce((a, b) => a * b, 1), 0).toLocaleString("en");
    result.textContent = `Door ${door}, ${DOORS[door]}: ${shapes.length ? `${shapes.map(show).join(" and ")}, ${numbers} number${numbers === "1" ? "" : "s"}. ` : ""}` +
      `${words} (Qwen2-${c.name})`;
  });
}
export default { render };
