// Byte-pair merging on the reader's own text, one merge a step, with the real ranks. `data.table` is
// deflated varints in base 85: gaps between the kept ranks, then left and right parts of each merge.
const SAFE = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).filter((c) => !"\"&'<>\\".includes(c));
const WORDS = new RegExp("'(?:[sSſ]|[tTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" +
  "| ?[^S\\p{L}\\p{N}]+[\\r\\n]*|[S]*[\\r\\n]+|[S]+(?![^S])|[S]+".replaceAll("S", "\\p{White_Space}"), "gu");
const CODE = /[a-z][A-Z]|[A-Z]{3}|[!-/:-@[-`{-~][A-Za-z]|[A-Za-z][!-/:-@[-`{-~]/;  // what the table leaves out
const KEY = 2 ** 18, WIDE = 330, HIGH = 280;

async function readTable(text) {
  const at = Object.fromEntries(SAFE.map((c, i) => [c, i])), packed = new DataView(new ArrayBuffer(text.length / 5 * 4));
  for (let i = 0; i < text.length; i += 5) {
    let group = 0;
    for (let j = 0; j < 5; j++) group = group * 85 + at[text[i + j]];
    packed.setUint32(i / 5 * 4, group);
  }
  // A deflated stream is followed by zeros here, which DecompressionStream calls an error at its end.
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const numbers = [];
  let number = 0, unit = 1;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read())
      for (const byte of part.value) {
        number += (byte & 127) * unit;
        unit *= 128;
        if (byte < 128) { numbers.push(number); number = 0; unit = 1; }
      }
  } catch (error) { if (numbers.length % 3) throw error; }
  return numbers;
}

/** tokens: id -> bytes, one character a byte; merges: left * KEY + right -> id of the whole. */
async function vocabulary(data) {
  const shown = (b) => (b > 32 && b < 127) || (b > 160 && b !== 173), bytes = [...Array(256).keys()];
  const order = [...bytes.filter(shown), ...bytes.filter((b) => !shown(b))];
  const tokens = new Map(order.map((byte, id) => [id, String.fromCharCode(byte)]));
  const numbers = await readTable(data.table), ids = [...bytes], merges = new Map(), count = numbers.length / 3;
  for (let i = 0, rank = -1; i < count; i++) {
    rank += numbers[i] + 1;
    const [left, right] = [ids[numbers[count + i]], ids[numbers[2 * count + i]]], id = 256 + rank;
    ids.push(id);
    tokens.set(id, tokens.get(left) + tokens.get(right));
    merges.set(left * KEY + right, id);
  }
  return { tokens, merges, idOfByte: Object.fromEntries(order.map((byte, id) => [byte, id])) };
}

/** Every state of one piece, from its bytes to its last tokens: {ids, at: where the next merge is}. */
function states(ids, { merges }) {
  const found = [];
  for (;;) {
    let at = -1, best = Infinity;
    for (let i = 0; i + 1 < ids.length; i++) {
      const made = merges.get(ids[i] * KEY + ids[i + 1]);
      if (made < best) [best, at] = [made, i];
    }
    found.push({ ids, at, made: best });
    if (at < 0) return found;
    ids = [...ids.slice(0, at), best, ...ids.slice(at + 2)];
  }
}

