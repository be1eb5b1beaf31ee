"""Pictures that visitors send."""

import base64
import io

import pytest
from fastapi import HTTPException
from PIL import Image

from backend.live.uploads import UploadedImages, decode_image, read_image, uploaded_pixels
from backend.settings import Settings
from tests.helpers.hostile.images import png

SETTINGS = Settings(max_megapixels=1)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (30, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 200 if mode == "L" else None).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind,mode", [("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("GIF", "P")])
def test_common_kinds_become_rgb(kind: str, mode: str) -> None:
    picture = read_image(encoded(kind, mode), SETTINGS)
    assert (picture.mode, picture.size) == ("RGB", (30, 20))


@pytest.mark.parametrize("edge", [1_500, 50_000])
def test_a_decompression_bomb_is_refused_by_its_header(edge: int) -> None:
    with pytest.raises(HTTPException) as refused:
        read_image(png(edge, edge), SETTINGS)
    assert refused.value.status_code == 413
    assert "more than 1 million" in refused.value.detail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        encoded("PNG")[:44],
        encoded("JPEG")[:-300],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(HTTPException) as refused:
        read_image(data, SETTINGS)
    assert refused.value.status_code == 422
    assert refused.value.detail.endswith(".")


def test_base64_with_and_without_the_data_prefix() -> None:
    text = base64.b64encode(encoded("PNG")).decode()
    assert decode_image(text, SETTINGS).size == (30, 20)
    assert decode_image(f"data:image/png;base64,{text}", SETTINGS).size == (30, 20)
    with pytest.raises(HTTPException) as refused:
        decode_image("data:image/png;base64,%%%", SETTINGS)
    assert refused.value.status_code == 422


def test_uploads_are_held_up_to_a_number_of_bytes_the_least_recently_used_dropped() -> None:
    files = [encoded("PNG", size=(30, 20 + i)) for i in range(4)]
    one = UploadedImages(10**9).add(files[0], SETTINGS)
    uploads = UploadedImages(int(3.5 * (len(one.data) + len(one.preview))))
    hashes = [uploads.add(file, SETTINGS).hash for file in files[:3]]
    assert uploads.get(hashes[0]).data == files[0]  # used again: the second is now the oldest
    hashes.append(uploads.add(files[3], SETTINGS).hash)
    with pytest.raises(HTTPException) as gone:
        uploads.get(hashes[1])
    assert gone.value.status_code == 404 and "choose the image again" in gone.value.detail
    assert [uploads.get(hash).size for hash in (hashes[0], *hashes[2:])] == [(30, 20), (30, 22), (30, 23)]
    held = uploads.images.entries.values()
    assert uploads.images.entries.currsize == sum(len(one.data) + len(one.preview) for one in held)
    assert uploads.add(files[0], SETTINGS).hash == hashes[0] and len(held) == 3


def test_a_removed_upload_is_gone() -> None:
    uploads = UploadedImages(10**9)
    one, other = (uploads.add(encoded("PNG", size=(30, n)), SETTINGS) for n in (20, 21))
    uploads.remove(one.hash)
    assert uploads.get(other.hash) is other and uploads.images.entries.currsize == len(other.data) + len(other.preview)
    for again in (uploads.get, uploads.remove):
        with pytest.raises(HTTPException) as gone:
            again(one.hash)
        assert gone.value.status_code == 404


def test_the_newest_upload_is_held_however_large() -> None:
    uploads = UploadedImages(1)
    uploads.add(encoded("PNG"), SETTINGS)
    newest = uploads.add(encoded("PNG", size=(40, 20)), SETTINGS)
    assert list(uploads.images.entries) == [newest.hash]


def test_an_upload_is_read_as_every_image_and_its_preview_has_no_other_data() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    exif[0x010E] = "where it was taken"
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, "JPEG", exif=exif)
    uploads = UploadedImages(10**9)
    one = uploads.add(buffer.getvalue(), SETTINGS)
    assert one.size == uploaded_pixels(uploads, one.hash, SETTINGS).size == (20, 30)
    assert b"where it was taken" in one.data and b"where it was taken" not in one.preview
    with Image.open(io.BytesIO(one.preview)) as preview:
        assert preview.size == (20, 30) and not preview.getexif()
