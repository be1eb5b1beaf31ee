// Runs before the first paint, so that the wrong theme never flashes. A classic script, because modules run too late.
(() => {
  const root = document.documentElement;
  const read = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const chosen = read();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  root.classList.add("js");
  // The switches of app.js hold from page to page in one tab.
  try { root.classList.add(...["no-heat", "spotlight"].filter((name) => sessionStorage.getItem(name))); } catch { /* a private window */ }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a private window: the choice holds for this page */ }
  });
})();
