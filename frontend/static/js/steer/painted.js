// The image on which patches are chosen. Few runs need it, so that it is loaded when patches are.
import { html, useLayoutEffect, useRef } from "../../vendor/htm/preact/standalone.module.js";
import { wirePaint } from "../paint.js";

/** The image, over which patches are chosen with the pointer or the keys. */
export function Painted({ src, grid, mask, change }) {
  const frame = useRef(null);
  const field = useRef(null);
  useLayoutEffect(() => { wirePaint(frame.current, grid.views, field.current, () => change(field.current.value)); }, []);
  const box = `0 0 ${grid.width} ${grid.height}`;
  const draw = (name) => html`<svg class=${`heat ${name}`} viewBox=${box} preserveAspectRatio="xMidYMid slice" aria-hidden="true"></svg>`;
  return html`<div class="pic steer-pic" data-image="0" ref=${frame}><img src=${src} alt="Image that the model reads" />${draw("painted")}${draw("marks")}
    <div class="pad" tabindex="0" role="application" aria-label="Patches: arrow keys move, space chooses a patch to steer" data-own-keys data-testid="steer-pad"></div><input type="hidden" value=${mask} ref=${field} /></div>`;
}
