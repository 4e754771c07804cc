// A conversation as the template writes it, one box a token. `data` holds the tokens of every prepared
// text between two control tokens, [id, characters]; typed text is shown by its characters and bytes.
const CONTROL = { "<|im_start|>": 151644, "<|im_end|>": 151645 }, LONGEST = 40;
const LOOK = {  // fill, its opacity, ink; each kind has a mark of its own besides its colour
  control: ["var(--q2b-wine)", 1, "var(--q2b-paper)"], role: ["var(--q2b-teal)", 0.3], content: ["var(--q2b-blue)", 0.12],
  end: ["var(--q2b-grey)", 0.2], fused: ["var(--q2b-orange)", 0.3],
};
const NAMES = { control: "control token", role: "role", content: "message", end: "line break", fused: "across a border" };

function render({ model, el }) {
  const data = model.get("data"), notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const visibly = (text) => text.replace(/\n/g, "⏎").replace(/ /g, "␣");
  const typed = make("input", { type: "text", maxlength: LONGEST, "data-key": "typed", "aria-label": "or type a message", placeholder: "or type (no ids)",
    style: "font: inherit; min-height: 36px; width: 100%; max-width: 20em; padding: 0 6px; color: inherit; background: transparent; border: 1px solid var(--q2b-grey); border-radius: 4px", ...OWN_KEYS });
  typed.value = String(model.get("typed")).slice(0, LONGEST);
  typed.addEventListener("input", () => { model.set("typed", typed.value); model.save_changes(); });
  model.on("change:typed", () => { if (typed.value !== model.get("typed")) typed.value = model.get("typed"); });
  model.on("change:user", () => { if (model.get("typed")) { model.set("typed", ""); model.save_changes(); } });
  const users = choice(model, "user", "user", data.texts.user.map((text, i) => [i, i === 4 ? "an attack" : visibly(text)]));
  users.append(typed);
  const layout = choice(model, "form", "layout", [["right", "Qwen2’s"], ["wrong", "line break before <|im_end|>"]]);
  const controls = make("div", {}, layout,
    choice(model, "system", "system", [[0, "Qwen2’s default"], [1, "Qwen2.5’s"], [2, "a pirate"], [3, "none"]]), users,
    make("div", { class: "q2b-controls" },
      choice(model, "turns", "questions", [[1, "one"], [2, "two"]]),
      choice(model, "prompt", "open answer", [[1, "yes"], [0, "no"]])),
    slider(model, "token", "look at token"));
  const drawing = picture(330, 200);
  drawing.style.maxHeight = "none";
  const result = make("p", { class: "q2b-result", "aria-live": "polite" }), cell = make("p", { class: "q2b-result" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")), drawing, cell, result));

  function segment(role, text, end) {
    const head = `${role}\n`, whole = head + text + end, found = [];
    const tokens = data.segments[whole] ||
      [...data.segments[head], ...Array.from(text + end, (char) => [null, char.length])];
    const borders = [head.length, head.length + text.length].filter((b) => b < whole.length);
    let at = 0;
    for (const [id, length] of tokens) {
      const stop = at + length, crosses = borders.some((b) => at < b && b < stop);
      const kind = crosses ? "fused" : at >= head.length + text.length ? "end" : stop <= head.length ? "role" : "content";
      found.push({ id, text: whole.slice(at, stop), kind });
      at = stop;
    }
    return found;
  }
  const same = (a, b) => a && a.id === b.id && a.text === b.text && a.kind === b.kind;
  const control = (text) => ({ id: CONTROL[text], text, kind: "control" });

  /** The rows: one a message, the last one the opened answer. `lost`: ids that the wrong layout drops. */
  function rows() {
    const texts = data.texts, system = inLimits(model, "system"), wrong = model.get("form") === "wrong";
    const told = system < 3 ? [["system", texts.system[system]]] : [];
    const own = Array.from(String(model.get("typed"))).slice(0, LONGEST).join("");
    told.push(["user", own || texts.user[inLimits(model, "user")]]);
    if (inLimits(model, "turns") === 2) told.push(["assistant", texts.answer], ["user", texts.second]);
    const lost = [];
    const found = told.map(([role, text]) => {
      const right = segment(role, text, ""), said = wrong ? segment(role, text, "\n") : right;
      said.forEach((piece, i) => { if (!same(right[i], piece)) piece.fresh = true; });
      right.forEach((piece, i) => { if (!same(said[i], piece)) lost.push(piece); });
      return [control("<|im_start|>"), ...said, control("<|im_end|>"), { id: 198, text: "\n", kind: "end" }];
    });
    if (inLimits(model, "prompt")) found.push([control("<|im_start|>"), ...segment("assistant", "", "")]);
    return { found, lost };
  }

  const bytes = (text) => Array.from(new TextEncoder().encode(text), (b) => b.toString(16).padStart(2, "0"));
  const label = (piece) => `“${visibly(piece.text)}”`;
  const wide = (text) => Array.from(text).reduce((sum, char) => sum + (char > "\u2e7f" ? 13 : 7.6), 0);
  let width = 0;
  function draw() {
    const { found, lost } = rows(), flat = found.flat(), at = Math.min(inLimits(model, "token"), flat.length - 1);
    const total = el.clientWidth && el.clientWidth < 560 ? 330 : 660, nodes = [];
    width = total;
    let x = 0, y = 4, number = 0;
    for (const [kind, [fill, opacity]] of Object.entries(LOOK)) {  // the key
      const long = wide(NAMES[kind]) * 0.9 + 30;
      if (x + long > total) { x = 0; y += 20; }
      nodes.push(shape("rect", { x: x + 2, y, width: 14, height: 14, rx: 3, fill, "fill-opacity": opacity, stroke: kind === "fused" ? "var(--q2b-orange)" : "none", "stroke-width": 2 }),
        shape("text", { x: x + 20, y: y + 11, "font-size": 12, fill: "var(--q2b-ink)" }, NAMES[kind]));
      x += long;
    }
    y += 26;
    for (const row of found) {
      x = 2;
      for (const piece of row) {
        const text = visibly(piece.text), below = piece.id === null ? bytes(piece.text).join(" ") : String(piece.id);
        const box = Math.max(wide(text), wide(below) * 0.8, 14) + 8, [fill, opacity, ink] = LOOK[piece.kind];
        if (x + box > total - 2 && x > 30) { x = 22; y += 46; }
        const mine = number === at, group = shape("g", { "data-token": number, style: "cursor:pointer" });
        group.append(
          shape("rect", { x: x.toFixed(1), y, width: box.toFixed(1), height: 40, rx: 4, fill, "fill-opacity": opacity,
            stroke: mine ? "var(--q2b-ink)" : piece.fresh || piece.kind === "fused" ? "var(--q2b-orange)" : "none",
            "stroke-width": mine ? 3 : 2.2, ...(piece.fresh && !mine ? { "stroke-dasharray": "5 3" } : {}) }),
          shape("text", { x: (x + box / 2).toFixed(1), y: y + 17, "font-size": 12.5, "text-anchor": "middle", fill: ink || "var(--q2b-ink)",
            style: "font-family: ui-monospace, monospace", ...(piece.kind === "role" ? { "font-weight": 700 } : {}) }, text),
          shape("text", { x: (x + box / 2).toFixed(1), y: y + 33, "font-size": 10.5, "text-anchor": "middle", fill: ink || "var(--q2b-ink)" }, below));
        nodes.push(group);
        x += box + 4;
        number++;
      }
      y += 50;
    }
    drawing.setAttribute("viewBox", `0 0 ${total} ${y}`);
    drawing.replaceChildren(...nodes);
    drawing.setAttribute("aria-label", `${flat.length} boxes, one a token, a row for each message: text above, id below`);

    const piece = flat[at], hex = bytes(piece.text), unknown = flat.filter((p) => p.id === null).length;
    cell.textContent = `Token ${at}: ${label(piece)}, ${piece.id === null ? "typed, no id here" : `id ${piece.id}`}, ${NAMES[piece.kind]}` +
      (piece.fresh ? ", not in Qwen2’s layout" : "") + `; ${hex.length === 1 ? "byte" : "bytes"} ${hex.join(" ")}.`;
    const fused = flat.filter((p) => p.kind === "fused"), fresh = flat.filter((p) => p.fresh);
    const number_of = (list) => list.map((p) => p.id === null ? bytes(p.text).join(" ") : p.id).join(", ");
    const controls = flat.filter((p) => p.kind === "control").length;
    result.textContent = `${flat.length} ${unknown ? "boxes" : "tokens"}, ${controls} of them control tokens. ` +
      (fused.length ? `Across a border: ${fused.map((p) => `${label(p)} is ${p.id}`).join(", ")}. ` : "No token crosses a border. ") +
      (fresh.length ? `Against Qwen2’s layout: new ${number_of(fresh)}${lost.length ? `; gone ${number_of(lost)}` : ""}.` : "");
  }
  drawing.addEventListener("pointerdown", (event) => {
    const group = event.target.closest?.("[data-token]");
    if (group) { model.set("token", Number(group.dataset.token)); model.save_changes(); }
  });
  redraw(model, ["system", "user", "typed", "turns", "prompt", "form", "token"], draw);
  if (window.ResizeObserver) new ResizeObserver(() => {
    if (el.clientWidth && (el.clientWidth < 560 ? 330 : 660) !== width) draw();
  }).observe(el);
}
export default { render };
