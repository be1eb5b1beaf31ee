// The image that the model reads: of a sample, or one's own; and the patches of it to which steering is narrowed.
import { html, useEffect, useState } from "../../vendor/htm/preact/standalone.module.js";
import { api, errorMessage, url } from "../dom.js";
import { upload } from "../live.js";
import { parse } from "../patches.js";

/** Size and views of the image, as {width, height, views}; of one's own image only the model knows them. */
async function gridOf(state) {
  if (state.image) {
    const { views } = await api("/search/live", { image: state.image.hash, limit: 1 });
    return { ...state.image, views };
  }
  const { images, views } = await api("/sample", { id: state.sample, top: 1 });
  return images.length ? { ...images[0], views } : null;
}

/** Whether all patches are steered or only chosen ones. */
function Patches({ state, set, painting, setPainting }) {
  const n = parse(state.mask).size;
  if (!state.scope.includes("image")) return null;
  return html`<p class="row small">${painting
    ? html`<span class="grow" role="status" data-testid="steer-patches">${n ? `Steers at ${n} ${n === 1 ? "patch" : "patches"} of the image.` : "Drag over the image, or move with the arrow keys and choose with space. Until then all patches are steered."}</span>
      <button type="button" class="quiet" onClick=${() => { setPainting(false); set({ mask: "" }); }} data-testid="steer-all-patches">All patches</button>`
    : html`<button type="button" class="quiet" onClick=${() => setPainting(true)} data-testid="steer-paint">Choose patches to steer</button>`}</p>`;
}

export function ImageInput({ state, set, live, note: first }) {
  const [note, setNote] = useState(first ?? "");
  const [grid, setGrid] = useState(null);
  const [painting, setPainting] = useState(Boolean(state.mask));
  const [painter, setPainter] = useState(null);
  useEffect(() => { if (painting && !painter) import("./painted.js").then(setPainter); }, [painting]);
  useEffect(() => {
    setGrid(null);
    if (!state.sample && !(state.image && painting)) return undefined;
    let isCurrent = true;
    setNote("");
    gridOf(state).then((grid) => { if (!isCurrent) return; setGrid(grid); if (!grid) setNote("This sample has no image: the model reads the prompt alone."); })
      .catch(async (error) => { // words of a caption?
        const hit = (await api("/samples", { q: state.sample, limit: 1 }).catch(() => null))?.items[0];
        if (isCurrent) hit ? set({ sample: hit.sample_id }) : setNote(errorMessage(error));
      });
    return () => { isCurrent = false; };
  }, [state.sample, state.image, painting]);
  const choose = (part) => { setPainting(false); set({ mask: "", ...part }); };
  const pick = async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    try { choose({ image: await upload(file), sample: "" }); setNote(""); } catch (error) { setNote(errorMessage(error)); }
  };
  const src = state.image?.url ?? (state.sample && !note ? url("/api/v1/sample/image", { id: state.sample }) : null);
  return html`
    ${src && (painting && painter && grid && state.scope.includes("image") ? html`<${painter.Painted} key=${src} src=${src} grid=${grid} mask=${state.mask} change=${(mask) => set({ mask })} />`
    : html`<div class="pic steer-pic"><img src=${src} alt="Image that the model reads" /></div>`)}
    ${src && html`<${Patches} state=${state} set=${set} painting=${painting} setPainting=${setPainting} />`}
    ${(state.image || state.sample) && html`<button type="button" class="quiet" onClick=${() => { setNote(""); choose({ image: null, sample: "" }); }} data-testid="steer-no-image">× Remove the image</button>`}
    ${note && html`<p class="note warn-note" role="status" data-testid="steer-note">${note}</p>`}
    <div class="row steer-input"><label class="field grow">Sample<input value=${state.sample ?? ""} onChange=${(e) => choose({ image: null, sample: e.target.value })} placeholder=${state.image ? "your own image" : "id, or words of its caption"} data-testid="steer-sample" /></label>
      <label class="field grow">or your own image<input type="file" accept="image/*" onChange=${pick} disabled=${!live} data-testid="steer-image" /></label></div>`;
}
