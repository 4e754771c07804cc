// What a block of 32 weights becomes: `data` holds real rows of 768 weights (float32), `sizes` the bits
// a weight of each type. The arithmetic is that of qwen2_book/checkpoint/blocks.py and of gguf.
const BLOCK = 32, PLOT = { left: 36, right: 326, top: 22, bottom: 232 };

const even = (x) => { const r = Math.round(x); return Math.abs(x % 1) === 0.5 && r % 2 ? r - 1 : r; };
/** Rounded to a binary number of so many digits after the first; float16 has 10, bfloat16 has 7. */
function digits(x, count, lowest = -126) {
  if (!x) return 0;
  const unit = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), lowest) - count);
  return even(x / unit) * unit;
}
const half = (x) => digits(x, 10, -14);
const clip = (x, low, high) => Math.min(high, Math.max(low, x));
const over = (a, b) => (b ? a / b : 0);
const largest = (x) => x.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);

/** Numbers from low to high times a scale, plus a start. */
const grid = (scale, start, low, high, x, number) => ({
  levels: Array.from({ length: high - low + 1 }, (_, i) => start + scale * (low + i)),
  scale, start, values: x.map((v) => start + scale * clip(number(v), low, high)),
});
function centred(x, bits) { // Q4_0, Q5_0
  const top = 2 ** (bits - 1), d = largest(x) / -top;
  return grid(half(d), 0, -top, top - 1, x, (v) => Math.trunc(over(v, d) + top + 0.5) - top);
}
function fromLeast(x, bits) { // Q4_1
  const least = Math.min(...x), top = 2 ** bits - 1, d = (Math.max(...x) - least) / top;
  return grid(half(d), half(least), 0, top, x, (v) => Math.trunc(over(v - least, d) + 0.5));
}
function eight(x) { // Q8_0
  const d = Math.abs(largest(x)) / 127, away = (v) => Math.sign(v) * Math.floor(Math.abs(v) + 0.5);
  return grid(half(d), 0, -127, 127, x, (v) => away(over(v, d)));
}
function withMinimum(row, top) { // Q4_K: eight blocks of 32, scales and minima in six bits
  const parts = Array.from({ length: 8 }, (_, i) => row.slice(i * 32, i * 32 + 32));
  const least = parts.map((p) => Math.min(...p, 0)), scale = parts.map((p, i) => (Math.max(...p) - least[i]) / top);
  const d = half(Math.max(...scale) / 63), m = half(Math.max(...least.map((l) => -l)) / 63);
  return parts.map((p, i) => {
    const s = d * clip(even(over(scale[i], d)), 0, 63), t = m * clip(even(over(-least[i], m)), 0, 63);
    return grid(s, -t, 0, top, p, (v) => even(over(v + t, s)));
  });
}
function symmetric(row) { // Q6_K: sixteen blocks of 16, scales in eight bits
  const parts = Array.from({ length: 16 }, (_, i) => row.slice(i * 16, i * 16 + 16));
  const scale = parts.map((p) => largest(p) / -32), d = half(largest(scale) / -128);
  return parts.map((p, i) => {
    const s = d * clip(even(over(scale[i], d)), -128, 127);
    return grid(s, 0, -32, 31, p, (v) => even(over(v, s)));
  });
}
/** The row in the parts that have a scale of their own: [{values, levels, scale, start}]. */
function parts(row, kind) {
  const cut = (size) => Array.from({ length: row.length / size }, (_, i) => row.slice(i * size, i * size + size));
  if (kind === "BF16") return cut(BLOCK).map((x) => ({ values: x.map((v) => digits(v, 7)), levels: [] }));
  if (kind === "Q4_K") return cut(256).flatMap((x) => withMinimum(x, 15));
  if (kind === "Q6_K") return cut(256).flatMap(symmetric);
  return cut(BLOCK).map((x) => (kind === "Q8_0" ? eight(x) : kind === "Q4_1" ? fromLeast(x, 4) : centred(x, Number(kind[1]))));
}

