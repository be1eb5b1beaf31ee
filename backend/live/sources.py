"""What a request names for the model to read: an image in it, one that the server holds, or a sample of the store."""

from fastapi import HTTPException
from PIL import Image

from backend.deps import Visit
from backend.links import check_sample
from backend.live.recompute import original_pair
from backend.live.uploads import decode_image, uploaded_pixels
from backend.schemas.explain import ExplainRequest
from backend.schemas.steering import SteerRequest


def check_one_source(*sources: object) -> None:
    """Raises HTTPException: 422 where more than one of them is given."""
    if sum(source is not None for source in sources) > 1:
        raise HTTPException(422, "Give one of `sample_id`, `image` and `image_hash`, not several.")


def named_pair(visit: Visit, body: SteerRequest | ExplainRequest) -> tuple[str, list[Image.Image]]:
    """Text and images of what the request names; of a sample the text only where it has no image.

    Raises:
        HTTPException: 404 or 409 for a sample, 404 for an image that is no longer held, 413 or 422 for one that cannot
            be read, 422 for several sources.
    """
    check_one_source(body.sample_id, body.image, body.image_hash)
    if body.image is not None:
        return "", [decode_image(body.image, visit.state.settings)]
    if body.image_hash is not None:
        return "", [uploaded_pixels(visit.state.uploads, body.image_hash, visit.state.settings)]
    if body.sample_id is None:
        return "", []
    pair = original_pair(visit.store, body.sample_id, check_sample(visit.store, body.sample_id))
    return "" if pair.images else pair.text, list(pair.images)
