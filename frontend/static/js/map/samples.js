// The points are samples: the image stands for a name, and the list's filters mark points.
import { $, $$, api, ask, h, url } from "../dom.js";

const SHOWN = 160; // characters of a caption beside the pointer
const images = new Map(); // row → its image, small
const option = (colour) => $$("#map-colour option").find((item) => item.value === colour) ?? $("#map-colour option");
const short = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

/** The small image of a sample, once it is loaded; null without one. */
function image(sample, whenLoaded) {
  const address = sample.images[0]?.url;
  if (!address) return null;
  if (!images.has(sample.row)) images.set(sample.row, Object.assign(new Image(), { onload: whenLoaded, alt: "", src: `${address}&size=96` }));
  const loadingImage = images.get(sample.row);
  return loadingImage.complete && loadingImage.naturalWidth ? loadingImage : null;
}

let order = new Uint8Array(0);

export const samples = {
  noun: "sample", pinned: "row", colour: "flags",
  refilters: true, // the area's list has only what is marked

  async fetch(rows) {
    return (await api("/samples", { rows: rows.join(",") })).items;
  },
  idOf: (sample) => sample.row,
  page: (i, sample) => sample && url("/sample", { id: sample.sample_id }),
  title: (sample) => (sample.images.length ? "" : sample.text.trim()),
  tip(i, sample, data, lost) {
    if (!sample) return [lost ? `row ${i}; its caption did not come` : "…"];
    const text = sample.text.length > SHOWN ? `${sample.text.slice(0, SHOWN)}…` : sample.text;
    const url = sample.images[0]?.url, { value } = $("#map-colour"), score = sample.scores[value];
    return [
      ...(url ? [h("img", { src: `${url}&size=256`, alt: "" })] : []), h("bdi", { dir: "auto" }, text), " ",
      h("small", {}, [score != null && `${value} ${short(score)}`, ...sample.flags].filter(Boolean).join(", ")),
    ];
  },
  image,
  /** No sample stands for others, so a fixed shuffle chooses. */
  rank({ n }) {
    if (order.length !== n) order = Uint8Array.from({ length: n }, (_, i) => Math.imul(i, 2654435761) >>> 24);
    return order;
  },

  state: (state) => ({ of: "samples", colour: state.colour === "flags" ? "" : state.colour }),
  column: (name, { version }) => url("/api/v1/map/samples/colours", { colour: name, v: version }),
  visible: () => () => true,
  drawing(colour) {
    const { title, dataset: { kind, low, high, order } } = option(colour);
    $("#map-about").textContent = title;
    for (const list of $$("a[data-sorted]")) {
      const to = new URL(list.href);
      to.searchParams.set("sort", order ? colour : "row");
      to.searchParams.set("order", order || "asc");
      list.href = to;
    }
    if (kind === "flag") return { legend: "flag", names: ["unjudged", null, "flagged"], levels: [0, 1, 2] };
    if (low === undefined) return { legend: "figure", figure: ["flags:", String, "none", 1] };
    const valueOf = (byte) => short(Number(low) + ((byte - 1) / 254) * (high - low));
    return { legend: "figure", figure: [colour, valueOf, "no value"] };
  },
  async marks(n) {
    const address = $("#found")?.dataset.marks;
    if (!address) return null;
    const marks = new Uint8Array(await (await ask(address)).arrayBuffer());
    if (marks.length !== n) throw new Error("The server's reply has another number of samples.");
    return marks;
  },
};
