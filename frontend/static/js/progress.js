// While the model is asked for a part of the page: for how long, what it has to do, and a button that ends it.
import { stopSwap } from "./app.js";
import { $$, api, h } from "./dom.js";

const DELAY_MS = 400; // an answer that comes sooner needs no line, which would only flicker
const LOOK_S = 3; // between two looks at the model's queue

/**
 * @param {string} id of the part @param {string} activity such as "The model is asked"
 * @param {string} stopNote what to say once it was stopped. Leaving the page ends it too, as the server sees the request go.
 */
export function showProgress(id, activity, stopNote) {
  let timer, clock;
  const clear = (others = "") => {
    clearTimeout(timer);
    clearInterval(clock);
    for (const line of $$(`[data-progress="${id}"]${others}`)) line.remove();
  };
  const on = (name, act) => document.addEventListener(name, ({ target }) => { if (target.id === id) act(target); });

  on("busy", () => {
    clear(`, [data-stopped="${id}"]`);
    timer = setTimeout(show, DELAY_MS);
  });
  on("idle", () => clear());
  on("stopped", (part) => part.before(h("p", { class: "note section-tight", role: "status", "data-stopped": id, "data-testid": `${id}-stopped` }, stopNote)));

  function show() {
    const seconds = h("span", { "aria-hidden": "true", "data-testid": `${id}-seconds` });
    const queue = h("span", { class: "small soft", role: "status", "data-testid": `${id}-queue` });
    const stop = h("button", { type: "button", "data-testid": `${id}-stop`, onclick: () => stopSwap(id) }, "Stop the model");
    document.getElementById(id)?.before(h("p", { class: "row section-tight", "data-progress": id },
      h("span", { class: "small soft" }, h("span", { role: "status" }, `${activity} …`), " ", seconds), stop, queue));
    let elapsed = 0, looking = false;
    clock = setInterval(async () => {
      seconds.textContent = `${++elapsed} s`;
      if (elapsed % LOOK_S || looking) return; // a server that is slow to answer is not asked again meanwhile
      looking = true;
      let text = "";
      try {
        const { waiting } = await api("/live");
        if (waiting > 1) text = `The model has ${waiting} requests and answers them one by one.`;
      } catch { text = "The server does not answer. Is it still running?"; }
      looking = false;
      if (queue.textContent !== text) queue.textContent = text; // a screen reader says it once
    }, 1000);
  }
}
