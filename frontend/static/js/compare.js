// The charts of matched features: arrow keys go from point to point.
import { followArrows } from "./arrow_keys.js";

followArrows(".matched-chart a", (point) => [Number(point.dataset.x), Number(point.dataset.y)], 2);
