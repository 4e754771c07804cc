// What every figure of the book is made of. It stands in front of each figure's own module, so that
// a figure is ONE ES module for two hosts: anywidget in JupyterLab, site/host.js on the web page.
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text is set as text, never as HTML. */
function make(tag, attributes = {}, ...children) {
  const node = attributes.xmlns === SVG ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (name !== "xmlns") node.setAttribute(name, value);
  node.append(...children.map(String).map((text, i) => (children[i] instanceof Node ? children[i] : text)));
  return node;
}
const shape = (tag, attributes, ...children) => make(tag, { xmlns: SVG, ...attributes }, ...children);

// JupyterLab's own shortcuts (arrow keys fold headings) leave the keys to an element that says this.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

/** The state's value of a key, inside its limits; says so in `notes` where it had to be moved. */
function inLimits(model, key, notes = []) {
  const [low, high] = model.get("limits")[key], value = Number(model.get(key));
  const kept = Number.isFinite(value) ? Math.min(high, Math.max(low, Math.round(value))) : low;
  if (kept !== value) notes.push(`${key} ${model.get(key)} is outside ${low} to ${high}: showing ${kept}`);
  return kept;
}

/** A labelled slider bound to an integer of the state. Arrow keys move it by one, Page keys by more. */
function slider(model, key, label, show = String) {
  const [low, high] = model.get("limits")[key];
  const input = make("input", { type: "range", min: low, max: high, step: 1, "data-key": key, ...OWN_KEYS });
  const value = make("output", {});
  const follow = () => {
    input.value = inLimits(model, key);
    value.textContent = show(Number(input.value));
    input.setAttribute("aria-valuetext", value.textContent);
  };
  input.addEventListener("input", () => { model.set(key, Number(input.value)); model.save_changes(); });
  model.on(`change:${key}`, follow);
  follow();
  return make("label", { class: "q2b-control" }, make("span", {}, label), input, value);
}

/** Two or more named choices of a value of the state, as radio buttons. */
function choice(model, key, label, options) {
  const group = make("fieldset", { class: "q2b-control" }, make("legend", {}, label));
  const name = `q2b-${key}-${Math.random().toString(36).slice(2)}`;
  for (const [value, text] of options) {
    const input = make("input", { type: "radio", name, value, "data-key": key, ...OWN_KEYS });
    const follow = () => { input.checked = model.get(key) === value; };
    input.addEventListener("change", () => { model.set(key, value); model.save_changes(); });
    model.on(`change:${key}`, follow);
    follow();
    group.append(make("label", {}, input, text));
  }
  return group;
}

/** A drawing that scales to its place; `label` is what a screen reader says. */
function picture(width, height) {
  return shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "q2b-picture" });
}

/** Draw now, and again whenever one of the keys changes, at most once a frame. */
function redraw(model, keys, draw) {
  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
  keys.forEach((key) => model.on(`change:${key}`, later));
  draw();
}

/** The bytes that Python's head_data.pack was given. */
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}
