"""Features that fire together with one: a list on its page, and a page by itself with a sample of each pair, which the
feature's page fetches once one scrolls to the list."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from backend.api.cooccurrence import samples_of_pair
from backend.api.features import get_feature
from backend.links import ImageLinks
from backend.pages.cooccurrence.pair import PairView, mark_sample
from backend.pages.visit import PageDep
from backend.schemas.features import FeatureDetail, Partner
from backend.stores import OpenStore

router = APIRouter(default_response_class=HTMLResponse)

GROUPS = {
    "text_to_image": ("text → image", "this feature (1) on the text, the other (2) on the image"),
    "image_to_text": ("image → text", "this feature (2) on the image, the other (1) on the text"),
    "same": ("same modality", "this feature (1) and the other (2), both on the text or both on the image"),
}
Draw = Callable[[PairView], dict[str, Any] | None]


class PartnerRow(NamedTuple):
    """A partner, the pair that it forms with the feature, and a sample of the pair."""

    partner: Partner
    pair: PairView
    number: int
    """Of the partner in the pair: 1 or 2, as its page numbers them."""
    sample: dict[str, Any] | None


def partner_groups(f: FeatureDetail, draw: Draw) -> list[tuple[str, str, list[PartnerRow]]]:
    """Title, help and rows of each group; `draw` makes the sample of a pair."""

    def row(name: str, partner: Partner) -> PartnerRow:
        is_second = name != "image_to_text"
        a, b = (f.id, partner.id) if is_second else (partner.id, f.id)
        kind = f"{partner.modality}-{partner.modality}" if name == "same" else "text-image"
        pair = PairView.model_validate({"a": a, "b": b, "kind": kind})
        return PartnerRow(partner, pair, 1 + is_second, draw(pair))

    return [(*title, [row(name, p) for p in getattr(f.cooccurring, name)]) for name, title in GROUPS.items()]


def draw_sample(links: ImageLinks, store: OpenStore, pair: PairView) -> dict[str, Any] | None:
    """The sample in which both fire most clearly, with their activations; None where no sample has both."""
    samples = samples_of_pair(store, pair.kind, pair.a, pair.b, 1).both
    if not samples:
        return None
    [item] = store.reader.samples.list(ids=[samples[0].sample_id], limit=1).items
    return mark_sample(store, links.images(item), samples[0], pair)


@router.get("/features/{id}/partners")
def partners(visit: PageDep, id: int) -> HTMLResponse:
    """The partners of a feature, each with a sample in which both fire."""
    detail, links = get_feature(visit.store, id), ImageLinks(visit.request, visit.store)
    groups = partner_groups(detail, lambda pair: draw_sample(links, visit.store, pair))
    return visit.render("partners.html", section="/features", f=detail, cooccurring=groups, drawn=True)
