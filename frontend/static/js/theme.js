// Runs before the first paint, so that the wrong theme never flashes. A classic script, because modules run too late.
(() => {
  const root = document.documentElement;
  const SIGNS = { system: "◐", light: "☀", dark: "☾" };
  const read = () => { try { return localStorage.getItem("theme"); } catch { return root.dataset.theme; } };

  /** Light and dark are set on the root; with "system" the page follows the device. */
  function show(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.textContent = SIGNS[root.dataset.theme ?? "system"];
      button.title = `Colours: ${root.dataset.theme ?? "as the system"}. Next: ${after()}`;
      button.setAttribute("aria-label", button.title);
    }
  }

  /** First the theme that the device does not have, then the one it has, then "system" again. */
  function after() {
    const device = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const other = device === "dark" ? "light" : "dark";
    return { [other]: device, [device]: "system" }[root.dataset.theme] ?? other;
  }

  show(read());
  root.classList.add("js");
  // The switch of dom.js's flip holds from page to page in one tab.
  try { if (sessionStorage.getItem("no-heat")) root.classList.add("no-heat"); } catch { /* a private window */ }
  document.addEventListener("DOMContentLoaded", () => show(root.dataset.theme));
  addEventListener("storage", (event) => { if (event.key === "theme" || event.key === null) show(read()); });
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    show(after());
    try { localStorage.setItem("theme", root.dataset.theme ?? "system"); } catch { /* a private window: the choice holds for this page */ }
  });
})();
