// Neurons of a real model over a text. `data` holds the gate and the up value of each neuron for every
// token (hundredths), the tokens in passages, and for each label the numbers of its tokens.
const CHAR = 6, HAN = 10.5, LINE = 16, PLOT = { left: 14, width: 302, top: 26, row: 58 };

async function numbers(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Int16Array(await new Response(stream).arrayBuffer());
}

async function render({ model, el }) {
  const data = model.get("data"), tokens = data.passages.flatMap((p) => p.tokens), count = tokens.length;
  const gates = await numbers(data.gates), ups = await numbers(data.ups);
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const whole = (group) => { group.style.gridColumn = "1 / -1"; return group; };
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "threshold", "threshold", (t) => `${t}%`),
    choice(model, "show", "show", [["gate", "gate"], ["up", "up"], ["product", "product"]]),
    whole(choice(model, "neuron", "neuron for", data.neurons.map((n, i) => [i, n.name]))),
    whole(choice(model, "passage", "text", data.passages.map((p, i) => [i, p.name]))));
  const page = picture(330, 330), plot = picture(330, 200);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  const cell = make("p", { class: "q2b-result" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, page, plot), result, cell));

  const label = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 11, fill: "var(--q2b-ink)", ...more }, words);
  const of = (neuron, i) => {
    const gate = gates[neuron * count + i] / 100, up = ups[neuron * count + i] / 100;
    return { gate, up, product: (gate / (1 + Math.exp(-gate))) * up };
  };
  function now() {
    const neuron = inLimits(model, "neuron"), show = model.get("show"), about = data.neurons[neuron];
    const values = tokens.map((_, i) => of(neuron, i)[show]), marked = new Set(data.labels[about.label]);
    const low = Math.min(...values), high = Math.max(...values);
    const cut = low + ((high - low) * inLimits(model, "threshold")) / 100;
    return { neuron, show, about, values, marked, low, high, cut, passage: inLimits(model, "passage") };
  }
  const length = (text) => [...text].reduce((sum, c) => sum + (c > "\u2e00" ? HAN : CHAR), 0);

  function drawPage({ about, show, values, marked, low, high, cut, passage }) {
    const top = Math.max(Math.abs(low), Math.abs(high), 0.01), nodes = [];
    const first = data.passages.slice(0, passage).reduce((sum, p) => sum + p.tokens.length, 0);
    let x = 2, y = 18;
    data.passages[passage].tokens.forEach((token, k) => {
      const i = first + k, words = token.trim(), breaks = token.split("\n").length - 1;
      const lead = token.length - token.trimStart().length - (words ? 0 : breaks), said = words + (breaks ? "⏎" : "");
      const wide = Math.max(lead, 0) * CHAR + length(said);
      if (x + wide > 328) { x = 2; y += LINE; }
      const value = values[i], box = { x: x.toFixed(1), y: y - 11, width: wide.toFixed(1), height: 14, "data-token": i };
      nodes.push(shape("rect", { ...box, fill: value > 0 ? "var(--q2b-blue)" : "var(--q2b-orange)",
        "fill-opacity": (Math.abs(value) / top * 0.6).toFixed(3),
        stroke: value > cut ? "var(--q2b-ink)" : "none", "stroke-width": 1.2 }));
      if (said) nodes.push(label((x + Math.max(lead, 0) * CHAR).toFixed(1), y, said, { "font-size": 10, "pointer-events": "none",
        textLength: length(said).toFixed(1), lengthAdjust: "spacingAndGlyphs", style: "font-family:monospace" }));
      if (marked.has(i)) nodes.push(shape("rect", { x: x.toFixed(1), y: y + 3.2, width: wide.toFixed(1), height: 1.8, fill: "var(--q2b-teal)" }));
      x += wide + 1.2;
      if (breaks) { x = 2; y += LINE; }
    });
    page.setAttribute("viewBox", `0 0 330 ${Math.max(y + 10, 120)}`);
    page.replaceChildren(...nodes);
    page.setAttribute("aria-label", `The text, each token darker the larger the ${show} of layer ${about.layer}, ` +
      `neuron ${about.neuron}; underlined: tokens labelled ${about.label}`);
  }

  function drawPlot({ about, show, values, marked, low, high, cut }) {
    const toX = (v) => (PLOT.left + ((v - low) / (high - low || 1)) * PLOT.width).toFixed(1);
    const lines = ["", ""];
    values.forEach((value, i) => {
      const row = marked.has(i) ? 0 : 1, y = PLOT.top + row * PLOT.row + 10;
      lines[row] += `M${toX(value)} ${y}v28`;
    });
    const bottom = PLOT.top + 2 * PLOT.row;
    const nodes = [
      label(PLOT.left, 14, `layer ${about.layer}, neuron ${about.neuron}: ${show} of every token`, { "font-weight": 600 }),
      label(PLOT.left, PLOT.top + 6, `labelled ${about.label}`, { fill: "var(--q2b-teal)" }),
      label(PLOT.left, PLOT.top + PLOT.row + 6, "all other tokens", { fill: "var(--q2b-blue)" }),
      shape("path", { d: lines[0], stroke: "var(--q2b-teal)", "stroke-width": 1.4, "stroke-opacity": 0.8 }),
      shape("path", { d: lines[1], stroke: "var(--q2b-blue)", "stroke-width": 1, "stroke-opacity": 0.45 }),
      shape("line", { x1: PLOT.left, x2: PLOT.left + PLOT.width, y1: bottom, y2: bottom, stroke: "var(--q2b-grey)" }),
      label(PLOT.left, bottom + 14, low.toFixed(2)),
      label(PLOT.left + PLOT.width, bottom + 14, high.toFixed(2), { "text-anchor": "end" }),
      shape("path", { d: `M${toX(cut)} ${PLOT.top + 8}V${bottom}`, stroke: "var(--q2b-orange)", "stroke-width": 2.5 }),
      shape("circle", { cx: toX(cut), cy: bottom, r: 7, fill: "var(--q2b-orange)" }),
    ];
    if (low < 0 && high > 0) nodes.push(
      shape("path", { d: `M${toX(0)} ${PLOT.top + 8}V${bottom}`, stroke: "var(--q2b-grey)", "stroke-width": 0.7, "stroke-dasharray": "2 2" }),
      label(toX(0), bottom + 14, "0", { "text-anchor": "middle" }));
    nodes.push(label(PLOT.left + PLOT.width / 2, bottom + 32, "drag the orange line: tokens to its right are picked", { "text-anchor": "middle" }));
    plot.replaceChildren(...nodes);
    plot.setAttribute("aria-label", `${show} of all ${count} tokens, those labelled ${about.label} above the others, ` +
      `and a threshold at ${cut.toFixed(2)}`);
  }

  const drag = (event) => {
    if (event.type === "pointermove" && event.buttons !== 1) return;
    const box = plot.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * 330;
    model.set("threshold", Math.round(Math.min(100, Math.max(0, ((x - PLOT.left) / PLOT.width) * 100))));
    model.save_changes();
  };
  plot.addEventListener("pointerdown", drag);
  plot.addEventListener("pointermove", drag);
  plot.style.touchAction = "pan-y";
  page.addEventListener("pointerover", (event) => {
    const at = event.target.dataset?.token;
    if (at === undefined) return;
    const { gate, up, product } = of(inLimits(model, "neuron"), Number(at));
    cell.textContent = `“${tokens[at].replace(/\n/g, "⏎")}”: gate ${gate.toFixed(2)}, up ${up.toFixed(2)}, ` +
      `product ${product.toFixed(2)}.`;
  });

  redraw(model, ["threshold", "show", "neuron", "passage"], () => {
    const state = now(), { about, show, values, marked, cut } = state;
    drawPage(state);
    drawPlot(state);
    const above = values.filter((v) => v > cut).length, found = values.filter((v, i) => v > cut && marked.has(i)).length;
    const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(0)}%` : "none");
    result.textContent = `Layer ${about.layer}, neuron ${about.neuron}: ${show} above ${cut.toFixed(2)} picks ${above} tokens, ` +
      `${found} of them labelled ${about.label} (precision ${percent(found, above)}), ` +
      `of ${marked.size} in the text (recall ${percent(found, marked.size)}). (${data.source})`;
  });
}
export default { render };
