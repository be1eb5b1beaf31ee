// The matrix of families: arrow keys go from cell to cell.
import { followArrows } from "./arrow_keys.js";
import "./sideways.js";

followArrows(".cells a", (cell) => ["x", "y"].map((name) => Number(cell.querySelector("rect").getAttribute(name))), 4);
