// The clocks of rotary positions. All 32 pairs of a head of 64 dimensions; query and key are the same
// vector with every pair equally long, so pair i adds cos(distance / base^(2i/64)) / 32 to the score.
const PAIRS = 32;
const frequency = (base, pair) => base ** (-pair / PAIRS);
const score = (base, distance) => {
  let sum = 0;
  for (let i = 0; i < PAIRS; i++) sum += Math.cos(distance * frequency(base, i));
  return sum / PAIRS;
};
const tokens = (x) => (x < 100 ? x.toFixed(1) : Math.round(x).toLocaleString("en"));

function clock(x, y, radius, query, key, chosen) {
  const hand = (angle, length, colour, width) => shape("line", {
    x1: x, y1: y, x2: (x + length * Math.sin(angle)).toFixed(2), y2: (y - length * Math.cos(angle)).toFixed(2),
    stroke: colour, "stroke-width": width, "stroke-linecap": "round",
  });
  return [
    shape("circle", { cx: x, cy: y, r: radius, fill: "none",
      stroke: chosen ? "var(--q2b-ink)" : "var(--q2b-grey)", "stroke-width": chosen ? 2 : 0.8 }),
    hand(key, radius * 0.62, "var(--q2b-orange)", radius > 20 ? 5 : 2.6),
    hand(query, radius * 0.9, "var(--q2b-blue)", radius > 20 ? 2.5 : 1.5),
  ];
}

function render({ model, el }) {
  const root = make("div", { class: "q2b" });
  const note = make("p", { class: "q2b-note", role: "status" });
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  note.textContent = notes.join("; ");
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "distance", "distance"),
    slider(model, "key_position", "key position"),
    slider(model, "pair", "pair"),
    choice(model, "base", "base θ", [[10000, "10,000"], [1000000, "1,000,000"]]));
  const clocks = picture(330, 296), curve = picture(330, 296);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  root.append(controls, note, make("div", { class: "q2b-pictures" }, clocks, curve), result);
  el.append(root);

  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);

  function drawClocks(base, key, distance, pair) {
    const nodes = [];
    for (let i = 0; i < PAIRS; i++) {
      const x = 21 + (i % 8) * 41, y = 20 + Math.floor(i / 8) * 41, turn = frequency(base, i);
      const group = shape("g", { "data-pair": i, style: "cursor:pointer" },
        shape("rect", { x: x - 20, y: y - 20, width: 40, height: 40, fill: "transparent" }),
        ...clock(x, y, 17, (key + distance) * turn, key * turn, i === pair));
      group.addEventListener("click", () => { model.set("pair", i); model.save_changes(); });
      nodes.push(group);
    }
    const turn = frequency(base, pair);
    nodes.push(...clock(58, 235, 50, (key + distance) * turn, key * turn, true));
    nodes.push(
      text(122, 196, `pair ${pair}: dimensions ${pair} and ${pair + PAIRS}`),
      text(122, 214, `one turn in ${tokens(2 * Math.PI / turn)} tokens`),
      text(122, 240, `query at ${key + distance}`, { fill: "var(--q2b-blue)", "font-weight": 600 }),
      text(122, 258, `key at ${key}`, { fill: "var(--q2b-orange)", "font-weight": 600 }),
      text(122, 276, `apart by ${(distance * turn).toFixed(3)} rad`));
    clocks.replaceChildren(...nodes);
    clocks.setAttribute("aria-label", `Clocks of 32 pairs, query at ${key + distance}, key at ${key}; ` +
      `the hands of pair ${pair} are ${(distance * turn).toFixed(3)} radians apart`);
  }

  const [, furthest] = model.get("limits").distance;
  const toX = (d) => 34 + (d / furthest) * 286, toY = (s) => 140 - s * 120;
  function drawCurve(base, distance, pair, value) {
    const path = (f, attributes) => {
      let d = "";
      for (let t = 0; t <= furthest; t++) d += `${t ? "L" : "M"}${toX(t).toFixed(1)} ${toY(f(t)).toFixed(1)}`;
      return shape("path", { d, fill: "none", ...attributes });
    };
    const nodes = [];
    for (const s of [-1, -0.5, 0, 0.5, 1]) {
      nodes.push(shape("line", { x1: 34, x2: 320, y1: toY(s), y2: toY(s), stroke: "var(--q2b-grey)",
        "stroke-width": s ? 0.3 : 1 }), text(29, toY(s) + 4, s, { "text-anchor": "end", "font-size": 11 }));
    }
    for (const d of [0, 32, 64, 96, 128]) {
      nodes.push(text(toX(d), 276, d, { "text-anchor": d === furthest ? "end" : "middle", "font-size": 11 }));
    }
    nodes.push(
      text(177, 293, "distance from key to query, tokens", { "text-anchor": "middle" }),
      path((t) => Math.cos(t * frequency(base, pair)), { stroke: "var(--q2b-teal)", "stroke-width": 1.2,
        "stroke-dasharray": "3 2" }),
      path((t) => score(base, t), { stroke: "var(--q2b-blue)", "stroke-width": 2.4 }),
      shape("line", { x1: toX(distance), x2: toX(distance), y1: toY(1), y2: toY(-1), stroke: "var(--q2b-ink)",
        "stroke-width": 1 }),
      shape("circle", { cx: toX(distance), cy: toY(value), r: 5, fill: "var(--q2b-blue)" }),
      text(320, 14, "score: all pairs together", { "text-anchor": "end", fill: "var(--q2b-blue)", "font-weight": 600 }),
      text(34, 14, `pair ${pair} alone`, { fill: "var(--q2b-teal)" }));
    curve.replaceChildren(...nodes);
    curve.setAttribute("aria-label", `Score by distance, base ${base.toLocaleString("en")}: ` +
      `${value.toFixed(3)} at distance ${distance}`);
  }
  curve.style.cursor = "ew-resize";
  curve.style.touchAction = "pan-y";
  const drag = (event) => {
    if (event.buttons !== 1) return;
    const box = curve.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width * 330 - 34) / 286 * furthest;
    model.set("distance", Math.round(Math.min(furthest, Math.max(0, at))));
    model.save_changes();
  };
  curve.addEventListener("pointerdown", drag);
  curve.addEventListener("pointermove", drag);

  redraw(model, ["distance", "key_position", "pair", "base"], () => {
    const distance = inLimits(model, "distance"), key = inLimits(model, "key_position");
    const pair = inLimits(model, "pair"), base = model.get("base");
    const value = score(base, distance), angle = distance * frequency(base, pair);
    drawClocks(base, key, distance, pair);
    drawCurve(base, distance, pair, value);
    result.dataset.score = value.toFixed(3);
    result.textContent = `Distance ${distance}: the score is ${value.toFixed(3)}, wherever the key stands. ` +
      `Pair ${pair} adds cos(${angle.toFixed(3)}) = ${Math.cos(angle).toFixed(3)} to the sum of 32 pairs.`;
  });
}
export default { render };
