// A budget of operations: loss over the model's size by a scaling law, and known models on a map of size and tokens.
const STEP = 50; // steps of a slider in a factor of ten

function short(number) {
  const letters = ["", "K", "M", "B", "T", "P"];
  let power = 0;
  while (number >= 999.5 && power < letters.length - 1) { number /= 1000; power += 1; }
  return number.toPrecision(3) + letters[power];
}

function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean), worlds = model.get("data").worlds;
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const bars = { compute: slider(model, "compute", "operations"), size: slider(model, "size", "weights N") };
  const controls = make("div", { class: "q2b-controls" },
    choice(model, "world", "law of", Object.entries(worlds).map(([name, { title }]) => [name, title])), bars.compute, bars.size);
  const presets = make("div", { class: "q2b-buttons", role: "group", "aria-label": "models" });
  const valley = picture(330, 300), map = picture(330, 300);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls, presets, make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, valley, map), result));
  const text = (x, y, words, more = {}) =>
    shape("text", { x: x.toFixed(1), y: y.toFixed(1), "font-size": 12, fill: "var(--q2b-ink)", "text-anchor": "middle", ...more }, words);
  const line = (x1, y1, x2, y2, more = {}) => shape("line", { x1: x1.toFixed(1), y1: y1.toFixed(1), x2: x2.toFixed(1), y2: y2.toFixed(1),
    stroke: "var(--q2b-grey)", ...more });
  const dot = (x, y, colour, r = 4) => shape("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r, fill: `var(--q2b-${colour})` });

  function state() {
    const world = worlds[model.get("world")], { floor, a, b, alpha, beta } = world.law, both = alpha + beta;
    const loss = (n, d) => floor + a * n ** -alpha + b * d ** -beta;
    const best = (c) => ((alpha * a) / (beta * b)) ** (1 / both) * (c / 6) ** (beta / both);
    const fewest = (aim) => ((loss(best(1), 1 / (6 * best(1))) - floor) / (aim - floor)) ** (1 / alpha + 1 / beta);
    const operations = 10 ** (world.compute + inLimits(model, "compute") / STEP);
    const size = 10 ** (world.size + inLimits(model, "size") / STEP);
    return { world, floor, loss, best, fewest, operations, size, tokens: operations / (6 * size) };
  }

  function drawValley({ world, loss, best, operations, size, tokens }) {
    const low = Math.min(loss(best(operations * 10), operations * 10 / 6 / best(operations * 10)), loss(size, tokens)) - 0.12;
    const high = Math.max(loss(best(operations / 10), operations / 60 / best(operations / 10)) + 0.3, loss(size, tokens) + 0.15);
    const toX = (n) => 42 + ((Math.log10(n) - world.size) / 4) * 272, toY = (l) => 30 + ((high - l) / (high - low)) * 220;
    const nodes = [text(177, 14, "loss, nats a token", { "font-weight": 600 }), line(42, 250, 314, 250), line(42, 30, 42, 250)];
    for (let k = 0; k <= 4; k++) nodes.push(text(42 + k * 68, 266, short(10 ** (world.size + k)).replace(/\.0+(?=\D|$)/, "")));
    for (const part of [0, 0.5, 1]) nodes.push(text(38, toY(low + part * (high - low)) + 4, (low + part * (high - low)).toFixed(2), { "text-anchor": "end" }));
    nodes.push(text(177, 286, "weights N"));
    for (const [times, name] of [[0.1, "a tenth of it"], [1, "this budget"], [10, "ten times"]]) {
      const points = [];
      for (let k = 0; k <= 136; k++) {
        const n = 10 ** (world.size + k / 34), at = loss(n, operations * times / 6 / n);
        if (at <= high) points.push(`${toX(n).toFixed(1)},${toY(at).toFixed(1)}`);
      }
      const main = times === 1, n = best(operations * times), x = Math.min(Math.max(toX(n), 80), 276);
      nodes.push(shape("polyline", { points: points.join(" "), fill: "none", stroke: `var(--q2b-${main ? "blue" : "grey"})`, "stroke-width": main ? 2.2 : 1.2 }));
      nodes.push(text(x, toY(loss(n, operations * times / 6 / n)) + 14, name, { "font-size": 11, fill: `var(--q2b-${main ? "blue" : "grey"})` }));
    }
    const here = loss(size, tokens);
    nodes.push(line(toX(size), toY(here), toX(size), 250, { stroke: "var(--q2b-orange)", "stroke-dasharray": "3 3" }), dot(toX(size), toY(here), "orange", 5));
    valley.replaceChildren(...nodes);
    valley.setAttribute("aria-label", `Loss over the size of the model for ${operations.toExponential(1)} operations`);
  }

  function drawMap({ world, best, operations, size, tokens }) {
    const bottom = world.tokens, toX = (n) => 42 + ((Math.log10(n) - world.size) / 4) * 272;
    const toY = (d) => 250 - ((Math.log10(d) - bottom) / 5) * 220, inside = (d) => d >= 10 ** bottom && d <= 10 ** (bottom + 5);
    const nodes = [text(177, 14, "tokens D over weights N", { "font-weight": 600 }), line(42, 250, 314, 250), line(42, 30, 42, 250)];
    for (let k = 0; k <= 4; k++) nodes.push(text(42 + k * 68, 266, short(10 ** (world.size + k)).replace(/\.0+(?=\D|$)/, "")));
    for (let k = 0; k <= 5; k++) nodes.push(text(38, 254 - k * 44, short(10 ** (bottom + k)).replace(/\.0+(?=\D|$)/, ""), { "text-anchor": "end", "font-size": 11 }));
    nodes.push(text(177, 286, "weights N"));
    const way = (along, more) => {
      const points = along.filter(([n, d]) => inside(d) && toX(n) >= 42 && toX(n) <= 314).map(([n, d]) => `${toX(n).toFixed(1)},${toY(d).toFixed(1)}`);
      nodes.push(shape("polyline", { points: points.join(" "), fill: "none", "stroke-width": 1.6, ...more }));
    };
    const sizes = Array.from({ length: 201 }, (_, k) => 10 ** (world.size + k / STEP));
    way(sizes.map((n) => [n, operations / 6 / n]), { stroke: "var(--q2b-blue)", "stroke-dasharray": "5 3" });
    const optima = Array.from({ length: 801 }, (_, k) => 10 ** (world.compute - 6 + k / STEP));
    way(optima.map((c) => [best(c), c / 6 / best(c)]), { stroke: "var(--q2b-teal)" });
    nodes.push(text(310, 244, "teal: best sizes", { "text-anchor": "end", "font-size": 11, fill: "var(--q2b-teal)" }),
      text(310, 44, "dashed: this budget", { "text-anchor": "end", "font-size": 11, fill: "var(--q2b-blue)" }));
    for (const [name, n, d] of world.models) {
      nodes.push(dot(toX(n), toY(d), "ink", 3.5));
      if (name) nodes.push(text(toX(n), toY(d) - 8, name, { "font-size": 11 }));
    }
    if (inside(tokens)) nodes.push(dot(toX(size), toY(tokens), "orange", 5));
    map.replaceChildren(...nodes);
    map.setAttribute("aria-label", `The chosen model: ${short(size)} weights, ${short(tokens)} tokens`);
  }

  function drawPresets({ world }) {
    const named = world.models.filter(([name]) => name);
    presets.replaceChildren(...named.map(([name, n, d]) => {
      const button = make("button", { class: "q2b-button", type: "button", "data-model": name, ...OWN_KEYS }, name);
      button.addEventListener("click", () => {
        model.set("compute", Math.round((Math.log10(6 * n * d) - world.compute) * STEP));
        model.set("size", Math.round((Math.log10(n) - world.size) * STEP));
        model.save_changes();
      });
      return button;
    }));
  }

  let shown = null;
  redraw(model, ["world", "compute", "size"], () => {
    const now = state(), { world, loss, best, fewest, operations, size, tokens } = now;
    if (shown !== world) drawPresets(now);
    shown = world;
    for (const [key, said] of [["compute", operations.toExponential(1)], ["size", short(size)]]) {
      bars[key].querySelector("output").textContent = said;
      bars[key].querySelector("input").setAttribute("aria-valuetext", said);
    }
    drawValley(now);
    drawMap(now);
    const here = loss(size, tokens), top = best(operations), least = loss(top, operations / 6 / top), cheap = fewest(here);
    result.textContent = `${operations.toExponential(1)} operations: ${short(size)} weights, ${short(tokens)} tokens, ${short(tokens / size)} tokens a weight. ` +
      `By the law ${here.toFixed(2)} nats. The best size for this budget is ${short(top)}, with ${least.toFixed(2)}. ` +
      `The same ${here.toFixed(2)} would cost ${(100 * cheap / operations).toFixed(0)}% of the training, in a model ${(best(cheap) / size).toFixed(1)} times as large.`;
  });
}
export default { render };
