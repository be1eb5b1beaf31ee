// What the points are: features, or samples. All else of the map is the same for both.
import { canvas } from "./canvas.js";
import { features } from "./features.js";
import { samples } from "./samples.js";

export const kind = canvas.dataset.of === "samples" ? samples : features;
