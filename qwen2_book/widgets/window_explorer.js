// What a window does to mask, reach, operations and cache, for layers with the heads of Qwen2-0.5B.
const HEADS = 14, KV_HEADS = 2, DIM = 64, BYTES = 2;

const pairs = (n, w, sinks) => {
  if (w >= n) return n * (n + 1) / 2;
  let sum = w * (w + 1) / 2 + (n - w) * w;
  for (let s = 0; s < Math.min(sinks, n - w); s++) sum += n - w - s;
  return sum;
};
const whole = (x) => Math.round(x).toLocaleString("en");
const power = (k) => whole(2 ** k);
const bytes = (b) => b < 2 ** 20 ? `${(b / 2 ** 10).toFixed(1)} KiB` : b < 2 ** 30 ? `${(b / 2 ** 20).toFixed(1)} MiB` : `${(b / 2 ** 30).toFixed(2)} GiB`;
const flops = (f) => f < 1e9 ? `${(f / 1e6).toFixed(1)} million` : f < 1e12 ? `${(f / 1e9).toFixed(1)} billion` : `${(f / 1e12).toFixed(1)} trillion`;

function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "log_length", "text, tokens", power),
    slider(model, "log_window", "window", power),
    slider(model, "sinks", "sink tokens"),
    slider(model, "layers", "layers"),
    slider(model, "full_layers", "of them full"));
  const mask = picture(330, 300), reach = picture(330, 300);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, mask, reach), result));
  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);
  const LEFT = 40, TOP = 22, SIDE = 250;

  function drawMask(n, w, sinks) {
    const scale = SIDE / n, at = (x) => (x * scale).toFixed(2), nodes = [];
    const group = (...children) => shape("g", { transform: `translate(${LEFT} ${TOP})` }, ...children);
    if (n <= 32) {
      const cells = [];
      for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) {
        const inside = i - j < w, sink = j < sinks;
        cells.push(shape("rect", { x: at(j), y: at(i), width: at(0.92), height: at(0.92),
          fill: inside ? "var(--q2b-blue)" : sink ? "var(--q2b-orange)" : "var(--q2b-grey)", "fill-opacity": inside || sink ? 1 : 0.25 }));
      }
      nodes.push(group(...cells));
    } else {
      const v = Math.min(w, n), s = Math.max(Math.min(sinks, n - v), 0);
      nodes.push(group(
        shape("path", { d: `M0 0L${SIDE} ${SIDE}H0Z`, fill: "var(--q2b-grey)", "fill-opacity": 0.25 }),
        shape("path", { d: `M0 0L${SIDE} ${SIDE}H${at(n - v)}L0 ${at(v)}Z`, fill: "var(--q2b-blue)" }),
        s ? shape("path", { d: `M0 ${at(v)}V${SIDE}`, stroke: "var(--q2b-orange)", "stroke-width": Math.max(2 * s * scale, 2.5) }) : ""));
    }
    nodes.push(text(LEFT, 14, "one layer's mask", { "font-weight": 600 }),
      text(LEFT + SIDE / 2, 290, "key", { "text-anchor": "middle" }),
      text(20, TOP + SIDE / 2, "query", { transform: `rotate(-90 20 ${TOP + SIDE / 2})`, "text-anchor": "middle" }),
      text(LEFT + SIDE, TOP + 44, "visible", { "text-anchor": "end", fill: "var(--q2b-blue)", "font-weight": 600 }),
      text(LEFT + SIDE, TOP + 28, "causal, but hidden", { "text-anchor": "end", fill: "var(--q2b-grey)" }));
    if (sinks && w < n) nodes.push(text(LEFT + SIDE, TOP + 60, "sinks", { "text-anchor": "end", fill: "var(--q2b-orange)", "font-weight": 600 }));
    mask.replaceChildren(...nodes);
    mask.setAttribute("aria-label", `Mask of ${whole(n)} tokens: a band of ${whole(Math.min(w, n))} keys below the diagonal`);
  }

  function drawReach(n, w, layers, full, back) {
    const x = (position) => (LEFT + position / (n - 1) * SIDE).toFixed(2), y = (level) => TOP + SIDE - level / layers * SIDE;
    let left = n - 1, edge = `M${x(n - 1)} ${y(layers)}`;
    for (let level = layers; level > 0; level--) {
      left = level <= full || w >= n ? 0 : Math.max(0, left - (w - 1));
      edge += `L${x(left)} ${y(level - 1).toFixed(2)}`;
    }
    const nodes = [
      shape("rect", { x: LEFT, y: TOP, width: SIDE, height: SIDE, fill: "var(--q2b-grey)", "fill-opacity": 0.15 }),
      shape("path", { d: `${edge}L${x(n - 1)} ${y(0)}Z`, fill: "var(--q2b-teal)", "fill-opacity": 0.55 }),
      text(LEFT, 14, "what the last output can depend on", { "font-weight": 600 }),
      text(LEFT, 290, "first token"), text(LEFT + SIDE, 290, "last token", { "text-anchor": "end" }),
      text(34, TOP + 10, layers, { "text-anchor": "end" }), text(34, TOP + SIDE, 0, { "text-anchor": "end" }),
      text(16, TOP + SIDE / 2, "after layer", { transform: `rotate(-90 16 ${TOP + SIDE / 2})`, "text-anchor": "middle" })];
    if (full) nodes.push(shape("path", { d: `M${LEFT} ${y(full)}h${SIDE}`, stroke: "var(--q2b-ink)", "stroke-dasharray": "3 3" }),
      text(LEFT + 4, y(full) - 4, "full layers below"));
    reach.replaceChildren(...nodes);
    reach.setAttribute("aria-label", `The reach widens from the last output down to ${whole(back)} tokens back at the input`);
  }

  redraw(model, ["log_length", "log_window", "sinks", "layers", "full_layers"], () => {
    const n = 2 ** inLimits(model, "log_length"), w = 2 ** inLimits(model, "log_window");
    const sinks = inLimits(model, "sinks"), layers = inLimits(model, "layers");
    const full = Math.min(inLimits(model, "full_layers"), layers), sliding = layers - full;
    const seen = full * pairs(n, n, 0) + sliding * pairs(n, w, sinks), all = layers * pairs(n, n, 0);
    const back = full || w >= n ? n - 1 : Math.min(n - 1, sliding * (w - 1));
    const slots = full * n + sliding * Math.min(n, w + sinks), one = 2 * KV_HEADS * DIM * BYTES;
    drawMask(n, w, sinks);
    drawReach(n, w, layers, full, back);
    result.textContent = `${(100 * seen / all).toFixed(1)}% of the pairs are left: ${flops(4 * HEADS * DIM * seen)} operations ` +
      `instead of ${flops(4 * HEADS * DIM * all)}. Reach: ${whole(back)} tokens back` +
      `${sinks && w < n ? ", and the sinks" : ""}. Cache: ${bytes(slots * one)} instead of ${bytes(layers * n * one)}.`;
  });
}
export default { render };
