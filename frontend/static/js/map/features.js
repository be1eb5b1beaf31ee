// The points are features: how they are named, opened, hidden and coloured.
import { $, api, h, nameOf, url } from "../dom.js";
import { FILES, canvas } from "./canvas.js";

const VERDICTS = canvas.dataset.verdicts?.split(",") ?? [];
const DRAWING_ORDER = ["rare", "image-only", "text-only", "mostly-image", "mostly-text", "unpaired", "weakly-paired", "in-context", "cross-modal"]; // later ones are on top
const FAMILY = ["cross-modal", "text-only", "image-only", "in-context", "weakly-paired", "mostly-text", "mostly-image", "unpaired"]; // eight colours that differ
const PLACE = ["cross-modal", "text-only", "image-only"]; // patch, row, column
const omegaOf = (byte) => ((byte - 128) / 127).toFixed(2).replace("-", "−");
const shareOf = (byte) => ((byte - 1) / 254).toFixed(2);
const percentOf = (byte) => `${Math.round((100 * (byte - 1)) / 254)} %`;
const densityOf = (byte) => `${Number((100 * 10 ** (6 * ((byte - 1) / 254 - 1))).toPrecision(2))} %`;
const FIGURES = { // name, value as text, text for none
  omega: ["ω", omegaOf, "no ω"],
  density: ["density", densityOf, "none"],
  agreement: ["agreement", shareOf, "no agreement"],
  label_score: ["name score", shareOf, "no score"],
  sample: ["share of p99.9", percentOf, "not in this sample"],
};
const ORDER = VERDICTS.map((name) => Math.max(0, DRAWING_ORDER.indexOf(name)));

export const features = {
  noun: "feature", pinned: "feature", colour: "verdict",

  /** Names of up to 200 features. */
  async fetch(ids) {
    return FILES ? (await fetch(`${FILES}labels.json`)).json() : (await api("/features", { ids: ids.join(","), limit: ids.length })).items;
  },
  idOf: (label) => label.id,
  /** Its address; null where it has none, as most features of an exported site. */
  page: (i, label) => (FILES ? label && `features/${i}.html` : url(`/features/${i}`)),
  /** What stands on the map for a feature, and beside the pointer. */
  title: (label) => (label.label ? nameOf(label).text : ""),
  tip(i, label, data, lost) {
    const omega = data.omega[i] ? `, ω ${omegaOf(data.omega[i])}` : "";
    return [
      h("strong", {}, label ? nameOf(label).text : !lost && !FILES && "…"), ` #${i} `,
      h("small", {}, `${VERDICTS[data.verdict[i]]}${omega}${lost && !FILES ? "; its name did not come" : ""}`),
    ];
  },
  image: () => null, // that stands on the map for it
  /** By which the point of each tile that is named is chosen; a site has few names. */
  rank: (data, labels) => (FILES ? data.omega.map((omega, i) => (labels.get(i)?.label ? omega + 1 : 0)) : data.omega),

  /** The parameters of the address that are not of every map. */
  state: (state) => ({
    layout: state.layout === "decoder" ? "" : state.layout, colour: state.colour === "verdict" ? "" : state.colour,
    sample: state.sample, hide: [...state.hide].join(","),
  }),
  column: (name, { sample, version }) => (FILES ? `${FILES}${name}.bin` : url("/api/v1/map/colours", { by: name, sample: name === "sample" ? sample : "", v: version })),

  /** Which points are shown. */
  visible(data, hide) {
    const isShown = VERDICTS.map((name) => !hide.has(name));
    return (i) => isShown[data.verdict[i]];
  },
  /** How a colour is drawn: a ramp with its words, or one of `names` for each value. */
  drawing(colour) {
    if (colour in FIGURES) return { legend: "figure", figure: FIGURES[colour] };
    if (colour === "family") return { legend: colour, names: [null, ...FAMILY] };
    if (colour === "place") return { legend: colour, names: [null, ...PLACE] };
    return { legend: colour, names: VERDICTS.map((name) => (name === "dead" ? null : name)), levels: ORDER };
  },
  /** The addresses whose bytes mark points: the search names few features. */
  marks(n) {
    const ids = ($("#found")?.dataset.ids ?? "").split(",").filter(Boolean);
    if (!ids.length) return null;
    const marks = new Uint8Array(n);
    for (const id of ids) marks[id] = 1;
    return marks;
  },
};
