// Which tokens of a conversation are learned. `data` holds conversations as [id, text, role, kind,
// learned, loss in thousandths of a nat] a token; every switch below only changes which are learned.
const ROLES = ["system", "user", "assistant"], KINDS = ["control token", "header", "text", "line end"];

function render({ model, el }) {
  const data = model.get("data"), notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const visibly = (text) => text.replace(/\n/g, "⏎").replace(/ /g, "␣");
  const controls = make("div", {},
    choice(model, "preset", "conversation", data.presets.map((p, i) => [i, p.name])),
    make("div", { class: "q2b-controls" },
      choice(model, "everything", "learn", [[0, "answers"], [1, "everything"]]),
      choice(model, "newline", "line end too", [[0, "no"], [1, "yes"]]),
      choice(model, "late", "mask", [[0, "right"], [1, "one too late"]]),
      slider(model, "cut", "tokens that fit"), slider(model, "token", "look at token")));
  const drawing = picture(330, 200);
  drawing.style.maxHeight = "none";
  const result = make("p", { class: "q2b-result", "aria-live": "polite" }), cell = make("p", { class: "q2b-result", "data-cell": "" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")), drawing, result, cell));

  /** The tokens of this state: which are learned, which rightly are, which still fit. */
  function now() {
    const tokens = data.presets[inLimits(model, "preset")].tokens, cut = inLimits(model, "cut");
    const right = tokens.map((t) => t[4] === 1);
    let found = right;
    if (inLimits(model, "everything")) found = right.map(() => true);
    else if (inLimits(model, "newline")) found = right.map((own, at) => own || (at > 0 && right[at - 1]));
    if (inLimits(model, "late")) found = found.map((_, at) => at > 0 && found[at - 1]);
    const last = right.flatMap((own, at) => own && !right[at + 1] ? [at] : []);
    return { tokens, cut, right, last, learned: found.map((own, at) => own && at > 0 && at < cut) };
  }
  const mean = (tokens, which) => {
    const losses = tokens.filter((_, at) => which[at]).map((t) => t[5] / 1000);
    return losses.reduce((a, b) => a + b, 0) / losses.length;
  };
  const wide = (text) => Array.from(text).reduce((sum, char) => sum + (char > "\u2e7f" ? 13 : 7.6), 0);
  let width = 0;

  function draw() {
    const { tokens, cut, right, last, learned } = now(), at = Math.min(inLimits(model, "token"), tokens.length - 1);
    const total = el.clientWidth && el.clientWidth < 560 ? 330 : 660, nodes = [];
    width = total;
    const key = [["learned", "var(--q2b-blue)", 0.3, true, false], ["not learned", "var(--q2b-grey)", 0.12, false, false], ["a mistake", "var(--q2b-paper)", 0, false, true]];
    let x = 2, y = 4;
    for (const [name, fill, opacity, bar, odd] of key) {
      nodes.push(shape("rect", { x, y, width: 18, height: 16, rx: 3, fill, "fill-opacity": opacity, stroke: odd ? "var(--q2b-orange)" : "none", "stroke-width": 2, ...(odd ? { "stroke-dasharray": "4 2" } : {}) }),
        shape("text", { x: x + 23, y: y + 12, "font-size": 12, fill: "var(--q2b-ink)" }, name));
      if (bar) nodes.push(shape("rect", { x, y: y + 13, width: 18, height: 4, fill: "var(--q2b-blue)" }));
      x += wide(name) * 0.9 + 38;
    }
    y += 22;
    tokens.forEach(([, text, role, , , loss], number) => {
      if (number === 0 || text === "<|im_start|>") {
        y += number ? 54 : 16;
        nodes.push(shape("text", { x: 2, y: y - 3, "font-size": 11, "font-weight": 700, fill: "var(--q2b-grey)" }, ROLES[role]));
        x = 2;
      }
      const own = learned[number], gone = number >= cut, odd = own !== right[number] && !gone;
      const below = gone ? "cut" : own ? (loss / 1000).toFixed(2) : "–";
      const box = Math.max(wide(visibly(text)), wide(below) * 0.8, 14) + 8;
      if (x + box > total - 2 && x > 30) { x = 22; y += 46; }
      const group = shape("g", { "data-token": number, style: "cursor:pointer" });
      group.append(shape("rect", { x: x.toFixed(1), y, width: box.toFixed(1), height: 36, rx: 4, fill: own ? "var(--q2b-blue)" : "var(--q2b-grey)", "fill-opacity": own ? 0.3 : gone ? 0 : 0.12,
        stroke: number === at ? "var(--q2b-ink)" : odd ? "var(--q2b-orange)" : gone ? "var(--q2b-grey)" : "none", "stroke-width": number === at ? 3 : odd ? 2.2 : 1,
        ...(number !== at && (odd || gone) ? { "stroke-dasharray": odd ? "5 3" : "1 3" } : {}) }),
      shape("text", { x: (x + box / 2).toFixed(1), y: y + 15, "font-size": 12.5, "text-anchor": "middle", fill: gone ? "var(--q2b-grey)" : "var(--q2b-ink)", style: "font-family: ui-monospace, monospace", ...(own ? { "font-weight": 700 } : {}) }, visibly(text)),
      shape("text", { x: (x + box / 2).toFixed(1), y: y + 29, "font-size": 10.5, "text-anchor": "middle", fill: "var(--q2b-ink)" }, below));
      if (own) group.append(shape("rect", { x: x.toFixed(1), y: y + 33, width: box.toFixed(1), height: 4, fill: "var(--q2b-blue)" }));
      nodes.push(group);
      x += box + 4;
    });
    drawing.setAttribute("viewBox", `0 0 ${total} ${y + 44}`);
    drawing.replaceChildren(...nodes);

    const count = learned.filter(Boolean).length, done = last.filter((k) => learned[k]).length;
    const all = tokens.map((_, k) => k > 0 && k < cut), firsts = right.flatMap((own, k) => own && !right[k - 1] && k < cut && !learned[k] ? [k] : []);
    drawing.setAttribute("aria-label", `${tokens.length} boxes, one a token, a row for each turn; ${count} are learned`);
    result.textContent = `${count} of ${tokens.length} tokens are learned${tokens.length > cut ? ` and ${tokens.length - cut} cut off` : ""}; ` +
      `${done} of ${last.length} answers to the end. ` +
      (count ? `Their mean loss is ${mean(tokens, learned).toFixed(2)} nats; over everything that fits it would be ${mean(tokens, all).toFixed(2)}.` : "Nothing is left to learn: a mean over no tokens.") +
      (firsts.length ? ` The first word of ${firsts.length === 1 ? "an answer" : `${firsts.length} answers`} is not learned.` : "");
    const [id, text, role, kind, , loss] = tokens[at];
    cell.textContent = `Token ${at}: “${visibly(text)}”, id ${id}, ${KINDS[kind]} of ${ROLES[role]}, ` +
      (at >= cut ? "cut off." : at === 0 ? "which nothing comes before, so that it is never learned." :
        `${learned[at] ? "learned" : "read, not learned"}: from the ${at === 1 ? "token" : `${at} tokens`} before it the model gives it ${(100 * Math.exp(-loss / 1000)).toFixed(1)}%.`);
  }
  drawing.addEventListener("pointerdown", (event) => {
    const group = event.target.closest?.("[data-token]");
    if (group) { model.set("token", Number(group.dataset.token)); model.save_changes(); }
  });
  redraw(model, ["preset", "everything", "newline", "late", "cut", "token"], draw);
  if (window.ResizeObserver) new ResizeObserver(() => {
    if (el.clientWidth && (el.clientWidth < 560 ? 330 : 660) !== width) draw();
  }).observe(el);
}
export default { render };
