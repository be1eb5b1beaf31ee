"""Cards of samples, as lists on several pages show them."""

from collections.abc import Sequence
from typing import Any

from backend.schemas.live import SampleHit
from backend.schemas.samples import NearSample, Sample, SampleDetail
from precompute.store.schema import FLAGS

CARD = "&size=320"


def sample_card(
    sample: Sample | SampleDetail | SampleHit | NearSample, value: float | None = None, reason: str = ""
) -> dict[str, Any]:
    """A sample as the macro `sample_card` draws it: `value` in its corner, `reason` under it."""
    return {
        "sample_id": sample.sample_id,
        "text": sample.text,
        "url": sample.images[0].url + CARD if sample.images else None,
        "value": value,
        "flags": [FLAGS[name][0] for name in sample.flags] if isinstance(sample, Sample | NearSample) else [],
        "reason": reason,
        **{name: getattr(sample, name, None) for name in ("own_label", "tags", "reviewed")},
    }


def nearest_cards(samples: Sequence[SampleHit], has_images: bool) -> list[tuple[str, list[dict[str, Any]]]]:
    """Titles and cards of the samples that are near by their image, and of those near by their caption."""
    titles = (("image", "Nearest images"), ("text", "Nearest captions" if has_images else "Nearest texts"))
    groups = [(title, [sample_card(s, s.cosine) for s in samples if s.modality == side]) for side, title in titles]
    return [group for group in groups if group[1]]
