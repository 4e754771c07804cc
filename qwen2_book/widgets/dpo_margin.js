// Four preference losses over the margin: how large they are, and how hard they still push.
const REACH = 40, LEFT = 40, TOP = 26, WIDE = 280, HIGH = 224;
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const logSigmoid = (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));

function lossOf(kind, beta, h, epsilon) {
  if (kind === "hinge") return Math.max(0, 1 - beta * h);
  if (kind === "ipo") return (h - 1 / (2 * beta)) ** 2;
  const wrong = kind === "smoothed" ? epsilon : 0;
  return -(1 - wrong) * logSigmoid(beta * h) - wrong * logSigmoid(-beta * h);
}
function pushOf(kind, beta, h, epsilon) {
  if (kind === "hinge") return beta * h < 1 ? beta : 0;
  if (kind === "ipo") return 1 / beta - 2 * h;
  return beta * (sigmoid(-beta * h) - (kind === "smoothed" ? epsilon : 0));
}

function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const betas = model.get("betas"), names = model.get("names"), epsilon = model.get("epsilon");
  const kinds = ["sigmoid", "smoothed", "hinge", "ipo"];
  const colours = { sigmoid: "var(--q2b-blue)", smoothed: "var(--q2b-teal)", hinge: "var(--q2b-wine)", ipo: "var(--q2b-orange)" };
  const dashes = { sigmoid: "", smoothed: "7 3", hinge: "2 3", ipo: "9 3 2 3" };
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "half_nats", "margin h, nats", (n) => (n / 2).toFixed(1)),
    slider(model, "beta", "β", (n) => String(betas[n])),
    choice(model, "kind", "loss", kinds.map((kind) => [kind, names[kind]])));
  const losses = picture(330, 296), pushes = picture(330, 296);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, losses, pushes), result));
  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);
  const x = (h) => LEFT + (h + REACH) / (2 * REACH) * WIDE;

  // The pictures are handles, too: press and drag sets the margin.
  for (const svg of [losses, pushes]) {
    svg.style.touchAction = "pan-y";
    const follow = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * 330;
      const h = (at - LEFT) / WIDE * 2 * REACH - REACH;
      model.set("half_nats", Math.min(2 * REACH, Math.max(-2 * REACH, Math.round(2 * h))));
      model.save_changes();
    };
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointermove", follow);
  }

  // Curves between two heights; what leaves the frame is cut off at its edge.
  function draw(svg, title, of, low, high, ticks, { beta, h, kind }) {
    const y = (v) => TOP + HIGH * (high - Math.min(high, Math.max(low, v))) / (high - low);
    const nodes = [text(6, 14, title, { "font-weight": 600 })];
    for (const tick of ticks) nodes.push(
      text(LEFT - 6, y(tick) + 4, String(tick).replace("-", "−"), { "text-anchor": "end", "font-size": 11 }),
      shape("path", { d: `M${LEFT - 3} ${y(tick).toFixed(1)}h3`, stroke: "var(--q2b-ink)" }));
    for (const tick of [-40, -20, 0, 20, 40]) nodes.push(
      text(x(tick), TOP + HIGH + 16, String(tick).replace("-", "−"), { "text-anchor": "middle", "font-size": 11 }));
    nodes.push(text(LEFT + WIDE / 2, TOP + HIGH + 34, "margin h, nats", { "text-anchor": "middle" }),
      shape("path", { d: `M${x(0)} ${TOP}V${TOP + HIGH}M${LEFT} ${y(0).toFixed(1)}H${LEFT + WIDE}`, stroke: "var(--q2b-grey)", "stroke-opacity": 0.5, "stroke-dasharray": "2 3" }));
    for (const each of [...kinds.filter((k) => k !== kind), kind]) {
      const chosen = each === kind, scale = of(each, beta, 0, epsilon);
      let path = "", inside = false;
      for (let k = -160; k <= 160; k++) {
        const v = of(each, beta, k / 4, epsilon) / scale, was = inside;
        inside = v >= low && v <= high;
        if (inside) path += `${was ? "L" : "M"}${x(k / 4).toFixed(1)} ${y(v).toFixed(1)}`;
      }
      nodes.push(shape("path", { d: path, fill: "none", stroke: colours[each], "stroke-width": chosen ? 3 : 1.2, "stroke-opacity": chosen ? 1 : 0.75, "stroke-dasharray": dashes[each] }));
    }
    const v = of(kind, beta, h, epsilon) / of(kind, beta, 0, epsilon);
    nodes.push(shape("path", { d: `M${LEFT} ${TOP}V${TOP + HIGH}H${LEFT + WIDE}`, stroke: "var(--q2b-ink)", fill: "none" }),
      shape("path", { d: `M${x(h).toFixed(1)} ${TOP}V${TOP + HIGH}`, stroke: colours[kind], "stroke-opacity": 0.6 }),
      shape("circle", { cx: x(h).toFixed(1), cy: y(v).toFixed(1), r: 6, fill: colours[kind], stroke: "var(--q2b-paper)", "stroke-width": 1.5 }));
    svg.replaceChildren(...nodes);
    return v;
  }

  // The key stands once, in the corner of the left picture that no curve needs.
  function key(kind) {
    const last = { sigmoid: "DPO", smoothed: "smoothed", hinge: "hinge", ipo: "IPO" };
    return kinds.flatMap((each, n) => [
      shape("path", { d: `M${LEFT + WIDE - 84} ${TOP + 12 + 17 * n}h24`, stroke: colours[each], "stroke-width": each === kind ? 3 : 1.2, "stroke-dasharray": dashes[each] }),
      text(LEFT + WIDE - 54, TOP + 16 + 17 * n, last[each], { fill: colours[each], "font-size": 11, "font-weight": each === kind ? 600 : 400 })]);
  }

  redraw(model, ["half_nats", "beta", "kind"], () => {
    const beta = betas[inLimits(model, "beta")], h = inLimits(model, "half_nats") / 2, kind = model.get("kind");
    const now = { beta, h, kind };
    draw(losses, "loss (1: as at h = 0)", lossOf, 0, 3, [0, 1, 2, 3], now);
    losses.append(...key(kind));
    const share = draw(pushes, "push on the margin (1: as at h = 0)", pushOf, -1, 2.25, [-1, 0, 1, 2], now);
    const loss = lossOf(kind, beta, h, epsilon), push = pushOf(kind, beta, h, epsilon), gap = (beta * h).toFixed(2);
    losses.setAttribute("aria-label", `The loss over the margin; here it is ${loss.toFixed(3)}`);
    pushes.setAttribute("aria-label", `The push over the margin; here it is ${push.toFixed(4)} a nat`);
    const what = push > 0 ? "widens the margin" : push < 0 ? "narrows the margin" : "does nothing more";
    result.textContent = (`h = ${h.toFixed(1)} nats, β = ${beta}: the reward gap βh is ${gap}, so the policy says with ${(100 * sigmoid(beta * h)).toFixed(1)}% that the chosen answer is better. ` +
      `${names[kind]}: loss ${loss.toFixed(3)}, push ${push.toFixed(4)} a nat, ${(100 * share).toFixed(0)}% of that at h = 0; a step ${what}.`).replaceAll("-", "−");
  });
}
export default { render };
