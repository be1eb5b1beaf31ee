from types import SimpleNamespace

import pytest

from precompute import geometry
from precompute.errors import SaevxError
from precompute.geometry import View


def processor(**images: object) -> SimpleNamespace:
    given = {"do_resize": True, "size": {"shortest_edge": 32}, "do_center_crop": False, "crop_size": None}
    return SimpleNamespace(patch_size=8, image_processor=SimpleNamespace(**{**given, **images}))


CROP = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}


@pytest.mark.parametrize(
    ("images", "size", "view"),
    [
        ({"size": {"height": 32, "width": 32}}, (100, 50), View(4, 4, (0, 0, 100, 50), 0)),
        ({}, (64, 32), View(4, 8, (0, 0, 64, 32), 0)),
        (CROP, (64, 32), View(4, 4, (16, 0, 48, 32), 0)),
        (CROP, (50, 100), View(4, 4, (0, 25, 50, 75), 0)),
        ({"do_resize": False}, (20, 33), View(4, 2, (0, 0, 16, 32), 0)),
    ],
)
def test_llava_boxes(images: dict[str, object], size: tuple[int, int], view: View) -> None:
    layout = geometry.FAMILIES["llava"](processor(**images), None, [size], 0)
    assert len(layout.mark_n) == view.rows * view.cols and not layout.mark_n.any()
    assert layout.views == [view._replace(box=pytest.approx(view.box))]


def test_a_box_ends_at_the_edge_of_the_image() -> None:
    view = View(2, 2, (-2, -3, 18, 17), 0)
    assert geometry.patch_box(view, 0, 0, (16, 12)) == (0, 0, 8, 7)
    assert geometry.patch_box(view, 1, 1, (16, 12)) == (8, 7, 16, 12)


def test_square() -> None:
    assert geometry.square(None, None, [(30, 20)] * 2, 18).views[1] == View(3, 3, (0.0, 0.0, 30.0, 20.0), 1)
    with pytest.raises(SaevxError, match="no square grid"):
        geometry.square(None, None, [(30, 20)], 18)


def test_an_unknown_family_is_told_how_to_be_added() -> None:
    with pytest.raises(SaevxError, match=r"--geometry square.*precompute/geometry"):
        geometry.find("new_vl", multimodal=True)
    assert geometry.find("new_vl", multimodal=True, setting="square")[1] is geometry.square
    assert geometry.find("mistral", multimodal=False) == ("text-only", geometry.text_only)
    with pytest.raises(SaevxError, match="choose from square"):
        geometry.find("llava", multimodal=True, setting="round")
