// The parity ladder: a bug planted in one layer of a real model, and the first tensor that differs.
// `data.runs` holds for each bug and layer the distances of all tensors from that layer on, packed
// as two characters each (see parity_ladder.py).
const unpack = (text) => {
  const digit = (i) => text.charCodeAt(i) - 35 - (text.charCodeAt(i) > 92 ? 1 : 0), out = [];
  for (let i = 0; i < text.length; i += 2) {
    const step = 90 * digit(i) + digit(i + 1);
    out.push(step ? 10 ** (-8 + step / 800) : 0);
  }
  return out;
};
const short = (x) => x === 0 ? "0" : x < 0.0095 ? x.toExponential(0) : String(Number(x.toPrecision(2)));

function render({ model, el }) {
  const data = model.get("data"), parts = model.get("parts"), notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const bugs = data.order, layers = data.layers, cache = {};
  const names = [];
  for (let layer = 0; layer < layers; layer++) for (const part of parts) names.push(`model.layers.${layer}${part}`);
  names.push("model.norm", "logits");
  const distances = (bug, at) => cache[`${bug} ${at}`] ||= (() => {
    const found = unpack(data.runs[`${bugs[bug]}, ${data.planted[at]}`].distances);
    return [...Array(names.length - found.length).fill(0), ...found];
  })();
  const rounding = bugs.indexOf("positions from 1");
  const now = () => {
    const bug = inLimits(model, "bug"), at = inLimits(model, "at"), limit = 10 ** (inLimits(model, "tolerance") / 10);
    const off = distances(bug, at), first = off.findIndex((each) => each > limit);
    return { bug, at, limit, off, first, look: inLimits(model, "look"), run: data.runs[`${bugs[bug]}, ${data.planted[at]}`] };
  };

  const controls = make("div", { class: "q2b-controls" },
    choice(model, "bug", "planted", bugs.map((name, i) => [i, name])),
    choice(model, "at", "in layer", data.planted.map((layer, i) => [i, layer])),
    slider(model, "tolerance", "tolerance", (t) => (10 ** (t / 10)).toExponential(0)),
    slider(model, "look", "look into layer"));
  const lines = picture(330, 310), bars = picture(330, 310);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, lines, bars), result));
  // A new question starts where its answer is: the layer of the first difference comes into view.
  for (const key of ["bug", "at", "tolerance"]) model.on(`change:${key}`, () => {
    const { first } = now(), layer = Math.min(Math.floor(first / parts.length), layers - 1);
    if (first < 0 || layer === model.get("look")) return;
    model.set("look", layer);
    model.save_changes();
  });

  const text = (x, y, what, more = {}) => shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, what);
  const LEFT = 40, RIGHT = 316, TOP = 28, BOTTOM = 254, LOW = -8, HIGH = 1;
  const clip = (off) => Math.min(HIGH, Math.max(LOW, Math.log10(Math.max(off, 1e-9))));
  const toX = (layer) => LEFT + 8 + (layer / layers) * (RIGHT - LEFT - 16);
  const toY = (log) => TOP + ((HIGH - log) / (HIGH - LOW)) * (BOTTOM - TOP);
  const after = (off) => [...Array(layers).keys()].map((layer) => off[(layer + 1) * parts.length - 1]).concat(off[off.length - 1]);

  function drawLines({ bug, at, limit, off, first, look }) {
    const y = toY(Math.log10(limit)), nodes = [text(4, 14, "distance of the stream after each layer", { "font-weight": 600 })];
    for (let tick = LOW; tick <= HIGH; tick++) nodes.push(
      shape("path", { d: `M${LEFT} ${toY(tick).toFixed(1)}H${RIGHT}`, stroke: "var(--q2b-grey)", "stroke-width": 0.4, "stroke-opacity": 0.6 }),
      text(LEFT - 4, toY(tick) + 4, tick < -1 ? `1e${tick}` : 10 ** tick, { "text-anchor": "end", "font-size": 11 }));
    nodes.push(shape("rect", { x: LEFT, y: y.toFixed(1), width: RIGHT - LEFT, height: (BOTTOM - y).toFixed(1), fill: "var(--q2b-grey)", "fill-opacity": 0.14 }));
    const path = (values) => values.map((each, i) => `${i ? "L" : "M"}${toX(i).toFixed(1)} ${toY(clip(each)).toFixed(1)}`).join("");
    if (bug !== rounding) nodes.push(
      shape("path", { d: path(after(distances(rounding, at))), fill: "none", stroke: "var(--q2b-grey)", "stroke-width": 1.4, "stroke-dasharray": "2 2" }));
    const values = after(off);
    nodes.push(shape("path", { d: path(values), fill: "none", stroke: "var(--q2b-blue)", "stroke-width": 2.2 }));
    values.forEach((each, i) => nodes.push(shape("circle", { cx: toX(i).toFixed(1), cy: toY(clip(each)).toFixed(1), r: i === look ? 5 : 3,
      fill: each > limit ? "var(--q2b-orange)" : "var(--q2b-blue)" })));
    nodes.push(shape("path", { d: `M${LEFT} ${y.toFixed(1)}H${RIGHT}`, stroke: "var(--q2b-orange)", "stroke-width": 2, "stroke-dasharray": "6 3" }),
      text(RIGHT, y - 5, "tolerance (drag)", { "text-anchor": "end", "font-size": 11, fill: "var(--q2b-orange)" }),
      shape("path", { d: `M${LEFT} ${TOP}V${BOTTOM}H${RIGHT}`, stroke: "var(--q2b-ink)", fill: "none" }));
    for (const layer of data.planted) nodes.push(text(toX(layer), BOTTOM + 21, layer, { "text-anchor": "middle", "font-size": 11,
      "font-weight": layer === data.planted[at] ? 700 : 400 }));
    if (first >= 0) {
      const x = toX(Math.min(Math.floor(first / parts.length), layers)).toFixed(1);
      nodes.push(shape("path", { d: `M${x} ${BOTTOM + 1}l-5 9h10z`, fill: "var(--q2b-orange)" }));
    }
    nodes.push(text((LEFT + RIGHT) / 2, BOTTOM + 36, "layer; the last point is the logits", { "text-anchor": "middle" }),
      text(LEFT, BOTTOM + 51, "grey, dashed: rounding alone", { "font-size": 11, fill: "var(--q2b-grey)" }));
    lines.replaceChildren(...nodes);
    lines.setAttribute("aria-label", `Distance after each of ${layers} layers, ${bugs[bug]} planted in layer ${data.planted[at]}, tolerance ${short(limit)}`);
  }

  function drawBars({ limit, off, first, look }) {
    const nodes = [text(4, 14, `inside layer ${look}, in the order of the run`, { "font-weight": 600 })];
    const x = (each) => 178 + ((clip(each) - LOW) / (HIGH - LOW)) * 104;
    parts.forEach((part, i) => {
      const place = look * parts.length + i, each = off[place], top = 26 + 21 * i, wrong = each > limit;
      const name = part ? part.slice(1).replace(/^(self_attn|mlp)\./, "").replace("post_attention_layernorm, input", "stream + attention") : "stream + feed-forward";
      if (place === first) nodes.push(shape("rect", { x: 1, y: top - 2, width: 328, height: 20, rx: 3, fill: "var(--q2b-orange)", "fill-opacity": 0.18 }));
      nodes.push(text(6, top + 12, name, { "font-weight": place === first ? 700 : 400 }),
        shape("rect", { x: 178, y: top + 2, width: Math.max(1, x(each) - 178).toFixed(1), height: 12, fill: `var(--q2b-${wrong ? "orange" : "blue"})` }),
        text(326, top + 12, each === 0 ? "0" : short(each), { "font-size": 11, "text-anchor": "end" }));
    });
    nodes.push(shape("path", { d: `M${x(limit).toFixed(1)} 24V300`, stroke: "var(--q2b-orange)", "stroke-width": 1.4, "stroke-dasharray": "6 3" }));
    bars.replaceChildren(...nodes);
    bars.setAttribute("aria-label", `Distances of the tensors of layer ${look}`);
  }

  const drag = (event) => {
    if (event.type === "pointermove" && event.buttons !== 1) return;
    const box = lines.getBoundingClientRect(), y = ((event.clientY - box.top) / box.height) * 310;
    const [low, high] = model.get("limits").tolerance, tenths = Math.round(10 * (HIGH - ((y - TOP) / (BOTTOM - TOP)) * (HIGH - LOW)));
    model.set("tolerance", Math.min(high, Math.max(low, tenths)));
    model.save_changes();
  };
  lines.addEventListener("pointerdown", drag);
  lines.addEventListener("pointermove", drag);
  lines.style.touchAction = "pan-x";
  lines.style.cursor = "ns-resize";

  redraw(model, ["bug", "at", "tolerance", "look"], () => {
    const state = now(), { bug, off, first, limit, run } = state;
    drawLines(state);
    drawBars(state);
    const found = first < 0 ? `No tensor is off by more than ${short(limit)}.`
      : `First difference beyond ${short(limit)}: ${names[first]}, off by ${short(off[first])}; the ${first} tensors before it agree.`;
    result.textContent = `${found} Logits off by ${short(off[off.length - 1])}; the likeliest token differs at ${run.changed} of ${data.tokens} positions; ` +
      `perplexity ${run.perplexity.toFixed(2)}, without the change ${data.perplexity.toFixed(2)}. ${data.bugs[bugs[bug]]} (${data.source})`;
  });
}
export default { render };
