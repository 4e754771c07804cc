// Which query heads read a key head, and what the cache costs over the length of the text.
const GIB = 2 ** 30, LOW = 10, HIGH = 17;
const count = (x) => Math.round(x).toLocaleString("en");
const amount = (b) => b < 0.1 * GIB ? `${(b / 2 ** 20).toFixed(1)} MiB` : b < 100 * GIB ? `${(b / GIB).toFixed(2)} GiB` : `${(b / GIB).toFixed(0)} GiB`;

function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const models = model.get("models"), cards = model.get("cards");
  const now = () => {
    const m = models[inLimits(model, "size")], kv = m.kinds[Math.min(inLimits(model, "kv"), m.kinds.length - 1)];
    return { m, kv, groups: m.heads / kv, picked: Math.min(inLimits(model, "picked"), kv - 1),
      n: 2 ** inLimits(model, "log_length"), batch: 2 ** inLimits(model, "log_batch") };
  };
  const power = (k) => count(2 ** k);
  const sharing = slider(model, "kv", "key-value heads", () => now().kv), picking = slider(model, "picked", "key head", () => now().picked);
  const controls = make("div", { class: "q2b-controls" },
    choice(model, "size", "Qwen2-", models.map((m, i) => [i, m.name])), sharing, picking,
    slider(model, "log_length", "text, tokens", power), slider(model, "log_batch", "sequences", power));
  const heads = picture(330, 300), bill = picture(330, 300);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, heads, bill), result));
  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);

  // A slider that goes as far as this model goes, and names what it means there.
  const reach = (label, last, value, words) => {
    const input = label.querySelector("input");
    Object.assign(input, { max: last, value: Math.min(value, last) });
    label.querySelector("output").textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  let size = inLimits(model, "size");
  model.on("change:size", () => {
    if (size === (size = inLimits(model, "size"))) return;
    model.set("kv", models[size].released);  // a new model starts as it was released
    model.set("picked", 0);
    model.save_changes();
  });
  const pick = (event) => {
    const found = event.target.dataset?.key;
    if (found === undefined || Number(found) === now().picked) return;
    model.set("picked", Number(found));
    model.save_changes();
  };
  heads.addEventListener("pointerover", pick);
  heads.addEventListener("pointerdown", pick);

  function drawHeads({ m, kv, groups, picked }) {
    const wide = 318, nodes = [], each = wide / m.heads, key = Math.min(wide / kv, 60);
    const gap = (w) => Math.max(w - Math.max(1, w * 0.14), 1).toFixed(2);
    const at = (head) => 6 + (head + 0.5) * each, below = (head) => 6 + (head + 0.5) * wide / kv;
    for (let h = 0; h < m.heads; h++) {
      const k = Math.floor(h / groups), lit = k === picked, colour = lit ? "var(--q2b-blue)" : "var(--q2b-grey)";
      nodes.push(shape("path", { d: `M${at(h).toFixed(1)} 84L${below(k).toFixed(1)} 200`, stroke: colour, "stroke-width": lit ? 2 : 1, "stroke-opacity": lit ? 1 : 0.35 }),
        shape("rect", { x: (at(h) - gap(each) / 2).toFixed(2), y: 52, width: gap(each), height: 32, rx: 2, fill: colour, "fill-opacity": lit ? 1 : 0.35, "data-key": k, style: "cursor:pointer" }));
      if (each > 18) nodes.push(text(at(h), 72, h, { "text-anchor": "middle", "font-size": 11, fill: lit ? "var(--q2b-paper)" : "var(--q2b-ink)", "pointer-events": "none" }));
    }
    for (let k = 0; k < kv; k++) {
      const lit = k === picked;
      nodes.push(shape("rect", { x: (below(k) - gap(key) / 2).toFixed(2), y: 200, width: gap(key), height: 44, rx: 3, fill: lit ? "var(--q2b-orange)" : "var(--q2b-grey)", "fill-opacity": lit ? 1 : 0.35, "data-key": k, style: "cursor:pointer" }));
      if (key > 18) nodes.push(text(below(k), 226, k, { "text-anchor": "middle", fill: lit ? "var(--q2b-paper)" : "var(--q2b-ink)", "pointer-events": "none" }));
    }
    const kind = kv === m.heads ? "multi-head" : kv === 1 ? "multi-query" : "grouped-query";
    nodes.push(text(6, 14, `${kind} attention`, { "font-weight": 600 }), text(6, 42, `${m.heads} query heads`),
      text(6, 264, `${kv} head${kv > 1 ? "s" : ""} of keys and values: what is cached`), text(6, 282, `each is read by ${groups} query head${groups > 1 ? "s" : ""}`, { fill: "var(--q2b-grey)" }));
    heads.replaceChildren(...nodes);
    heads.setAttribute("aria-label", `Key head ${picked} is read by query heads ${picked * groups} to ${(picked + 1) * groups - 1}`);
  }

  function drawBill({ m, kv, n, batch }, weights) {
    const LEFT = 46, TOP = 24, WIDE = 216, SIDE = 226, floor = -7, top = 12;  // 2^-7 to 2^12 GiB
    const x = (log) => (LEFT + (log - LOW) / (HIGH - LOW) * WIDE).toFixed(1);
    const y = (gib) => (TOP + SIDE * (top - Math.min(top, Math.max(floor, Math.log2(gib)))) / (top - floor)).toFixed(1);
    const gib = (heads, log) => 4 * m.layers * heads * m.dim * batch * 2 ** log / GIB;
    const nodes = [text(6, 14, "cache, GiB (bfloat16, no window)", { "font-weight": 600 })];
    for (const log of [10, 13, 15, 17]) nodes.push(text(x(log), TOP + SIDE + 16, `${2 ** (log - 10)}K`, { "text-anchor": "middle", "font-size": 11 }));
    nodes.push(text(LEFT + WIDE / 2, TOP + SIDE + 34, "tokens in the text", { "text-anchor": "middle" }));
    for (const p of [-6, -3, 0, 3, 6, 9, 12]) nodes.push(text(LEFT - 6, Number(y(2 ** p)) + 4, p < 0 ? `1/${2 ** -p}` : count(2 ** p), { "text-anchor": "end", "font-size": 11 }),
      shape("path", { d: `M${LEFT - 3} ${y(2 ** p)}h3`, stroke: "var(--q2b-ink)" }));
    for (const card of cards) nodes.push(shape("path", { d: `M${LEFT} ${y(card)}h${WIDE}`, stroke: "var(--q2b-grey)", "stroke-dasharray": "2 3" }),
      text(LEFT + 3, Number(y(card)) + (Math.abs(y(card) - 8 - y(weights / GIB)) < 9 ? 11 : -3), `card of ${card}`, { "font-size": 10, fill: "var(--q2b-grey)" }));
    nodes.push(shape("path", { d: `M${LEFT} ${y(weights / GIB)}h${WIDE}`, stroke: "var(--q2b-teal)", "stroke-width": 2, "stroke-dasharray": "7 3" }),
      text(LEFT + WIDE + 4, Number(y(weights / GIB)) + 4, "weights", { fill: "var(--q2b-teal)", "font-size": 11 }));
    const lines = [[m.heads, "MHA", "var(--q2b-grey)", 1.3], [1, "MQA", "var(--q2b-grey)", 1.3], [kv, `${kv} heads`, "var(--q2b-orange)", 2.5]];
    for (const [heads, name, colour, thick] of lines) {
      nodes.push(shape("path", { d: `M${x(LOW)} ${y(gib(heads, LOW))}L${x(HIGH)} ${y(gib(heads, HIGH))}`, stroke: colour, "stroke-width": thick, fill: "none" }));
      const same = heads === kv && name !== `${kv} heads`;
      if (!same) nodes.push(text(LEFT + WIDE + 4, Number(y(gib(heads, HIGH))) + 4, name, { fill: colour, "font-size": 11, "font-weight": thick > 2 ? 600 : 400 }));
    }
    nodes.push(shape("path", { d: `M${LEFT} ${TOP}V${TOP + SIDE}H${LEFT + WIDE}`, stroke: "var(--q2b-ink)", fill: "none" }),
      shape("circle", { cx: x(Math.log2(n)), cy: y(gib(kv, Math.log2(n))), r: 5, fill: "var(--q2b-orange)", stroke: "var(--q2b-paper)", "stroke-width": 1.5 }));
    bill.replaceChildren(...nodes);
    bill.setAttribute("aria-label", `The cache grows with the text; at ${count(n)} tokens it takes ${amount(4 * m.layers * kv * m.dim * batch * n)}`);
  }

  redraw(model, ["size", "kv", "picked", "log_length", "log_batch"], () => {
    const state = now(), { m, kv, groups, picked, n, batch } = state;
    const weights = m.fixed + kv * m.one, token = 4 * m.layers * kv * m.dim, cache = token * n * batch;
    reach(sharing, m.kinds.length - 1, inLimits(model, "kv"), String(kv));
    reach(picking, kv - 1, picked, String(picked));
    drawHeads(state);
    drawBill(state, weights);
    const card = cards.find((c) => weights + cache <= c * GIB);
    result.textContent = `Key head ${picked} is read by query head${groups > 1 ? "s" : ""} ${picked * groups}${groups > 1 ? ` to ${(picked + 1) * groups - 1}` : ""}. ` +
      `${count(token)} bytes a token${kv === m.kinds[m.released] ? " (as released)" : ""}: ${batch > 1 ? `${batch} texts` : "a text"} of ${count(n)} tokens take${batch > 1 ? "" : "s"} ` +
      `${amount(cache)} beside weights of ${amount(weights)}; together ${card ? `fits a card of ${card} GiB` : `more than a card of ${cards[cards.length - 1]} GiB`}.`;
  });
}
export default { render };
