// The logit lens. `data.prompts[p].top[block][position]` holds five pairs: a token's text, and its
// probability in thousandths, if the model stopped after that block.
function render({ model, el }) {
  const data = model.get("data"), prompts = data.prompts, LEFT = 26, TOP = 34, HIGH = 13;
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const blocks = prompts[0].top.length, controls = make("div", { class: "q2b-controls" },
    slider(model, "block", "blocks done"),
    slider(model, "position", "position"));
  if (prompts.length > 1) controls.append(choice(model, "prompt", "prompt", prompts.map((p, i) => [i, p.name])));
  const grid = picture(330, TOP + blocks * HIGH + 4), five = picture(330, TOP + blocks * HIGH + 4);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, grid, five), result));

  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", ...more }, words);
  const visible = (token) => token.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
  const wide = (c) => (c.codePointAt(0) > 0x2e7f || c === "⏎" ? 2 : 1);
  const short = (token, room) => {  // what fits into a cell: a Chinese character counts twice
    let out = "", used = 0;
    for (const c of visible(token)) {
      if (used + wide(c) > room) return `${out}…`;
      out += c;
      used += wide(c);
    }
    return out;
  };
  const percent = (thousandths) => `${(thousandths / 10).toFixed(1)}%`;
  const now = () => {
    const prompt = prompts[inLimits(model, "prompt")], last = prompt.tokens.length - 1;
    return { prompt, last, block: inLimits(model, "block"), at: Math.min(inLimits(model, "position"), last) };
  };
  model.on("change:prompt", () => { model.set("position", now().prompt.tokens.length - 1); model.save_changes(); });
  grid.addEventListener("click", (event) => {
    const found = event.target.dataset?.cell?.split(" ").map(Number);
    if (!found) return;
    model.set("block", found[0]);
    model.set("position", found[1]);
    model.save_changes();
  });

  redraw(model, ["block", "position", "prompt"], () => {
    const { prompt, last, block, at } = now(), step = (326 - LEFT) / (last + 1), room = Math.floor((step - 4) / 4.7);
    const nodes = [text(LEFT, 11, "the prompt, and what each state would say next", { "font-weight": 600, "font-size": 11 })];
    prompt.tokens.forEach((token, p) => nodes.push(text(LEFT + (p + 0.5) * step, 27, short(token, room + 1),
      { "text-anchor": "middle", "font-size": 9, "font-weight": p === at ? 700 : 400 })));
    for (let b = 0; b < blocks; b++) {
      const y = TOP + b * HIGH;
      nodes.push(text(LEFT - 4, y + 9.5, b, { "text-anchor": "end", "font-size": 9, "font-weight": b === block ? 700 : 400 }));
      for (let p = 0; p <= last; p++) {
        const [token, share] = prompt.top[b][p][0], final = token === prompt.top[blocks - 1][p][0][0];
        const x = LEFT + p * step, dark = share > 550;
        nodes.push(
          shape("rect", { x: x.toFixed(1), y, width: (step - 1).toFixed(1), height: HIGH - 1, "data-cell": `${b} ${p}`,
            fill: final ? "var(--q2b-orange)" : "var(--q2b-blue)", "fill-opacity": (0.06 + 0.94 * share / 1000).toFixed(3),
            style: "cursor:pointer" }),
          text((x + step / 2 - 0.5).toFixed(1), y + 9, short(token, room), { "text-anchor": "middle", "font-size": 8,
            "font-weight": final ? 700 : 400, "pointer-events": "none", ...(dark ? { fill: "var(--q2b-paper)" } : {}) }));
      }
    }
    nodes.push(shape("rect", { x: (LEFT + at * step - 0.5).toFixed(1), y: TOP + block * HIGH - 0.5, width: step.toFixed(1),
      height: HIGH, fill: "none", stroke: "var(--q2b-ink)", "stroke-width": 2, "pointer-events": "none" }));
    grid.replaceChildren(...nodes);
    grid.setAttribute("aria-label", `Grid of ${blocks} states by ${last + 1} positions; orange: the final answer stands first`);

    const cell = prompt.top[block][at], bars = [
      text(10, 11, `${block} of ${blocks - 1} blocks done`, { "font-weight": 600 }),
      text(10, 29, `after “…${short(prompt.tokens[at], 20)}”, the five likeliest:`)];
    cell.forEach(([token, share], i) => {
      const y = 46 + i * 44;
      bars.push(text(10, y + 10, short(token, 34)), text(320, y + 10, percent(share), { "text-anchor": "end" }),
        shape("rect", { x: 10, y: y + 15, width: 310, height: 14, fill: "var(--q2b-grey)", "fill-opacity": 0.12 }),
        shape("rect", { x: 10, y: y + 15, width: (0.31 * share).toFixed(1), height: 14,
          fill: token === prompt.top[blocks - 1][at][0][0] ? "var(--q2b-orange)" : "var(--q2b-blue)" }));
    });
    const firsts = prompt.top.map((row) => row[at][0][0]), answer = firsts[blocks - 1];
    let settled = blocks - 1;
    while (settled && firsts[settled - 1] === answer) settled--;
    bars.push(text(10, 286, `final answer here: ${short(answer, 22)}`, { fill: "var(--q2b-orange)", "font-weight": 600 }),
      text(10, 304, `it stands first from ${settled} blocks on`),
      text(10, 330, "Orange cells: the final answer stands first.", { "font-size": 11, fill: "var(--q2b-grey)" }),
      text(10, 346, "␣ is a space, ⏎ a line break, … cut short.", { "font-size": 11, fill: "var(--q2b-grey)" }));
    five.replaceChildren(...bars);
    five.setAttribute("aria-label", `The five likeliest tokens: ${cell.map(([t, s]) => `${visible(t)} ${percent(s)}`).join(", ")}`);
    result.textContent = `With ${block} of ${blocks - 1} blocks done, the model would say ` +
      `“${visible(cell[0][0])}” after “${visible(prompt.tokens[at])}” (${percent(cell[0][1])}). ` +
      `The final answer “${visible(answer)}” stands first from ${settled} blocks on. (${data.source})`;
  });
}
export default { render };
