// A real next-token distribution under the sampler's knobs, applied in the order of the package: penalty,
// temperature, top-k, top-p. `data` holds the likeliest tokens' logits (thousandths); all others as sums.
const ROWS = 12, TEXT = 13, OFF = { temperature: 20, top_k: 0, top_p: 100, penalty: 100 };
const RELEASED = { temperature: 14, top_k: 20, top_p: 80, penalty: 110 }, KNOBS = Object.keys(OFF);
const percent = (x) => x >= 0.9995 ? "100%" : x >= 0.0995 ? `${(100 * x).toFixed(1)}%` : x >= 0.00005 ? `${(100 * x).toFixed(2)}%` : "0.00%";
const count = (n) => n.toLocaleString("en");
const visible = (text) => text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");
const cutShort = (text, most) => Array.from(text).length > most ? `${Array.from(text).slice(0, most - 1).join("")}…` : text;
// Isolated, so that a token in a script that runs from right to left turns nothing else around.
const isolated = (text) => `\u2068${text}\u2069`;

function render({ model, el }) {
  const prompts = model.get("data").prompts.map((p) => {
    const bytes = Uint8Array.from(atob(p.logits), (c) => c.charCodeAt(0));
    return { ...p, logits: Array.from(new Int16Array(bytes.buffer), (x) => x / 1000), seen: new Set(p.seen) };
  });
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const texts = choice(model, "prompt", "prompt", prompts.map((p, i) => [i, p.name]));
  texts.style.gridColumn = "1 / -1";
  const button = (words, state) => {
    const made = make("button", { type: "button", class: "q2b-button", ...OWN_KEYS }, words);
    made.addEventListener("click", () => { KNOBS.forEach((k) => model.set(k, state[k])); model.save_changes(); });
    return made;
  };
  const hundredths = (x) => (x / 100).toFixed(2);
  const controls = make("div", { class: "q2b-controls" }, texts,
    slider(model, "penalty", "1 penalty", (x) => x === 100 ? "off" : hundredths(x)),
    slider(model, "temperature", "2 temperature", (x) => x ? (x / 20).toFixed(2) : "greedy"),
    slider(model, "top_k", "3 top-k", (x) => x || "off"),
    slider(model, "top_p", "4 top-p", (x) => x === 100 ? "off" : hundredths(x)),
    make("div", { class: "q2b-buttons" }, button("all off", OFF), button("as released", RELEASED), button("greedy", { ...OFF, temperature: 0 })));
  const bars = picture(330, 326), ranks = picture(330, 326);
  const asked = make("p", { class: "q2b-result", dir: "auto", style: "min-height: 1.4em; white-space: pre-wrap; font-family: ui-monospace, monospace; font-size: 12px" });
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")), asked, make("div", { class: "q2b-pictures" }, bars, ranks), result));
  const label = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);

  /** Probabilities of the stored tokens, what is left, and what is cut inside the tokens not stored. */
  function outcome(found, { temperature, top_k, top_p, penalty }) {
    const { logits, seen, rest } = found, T = temperature / 20, p = top_p / 100, f = penalty / 100;
    const scores = logits.map((x, i) => seen.has(i) ? (x > 0 ? x / f : x * f) : x), top = Math.max(...scores);
    if (!temperature) return { chances: scores.map((s) => Number(s === top)), kept: 1, mass: NaN, entropy: 0, open: false, others: 0 };
    const weights = scores.map((s) => Math.exp((s - top) / T)), shift = (logits[0] - top) / T;
    const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b);
    let others = Math.exp(rest.sums[temperature - 1] + shift), open = false, certain = 0;
    const sum = () => weights.reduce((a, b) => a + b, 0) + others, whole = sum();
    if (top_k) { order.slice(top_k).forEach((i) => { weights[i] = 0; }); others = 0; }
    let total = sum();
    if (top_p < 100) {
      certain = order.filter((i) => scores[i] > rest.highest).length;
      let before = 0;
      const cut = order.findIndex((i, n) => {
        const here = before >= p * total && (n < certain || !others);
        before += weights[i];
        return here;
      });
      if (cut >= 0) { order.slice(cut).forEach((i) => { weights[i] = 0; }); others = 0; total = sum(); }
      else if (others) { open = true; total *= p; }
    }
    const chances = weights.map((w) => w / total), left = open ? 0 : others / total;
    let entropy = chances.reduce((h, c) => h - (c > 0 ? c * Math.log(c) : 0), 0);
    if (left) entropy -= left * (rest.means[temperature - 1] + shift - Math.log(total));
    const kept = open ? certain : weights.filter((w) => w > 0).length + (others ? rest.count : 0);
    return { chances, kept, mass: total / whole, entropy, open, others: open ? 0 : left };
  }

  function drawBars(found, raw, now) {
    const LEFT = 112, WIDE = 158, STEP = 24, most = Math.max(...raw.chances, ...now.chances), nodes = [];
    nodes.push(label(6, 14, "next token", { "font-weight": 600 }), label(LEFT, 14, "before", { fill: "var(--q2b-grey)" }),
      label(LEFT + 50, 14, "and after", { fill: "var(--q2b-blue)", "font-weight": 600 }));
    raw.chances.slice(0, ROWS).forEach((chance, i) => {
      const y = 24 + i * STEP, after = now.chances[i], long = (x) => Math.max(x / most * WIDE, x > 0 ? 0.5 : 0).toFixed(1);
      const gone = after === 0, seen = found.seen.has(i);
      nodes.push(label(LEFT - 6, y + 13, isolated(cutShort(visible(found.tokens[i]), TEXT)), { "text-anchor": "end", style: "font-family: ui-monospace, monospace; unicode-bidi: isolate",
          "font-size": 11.5, ...(gone ? { fill: "var(--q2b-grey)", "text-decoration": "line-through" } : {}) }),
        shape("rect", { x: LEFT, y: y + 1, width: long(chance), height: 7, fill: "var(--q2b-grey)", "fill-opacity": 0.6 }),
        shape("rect", { x: LEFT, y: y + 9, width: long(after), height: 9, fill: seen ? "var(--q2b-orange)" : "var(--q2b-blue)", "data-row": i }),
        label(LEFT + 6 + Number(long(Math.max(chance, after))), y + 14, gone ? "cut" : percent(after), { "font-size": 11, ...(gone ? { fill: "var(--q2b-grey)" } : {}) }));
    });
    if (found.logits.some((_, i) => i < ROWS && found.seen.has(i))) nodes.push(label(LEFT, 24 + ROWS * STEP + 10, "orange: stands in the prompt", { "font-size": 11, fill: "var(--q2b-orange)" }));
    bars.replaceChildren(...nodes);
    bars.setAttribute("aria-label", `The ${ROWS} likeliest tokens, before and after the knobs`);
  }

  function drawRanks(found, raw, now) {
    const LEFT = 44, TOP = 26, WIDE = 276, SIDE = 240, last = 300, floor = -6, nodes = [];
    const x = (rank) => (LEFT + Math.log(rank) / Math.log(last) * WIDE).toFixed(1);
    const y = (p) => (TOP + SIDE * Math.min(1, Math.log10(Math.max(p, 1e-12)) / floor)).toFixed(1);
    nodes.push(label(6, 14, "probability by rank", { "font-weight": 600 }));
    for (let power = 0; power >= floor; power -= 2) nodes.push(
      label(LEFT - 6, Number(y(10 ** power)) + 4, power ? `10${{ 2: "⁻²", 4: "⁻⁴", 6: "⁻⁶" }[-power]}` : "1", { "text-anchor": "end", "font-size": 11 }),
      shape("path", { d: `M${LEFT} ${y(10 ** power)}h${WIDE}`, stroke: "var(--q2b-grey)", "stroke-opacity": 0.35 }));
    for (const rank of [1, 3, 10, 30, 100, 300]) nodes.push(label(x(rank), TOP + SIDE + 16, rank, { "text-anchor": "middle", "font-size": 11 }));
    nodes.push(label(LEFT + WIDE / 2, TOP + SIDE + 33, "rank of the token", { "text-anchor": "middle" }),
      shape("path", { d: `M${LEFT} ${TOP}V${TOP + SIDE}H${LEFT + WIDE}`, stroke: "var(--q2b-ink)", fill: "none" }));
    const line = (chances) => `M${chances.slice(0, last).map((c, i) => `${x(i + 1)} ${y(c)}`).join("L")}`;
    const sorted = [...now.chances].sort((a, b) => b - a).filter((c) => c > 0);
    nodes.push(shape("path", { d: line(raw.chances), stroke: "var(--q2b-grey)", "stroke-width": 3, "stroke-opacity": 0.6, fill: "none" }),
      shape("path", { d: line(sorted), stroke: "var(--q2b-blue)", "stroke-width": 2, fill: "none" }));
    if (sorted.length < last) nodes.push(
      shape("path", { d: `M${x(sorted.length)} ${y(sorted[sorted.length - 1])}V${TOP + SIDE}`, stroke: "var(--q2b-blue)", "stroke-dasharray": "4 3" }),
      shape("circle", { cx: x(sorted.length), cy: y(sorted[sorted.length - 1]), r: 4, fill: "var(--q2b-blue)" }));
    nodes.push(label(6, 320, `all ${count(found.rest.count)} other tokens: ${now.open ? "some are left" : now.others ? `${percent(now.others)}` : "cut"}, before ${percent(raw.others)}`, { "font-size": 11 }));
    ranks.replaceChildren(...nodes);
    ranks.setAttribute("aria-label", `Probability falls with the rank; ${now.open ? "more than " : ""}${count(now.kept)} tokens are left`);
  }

  redraw(model, ["prompt", ...KNOBS], () => {
    const found = prompts[inLimits(model, "prompt")];
    const state = Object.fromEntries(KNOBS.map((key) => [key, inLimits(model, key)]));
    const raw = outcome(found, OFF), now = outcome(found, state);
    drawBars(found, raw, now);
    drawRanks(found, raw, now);
    asked.textContent = `${found.text.replace(/\n/g, "⏎\n")}▁`;
    const best = now.chances.indexOf(Math.max(...now.chances)), about = now.open ? "about " : "";
    const all = found.logits.length + found.rest.count;
    result.textContent = (now.open ? `More than ${count(now.kept)}` : count(now.kept)) + ` of ${count(all)} tokens ${now.kept === 1 && !now.open ? "is" : "are"} left` +
      (state.temperature ? `, with ${about}${percent(now.mass)} of the probability. ` : " (greedy). ") +
      `Likeliest: “${isolated(visible(found.tokens[best]))}”, ${about}${percent(now.chances[best])}. ` +
      `Entropy ${raw.entropy.toFixed(2)} before, ${now.open ? "not known here" : now.entropy.toFixed(2)} after.`;
  });
}
export default { render };
