// Every head of a model over one prompt. `data` holds for each prompt what windows keep of every head (steps,
// in thousandths, alone and with the first token), scores (thousandths), and maps (square roots in 0 .. 47).
const SHADES = { kept: "what the window keeps", first: "first token", previous: "token before",
  follows: "what followed the same token", tokens: "tokens used", loss: "loss without the head" };
const SCORES = ["first", "previous", "follows", "tokens"], BOX = 330, LEFT = 46, TOP = 20, SIDE = 280, LEVEL = 47;
const ZONES = ["the same chunk", "the chunk before", "earlier ones"];
const BOXED = "display: inline-block; margin: 1px; padding: 5px 6px; min-height: 30px; min-width: 28px; box-sizing: border-box; " +
  "border: 1px solid var(--q2b-grey); border-radius: 3px; text-align: center; cursor: pointer; white-space: pre-wrap; overflow-wrap: anywhere; " +
  "font: 12px/1.4 ui-monospace, monospace; unicode-bidi: isolate; ";

// A token as text that shows everything: marks get a carrier; controls, bidi overrides and what else has no shape, a code.
const code = (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
const shown = (text) => (/^\p{M}/u.test(text) ? "◌" : "") + text.replaceAll(" ", "␣").replaceAll("\n", "⏎")
  .replaceAll("\t", "⇥").replace(/[\p{C}\p{Z}\p{DI}]/gu, code);
const short = (text) => Array.from(shown(text)).length > 24 ? `${Array.from(shown(text)).slice(0, 23).join("")}…` : shown(text);
const quoted = (text) => `“\u2068${short(text)}\u2069”`;  // isolated: right-to-left text turns nothing else around
const percent = (thousandths) => `${(thousandths / 10).toFixed(1)}%`, count = (n) => n.toLocaleString("en");
const about = (share) => share > 0 && share < 0.005 ? "under 1%" : `about ${Math.round(100 * share)}%`;

async function unpacked(prompt, data) {
  const { edges, windows } = prompt, n = edges.length - 1, W = windows.length, all = data.layers * data.heads;
  const kept = new Int16Array(await inflate(prompt.kept)), maps = new Uint8Array(await inflate(prompt.maps));
  const scores = new Int32Array(await inflate(prompt.scores)), cells = (n * (n + 1)) / 2;
  for (let at = 0; at < kept.length; at++) if (at % W) kept[at] += kept[at - 1];
  const last = prompt.near && { keys: new Int32Array(await inflate(prompt.last_keys)), shares: new Int16Array(await inflate(prompt.last_shares)) };
  return {
    ...prompt, n, last, exact: edges[n] === n, length: edges[n],
    place: (window) => windows.filter((w) => w <= window).length - 1,
    kept(first, head, window) { return kept[(first * all + head) * W + this.place(window)]; },
    score: (name, head) => scores[SCORES.indexOf(name) * all + head],  // -1: no query counted
    share: (head, i, j) => (maps[head * cells + (i * (i + 1)) / 2 + j] / LEVEL) ** 2,
    where: (cell) => edges[cell + 1] - edges[cell] === 1 ? count(edges[cell]) : `${count(edges[cell])}–${count(edges[cell + 1] - 1)}`,
  };
}

async function render({ model, el }) {
  const data = model.get("data"), { layers, heads } = data, all = layers * heads, group = heads / data.kv_heads;
  const prompts = await Promise.all(data.prompts.map((prompt) => unpacked(prompt, data)));
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const now = () => {
    const prompt = prompts[inLimits(model, "prompt")], layer = inLimits(model, "layer"), head = inLimits(model, "head");
    const window = prompt.windows[prompt.place(inLimits(model, "window"))];
    return { prompt, layer, head, at: layer * heads + head, window, first: inLimits(model, "first"), shade: model.get("shade"),
      chunk: Math.min(inLimits(model, "chunk"), prompt.n), query: Math.min(inLimits(model, "query"), prompt.n - 1) };
  };
  const put = (state) => { Object.entries(state).forEach(([key, value]) => model.set(key, value)); model.save_changes(); };
  const steps = {  // the window's slider goes over the windows that were measured
    get: (key) => key === "limits" ? { window: [0, now().prompt.windows.length - 1] } : now().prompt.place(now().window),
    set: (key, step) => model.set(key, now().prompt.windows[step]),
    on: (...args) => model.on(...args), save_changes: () => model.save_changes(),
  };
  const whole = (node) => { node.style.gridColumn = "1 / -1"; return node; };
  const shades = Object.entries(SHADES).filter(([name]) => name !== "loss" || data.losses);
  const controls = make("div", { class: "q2b-controls" },
    prompts.length > 1 ? whole(choice(model, "prompt", "prompt", prompts.map((prompt, i) => [i, shown(prompt.name)]))) : "",
    whole(choice(model, "shade", "shade by", shades)),
    slider(model, "layer", "layer"), slider(model, "head", "head"),
    slider(steps, "window", "window", (step) => count(now().prompt.windows[step])),
    choice(model, "first", "first token", [[0, "as others"], [1, "always seen"]]),
    slider(model, "query", "query", (cell) => count(now().prompt.edges[Math.min(cell, now().prompt.n - 1)])),
    slider(model, "chunk", "chunk", (cells) => cells ? count(now().prompt.edges[Math.min(cells, now().prompt.n)]) : "off"));
  // The grid has a gap between the groups of heads that share a key-value head.
  const gap = Math.min(7, 40 / data.kv_heads), wide = Math.min(SIDE / layers, 46), high = Math.min((236 - gap * data.kv_heads) / heads, 32);
  const rowTop = (head) => TOP + head * high + Math.floor(head / group) * gap, end = rowTop(heads - 1) + high;
  const grid = picture(BOX, Math.ceil(end + 54)), map = picture(BOX, BOX);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" }), cell = make("p", { class: "q2b-result", "data-cell": "" });
  const strip = make("div", { style: "margin: 6px 0; line-height: 1.9" }), last = make("div", {});
  el.append(make("div", { class: "q2b" }, controls, make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, grid, map), result, cell, strip, last));
  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 11, fill: "var(--q2b-ink)", "aria-hidden": "true", ...more }, words);

  const squares = Array.from({ length: all }, (_, at) => shape("rect", { x: (LEFT + Math.floor(at / heads) * wide).toFixed(1),
    y: rowTop(at % heads).toFixed(1), width: (wide - 1).toFixed(1), height: (high - 1).toFixed(1), role: "radio", "data-head": at,
    "aria-label": `layer ${Math.floor(at / heads)}, head ${at % heads}` }));
  const frame = shape("g", {}), names = shape("g", {}), legend = shape("g", {});
  for (let kv = 0; kv < data.kv_heads; kv++) {
    const y = rowTop(kv * group), below = rowTop((kv + 1) * group - 1) + high, middle = (y + below) / 2;
    names.append(shape("path", { d: `M26 ${y + 1}h-5V${below - 2}h5`, fill: "none", stroke: "var(--q2b-ink)" }));
    if (below - y > 56) names.append(text(14, middle, `kv head ${kv}`, { transform: `rotate(-90 14 ${middle})`, "text-anchor": "middle" }));
    else names.append(text(18, middle + 4, kv, { "text-anchor": "end" }));
    names.append(text(LEFT - 4, y + 9, kv * group, { "text-anchor": "end" }));
    if (group > 1) names.append(text(LEFT - 4, below - 3, (kv + 1) * group - 1, { "text-anchor": "end" }));
  }
  names.append(text(LEFT, end + 12, "layer 0"), text(LEFT + layers * wide, end + 12, layers - 1, { "text-anchor": "end" }));
  const said = { role: "radiogroup", "aria-label": "All heads: arrow keys go through layers and heads", ...OWN_KEYS };
  Object.entries(said).forEach(([name, value]) => grid.setAttribute(name, value));
  grid.append(names, shape("g", { stroke: "var(--q2b-grey)", "stroke-width": 0.4 }, ...squares), frame, legend);

  function shading({ prompt, window, first, shade }) {
    const values = squares.map((_, at) => shade === "kept" ? prompt.kept(first, at, window) : shade === "loss" ? data.losses.rises[at] : prompt.score(shade, at));
    const high = shade === "loss" || shade === "tokens" ? Math.max(...values) : 1000, low = Math.min(...values, 0);
    const strength = (v) => shade === "tokens" ? Math.log(Math.max(v, 1000) / 1000) / Math.log(Math.max(high, 1001) / 1000)
      : shade === "loss" ? Math.sqrt(Math.abs(v) / Math.max(high, -low, 1)) : shade === "kept" ? (v / 1000) ** 2 : Math.max(v, 0) / 1000;
    return { values, strength, low: shade === "tokens" ? 1000 : shade === "loss" ? low : 0, high, colour: (v) => v < 0 ? "var(--q2b-teal)" : "var(--q2b-blue)" };
  }

  function drawGrid(state) {
    const { shade, window, first, at, layer, head } = state, { values, strength, low, high: most, colour } = shading(state);
    squares.forEach((square, i) => {
      square.setAttribute("fill", colour(values[i]));
      square.setAttribute("fill-opacity", strength(values[i]).toFixed(2));
      square.setAttribute("tabindex", i === at ? 0 : -1);
      square.setAttribute("aria-checked", i === at);
    });
    frame.replaceChildren(shape("rect", { x: (LEFT + layer * wide - 1).toFixed(1), y: (rowTop(head) - 1).toFixed(1), width: (wide + 1).toFixed(1),
      height: (high + 1).toFixed(1), fill: "none", stroke: "var(--q2b-orange)", "stroke-width": 2.5 }));
    const title = { kept: `kept by a window of ${count(window)}${first ? " and the first token" : ""}`, first: "share of the first token", previous: "share of the token before",
      follows: "share of what followed the same token", tokens: "tokens that a row really uses", loss: "rise of the loss without the head, in nats" }[shade];
    const told = (v) => shade === "tokens" ? (v / 1000).toFixed(0) : shade === "loss" ? (v / 10000).toFixed(3) : `${v / 10}%`, below = end + 24;
    const scale = Array.from({ length: 12 }, (_, i) => {
      const v = shade === "tokens" ? 1000 * (most / 1000) ** (i / 11) : low + (most - low) * i / 11;
      return shape("rect", { x: LEFT + i * 11, y: below, width: 11.2, height: 11, fill: colour(v), "fill-opacity": strength(v).toFixed(2) });
    });
    legend.replaceChildren(text(LEFT, 12, title, { "font-weight": 600 }), ...scale,
      text(LEFT, below + 24, told(low)), text(LEFT + 132, below + 24, told(most), { "text-anchor": "end" }));
  }

  function zones({ prompt, at, chunk }) {
    const found = [0, 0, 0];
    let queries = 0;
    for (let i = 0; i < prompt.n; i++) {
      const row = [0, 0, 0];
      for (let j = 0; j <= i; j++) row[Math.min(2, Math.floor(i / chunk) - Math.floor(j / chunk))] += prompt.share(at, i, j);
      const sum = row[0] + row[1] + row[2], wide = prompt.edges[i + 1] - prompt.edges[i];
      if (!sum) continue;
      row.forEach((share, k) => { found[k] += share / sum * wide; });
      queries += wide;
    }
    return found.map((sum) => sum / queries);
  }

  let drawn = "", shaded = null;  // the cells change with the head only, not with window, chunk or query
  function cells({ prompt, at }) {
    const paths = Array(12).fill("");
    for (let i = 0; i < prompt.n; i++) for (let j = 0; j <= i; j++) {
      const shade = Math.round(Math.sqrt(prompt.share(at, i, j)) * 12);
      if (shade) paths[shade - 1] += `M${j} ${i}h1v1h-1z`;
    }
    return shape("g", { transform: `translate(${LEFT} ${TOP}) scale(${(SIDE / prompt.n).toFixed(4)})` },
      ...paths.map((d, shade) => shape("path", { d, fill: "var(--q2b-blue)", "fill-opacity": ((shade + 1) / 12).toFixed(2) })));
  }
  function drawMap(state) {
    const { prompt, layer, head, at, window, first, chunk, query } = state, { n, exact, length } = prompt;
    const key = `${model.get("prompt")} ${at}`, step = SIDE / n;
    if (key !== drawn) { shaded = cells(state); drawn = key; }
    const X = (j) => (LEFT + j * step).toFixed(1), Y = (i) => (TOP + i * step).toFixed(1), stroke = (name, more = {}) => ({ fill: "none", stroke: `var(--q2b-${name})`, "stroke-width": 1.8, ...more });
    const nodes = [text(LEFT, 12, `layer ${layer}, head ${head}`, { "font-weight": 600 }),
      shape("path", { d: `M${X(0)} ${Y(0)}V${Y(n)}H${X(n)}Z`, ...stroke("grey", { "stroke-width": 0.6 }) }), shaded];
    if (window < length) {
      const w = window / length * n, one = first / length * n, from = Math.min(w + one, n);
      let edge = `M${X(one)} ${Y(from)}`;
      if (exact) for (let i = window + first; i < n; i++) edge += `H${X(i - window + 1)}V${Y(i + 1)}`;
      else edge += `L${X(n - w)} ${Y(n)}`;
      nodes.push(shape("path", { d: `${edge}H${X(one)}Z`, fill: "var(--q2b-paper)", "fill-opacity": 0.72 }),
        shape("path", { d: edge, ...stroke("orange") }));
      if (first) nodes.push(shape("path", { d: `M${X(one)} ${Y(from)}V${Y(n)}`, ...stroke("orange") }));
    }
    const keys = window < length ? [["orange", `window ${count(window)}`]] : [];
    if (chunk && chunk < n) {
      let same = `M${X(0)} ${Y(0)}`, before = `M${X(0)} ${Y(Math.min(2 * chunk, n))}`;
      for (let a = 0; a < n; a += chunk) {
        const to = Math.min(a + chunk, n);
        same += `V${Y(to)}H${X(to)}`;
        if (a >= 2 * chunk) before += `H${X(a - chunk)}V${Y(to)}`;
      }
      nodes.push(shape("path", { d: same, ...stroke("teal") }), shape("path", { d: before, ...stroke("wine", { "stroke-dasharray": "4 2" }) }));
      keys.push(["teal", "the same chunk"], ["wine", "dashed: earlier ones"]);
    }
    keys.push(["ink", `boxed: query ${count(prompt.edges[query])}`]);
    keys.forEach(([colour, words], i) => nodes.push(text(BOX - 4, TOP + 14 + 15 * i, words, { "text-anchor": "end", fill: `var(--q2b-${colour})`, "font-weight": 600 })));
    nodes.push(shape("rect", { x: X(0), y: Y(query), width: ((query + 1) * step).toFixed(1), height: step.toFixed(1), ...stroke("ink", { "stroke-width": 1.2 }) }));
    for (let i = 0; i < n; i += 8) nodes.push(text(LEFT - 4, TOP + (i + 0.5) * step + 4, count(prompt.edges[i]), { "text-anchor": "end" }));
    nodes.push(text(9, TOP + SIDE / 2, "query", { transform: `rotate(-90 9 ${TOP + SIDE / 2})`, "text-anchor": "middle" }),
      text(LEFT + SIDE / 2, TOP + SIDE + 16, `key (each cell: ${exact ? "one query, one key" : `about ${count(Math.round(length / n))} by ${count(Math.round(length / n))} tokens`})`, { "text-anchor": "middle" }));
    map.replaceChildren(...nodes);
    map.setAttribute("aria-label", `Attention map of layer ${layer}, head ${head}: rows are queries, columns keys; orange, the edge of a window of ${window}`);
  }

  const who = (prompt, i) => `${prompt.where(i)} ${quoted(prompt.tokens[i])}${prompt.exact ? "" : " …"}`;
  function tell(i, j) {
    const { prompt, at } = now();
    cell.textContent = `Query ${who(prompt, i)}, key ${who(prompt, j)}: ${about(prompt.share(at, i, j))} of the query's attention.`;
  }
  const boxes = ({ prompt, at, query }) => {
    strip.replaceChildren(...prompt.tokens.map((token, j) => {
      const share = j <= query ? prompt.share(at, query, j) : 0;
      const style = `${BOXED}background: color-mix(in srgb, var(--q2b-blue) ${Math.round(45 * Math.sqrt(share))}%, transparent);` +
        (j === query ? "outline: 2px solid var(--q2b-orange); outline-offset: -1px;" : j > query ? "border-style: dotted;" : "");
      return make("span", { style, "data-token": j }, prompt.exact ? "" : make("small", {}, `${count(prompt.edges[j])} `), short(token));
    }));
    let best = 0;
    for (let j = 1; j <= query; j++) if (prompt.share(at, query, j) > prompt.share(at, query, best)) best = j;
    tell(query, best);
    last.replaceChildren(...(prompt.last ? [make("p", { style: "margin: 8px 0 2px; font-weight: 600" }, "Where the last token looks most:")] : []));
    const top = prompt.last ? prompt.last.keys.length / all : 0;
    for (let k = at * top; k < (at + 1) * top; k++) {
      const key = prompt.last.keys[k], [before, token, after] = prompt.near[key];
      last.append(make("div", { style: "overflow-wrap: anywhere" }, `${percent(prompt.last.shares[k])} at ${count(key)}: `,
        make("bdi", {}, shown(before)), " ", make("b", {}, make("bdi", { style: "color: var(--q2b-blue)" }, shown(token))), " ", make("bdi", {}, shown(after))));
    }
  };

  grid.addEventListener("keydown", (event) => {
    const { layer, head } = now(), move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-layers, 0], End: [layers, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const inside = (value, count) => Math.min(count - 1, Math.max(0, value)), l = inside(layer + move[0], layers), h = inside(head + move[1], heads);
    put({ layer: l, head: h });
    squares[l * heads + h].focus({ preventScroll: true });
  });
  const place = (svg, event, box = svg.getBoundingClientRect()) =>
    [(event.clientX - box.left) / box.width * BOX, (event.clientY - box.top) / box.width * BOX];
  const overGrid = (event) => {
    const [x, y] = place(grid, event), l = Math.floor((x - LEFT) / wide), h = squares.findIndex((_, i) => i < heads && y >= rowTop(i) && y < rowTop(i) + high);
    if (event.buttons === 1 && l >= 0 && l < layers && h >= 0) put({ layer: l, head: h });
  };
  const overMap = (event) => {
    const { prompt: { n } } = now(), [x, y] = place(map, event), j = Math.floor((x - LEFT) / SIDE * n), i = Math.floor((y - TOP) / SIDE * n);
    if (j < 0 || i >= n || j > i) return;
    if (event.buttons === 1) put({ query: i });
    requestAnimationFrame(() => tell(i, j));  // after the redraw that a new query brings
  };
  ["pointerdown", "pointermove"].forEach((kind) => { grid.addEventListener(kind, overGrid); map.addEventListener(kind, overMap); });
  [grid, map].forEach((svg) => { Object.assign(svg.style, { touchAction: "pan-y", cursor: "pointer", alignSelf: "start" }); });
  const token = (event) => event.target.closest("[data-token]")?.dataset.token;
  strip.addEventListener("click", (event) => { if (token(event)) put({ query: Number(token(event)) }); });
  strip.addEventListener("pointerover", (event) => { if (token(event) <= now().query) tell(now().query, Number(token(event))); });

  redraw(model, ["prompt", "shade", "layer", "head", "window", "first", "chunk", "query"], () => {
    const state = now(), { prompt, layer, head, at, window, first, chunk, shade } = state;
    drawGrid(state);
    drawMap(state);
    boxes(state);
    const fitting = squares.filter((_, i) => prompt.kept(first, i, window) > 900).length, gives = (name) => percent(prompt.score(name, at));
    const follows = prompt.score("follows", at) < 0 ? "no token comes twice" : `${gives("follows")} to what followed the same token`;
    const kept = (with_first) => percent(prompt.kept(with_first, at, window));
    result.textContent = `Layer ${layer}, head ${head}: a window of ${count(window)}${first ? " and the first token keep" : " keeps"} ${kept(first)} of its attention ` +
      `(${first ? "without" : "with"} the first token ${kept(1 - first)}); ${fitting} of ${all} heads keep more than 90%. ` +
      `It gives ${gives("first")} to the first token, ${gives("previous")} to the token before, ${follows}; a row uses ${(prompt.score("tokens", at) / 1000).toFixed(1)} tokens.` +
      (chunk ? ` Chunks of ${count(prompt.edges[chunk])}: ${zones(state).map((share, k) => `${Math.round(100 * share)}% in ${ZONES[k]}`).join(", ")}.` : "") +
      (shade === "loss" ? ` Without it the mean loss on the first ${count(data.losses.tokens)} tokens of ${data.losses.text}, ${data.losses.base.toFixed(2)} nats, ` +
        `${data.losses.rises[at] < 0 ? "falls" : "rises"} by ${(Math.abs(data.losses.rises[at]) / 10000).toFixed(4)}.` : "") + ` (${shown(data.source)})`;
  });
}
export default { render };
