// Chosen and rejected answers under preference training: a plane of two changes, and stored runs in it.
const LEFT = 44, TOP = 26, WIDE = 276, HIGH = 276;
const GOOD = 22, SOME = 3;  // well-formed answers of 24: a circle from here on, a triangle, else a cross

function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const { steps, betas, answers, runs } = model.get("data"), arms = model.get("arms");
  const all = runs.flat(2), low = Math.floor(Math.min(...all.map((run) => Math.min(...run[0], ...run[1]))) / 10) * 10, top = 10;
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "look", "step", (n) => String(steps[n])),
    choice(model, "arm", "trained by", arms.map((name, n) => [n, name])),
    choice(model, "beta", "β", betas.map((beta, n) => [n, String(beta)])),
    slider(model, "seed", "seed"));
  const plane = picture(330, 346), curves = picture(330, 346);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, plane, curves), result));
  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);
  const minus = (number, digits = 1) => Number(number).toFixed(digits).replace("-", "−");
  const x = (v) => LEFT + (v - low) / (top - low) * WIDE, y = (v) => TOP + (top - v) / (top - low) * HIGH;
  const across = (n) => LEFT + n / (steps.length - 1) * (WIDE - 76), up = (share) => TOP + (1 - share) * HIGH;

  // Both pictures are handles: the nearest point of the run in one, the step in the other.
  const take = (svg, nearest) => {
    svg.style.touchAction = "pan-y";
    const follow = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = svg.getBoundingClientRect(), scale = 330 / box.width;
      model.set("look", nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale));
      model.save_changes();
    };
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointermove", follow);
  };
  const now = () => {
    const look = inLimits(model, "look"), arm = inLimits(model, "arm"), b = inLimits(model, "beta"), seed = inLimits(model, "seed");
    const [chosen, rejected, accuracy, right, formed] = runs[arm][b][seed];
    return { look, arm, seed, beta: betas[b], chosen, rejected, accuracy, right, formed };
  };
  take(plane, (px, py) => {
    const { chosen, rejected } = now(), far = chosen.map((c, n) => (x(c) - px) ** 2 + (y(rejected[n]) - py) ** 2);
    return far.indexOf(Math.min(...far));
  });
  take(curves, (px) => Math.min(steps.length - 1, Math.max(0, Math.round((px - LEFT) / (WIDE - 76) * (steps.length - 1)))));

  // A point that says by shape and by colour how many greedy answers are well-formed.
  function mark(px, py, formed, size) {
    const at = (dx, dy) => `${(px + dx * size).toFixed(1)} ${(py + dy * size).toFixed(1)}`;
    if (formed >= GOOD) return shape("circle", { cx: px.toFixed(1), cy: py.toFixed(1), r: size, fill: "var(--q2b-teal)" });
    if (formed >= SOME) return shape("path", { d: `M${at(0, -1.2)}L${at(1.1, 0.9)}L${at(-1.1, 0.9)}Z`, fill: "var(--q2b-orange)" });
    return shape("path", { d: `M${at(-1, -1)}L${at(1, 1)}M${at(-1, 1)}L${at(1, -1)}`, stroke: "var(--q2b-wine)", "stroke-width": size / 2.2 });
  }

  function drawPlane({ look, beta, chosen, rejected, formed }) {
    const nodes = [text(6, 14, "change of log-probability, nats", { "font-weight": 600 })];
    for (let v = Math.ceil(low / 40) * 40; v <= 0; v += 40) nodes.push(
      text(x(v), TOP + HIGH + 16, minus(v, 0), { "text-anchor": "middle", "font-size": 11 }),
      text(LEFT - 6, y(v) + 4, minus(v, 0), { "text-anchor": "end", "font-size": 11 }));
    nodes.push(text(LEFT + WIDE / 2, TOP + HIGH + 34, "chosen answers", { "text-anchor": "middle" }),
      text(12, TOP + HIGH / 2, "rejected answers", { "text-anchor": "middle", transform: `rotate(-90 12 ${TOP + HIGH / 2})` }));
    // Lines of equal loss: a margin each, at which the loss is this share of ln 2.
    for (const share of [1, 0.5, 0.1, 0.01]) {
      const h = -Math.log(Math.expm1(share * Math.LN2)) / beta;
      const from = Math.max(low, low + h), to = Math.min(top, top + h);
      if (from >= to) continue;
      nodes.push(shape("path", { d: `M${x(from).toFixed(1)} ${y(from - h).toFixed(1)}L${x(to).toFixed(1)} ${y(to - h).toFixed(1)}`, stroke: "var(--q2b-grey)", "stroke-opacity": 0.7, "stroke-dasharray": share === 1 ? "" : "3 3", fill: "none" }),
        share === 1 ? text(x(low * 0.6) - 6, y(low * 0.6) - 2, "loss ln 2", { "font-size": 10, fill: "var(--q2b-grey)", "text-anchor": "end" })
          : text(x(from) + 4, y(from - h) - 5, (share * Math.LN2).toFixed(share < 0.1 ? 3 : 2), { "font-size": 10, fill: "var(--q2b-grey)" }));
    }
    nodes.push(shape("path", { d: `M${x(0)} ${TOP}V${TOP + HIGH}M${LEFT} ${y(0).toFixed(1)}H${LEFT + WIDE}`, stroke: "var(--q2b-grey)", "stroke-opacity": 0.4 }),
      shape("path", { d: `M${LEFT} ${TOP}V${TOP + HIGH}H${LEFT + WIDE}`, stroke: "var(--q2b-ink)", fill: "none" }),
      shape("path", { d: "M" + chosen.map((c, n) => `${x(c).toFixed(1)} ${y(rejected[n]).toFixed(1)}`).join("L"), fill: "none", stroke: "var(--q2b-blue)", "stroke-width": 1.5 }));
    for (let n = 0; n < steps.length; n++) nodes.push(mark(x(chosen[n]), y(rejected[n]), formed[n], 4));
    // The loss pushes both answers equally hard, the chosen one up and the other down.
    const px = x(chosen[look]), py = y(rejected[look]), h = chosen[look] - rejected[look];
    const long = 48 / (1 + Math.exp(beta * h));
    if (long > 3) for (const [dx, dy] of [[1, 0], [0, 1]]) nodes.push(
      shape("path", { d: `M${px} ${py}l${dx * long} ${dy * long}m${dx ? -5 : -4} ${dx ? -4 : -5}l${dx ? 5 : 4} ${dx ? 4 : 5}l${dx ? -5 : 4} ${dx ? 4 : -5}`, fill: "none", stroke: "var(--q2b-ink)", "stroke-width": 1.5 }));
    nodes.push(shape("circle", { cx: px.toFixed(1), cy: py.toFixed(1), r: 9, fill: "none", stroke: "var(--q2b-ink)", "stroke-width": 2 }), mark(px, py, formed[look], 5));
    const keys = [[24, `${GOOD} or more of ${answers} well-formed`], [10, "some"], [0, `fewer than ${SOME}`]];
    keys.forEach(([count, words], n) => nodes.push(mark(LEFT + 12, TOP + 14 + 16 * n, count, 4), text(LEFT + 22, TOP + 18 + 16 * n, words, { "font-size": 11 })));
    plane.replaceChildren(...nodes);
    plane.setAttribute("aria-label", `The run in the plane of both changes: chosen ${minus(chosen[look])} nats, rejected ${minus(rejected[look])} nats`);
  }

  function drawCurves({ look, accuracy, right, formed }) {
    const nodes = [text(6, 14, "what a log shows, and what it does not", { "font-weight": 600 })];
    for (const share of [0, 0.5, 1]) nodes.push(text(LEFT - 6, up(share) + 4, `${100 * share}%`, { "text-anchor": "end", "font-size": 11 }));
    for (let n = 0; n < steps.length; n += 5) nodes.push(text(across(n), TOP + HIGH + 16, steps[n], { "text-anchor": "middle", "font-size": 11 }));
    nodes.push(text(LEFT + (WIDE - 76) / 2, TOP + HIGH + 34, "step", { "text-anchor": "middle" }),
      shape("path", { d: `M${LEFT} ${TOP}V${TOP + HIGH}H${LEFT + WIDE - 76}`, stroke: "var(--q2b-ink)", fill: "none" }),
      shape("path", { d: `M${across(look).toFixed(1)} ${TOP}V${TOP + HIGH}`, stroke: "var(--q2b-ink)", "stroke-opacity": 0.5 }));
    const lines = [[accuracy, "pairs ranked", "right", "var(--q2b-blue)", ""], [formed.map((v) => v / answers), "answers", "well-formed", "var(--q2b-orange)", "6 3"], [right.map((v) => v / answers), "answers", "right", "var(--q2b-teal)", "2 3"]];
    const ends = lines.map(([line], n) => ({ n, at: up(line[line.length - 1]) })).sort((a, b) => a.at - b.at || a.n - b.n);
    ends.forEach((end, k) => { if (k) end.at = Math.max(end.at, ends[k - 1].at + 30); });
    const over = Math.max(0, ends[2].at + 16 - TOP - HIGH);
    ends.reverse().forEach((end, k) => { end.at = k ? Math.min(end.at, ends[k - 1].at - 30) : end.at - over; });
    for (const { n, at } of ends) {
      const [line, first, second, colour, dash] = lines[n];
      nodes.push(shape("path", { d: "M" + line.map((v, k) => `${across(k).toFixed(1)} ${up(v).toFixed(1)}`).join("L"), fill: "none", stroke: colour, "stroke-width": 2.2, "stroke-dasharray": dash }),
        text(LEFT + WIDE - 70, at + 2, first, { fill: colour, "font-size": 11 }), text(LEFT + WIDE - 70, at + 15, second, { fill: colour, "font-size": 11 }),
        shape("circle", { cx: across(look).toFixed(1), cy: up(line[look]).toFixed(1), r: 4, fill: colour }));
    }
    curves.replaceChildren(...nodes);
    curves.setAttribute("aria-label", `Over the steps: share of pairs ranked right, of greedy answers well-formed, and of greedy answers right`);
  }

  redraw(model, ["look", "arm", "beta", "seed"], () => {
    const state = now(), { look, arm, seed, beta, chosen, rejected, accuracy, right, formed } = state;
    drawPlane(state);
    drawCurves(state);
    const margin = chosen[look] - rejected[look];
    result.textContent = `${arms[arm]}, β = ${beta}, seed ${seed}, step ${steps[look]}: chosen ${minus(chosen[look])} nats, rejected ${minus(rejected[look])}, margin ${minus(margin)}, ` +
      `where a pair's loss is ${Math.log1p(Math.exp(-beta * margin)).toFixed(3)}. ${Math.round(100 * accuracy[look])}% of the pairs are ranked right; of ${answers} greedy answers ${formed[look]} are well-formed and ${right[look]} right.`;
  });
}
export default { render };