/** A token as text where its bytes are whole characters, else its bytes in hexadecimal. */
function label(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0)));
    return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/[\x00-\x1f]/g, "·");
  } catch { return [...bytes].map((c) => c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")).join(" "); }
}
const room = (text) => [...text].reduce((sum, c) => sum + (c > "\u2e80" ? 12 : /[\x20-\x7e]/.test(c) ? 6.6 : 8), 8);

async function render({ model, el }) {
  const data = model.get("data"), table = await vocabulary(data), notes = [model.get("note")].filter(Boolean);
  const kept = inLimits(model, "step", notes);
  if (kept !== model.get("step")) model.set("step", kept);
  const input = make("input", { type: "text", maxlength: 120, "data-key": "text", class: "q2b-text", dir: "auto", ...OWN_KEYS });
  input.value = model.get("text");
  const button = (name) => make("button", { type: "button", class: "q2b-button", "data-do": name.toLowerCase() }, name);
  const [back, next, play, reset] = ["Back", "Step", "Play", "Reset"].map(button);
  const steps = slider(model, "step", "merges done"), pieces = picture(WIDE, HIGH), work = picture(WIDE, HIGH);
  const result = make("p", { class: "q2b-result", "aria-live": "polite" }), source = make("p", {});
  el.append(make("div", { class: "q2b" },
    make("label", { class: "q2b-control" }, make("span", {}, "your text"), input),
    make("div", { class: "q2b-controls" }, steps, make("div", { class: "q2b-buttons" }, back, next, play, reset)),
    make("p", { class: "q2b-note", role: "status" }, notes.join("; ")),
    make("div", { class: "q2b-pictures" }, pieces, work), result, source));
  source.textContent = `The ${data.kept.toLocaleString("en")} most useful of ${data.merges.toLocaleString("en")} merges of ` +
    `${data.source}; rare ones of program text are left out, and the figure says where one of them may be missing.`;

  let plan = [], total = 0, of = null;
  const read = () => {
    const text = String(model.get("text")).slice(0, 120).normalize("NFC");
    if (text === of) return;
    of = text;
    plan = (text.match(WORDS) || []).map((word) => {
      const bytes = [...new TextEncoder().encode(word)];
      return { word, bytes, states: states(bytes.map((b) => table.idOfByte[b]), table) };
    });
    total = plan.reduce((sum, piece) => sum + piece.states.length - 1, 0);
    steps.querySelector("input").max = Math.max(total, 1);
  };
  const go = (step) => { model.set("step", Math.max(0, Math.min(total, step))); model.save_changes(); };
  const now = () => Math.min(inLimits(model, "step"), total);
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  back.addEventListener("click", () => { stop(); go(now() - 1); });
  next.addEventListener("click", () => { stop(); go(now() + 1); });
  reset.addEventListener("click", () => { stop(); go(0); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    if (now() >= total) go(0);
    timer = setInterval(() => (!el.isConnected || now() >= total ? stop() : go(now() + 1)), 800);
  });
  input.addEventListener("input", () => { stop(); model.set("step", 0); model.set("text", input.value); model.save_changes(); });
  model.on("change:text", () => {
    if (input.value !== model.get("text")) input.value = model.get("text");
    read();  // at once, not with the next frame: the End key goes to the end of this text
  });

  const text = (x, y, words, more = {}) => shape("text", { x, y, "font-size": 11, fill: "var(--q2b-ink)", ...more }, words);
  const name = (id) => label(table.tokens.get(id));

  /** Boxes of tokens from left to right, in lines; returns where the next one would stand. */
  function boxes(nodes, ids, x, y, { pair = -1, fresh = -1, under, colour = "var(--q2b-blue)" }) {
    let before = "";  // a label between two boxes needs half of its room in each
    ids.forEach((id, i) => {
      const words = name(id), below = under(id, i), signs = under.between ? (below.length + before.length) / 2 : below.length;
      const wide = Math.min(WIDE - 12, Math.max(room(words), signs * 5.2 + 4));
      before = below;
      if (x + wide > WIDE - 4) { x = 6; y += 40; }
      const hot = i === pair || i === pair + 1, squeeze = room(words) > wide ? { textLength: wide - 6, lengthAdjust: "spacingAndGlyphs" } : {};
      if (y < HIGH - 22) nodes.push(
        shape("rect", { x: x.toFixed(1), y, width: wide.toFixed(1), height: 20, rx: 3, fill: i === fresh ? "var(--q2b-orange)" : colour,
          "fill-opacity": i === fresh ? 0.3 : 0.16, stroke: pair >= 0 && hot ? "var(--q2b-orange)" : "none", "stroke-width": 2 }),
        text((x + wide / 2).toFixed(1), y + 14, words, { "text-anchor": "middle", ...squeeze }),
        text((x + (under.between ? wide + 1.5 : wide / 2)).toFixed(1), y + 30, below, { "text-anchor": "middle", "font-size": 8.5,
          ...(under.between && i === pair ? { fill: "var(--q2b-orange)", "font-weight": 700 } : {}) }));
      x += wide + 3;
    });
    return [x, y];
  }

  redraw(model, ["text", "step"], () => {
    read();
    const step = now();
    if (step < inLimits(model, "step")) model.set("step", step);
    let left = step, current = 0;
    while (current + 1 < plan.length && left >= plan[current].states.length - 1) left -= plan[current++].states.length - 1;
    const inside = plan.map((piece, i) => piece.states[i < current ? piece.states.length - 1 : i > current ? 0 : left]);
    const nodes = [text(6, 12, `the text: ${plan.length} pieces, ids below`, { "font-weight": 600 })];
    let x = 6, y = 24;
    plan.forEach((piece, i) => {
      const under = (id) => String(id);
      [x, y] = boxes(nodes, inside[i].ids, x, y, { under, colour: i === current ? "var(--q2b-orange)" : i % 2 ? "var(--q2b-teal)" : "var(--q2b-blue)" });
      x += 8;
    });
    pieces.replaceChildren(...nodes);
    const all = inside.flatMap((state) => state.ids), bytes = plan.reduce((sum, piece) => sum + piece.bytes.length, 0);
    pieces.setAttribute("aria-label", `${plan.length} pieces, now ${all.length} tokens with ids ${all.join(", ")}`);

    const piece = plan[current], rows = [];
    let said = "Type a text.";
    if (piece) {
      rows.push(text(6, 12, `piece ${current + 1}, ${piece.bytes.length} bytes: all its pairs, by rank`, { "font-weight": 600 }));
      let line = 24;
      for (let k = Math.max(0, left - 4); k <= left && line < HIGH - 30; k++) {
        const { ids, at } = piece.states[k];
        const under = (id, i) => {
          const made = i + 1 < ids.length ? table.merges.get(id * KEY + ids[i + 1]) : undefined;
          return i + 1 < ids.length ? (made === undefined ? "–" : (made - 256).toLocaleString("en")) : "";
        };
        under.between = true;
        [, line] = boxes(rows, ids, 6, line, { pair: at < 0 ? -2 : at, fresh: k ? piece.states[k - 1].at : -1, under });
        line += 42;
      }
      const state = piece.states[left], from = piece.states[left - 1];
      const done = from ? `“${name(from.ids[from.at])}” + “${name(from.ids[from.at + 1])}” (rank ${(from.made - 256).toLocaleString("en")}) ` +
        `makes “${name(from.made)}”, id ${from.made}. ` : `Piece ${current + 1} of ${plan.length}, as bytes. `;
      const unsure = plan.filter((p) => { const { ids } = p.states.at(-1); return ids.some((id, i) => i && CODE.test(table.tokens.get(ids[i - 1]) + table.tokens.get(id))); });
      said = `Step ${step} of ${total}: ${done}` + (step < total ? `${all.length} tokens now.` : `Done: ${bytes} bytes are ${all.length} tokens, ids ${all.join(", ")}.`) +
        (unsure.length ? ` The table may lack a merge for: ${unsure.map((p) => label([...p.bytes].map((b) => String.fromCharCode(b)).join(""))).join(" ")}.` : "");
      work.setAttribute("aria-label", `Piece ${current + 1}: ${state.ids.map(name).join(" | ")}` + (state.at < 0 ? ", no pair is left that is a merge" : ""));
    }
    work.replaceChildren(...rows);
    result.textContent = said;
    for (const [node, off] of [[back, step <= 0], [next, step >= total]]) node.setAttribute("aria-disabled", off);
  });
}
export default { render };