function render({ model, el }) {
  const data = model.get("data"), bits = Object.fromEntries(model.get("sizes"));
  const rows = data.rows.map((r) => {
    const bytes = Uint8Array.from(atob(r.weights), (c) => c.charCodeAt(0));
    return [...new Float32Array(bytes.buffer)];
  });
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const whole = (group) => { group.style.gridColumn = "1 / -1"; return group; };
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "stretch", "largest weight", (s) => `× ${(s / 10).toFixed(1)}`),
    slider(model, "block", "block", String),
    whole(choice(model, "kind", "type", model.get("sizes").map(([kind]) => [kind, kind]))),
    whole(choice(model, "row", "row of", data.rows.map((r, i) => [i, r.name]))));
  const plot = picture(330, 262), bars = picture(330, 172);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, plot, bars), result));
  const label = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 11, fill: "var(--q2b-ink)", ...more }, words);

  function now() {
    const kind = model.get("kind"), block = inLimits(model, "block"), which = inLimits(model, "row");
    const row = rows[which].slice(), first = block * BLOCK, own = row.slice(first, first + BLOCK);
    const at = own.reduce((best, v, i) => (Math.abs(v) > Math.abs(own[best]) ? i : best), 0), was = own[at];
    own[at] = row[first + at] = Math.fround(was * (inLimits(model, "stretch") / 10));
    const made = parts(row, kind), size = made[0].values.length, after = made.flatMap((p) => p.values);
    const errors = Array.from({ length: row.length / BLOCK }, (_, b) => {
      let wrong = 0, square = 0;
      for (let i = b * BLOCK; i < (b + 1) * BLOCK; i++) { wrong += (after[i] - row[i]) ** 2; square += row[i] ** 2; }
      return Math.sqrt(over(wrong, square));
    });
    const mine = made.slice(first / size, (first + BLOCK) / size);
    return { kind, block, own, at, was, mine, after: after.slice(first, first + BLOCK), errors, name: data.rows[which].name };
  }
  const step = (PLOT.right - PLOT.left) / BLOCK, toX = (i) => PLOT.left + (i + 0.5) * step;
  let range = 1;
  const toY = (v) => (PLOT.top + PLOT.bottom) / 2 - (v / range) * (PLOT.bottom - PLOT.top) / 2;

  function drawPlot({ kind, block, own, at, mine, after, name }) {
    range = Math.max(...own.map(Math.abs), 1e-9) * 1.08;
    const nodes = [label(PLOT.left, 13, `block ${block} of the row, ${kind}`, { "font-weight": 600 })];
    let lines = "";
    mine.forEach((part, k) => {
      const wide = (PLOT.right - PLOT.left) / mine.length;
      for (const level of part.levels) {
        if (Math.abs(level) <= range) lines += `M${(PLOT.left + k * wide).toFixed(1)} ${toY(level).toFixed(1)}h${(wide - (mine.length > 1 ? 3 : 0)).toFixed(1)}`;
      }
    });
    const few = mine[0].levels.length && mine[0].levels.length < 70;
    if (few) nodes.push(shape("path", { d: lines, stroke: "var(--q2b-grey)", "stroke-width": 0.6, "stroke-opacity": 0.7 }));
    for (const v of [-1, 0, 1]) {
      nodes.push(label(PLOT.left - 4, toY(v * range / 1.08) + 4, (v * range / 1.08).toPrecision(2), { "text-anchor": "end", "font-size": 9 }));
    }
    own.forEach((v, i) => {
      const x = toX(i).toFixed(1);
      nodes.push(shape("path", { d: `M${x} ${toY(v).toFixed(1)}V${toY(after[i]).toFixed(1)}`, stroke: "var(--q2b-orange)", "stroke-width": 2 }));
      nodes.push(shape("circle", { cx: x, cy: toY(v).toFixed(1), r: i === at ? 5 : 3.4, fill: "none", stroke: "var(--q2b-blue)", "stroke-width": 1.2 }));
      nodes.push(shape("circle", { cx: x, cy: toY(after[i]).toFixed(1), r: 1.9, fill: "var(--q2b-orange)" }));
    });
    nodes.push(label(PLOT.left, PLOT.bottom + 14, "○ weight", { fill: "var(--q2b-blue)" }),
      label(PLOT.left + 62, PLOT.bottom + 14, "● what the file keeps", { fill: "var(--q2b-orange)" }),
      label(PLOT.right, PLOT.bottom + 14, few ? `${mine[0].levels.length} levels` : kind === "BF16" ? "no grid of its own" : "255 levels, too fine to draw", { "text-anchor": "end" }),
      label(PLOT.left, PLOT.bottom + 27, "drag the large circle up or down"));
    plot.replaceChildren(...nodes);
    plot.setAttribute("aria-label", `32 weights of ${name}, block ${block}, and what ${kind} keeps of each`);
  }

  function drawBars({ kind, block, errors }) {
    const top = Math.max(...errors, 1e-9), wide = 290 / errors.length, floor = 128;
    const nodes = [label(PLOT.left, 13, "error of every block of the row", { "font-weight": 600 })];
    errors.forEach((error, b) => {
      const tall = (error / top) * 96;
      nodes.push(shape("rect", { x: (PLOT.left + b * wide + 1).toFixed(1), y: (floor - tall).toFixed(1), width: (wide - 2).toFixed(1),
        height: tall.toFixed(1), "data-block": b, fill: b === block ? "var(--q2b-orange)" : "var(--q2b-blue)" }));
      if (b % 8 === 0) nodes.push(label(PLOT.left + (b + 0.5) * wide, floor + 13, b, { "text-anchor": "middle", "font-size": 10 }));
    });
    if (kind.endsWith("K")) {
      for (const b of [8, 16]) nodes.push(shape("path", { d: `M${PLOT.left + b * wide} 22V${floor + 4}`, stroke: "var(--q2b-grey)", "stroke-dasharray": "3 3" }));
      nodes.push(label(PLOT.left, floor + 28, "dashed: where a super-block of 256 ends"));
    }
    nodes.push(label(PLOT.left - 4, 36, `${(100 * top).toPrecision(2)}%`, { "text-anchor": "end", "font-size": 9 }),
      label(PLOT.left - 4, floor + 3, "0", { "text-anchor": "end", "font-size": 9 }));
    bars.replaceChildren(...nodes);
    bars.setAttribute("aria-label", `Error of each of the ${errors.length} blocks under ${kind}; the largest is ${(100 * top).toPrecision(2)} percent`);
  }

  const drag = (event) => {
    if (event.type === "pointermove" && event.buttons !== 1) return;
    const box = plot.getBoundingClientRect(), y = ((event.clientY - box.top) / box.height) * 262, { own, at, was } = now();
    const value = (((PLOT.top + PLOT.bottom) / 2 - y) / ((PLOT.bottom - PLOT.top) / 2)) * range;
    const x = ((event.clientX - box.left) / box.width) * 330;
    if (event.type === "pointerdown") plot.held = Math.abs(x - toX(at)) < 14 && Math.abs(y - toY(own[at])) < 30;
    if (!plot.held) return;
    model.set("stretch", Math.round(clip((value / was) * 10, 10, 80)));
    model.save_changes();
  };
  plot.addEventListener("pointerdown", drag);
  plot.addEventListener("pointermove", drag);
  plot.style.touchAction = "pan-x";
  bars.addEventListener("pointerdown", (event) => {
    const b = event.target.dataset?.block;
    if (b !== undefined) { model.set("block", Number(b)); model.save_changes(); }
  });

  redraw(model, ["row", "kind", "block", "stretch"], () => {
    const state = now(), { kind, block, mine, after, errors, name } = state;
    drawPlot(state);
    drawBars(state);
    const said = mine.filter((p) => p.scale).map((p) => Math.abs(p.scale).toPrecision(3)).join(" and ");
    const start = mine[0].start ? `, from ${mine[0].start.toPrecision(3)} up` : "";
    const lost = after.filter((v) => v === 0).length;
    result.textContent = `${name}, block ${block} in ${kind}: ${bits[kind]} bits a weight; ` +
      (said ? `a step of ${said}${start}; ` : "") +
      `error ${(100 * errors[block]).toFixed(1)}% of the weights; ${lost} of 32 became zero. (${data.source})`;
  });
}
export default { render };
