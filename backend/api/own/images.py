"""Images that visitors upload: each is in memory under its hash, so that addresses can name it."""

from typing import Annotated

from fastapi import APIRouter, File, HTTPException, Request, Response, UploadFile
from fastapi import Path as PathParam

from backend.deps import StateDep
from backend.links import uploaded_image
from backend.live.uploads import add_upload
from backend.schemas.live import RemovedImage, UploadedImageRef

router = APIRouter(tags=["images"])

HEADERS = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
"""No copy on the visitor's disk, and none in the page of another site."""
Hash = Annotated[str, PathParam(max_length=64, description="`hash` of the upload.")]
WITHOUT_MODEL = "An uploaded image is of no use here: this server runs without the model (--no-live)."


@router.post("/images", summary="Upload an image, for searches and steering")
async def post_image(request: Request, state: StateDep, image: Annotated[UploadFile, File()]) -> UploadedImageRef:
    """The server holds it in memory only, until it stops or newer images need the room (`--max-uploads-mb`)."""
    if not state.settings.live:
        raise HTTPException(503, WITHOUT_MODEL)
    upload = await add_upload(image, state.uploads, state.settings)
    return UploadedImageRef.model_validate(uploaded_image(request, upload.hash, upload.size))


@router.get(
    "/images/{hash}",
    summary="An uploaded image, at most 1024 pixels long",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}, "description": "WebP"}},
)
async def get_image(state: StateDep, hash: Hash) -> Response:
    """Upright, without the file's other data."""
    return Response(state.uploads.get(hash).preview, media_type="image/webp", headers=HEADERS)


@router.delete("/images/{hash}", summary="Remove an uploaded image from the server")
async def delete_image(state: StateDep, hash: Hash) -> RemovedImage:
    """With what was computed of it: addresses that name it answer 404 from now on."""
    state.remove_upload(hash)
    return RemovedImage(hash=hash)
