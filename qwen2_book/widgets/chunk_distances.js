// Dual Chunk Attention: the distance that each query (row) has to each key (column), and one row of it.
const KINDS = [["blue", "its own piece"], ["orange", "the piece before"], ["teal", "earlier pieces"]];

function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const controls = make("div", { class: "q2b-controls" }, slider(model, "query", "query"),
    slider(model, "length", "length"), slider(model, "chunk", "chunk"), slider(model, "local", "local"));
  const matrix = picture(330, 330), curve = picture(330, 330);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls, make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, matrix, curve), result));
  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", "text-anchor": "middle", ...more }, words);
  const colour = (kind) => `var(--q2b-${KINDS[kind][0]})`;

  function state() {
    const length = inLimits(model, "length"), chunk = inLimits(model, "chunk");
    const local = Math.min(inLimits(model, "local"), Math.floor(chunk / 2)), piece = chunk - local;
    const query = Math.min(inLimits(model, "query"), length - 1);
    const kind = (i, j) => Math.min(2, Math.floor(i / piece) - Math.floor(j / piece));
    const at = (i) => [i % piece, Math.min(i % piece + piece, chunk), chunk];
    return { length, chunk, local, piece, query, kind, distance: (i, j) => at(i)[kind(i, j)] - j % piece };
  }

  function drawMatrix({ length, chunk, query, kind, distance }) {
    const size = 294 / length, nodes = [text(177, 13, "distance that attention uses", { "font-weight": 600 })];
    for (let i = 0; i < length; i++) for (let j = 0; j <= i; j++) {
      nodes.push(shape("rect", { x: (30 + j * size).toFixed(2), y: (20 + i * size).toFixed(2), width: (size + 0.1).toFixed(2),
        height: (size + 0.1).toFixed(2), fill: colour(kind(i, j)), "fill-opacity": (0.1 + 0.85 * distance(i, j) / chunk).toFixed(2) }));
      if (length <= 16) nodes.push(text(30 + (j + 0.5) * size, 24 + (i + 0.5) * size, distance(i, j),
        { "font-size": 10, fill: distance(i, j) > chunk / 2 ? "var(--q2b-paper)" : "var(--q2b-ink)" }));
    }
    KINDS.forEach(([, name], kind) => nodes.push(text(324, 50 + kind * 18, name,
      { "text-anchor": "end", fill: colour(kind), "font-weight": 600 })));
    for (let step = 0; step <= 10; step++)
      nodes.push(shape("rect", { x: 238 + step * 5, y: 97, width: 5.1, height: 11, fill: "var(--q2b-ink)", "fill-opacity": 0.1 + 0.085 * step }));
    nodes.push(text(232, 107, 0, { "text-anchor": "end" }), text(298, 107, chunk, { "text-anchor": "start" }),
      text(324, 124, "distance", { "text-anchor": "end" }),
      shape("rect", { x: 30, y: 20 + query * size, width: (query + 1) * size, height: size, fill: "none",
        stroke: "var(--q2b-ink)", "stroke-width": 1.6 }),
      text(177, 328, "key"), text(14, 20 + 147, "query", { transform: "rotate(-90 14 167)" }));
    matrix.replaceChildren(...nodes);
    matrix.setAttribute("aria-label", `Distances of ${length} tokens, none larger than ${chunk}; row ${query} is marked`);
  }

  function drawCurve({ length, chunk, piece, query, kind, distance }) {
    const high = Math.max(query, chunk, 1);
    const toX = (j) => 34 + (j / Math.max(length - 1, 1)) * 284, toY = (d) => 292 - (d / high) * 250;
    const nodes = [text(177, 13, `row of query ${query}`, { "font-weight": 600 }),
      shape("line", { x1: 34, x2: 320, y1: toY(0), y2: toY(0), stroke: "var(--q2b-grey)" }),
      shape("line", { x1: 34, x2: 320, y1: toY(chunk), y2: toY(chunk), stroke: "var(--q2b-grey)", "stroke-dasharray": "2 3" }),
      text(320, toY(chunk) - 5, `chunk ${chunk}`, { "text-anchor": "end" }),
      shape("line", { x1: toX(0), y1: toY(query), x2: toX(query), y2: toY(0), stroke: "var(--q2b-grey)", "stroke-width": 1.5,
        "stroke-dasharray": "5 3" })];
    for (let border = piece; border <= query; border += piece)
      nodes.push(shape("line", { x1: toX(border - 0.5), x2: toX(border - 0.5), y1: 58, y2: toY(0), stroke: "var(--q2b-grey)", "stroke-opacity": 0.35 }));
    if (query >= piece) nodes.push(text(toX(piece - 0.5) + 5, 68, "border", { "text-anchor": "start", fill: "var(--q2b-grey)" }));
    if (query > chunk + 6) nodes.push(text(toX(0) + 8, toY(query) + 2, "true distance", { "text-anchor": "start", fill: "var(--q2b-grey)" }));
    for (let j = 0; j <= query; j++) {
      if (j) nodes.push(shape("line", { x1: toX(j - 1), y1: toY(distance(query, j - 1)), x2: toX(j), y2: toY(distance(query, j)),
        stroke: colour(kind(query, j)), "stroke-opacity": 0.45, "stroke-width": 1.5 }));
      nodes.push(shape("circle", { cx: toX(j), cy: toY(distance(query, j)), r: 3.2, fill: colour(kind(query, j)) }));
    }
    for (const d of [0, high]) nodes.push(text(29, toY(d) + 4, d, { "text-anchor": "end" }));
    nodes.push(text(toX(0), 308, 0), text(toX(length - 1), 308, length - 1, { "text-anchor": "end" }), text(177, 324, "key"));
    curve.replaceChildren(...nodes);
    curve.setAttribute("aria-label", `Distances from query ${query} to keys 0 to ${query}`);
  }

  const drag = (event) => {
    if (event.buttons !== 1) return;
    const box = matrix.getBoundingClientRect(), { length } = state();
    const row = Math.floor(((event.clientY - box.top) / box.height * 330 - 20) / 294 * length);
    model.set("query", Math.min(length - 1, Math.max(0, row)));
    model.save_changes();
  };
  matrix.style.cursor = "ns-resize";
  matrix.style.touchAction = "pan-y";
  matrix.addEventListener("pointerdown", drag);
  matrix.addEventListener("pointermove", drag);

  redraw(model, ["query", "length", "chunk", "local"], () => {
    const now = state(), { query, chunk, local, piece, kind, distance } = now;
    drawMatrix(now);
    drawCurve(now);
    const counts = [0, 0, 0];
    let largest = 0;
    for (let j = 0; j <= query; j++) {
      counts[kind(query, j)] += 1;
      largest = Math.max(largest, distance(query, j));
    }
    result.textContent = `Pieces of ${piece} tokens (chunk ${chunk}, local ${local}). Query ${query} meets ${counts[0]} keys in its own piece, ` +
      `${counts[1]} in the piece before and ${counts[2]} earlier. Its first key is ${query} tokens away and seems ` +
      `${distance(query, 0)} away; no key seems farther than ${largest}.`;
  });
}
export default { render };
