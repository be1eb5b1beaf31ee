// The fact sheet of a feature: print it, or save it as a PNG. The browser draws the SVG, because it has the fonts.
import { $, h, say } from "./dom.js";

const SCALE = 2;

$("[data-print]").addEventListener("click", () => print());
$("[data-png]").addEventListener("click", async ({ currentTarget: button }) => {
  const image = new Image();
  image.src = button.dataset.png;
  try {
    await image.decode();
  } catch {
    $("[data-note]").textContent = "The fact sheet could not be drawn. Is the server still running?";
    return;
  }
  const canvas = h("canvas", { width: SCALE * image.naturalWidth, height: SCALE * image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  h("a", { href: canvas.toDataURL("image/png"), download: button.dataset.name }).click();
  say("Saved as PNG");
});
