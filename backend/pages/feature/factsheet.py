"""The fact sheet of a feature, for print and for slides: one printed page, and the same as an SVG that stands alone.

A PNG is drawn from the SVG in the reader's browser (static/js/factsheet.js): it has the fonts for every script."""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import regex
from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from PIL import Image

from backend.api.features import get_feature
from backend.deps import VERSION, Cached
from backend.drawing.charts import place_map
from backend.drawing.heat import COLOURS, TokenRun
from backend.drawing.text import cut_text, visible
from backend.pages.feature.examples import strongest_examples
from backend.pages.feature.summary import summary
from backend.pages.sample.marks import short_name
from backend.pages.visit import PageDep, PageVisit
from backend.schemas.features import FeatureDetail
from backend.stores import OpenStore
from backend.templating import templates

router = APIRouter(default_response_class=HTMLResponse)

N_EXAMPLES, N_NAMED = 6, 5
"""Examples of each side, tokens and partners."""
IMAGE_PX = 284
"""Edge of the images of the SVG in pixels: twice as many as they take on it."""
WIDTH, LINE_CHARACTERS, HALF_LINE = 960, 130, 46
NOT_XML = regex.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Factsheet(NamedTuple):
    """What both forms of the fact sheet show."""

    feature: FeatureDetail
    parts: list[str]
    """What it is, as the feature's page says it."""
    images: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    place: Any
    promoted: list[str]
    partners: list[str]
    provenance: list[tuple[str, str]]
    citation: str


def factsheet_of(visit: PageVisit, id: int) -> Factsheet:
    """The fact sheet of a feature. Raises HTTP 404 where there is none."""
    f = get_feature(visit.store, id)
    images, lines = strongest_examples(visit, f, N_EXAMPLES)
    named_partners = {p.id: p for group in (f.cooccurring.text_to_image, f.cooccurring.image_to_text) for p in group}
    return Factsheet(
        feature=f,
        parts=[part.text for part in summary(f, visit.reader.top_words.held, visit.store.has_images)],
        images=images,
        lines=lines,
        place=place_map(f.place_map.model_dump()) if f.place_map else None,
        promoted=[visible(t.token) for t in f.logits.centred.promoted[:N_NAMED]] if f.logits.informative else [],
        partners=[short_name(p) for p in named_partners.values()][:N_NAMED],
        provenance=provenance(visit.store),
        citation=citation(visit.store, f),
    )


def provenance(store: OpenStore) -> list[tuple[str, str]]:
    """Where the figures come from."""
    summary = store.reader.summary
    return [
        ("model", f"{summary['model']}, layer {summary['layer']}"),
        ("SAE", f"{summary['sae']}, {summary['n_features']:,} features, sha256 {store.manifest['sae']['sha256'][:16]}"),
        ("data", f"{summary['dataset']}, {summary['n_samples']:,} samples"),
        ("store", f"{store.content_id}, format {store.manifest['schema']}"),
        ("versions", f"made with saevx {store.manifest['code_version']}, drawn with {VERSION}"),
    ]


def citation(store: OpenStore, f: FeatureDetail) -> str:
    """One line that names the feature so that others find it again."""
    summary = store.reader.summary
    model = str(summary["model"]).rstrip("/").rpartition("/")[2]
    return (
        f"Feature #{f.id} of {summary['sae']} at layer {summary['layer']} of {model}, SAE-V Explorer {VERSION}, "
        f"store {store.content_id[:16]}. Method: arXiv 2502.17514."
    )


@router.get("/features/{id}/card")  # its older address
@router.get("/features/{id}/factsheet")
def factsheet(visit: PageDep, id: int) -> HTMLResponse:
    """The fact sheet as a page."""
    values = factsheet_of(visit, id)._asdict()
    return visit.render("factsheet.html", section="/features", **values, f=values["feature"])


@router.get("/features/{id}/card.svg", dependencies=[Cached])
@router.get("/features/{id}/factsheet.svg", dependencies=[Cached])
def factsheet_svg(visit: PageDep, response: Response, id: int) -> Response:
    """The fact sheet as an SVG with its images inside."""
    svg = draw_svg(visit.store, factsheet_of(visit, id))
    headers = {**dict(response.headers), "Content-Disposition": f'inline; filename="feature-{id}.svg"'}
    return Response(svg, media_type="image/svg+xml", headers=headers)


def draw_svg(store: OpenStore, values: Factsheet) -> str:
    """The fact sheet as SVG, from the top down; nothing in it is styled from outside."""
    name = short_name(values.feature)
    says = list(wrap(values.parts, " · "))
    notes = [
        *(f"fires together with: {text}" for text in wrap(values.partners, " · ")),
        *(f"promotes: {text}" for text in wrap(values.promoted, " ")),
    ]
    images_y = 88 + 20 * len(says)
    lines_y = images_y + (182 if values.images else 0)
    notes_y = lines_y + max(22 * len(values.lines), 130 if values.place else 0) + 16
    foot_y = notes_y + 20 * len(notes) + 8
    foot = [*wrap([f"{key}: {value}" for key, value in values.provenance], " · ")]
    foot += wrap(values.citation.split(", "), ", ")
    svg = templates.env.get_template("feature/factsheet.xml").render(
        name=name, says=says, notes=notes, foot=foot, images_y=images_y, lines_y=lines_y, notes_y=notes_y,
        foot_y=foot_y, width=WIDTH, height=foot_y + 18 * len(foot) + 22, colours=COLOURS, place=values.place,
        verdict=values.feature.verdict, lines=[halves(line) for line in values.lines],
        images=[embed(store, example) for example in values.images],
    )  # fmt: skip
    return NOT_XML.sub("", svg)


def embed(store: OpenStore, example: dict[str, Any]) -> dict[str, Any]:
    """An example with its image inside, and its place in few words."""
    data = as_jpeg(store, example["sample_id"], example["images"][0].number)
    return {**example, "where": example["where"].partition(" · ")[0], "data": data}


def wrap(parts: Sequence[str], separator: str) -> Iterator[str]:
    """The parts in lines that fit on the fact sheet; a part that is too long alone is cut."""
    line = ""
    for part in parts:
        part = cut_text(part, LINE_CHARACTERS)
        if line and len(line) + len(separator) + len(part) > LINE_CHARACTERS:
            yield line
            line = part
        else:
            line = line + separator + part if line else part
    if line:
        yield line


def halves(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the concordance as text before its token, the token, and what comes after, cut to fit."""

    def join_runs(runs: Sequence[TokenRun]) -> str:
        return "".join(" " * run.spaced + run.text for run in runs)

    before_text, after_text = join_runs(line["before"]), join_runs(line["after"])
    return {
        "before": before_text if len(before_text) <= HALF_LINE else "…" + before_text[1 - HALF_LINE :],
        "token": join_runs(line["token"]).strip(),
        "after": cut_text(after_text, HALF_LINE),
        "activation": line["activation"],
    }


def as_jpeg(store: OpenStore, sample_id: str, image: int) -> str:
    """A stored image as a `data:` address; empty where it cannot be read."""
    buffer = io.BytesIO()
    try:
        with Image.open(store.reader.samples.image_path(sample_id, image)) as image_file:
            result = image_file.convert("RGB")
        result.thumbnail((IMAGE_PX, IMAGE_PX))
        result.save(buffer, "JPEG", quality=88)
    except OSError:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
