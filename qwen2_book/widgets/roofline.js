// What memory and arithmetic of a machine allow for one pass, and what was measured below it.
const COLOURS = ["blue", "orange", "teal", "wine"].map((name) => `var(--q2b-${name})`);
const SHAPES = ["circle", "square", "triangle", "diamond"];  // so that colour is not needed
const LEFT = 48, TOP = 26, WIDE = 262, HIGH = 220, DECADES = 5, LOW = -1;  // 0.1 to 10,000 operations a byte
const whole = (x) => Math.round(x).toLocaleString("en");
const digits = (x) => x < 100 ? x.toFixed(1) : whole(x);
const plain = (x) => x >= 1 ? whole(x) : String(x);

function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const data = model.get("data"), bandwidth = data.bandwidth, highest = Math.max(...data.speeds);

  /** The pass of a setting: operations, bytes, seconds of both. */
  function pass({ size, weights, prefill, batch, tokens }) {
    const m = data.models[size], fresh = prefill ? tokens : 1, speed = data.speeds[weights];
    const own = data.ceilings[data.names[weights]][Math.log2(batch * fresh)], few = own !== undefined;
    const bytes = data.bytes[few ? weights : Math.min(weights, 1)];
    const matrices = 2 * batch * (fresh * (m.parts[0] + m.parts[1]) + m.parts[2]);
    const pairs = prefill ? tokens * (tokens + 1) / 2 : tokens + 1, attention = batch * pairs * m.pair;
    const loaded = m.parts.reduce((sum, count, i) => sum + count * bytes[i], 0);
    const cache = batch * (prefill ? tokens : tokens + 1) * m.cached * (weights === 0 ? 4 : 2);
    const found = { matrices, attention, loaded, cache, rows: batch * fresh, few, speed,
      memory: (loaded + cache) / bandwidth, arithmetic: matrices / (own ?? speed) + attention / speed };
    return { ...found, intensity: (matrices + attention) / (loaded + cache), top: (matrices + attention) / found.arithmetic,
      limit: found.rows / Math.max(found.memory, found.arithmetic) };
  }
  const now = () => {
    const state = { size: inLimits(model, "size"), weights: inLimits(model, "weights"), prefill: inLimits(model, "prefill"),
      batch: 2 ** inLimits(model, "log_batch"), tokens: 2 ** inLimits(model, "log_tokens") };
    return { ...state, ...pass(state) };
  };
  const points = data.points.map(([weights, prefill, batch, tokens, rate]) => {
    const found = pass({ size: 0, weights, prefill, batch, tokens });
    return { weights, prefill, batch, tokens, rate, x: found.intensity, y: rate * (found.matrices + found.attention) / found.rows };
  });

  const power = (k) => whole(2 ** k);
  const controls = make("div", { class: "q2b-controls" },
    choice(model, "size", "Qwen2-", data.models.map((m, i) => [i, m.name])),
    choice(model, "weights", "weights", data.names.map((name, i) => [i, name])),
    choice(model, "prefill", "pass over", [[0, "one token"], [1, "the prompt"]]),
    slider(model, "log_batch", "texts at once", power), slider(model, "log_tokens", "tokens before", power));
  const roof = picture(330, 300), bars = picture(330, 300);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls, make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, roof, bars), result));
  const label = controls.querySelector('[data-key="log_tokens"]').parentNode.querySelector("span");
  const text = (x, y, words, more = {}) => shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);

  const ceil = Math.ceil(Math.log10(highest * 1.2)), floor = ceil - 4;
  const x = (v) => LEFT + Math.min(1, Math.max(0, (Math.log10(v) - LOW) / DECADES)) * WIDE;
  const y = (v) => TOP + Math.min(1, Math.max(0, (ceil - Math.log10(v)) / (ceil - floor))) * HIGH;
  const at = (v) => v.toFixed(1);
  /** The roof below a top: up the memory's slope, then flat. */
  const path = (top) => {
    const from = Math.max(10 ** LOW, 10 ** floor / bandwidth);
    return `M${at(x(from))} ${at(y(from * bandwidth))}L${at(x(top / bandwidth))} ${at(y(top))}H${LEFT + WIDE}`;
  };
  const mark = (kind, cx, cy, r, more) => {
    const corners = { square: [[-1, -1], [1, -1], [1, 1], [-1, 1]], triangle: [[0, -1.2], [1.2, 1], [-1.2, 1]], diamond: [[0, -1.4], [1.4, 0], [0, 1.4], [-1.4, 0]] }[kind];
    return corners ? shape("path", { d: `M${corners.map(([a, b]) => `${at(cx + r * a)} ${at(cy + r * b)}`).join("L")}Z`, ...more })
      : shape("circle", { cx: at(cx), cy: at(cy), r, ...more });
  };

  roof.addEventListener("pointerdown", (event) => {
    const found = points[event.target.dataset?.point];
    if (!found) return;
    const state = { size: 0, weights: found.weights, prefill: found.prefill, log_batch: Math.log2(found.batch), log_tokens: Math.log2(found.tokens) };
    for (const [key, value] of Object.entries(state)) model.set(key, value);
    model.save_changes();
  });

  function drawRoof(s) {
    const speed = s.speed;
    const nodes = [text(6, 14, "operations a second (in thousand millions)", { "font-weight": 600 })];
    for (let k = floor; k <= ceil; k++) nodes.push(text(LEFT - 5, y(10 ** k) + 4, plain(10 ** (k - 9)), { "text-anchor": "end", "font-size": 11 }),
      shape("path", { d: `M${LEFT} ${at(y(10 ** k))}h${WIDE}`, stroke: "var(--q2b-grey)", "stroke-opacity": 0.25 }));
    for (let k = LOW; k <= LOW + DECADES; k++) nodes.push(text(x(10 ** k), TOP + HIGH + 15, plain(10 ** k), { "text-anchor": "middle", "font-size": 11 }));
    nodes.push(text(LEFT + WIDE / 2, TOP + HIGH + 33, "operations for each byte from memory", { "text-anchor": "middle" }),
      shape("path", { d: `M${LEFT} ${TOP}V${TOP + HIGH}H${LEFT + WIDE}`, stroke: "var(--q2b-ink)", fill: "none" }),
      shape("path", { d: path(speed), stroke: "var(--q2b-ink)", "stroke-width": 2, fill: "none" }),
      text(LEFT + WIDE - 2, y(speed) - 6, `arithmetic: ${whole(speed / 1e9)}`, { "text-anchor": "end", "font-size": 11 }));
    const slope = Math.atan2(-HIGH / (ceil - floor), WIDE / DECADES) * 180 / Math.PI, half = Math.sqrt(Math.max(10 ** LOW * bandwidth, 10 ** floor) * speed) / bandwidth;
    nodes.push(text(0, -7, `memory: ${digits(bandwidth / 1e9)} GB/s`, { "text-anchor": "middle", "font-size": 11, transform: `translate(${at(x(half))} ${at(y(half * bandwidth))}) rotate(${slope.toFixed(1)})` }));
    if (s.top < speed * 0.98) nodes.push(shape("path", { d: path(s.top), stroke: COLOURS[s.weights], "stroke-width": 1.5, "stroke-dasharray": "5 3", fill: "none" }),
      text(LEFT + WIDE - 2, y(s.top) + 14, `this pass's kernels: ${digits(s.top / 1e9)}`, { "text-anchor": "end", "font-size": 11, fill: COLOURS[s.weights] }));
    for (const [i, point] of points.entries()) {
      const own = point.weights === s.weights;
      nodes.push(mark(SHAPES[point.weights], x(point.x), y(point.y), own ? 3 : 2.4, { fill: COLOURS[point.weights], "fill-opacity": own ? 0.9 : 0.25, "data-point": i, style: "cursor:pointer" }));
    }
    const height = Math.min(s.intensity * bandwidth, s.top);
    nodes.push(shape("path", { d: `M${at(x(s.intensity))} ${TOP + HIGH}V${at(y(height))}`, stroke: COLOURS[s.weights], "stroke-dasharray": "1 3", "pointer-events": "none" }),
      mark(SHAPES[s.weights], x(s.intensity), y(height), 6, { fill: COLOURS[s.weights], stroke: "var(--q2b-paper)", "stroke-width": 1.5, "pointer-events": "none" }));
    roof.replaceChildren(...nodes);
    roof.setAttribute("aria-label", `A pass with ${digits(s.intensity)} operations a byte, under a roof that rises to ${whole(speed / 1e9)} thousand million operations a second`);
  }

  function drawBars(s, measured) {
    const speed = s.speed;
    const took = measured ? s.rows / measured : 0, most = Math.max(s.memory, s.arithmetic, took), wide = (t) => 318 * t / most;
    const ms = (t) => `${digits(1000 * t)} ms`;
    const rows = [
      ["reading its bytes", s.memory, [[s.loaded / bandwidth, "weights", 0.9], [s.cache / bandwidth, "keys and values", 0.4]]],
      ["its arithmetic", s.arithmetic, [[s.arithmetic - s.attention / speed, "matrices", 0.9], [s.attention / speed, "attention", 0.4]]],
    ];
    if (took) rows.push(["measured", took, [[took, "", 0.9]]]);
    const nodes = [text(6, 14, "time of one pass", { "font-weight": 600 })];
    rows.forEach(([name, total, parts], i) => {
      const top = 34 + 84 * i, longest = i < 2 && total === Math.max(s.memory, s.arithmetic);
      let left = 6;
      nodes.push(text(6, top + 10, `${name}: ${ms(total)}`, { "font-weight": longest ? 600 : 400 }));
      parts.forEach(([t, words, opacity], k) => {
        nodes.push(shape("rect", { x: at(left), y: top + 18, width: at(Math.max(0, wide(t))), height: 24, fill: i === 2 ? "var(--q2b-grey)" : COLOURS[s.weights], "fill-opacity": opacity }));
        const share = Math.round(100 * t / total);
        if (words) nodes.push(text(k ? 324 : 6, top + 57, `${words} ${share}%`, { "font-size": 11, "text-anchor": k ? "end" : "start", fill: "var(--q2b-ink)" }));
        left += wide(t);
      });
    });
    bars.replaceChildren(...nodes);
    bars.setAttribute("aria-label", `${ms(s.memory)} for the bytes, ${ms(s.arithmetic)} for the operations${took ? `, ${ms(took)} measured` : ""}`);
  }

  redraw(model, ["size", "weights", "prefill", "log_batch", "log_tokens"], () => {
    const s = now(), found = points.find((p) => s.size === 0 && p.weights === s.weights && p.prefill === s.prefill && p.batch === s.batch && p.tokens === s.tokens);
    label.textContent = s.prefill ? "tokens in it" : "tokens before";
    drawRoof(s);
    drawBars(s, found?.rate);
    const bound = s.memory >= s.arithmetic ? "memory" : "arithmetic", texts = s.batch > 1 ? `${s.batch} texts` : "one text";
    const what = s.prefill ? `A prompt of ${whole(s.tokens)} tokens, ${texts}` : `One more token after ${whole(s.tokens)}, ${texts}`;
    const wide = !s.few && s.weights > 1 ? ` (so many rows read bfloat16, not ${data.names[s.weights]})` : "";
    const reached = found ? `Measured: ${digits(found.rate)}, which is ${Math.round(100 * found.rate / s.limit)}% of it.` : points.length ? "This pass was not measured." : "";
    result.textContent = `${what}, Qwen2-${data.models[s.size].name} in ${data.names[s.weights]}${wide}: ${digits(s.intensity)} operations a byte, bound by ${bound}. ` +
      `At the limit ${digits(s.limit)} tokens/s. ${reached}`;
  });
}
export default { render };
