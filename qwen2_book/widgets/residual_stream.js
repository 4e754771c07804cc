// The residual stream of a real prompt. `data` holds for each prompt, by token: `norms` after the
// embedding and after each addition, `added` and `cosines` of each addition, and after each block
// `dims` and `values`, the largest numbers of the stream.
function render({ model, el }) {
  const data = model.get("data"), notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const show = (token) => (token.trim() || "␣").replace(/\n/g, "⏎");
  const words = () => data.prompts[inLimits(model, "prompt")].tokens;
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "block", "blocks passed", (b) => `${b} of ${data.blocks}`),
    slider(model, "token", "token"));
  if (data.prompts.length > 1)
    controls.append(choice(model, "prompt", "prompt", data.prompts.map((prompt, i) => [i, prompt.name])));
  const lines = picture(330, 300), writes = picture(330, 300);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, lines, writes), result));

  const text = (x, y, what, more = {}) => shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, what);
  const digits = (value) => String(Number(value.toPrecision(4)));
  const LEFT = 40, RIGHT = 322, TOP = 26, BOTTOM = 262, LOW = Math.log10(0.2), HIGH = Math.log10(3000);
  const toX = (half) => LEFT + (half / (2 * data.blocks)) * (RIGHT - LEFT);
  const toY = (length) => BOTTOM - ((Math.log10(Math.max(length, 0.2)) - LOW) / (HIGH - LOW)) * (BOTTOM - TOP);
  const median = (values) => {
    const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };

  function drawLines(prompt, block, token) {
    const nodes = [text(LEFT, 14, "length of each token's vector", { "font-weight": 600 })];
    for (const tick of [1, 10, 100, 1000]) nodes.push(
      shape("line", { x1: LEFT, x2: RIGHT, y1: toY(tick), y2: toY(tick), stroke: "var(--q2b-grey)", "stroke-width": 0.4 }),
      text(LEFT - 4, toY(tick) + 4, tick.toLocaleString("en"), { "text-anchor": "end", "font-size": 11 }));
    const path = (row) => row.map((length, half) => `${half ? "L" : "M"}${toX(half).toFixed(1)} ${toY(length).toFixed(1)}`).join("");
    prompt.norms.forEach((row, at) => {
      if (at !== token) nodes.push(shape("path", { d: path(row), fill: "none", stroke: "var(--q2b-grey)", "stroke-width": 1, "stroke-opacity": 0.6 }));
    });
    const x = toX(2 * block), y = toY(prompt.norms[token][2 * block]);
    nodes.push(
      shape("rect", { x: toX(Math.max(0, 2 * block - 2)).toFixed(1), width: (toX(2) - LEFT).toFixed(1), y: TOP, height: BOTTOM - TOP,
        fill: "var(--q2b-orange)", "fill-opacity": block ? 0.16 : 0 }),
      shape("path", { d: path(prompt.norms[token]), fill: "none", stroke: "var(--q2b-blue)", "stroke-width": 2.6 }),
      shape("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 6, fill: "var(--q2b-orange)" }),
      text(LEFT, 278, "embedding", { "font-size": 11 }),
      text(RIGHT, 278, data.blocks, { "text-anchor": "end", "font-size": 11 }),
      text((LEFT + RIGHT) / 2, 294, "blocks passed (drag)", { "text-anchor": "middle" }));
    lines.replaceChildren(...nodes);
    lines.setAttribute("aria-label", `Length against block, one line a token; token ${token} thick, after ${block} blocks marked`);
  }

  function bar(nodes, y, name, length, widest, colour, after) {
    nodes.push(text(4, y + 12, name),
      shape("rect", { x: 120, y, height: 16, width: Math.max(1, (Math.abs(length) / widest) * 112).toFixed(1), fill: `var(--q2b-${colour})` }),
      text(240, y + 12, after, { "font-size": 11 }));
  }
  function drawWrites(prompt, block, token) {
    const norms = prompt.norms[token], at = 2 * block, nodes = [];
    nodes.push(text(4, 14, `token ${token} “${show(prompt.tokens[token])}”, ${block ? `layer ${block - 1}` : "embedding"}`, { "font-weight": 600 }));
    if (block) {
      const rows = [["stream before", norms[at - 2], "grey", ""]];
      ["attention adds", "feed-forward adds"].forEach((name, i) => rows.push([name, prompt.added[token][at - 2 + i],
        i ? "orange" : "teal", `, cos ${prompt.cosines[token][at - 2 + i].toFixed(2)}`]));
      rows.push(["stream after", norms[at], "blue", ""]);
      const widest = Math.max(...rows.map((row) => row[1]));
      rows.forEach(([name, length, colour, more], i) =>
        bar(nodes, 26 + 26 * i, name, length, widest, colour, `${Number(length.toPrecision(3))}${more}`));
    } else nodes.push(text(4, 60, "Nothing is added yet: this is the token's row"), text(4, 78, "of the embedding matrix."));
    nodes.push(text(4, 158, "largest numbers of the stream", { "font-weight": 600 }));
    const values = prompt.values[token][block], top = Math.max(...values.map(Math.abs));
    prompt.dims[token][block].forEach((dimension, i) =>
      bar(nodes, 170 + 26 * i, `dimension ${dimension}`, values[i], top, values[i] < 0 ? "wine" : "blue", digits(values[i])));
    const share = (values[0] / norms[at]) ** 2;
    nodes.push(text(4, 268, `The first holds ${(100 * share).toFixed(1)}% of the squared length.`));
    writes.replaceChildren(...nodes);
    writes.setAttribute("aria-label", `What layer ${block - 1} adds to token ${token}, and the largest numbers after it`);
  }

  const drag = (event) => {
    if (event.type === "pointermove" && event.buttons !== 1) return;
    const box = lines.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * 330;
    const block = Math.round(((x - LEFT) / (RIGHT - LEFT)) * data.blocks);
    model.set("block", Math.min(data.blocks, Math.max(0, block)));
    model.save_changes();
  };
  lines.addEventListener("pointerdown", drag);
  lines.addEventListener("pointermove", drag);
  lines.style.touchAction = "pan-y";
  lines.style.cursor = "ew-resize";

  redraw(model, ["block", "token", "prompt"], () => {
    const prompt = data.prompts[inLimits(model, "prompt")], block = inLimits(model, "block"), token = inLimits(model, "token");
    drawLines(prompt, block, token);
    drawWrites(prompt, block, token);
    const length = prompt.norms[token][2 * block], others = median(prompt.norms.filter((_, i) => i !== token).map((row) => row[2 * block]));
    const at = 2 * block - 2, added = block ? ` The last one, layer ${block - 1}: attention added ${digits(prompt.added[token][at])}, the feed-forward layer ` +
      `${digits(prompt.added[token][at + 1])}.` : "";
    result.textContent = `Token ${token} “${show(words()[token])}” ${block ? `after ${block} blocks` : "as embedded"}: length ${digits(length)}; ` +
      `the others, ${digits(others)} in the median.${added} Largest number: ${digits(prompt.values[token][block][0])} in dimension ` +
      `${prompt.dims[token][block][0]}. (${data.source})`;
  });
}
export default { render };
