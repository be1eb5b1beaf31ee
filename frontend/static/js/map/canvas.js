// The map's canvas, whose attributes say what the server knows.
import { $ } from "../dom.js";

export const canvas = $("#map");
/** Folder of the map's files in an exported site, where no server answers; otherwise undefined. */
export const FILES = canvas.dataset.files;
