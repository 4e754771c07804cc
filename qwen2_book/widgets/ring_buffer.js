// A ring of W cache slots during generation: token t is written into slot t mod W.
function render({ model, el }) {
  const notes = [model.get("note")].filter(Boolean);
  for (const key of Object.keys(model.get("limits"))) {
    const kept = inLimits(model, key, notes);
    if (kept !== model.get(key)) model.set(key, kept);
  }
  const play = make("button", { type: "button", class: "q2b-button" }, "Play");
  const controls = make("div", { class: "q2b-controls" },
    slider(model, "token", "newest token"), slider(model, "window", "window"), play);
  const line = picture(330, 250), ring = picture(330, 250);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" });
  el.append(make("div", { class: "q2b" }, controls,
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, line, ring), result));
  const text = (x, y, words, more = {}) =>
    shape("text", { x, y, "font-size": 12, fill: "var(--q2b-ink)", "text-anchor": "middle", ...more }, words);
  const shade = (age, window) => (1 - 0.75 * age / window).toFixed(3);
  const [, last] = model.get("limits").token;

  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (!el.isConnected || inLimits(model, "token") >= last) return stop();
      model.set("token", inLimits(model, "token") + 1);
      model.save_changes();
    }, 700);
    if (inLimits(model, "token") >= last) { model.set("token", 0); model.save_changes(); }
  });

  redraw(model, ["token", "window"], () => {
    const token = inLimits(model, "token"), window = inLimits(model, "window");
    const cells = [text(165, 14, "the text: what the newest token sees", { "font-weight": 600 })];
    for (let t = 0; t <= last; t++) {  // eight to a row
      const x = 5 + (t % 8) * 40, y = 24 + Math.floor(t / 8) * 28, age = token - t, seen = age >= 0 && age < window;
      cells.push(shape("rect", { x, y, width: 36, height: 24, rx: 3, fill: seen ? "var(--q2b-blue)" : "var(--q2b-grey)",
          "fill-opacity": seen ? shade(age, window) : age >= 0 ? 0.25 : 0.06,
          stroke: age ? "none" : "var(--q2b-orange)", "stroke-width": 3 }),
        text(x + 18, y + 16, t, age > 0 && !seen ? { fill: "var(--q2b-grey)", "text-decoration": "line-through" } :
          seen && age < window / 2 ? { fill: "var(--q2b-paper)" } : age < 0 ? { fill: "var(--q2b-grey)" } : {}));
    }
    line.replaceChildren(...cells);
    line.setAttribute("aria-label", `Token ${token} sees tokens ${Math.max(0, token - window + 1)} to ${token}`);

    const slots = [text(165, 14, "the cache: one place for each", { "font-weight": 600 })], held = [];
    for (let slot = 0; slot < window; slot++) {
      const position = token - ((token - slot) % window + window) % window;  // the newest one of this slot
      held.push(position);
      const a = (slot / window) * 2 * Math.PI, b = ((slot + 1) / window) * 2 * Math.PI, mid = (a + b) / 2;
      const on = (radius, angle) => `${(165 + radius * Math.sin(angle)).toFixed(1)} ${(134 - radius * Math.cos(angle)).toFixed(1)}`;
      const large = b - a > Math.PI ? 1 : 0, end = window === 1 ? b - 0.001 : b;
      const empty = position < 0, age = token - position, place = (radius) => on(radius, mid).split(" ").map(Number);
      const [x, y] = place(83), [u, v] = place(44);
      slots.push(shape("path", { d: `M${on(108, a)}A108 108 0 ${large} 1 ${on(108, end)}L${on(58, end)}A58 58 0 ${large} 0 ${on(58, a)}Z`,
          fill: empty ? "var(--q2b-grey)" : "var(--q2b-blue)", "fill-opacity": empty ? 0.08 : shade(age, window),
          stroke: age || empty ? "var(--q2b-paper)" : "var(--q2b-orange)", "stroke-width": age || empty ? 1.5 : 3 }),
        text(x, y + 4, empty ? "–" : position, !empty && age < window / 2 ? { fill: "var(--q2b-paper)" } : {}),
        text(u, v + 4, slot, { "font-size": 9, fill: "var(--q2b-grey)" }));
    }
    slots.push(text(165, 131, `${token} mod ${window}`), text(165, 147, `= slot ${token % window}`, { "font-weight": 600, fill: "var(--q2b-orange)" }));
    ring.replaceChildren(...slots);
    ring.setAttribute("aria-label", `Ring of ${window} slots; token ${token} is in slot ${token % window}`);
    const gone = token - window;
    result.textContent = `Token ${token} goes into slot ${token % window}` +
      (gone >= 0 ? ` and takes the place of token ${gone}, the first that no query can see any more.` : ", which was empty.") +
      ` Slots hold ${held.map((p) => (p < 0 ? "–" : p)).join(", ")}.`;
  });
}
export default { render };
