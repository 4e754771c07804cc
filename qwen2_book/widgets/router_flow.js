// A small mixture of experts at work. `data` holds for each top-k the router's probabilities and the shared
// expert's gate in thousandths (top-k, layers, tokens of all sentences, experts), and the held-out losses.
const ROW = 17, TOP = 48, EXPERT = 226;

async function numbers(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Int16Array(await new Response(stream).arrayBuffer());
}

async function render({ model, el }) {
  const data = model.get("data"), E = data.experts, notes = [model.get("note")].filter(Boolean);
  const probabilities = await numbers(data.probabilities), gates = await numbers(data.shared);
  const sizes = data.sentences.map((s) => s.tokens.length), all = sizes.reduce((a, b) => a + b, 0);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const sentences = choice(model, "sentence", "sentence", data.sentences.map((s, i) => [i, s.name]));
  sentences.style.gridColumn = "1 / -1";
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "top_k", "top-k", (k) => `${k} of ${E}`),
    slider(model, "token", "token", (t) => show(sentence().tokens[Math.min(t, sentence().tokens.length - 1)])),
    slider(model, "layer", "layer"), sentences);
  const flow = picture(330, 356), bars = picture(330, 356);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, flow, bars), result));

  function sentence() { return data.sentences[inLimits(model, "sentence")]; }
  function show(token) { return token.trim() || "␣"; }
  const label = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 11, fill: "var(--q2b-ink)", ...more }, words);

  // Of the sentence's token t in a layer: probabilities, the chosen experts, the shared gate.
  function routed(layer, t) {
    const k = inLimits(model, "top_k"), first = sizes.slice(0, inLimits(model, "sentence")).reduce((a, b) => a + b, 0);
    const at = ((k - 1) * data.layers + layer) * all + first + t;
    const p = Array.from(probabilities.subarray(at * E, at * E + E));
    const chosen = p.map((_, e) => e).sort((a, b) => p[b] - p[a] || a - b).slice(0, k);
    const sum = chosen.reduce((total, e) => total + p[e], 0) / 1000;
    return { p: p.map((v) => v / 1000), chosen, sum, shared: gates[at] / 1000 };
  }

  function drawFlow(layer, token, rows, loads) {
    const nodes = [label(4, 14, `layer ${layer}: which token goes where`, { "font-weight": 600 })];
    const y = (row) => TOP + row * ROW, tokens = sentence().tokens, gap = (E * ROW) / tokens.length;
    const place = (t) => TOP + (t + 0.5) * gap - ROW / 2;
    const line = (t, e, weight, colour) => shape("path", {
      d: `M96 ${place(t).toFixed(1)}C150 ${place(t).toFixed(1)} 170 ${y(e)} ${EXPERT - 4} ${y(e)}`, fill: "none",
      stroke: `var(--q2b-${colour})`, "stroke-width": (0.8 + 7 * weight).toFixed(2), "stroke-opacity": colour === "orange" ? 0.95 : 0.4 });
    rows.forEach(({ p, chosen }, t) => t !== token && chosen.forEach((e) => nodes.push(line(t, e, p[e], "blue"))));
    const { p, chosen, shared } = rows[token];
    nodes.push(line(token, E + 0.6, shared, "teal"));
    chosen.forEach((e) => nodes.push(line(token, e, p[e], "orange")));
    tokens.forEach((words, t) => {
      const on = t === token;
      nodes.push(shape("rect", { x: 2, y: place(t) - gap / 2, width: 94, height: gap, fill: "var(--q2b-orange)", "fill-opacity": on ? 0.18 : 0, "data-token": t }));
      nodes.push(label(90, place(t) + 4, show(words), { "text-anchor": "end", "pointer-events": "none", "font-weight": on ? 700 : 400 }));
    });
    const most = Math.max(...loads);
    loads.forEach((load, e) => {
      nodes.push(label(EXPERT + 12, y(e) + 4, e, { "text-anchor": "end", "font-weight": chosen.includes(e) ? 700 : 400 }));
      nodes.push(shape("rect", { x: EXPERT + 18, y: y(e) - 5, width: (60 * load) / most, height: 10, fill: "var(--q2b-blue)", "fill-opacity": 0.7 }));
      if (load) nodes.push(label(EXPERT + 21 + (60 * load) / most, y(e) + 4, load));
    });
    nodes.push(label(EXPERT, y(E + 0.6) + 4, "shared expert", { fill: "var(--q2b-teal)" }));
    nodes.push(label(EXPERT + 18, TOP - 14, "tokens"));
    flow.replaceChildren(...nodes);
    flow.setAttribute("aria-label", `${tokens.length} tokens joined to the experts of layer ${layer}; ` +
      `${show(tokens[token])} goes to ${chosen.join(", ")}`);
  }

  function drawBars(layer, token) {
    const words = show(sentence().tokens[token]), nodes = [], wide = 330 / data.layers;
    nodes.push(label(4, 14, `“${words}” in every layer: the router's probabilities`, { "font-weight": 600 }));
    for (let l = 0; l < data.layers; l += 1) {
      const { p, chosen, sum, shared } = routed(l, token), left = l * wide + 20;
      nodes.push(label(left, TOP - 14, `layer ${l}`, { "font-weight": l === layer ? 700 : 400 }));
      p.forEach((value, e) => {
        const at = TOP + e * ROW, on = chosen.includes(e);
        nodes.push(label(left - 4, at + 4, e, { "text-anchor": "end", "font-size": 9, "font-weight": on ? 700 : 400 }));
        nodes.push(shape("rect", { x: left, y: at - 5, width: Math.max(value * 80, 0.6).toFixed(1), height: 10,
          fill: on ? "var(--q2b-orange)" : "var(--q2b-grey)", "fill-opacity": on ? 0.95 : 0.55 }));
        if (on && value < 0.75) nodes.push(label(left + value * 80 + 3, at + 4, value.toFixed(2), { "font-size": 10 }));
      });
      const below = TOP + E * ROW + 8;
      nodes.push(label(left, below, `sum ${sum.toFixed(2)}`, { fill: "var(--q2b-orange)" }));
      nodes.push(shape("rect", { x: left, y: below + 6, width: (80 * shared).toFixed(1), height: 8, fill: "var(--q2b-teal)" }));
      nodes.push(label(left, below + 28, `shared ${shared.toFixed(2)}`, { fill: "var(--q2b-teal)" }));
    }
    bars.replaceChildren(...nodes);
    bars.setAttribute("aria-label", `The probabilities of ${E} experts in ${data.layers} layers for ${words}`);
  }

  flow.addEventListener("click", (event) => {
    const at = event.target.dataset?.token;
    if (at === undefined) return;
    model.set("token", Number(at));
    model.save_changes();
  });

  const follow = () => { // the token's name beside its slider belongs to the sentence
    const tokens = sentence().tokens, input = el.querySelector('[data-key="token"]');
    const words = show(tokens[Math.min(inLimits(model, "token"), tokens.length - 1)]);
    input.nextElementSibling.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  redraw(model, ["top_k", "layer", "token", "sentence"], () => {
    const tokens = sentence().tokens, token = Math.min(inLimits(model, "token"), tokens.length - 1);
    const layer = inLimits(model, "layer"), k = inLimits(model, "top_k"), rows = tokens.map((_, t) => routed(layer, t));
    const loads = Array(E).fill(0);
    rows.forEach(({ chosen }) => chosen.forEach((e) => { loads[e] += 1; }));
    drawFlow(layer, token, rows, loads);
    drawBars(layer, token);
    follow();
    const { p, chosen, sum, shared } = rows[token], idle = loads.filter((load) => load === 0).length;
    result.textContent = `Layer ${layer}, “${show(tokens[token])}”: ${chosen.map((e) => `expert ${e} × ${p[e].toFixed(2)}`).join(", ")}; ` +
      `the weights sum to ${sum.toFixed(2)}, the shared expert counts ${shared.toFixed(2)}. Busiest expert: ${Math.max(...loads)} of ` +
      `${tokens.length * k} choices; ${idle} idle. Held-out loss with top-${k}: ${data.losses[k - 1].toFixed(2)} nats (${data.source}).`;
  });
}
export default { render };
