// A window over real heads. `data` holds, for each prompt, the share that every window keeps of every
// head (steps, in thousandths, for 0, 1 and 4 sinks) and whole maps (square roots in 0 .. 63) of some.
const SINKS = [0, 1, 4], SIDE = 282, LEFT = 44, TOP = 16;

/** kept[sinks][head][window - 1] in thousandths, and the triangles of the mapped heads. */
async function unpacked(prompt, heads) {
  const n = prompt.tokens.length, kept = new Int16Array(await inflate(prompt.kept));
  for (let at = 0; at < kept.length; at++) if (at % n) kept[at] += kept[at - 1];
  const maps = new Uint8Array(await inflate(prompt.maps)), cells = (n * (n + 1)) / 2;
  return {
    n, tokens: prompt.tokens,
    kept: (sinks, head, window) => kept[(SINKS.indexOf(sinks) * heads + head) * n + Math.min(window, n) - 1],
    level: (map, i, j) => maps[map * cells + (i * (i + 1)) / 2 + j],
  };
}

async function render({ model, el }) {
  const data = model.get("data"), layers = data.layers, heads = data.heads;
  const prompts = await Promise.all(data.prompts.map((prompt) => unpacked(prompt, layers * heads)));
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "window", "window"),
    choice(model, "sinks", "first tokens kept", SINKS.map((s) => [s, s])),
    slider(model, "layer", "layer"),
    slider(model, "head", "head"));
  controls.append(choice(model, "prompt", "prompt", data.prompts.map((prompt, i) => [i, prompt.name])));
  const map = picture(330, 330), all = picture(330, 330);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  const cell = make("p", { class: "q2b-result" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, map, all), result, cell));

  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 11, fill: "var(--q2b-ink)", ...more }, words);
  const mapped = (layer, head) => data.mapped.findIndex(([l, h]) => l === layer && h === head);
  const now = () => ({
    prompt: prompts[inLimits(model, "prompt")], window: inLimits(model, "window"), sinks: model.get("sinks"),
    layer: inLimits(model, "layer"), head: inLimits(model, "head"),
  });
  const percent = (thousandths) => `${(thousandths / 10).toFixed(1)}%`;
  const short = (token) => (token.trim() || "␣").replace(/\n/g, "⏎").slice(0, 6);

  /** The cells of a map in eight shades, one path a shade. */
  function shades({ prompt, layer, head }) {
    const at = mapped(layer, head), n = prompt.n, step = SIDE / n, paths = Array(8).fill("");
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) {
      const shade = Math.round(prompt.level(at, i, j) / 63 * 8);
      if (shade) paths[shade - 1] += `M${j} ${i}h1v1h-1z`;
    }
    return shape("g", { transform: `translate(${LEFT} ${TOP}) scale(${step.toFixed(4)})` },
      ...paths.map((d, shade) => d && shape("path", { d, fill: "var(--q2b-blue)", "fill-opacity": (shade + 1) / 8 }))
        .filter(Boolean));
  }

  let drawn = "", shaded = null;  // the shades change with the head only, not with the window
  function drawMap(state) {
    const { prompt, window, sinks, layer, head } = state, n = prompt.n, step = SIDE / n;
    const has = mapped(layer, head) >= 0, key = `${prompts.indexOf(prompt)} ${layer} ${head}`;
    if (key !== drawn) { shaded = has ? shades(state) : null; drawn = key; }
    const x = (j) => (LEFT + j * step).toFixed(1), y = (i) => (TOP + i * step).toFixed(1);
    const nodes = [text(LEFT, 11, `layer ${layer}, head ${head}`, { "font-weight": 600 }),
      shape("path", { d: `M${x(0)} ${y(0)}V${y(n)}H${x(n)}Z`, fill: "none", stroke: "var(--q2b-grey)", "stroke-width": 0.6 })];
    if (shaded) nodes.push(shaded);
    else nodes.push(text(LEFT + 14, TOP + SIDE - 14, "no map kept: choose a head with a dot"));
    if (window < n) {
      const w = Math.max(window, 0), lost = Math.min(sinks, n - w);
      nodes.push(
        shape("path", { d: `M${x(lost)} ${y(w + lost)}V${y(n)}H${x(n - w)}Z`, fill: "var(--q2b-paper)", "fill-opacity": 0.72 }),
        shape("path", { d: `M${x(0)} ${y(w)}L${x(n - w)} ${y(n)}`, stroke: "var(--q2b-orange)", "stroke-width": 2, fill: "none" }));
      if (sinks) nodes.push(shape("path", { d: `M${x(lost)} ${y(w + lost)}V${y(n)}`, stroke: "var(--q2b-orange)", "stroke-width": 2 }));
    }
    for (let i = 0; i < n; i += 32) nodes.push(text(LEFT - 4, TOP + (i + 0.7) * step, i, { "text-anchor": "end", "font-size": 11 }));
    nodes.push(text(LEFT + SIDE / 2, 316, "key", { "text-anchor": "middle" }));
    nodes.push(text(8, TOP + SIDE / 2, "query", { transform: `rotate(-90 12 ${TOP + SIDE / 2})` }));
    map.replaceChildren(...nodes);
    map.setAttribute("aria-label", `Attention map of layer ${layer}, head ${head}` +
      (has ? `: rows are queries, columns keys; orange, the edge of a window of ${window}` : ": not kept"));
  }

  const wide = Math.min(292 / layers, 12), high = Math.min(160 / heads, 12), curveTop = 206;
  function drawAll({ prompt, window, sinks, layer, head }) {
    const nodes = [text(30, 11, `kept by a window of ${window}: all ${layers * heads} heads`, { "font-weight": 600 })];
    for (let l = 0; l < layers; l++) for (let h = 0; h < heads; h++) {
      const share = prompt.kept(sinks, l * heads + h, window) / 1000;
      const chosen = l === layer && h === head, x = 30 + l * wide, y = TOP + h * high;
      nodes.push(shape("rect", { x: x.toFixed(2), y: y.toFixed(2), width: (wide - 1).toFixed(2), height: (high - 1).toFixed(2),
        fill: "var(--q2b-blue)", "fill-opacity": (share * share).toFixed(3), "data-cell": `${l} ${h}`,
        stroke: chosen ? "var(--q2b-orange)" : "var(--q2b-grey)", "stroke-width": chosen ? 2.5 : 0.3, style: "cursor:pointer" }));
      if (mapped(l, h) >= 0)
        nodes.push(shape("circle", { cx: (x + wide / 2 - 0.5).toFixed(2), cy: (y + high / 2 - 0.5).toFixed(2), r: 2,
          fill: "var(--q2b-orange)", "pointer-events": "none" }));
    }
    const below = TOP + heads * high + 11;
    nodes.push(text(30, below, "layer 0"), text(30 + layers * wide, below, layers - 1, { "text-anchor": "end" }),
      text(26, TOP + 9, "0", { "text-anchor": "end" }), text(26, TOP + heads * high - 2, heads - 1, { "text-anchor": "end" }),
      text(12, TOP + heads * high / 2, "head", { transform: `rotate(-90 12 ${TOP + heads * high / 2})`, "text-anchor": "middle" }));
    const n = prompt.n, toX = (w) => 40 + (w - 1) / Math.max(n - 1, 1) * 280, toY = (t) => curveTop + 96 - t / 1000 * 88;
    for (const t of [0, 500, 900, 1000]) nodes.push(
      shape("line", { x1: 40, x2: 320, y1: toY(t), y2: toY(t), stroke: "var(--q2b-grey)", "stroke-width": 0.4 }),
      t === 900 ? "" : text(36, toY(t) + 4, `${t / 10}%`, { "text-anchor": "end", "font-size": 10 }));
    const line = (s, more) => {
      let d = "";
      for (let w = 1; w <= n; w++) d += `${w > 1 ? "L" : "M"}${toX(w).toFixed(1)} ${toY(prompt.kept(s, layer * heads + head, w)).toFixed(1)}`;
      return shape("path", { d, fill: "none", ...more });
    };
    const value = prompt.kept(sinks, layer * heads + head, window), at = Math.min(window, n);
    nodes.push(
      line(1, { stroke: "var(--q2b-teal)", "stroke-width": 1.4, "stroke-dasharray": "4 2" }),
      line(0, { stroke: "var(--q2b-blue)", "stroke-width": 2.2 }),
      shape("circle", { cx: toX(at).toFixed(1), cy: toY(value).toFixed(1), r: 5, fill: "var(--q2b-orange)" }),
      text(320, toY(0) - 16, "dashed: with the first token", { "text-anchor": "end", fill: "var(--q2b-teal)" }),
      text(320, toY(0) - 4, "this head, window alone", { "text-anchor": "end", fill: "var(--q2b-blue)" }),
      text(40, 316, "1"), text(320, 316, n, { "text-anchor": "end" }),
      text(180, 316, "window, tokens", { "text-anchor": "middle" }));
    all.replaceChildren(...nodes.filter(Boolean));
    all.setAttribute("aria-label", `All heads, darker the more of their attention a window of ${window} keeps; ` +
      `below, the kept share of layer ${layer}, head ${head} by window`);
  }

  const place = (svg, event) => {
    const box = svg.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * 330, (event.clientY - box.top) / box.height * 330];
  };
  const setWindow = (value) => {
    const [low, high] = model.get("limits").window;
    model.set("window", Math.round(Math.min(high, Math.max(low, value))));
    model.save_changes();
  };
  const overMap = (event) => {
    const { prompt, layer, head } = now(), [x, y] = place(map, event), step = SIDE / prompt.n;
    const j = Math.floor((x - LEFT) / step), i = Math.floor((y - TOP) / step);
    if (event.buttons === 1) setWindow(i - j + 1);
    const at = mapped(layer, head), inside = j >= 0 && i < prompt.n && j <= i && at >= 0;
    cell.textContent = !inside ? "" : `Query ${i} “${short(prompt.tokens[i])}”, key ${j} “${short(prompt.tokens[j])}”: ` +
      `about ${Math.round((prompt.level(at, i, j) / 63) ** 2 * 100)}% of the query's attention.`;
  };
  map.addEventListener("pointerdown", overMap);
  map.addEventListener("pointermove", overMap);
  const overAll = (event) => {
    const [x, y] = place(all, event), found = event.target.dataset?.cell;
    if (found && event.type === "pointerdown") {
      const [l, h] = found.split(" ").map(Number);
      model.set("layer", l);
      model.set("head", h);
      model.save_changes();
    } else if (!found && event.buttons === 1 && y > curveTop) setWindow(1 + (x - 40) / 280 * (now().prompt.n - 1));
  };
  all.addEventListener("pointerdown", overAll);
  all.addEventListener("pointermove", overAll);
  map.style.touchAction = all.style.touchAction = "pan-y";

  redraw(model, ["window", "sinks", "layer", "head", "prompt"], () => {
    const state = now(), { prompt, window, sinks, layer, head } = state;
    drawMap(state);
    drawAll(state);
    const kept = Array.from({ length: layers * heads }, (_, i) => prompt.kept(sinks, i, window));
    const mean = kept.reduce((a, b) => a + b, 0) / kept.length, fitting = kept.filter((k) => k > 900).length;
    const with_sinks = sinks ? ` and the first ${sinks === 1 ? "token" : `${sinks} tokens`}` : "";
    result.textContent = `Layer ${layer}, head ${head}: a window of ${window}${with_sinks} keeps ` +
      `${percent(kept[layer * heads + head])} of its attention. Over all heads ${percent(mean)}; ` +
      `${fitting} of ${kept.length} keep more than 90%. (${data.source})`;
  });
}
export default { render };
