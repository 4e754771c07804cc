// Brings the book's interactive figures to life with no kernel: each <div class="q2b-figure"> names a
// module and its state; the module is the same ES module that anywidget runs in JupyterLab. A classic
// script, so that it also works on pages opened from disk (file://).
(() => {
  const mount = async (place) => {
    const name = place.dataset.figure, source = (window.QWEN2_BOOK_FIGURES || {})[name];
    if (!source) throw new Error(`there is no figure module named ${name}`);
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const { default: figure } = await import(url);
    URL.revokeObjectURL(url);
    const state = JSON.parse(place.dataset.state || "{}"), listeners = {};
    const model = {
      get: (key) => state[key],
      set(key, value) {
        if (state[key] === value) return;
        state[key] = value;
        for (const f of [...(listeners[`change:${key}`] || []), ...(listeners.change || [])]) f();
      },
      on: (event, f) => (listeners[event] ||= []).push(f),
      off: (event, f) => { listeners[event] = (listeners[event] || []).filter((g) => g !== f); },
      save_changes() {},
      send() {},
    };
    const el = document.createElement("div");
    await figure.render({ model, el });
    place.replaceChildren(el);
    place.dataset.live = "1";
  };
  const start = () => document.querySelectorAll(".q2b-figure[data-figure]").forEach((place) =>
    mount(place).catch((error) => {  // the static picture stays
      console.error(`figure ${place.dataset.figure}:`, error);
      const line = document.createElement("p");
      line.textContent = "The interactive version of this figure could not start; this is its static picture.";
      place.append(line);
    }));
  // Folded solutions are printed unfolded.
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((d) => {
    d.open = true; d.dataset.opened = "1"; }));
  addEventListener("afterprint", () => document.querySelectorAll("details[data-opened]").forEach((d) => {
    d.open = false; delete d.dataset.opened; }));
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", start) : start();
})();
