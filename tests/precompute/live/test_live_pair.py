from pathlib import Path

import numpy as np
import pytest

from precompute.collect.session import Session
from precompute.data.images import open_image
from precompute.errors import SaevxError
from precompute.live.engine import encode_pair
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.making.unfinished import Collected
from tests.helpers import tiny
from tests.helpers.tinies import Maker, collected


def test_a_live_pair_is_what_the_pass_stored(options: Maker, mllm: Mllm, whole: Mllm, saev: SaeV) -> None:
    """Bit for bit where the pass ran each sample by itself, with and without the upper layers in memory."""
    made = options(batch_tokens=1)
    part, manifest = collected(made)
    data, rows = Collected(part, manifest), Session(made).rows.rows
    for row in (0, 5, 17):
        pair = Pair(rows[row].text, [open_image(path).image for path in rows[row].images])
        stored = data.events.of(row)
        for model in (mllm, whole):
            live = encode_pair(model, saev, manifest, pair, errors=True)
            np.testing.assert_array_equal(live.token_id_t, stored.token_id_t)
            np.testing.assert_array_equal(live.modality_t, stored.modality_t)
            np.testing.assert_array_equal(live.offset_t, stored.offset_t)
            np.testing.assert_array_equal(live.feature_e, stored.feature_e)
            np.testing.assert_array_equal(live.value_e.astype(np.float64) * data.unit, stored.z_e)
            assert [list(view) for view in live.views] == [
                [rows_, cols, tuple(box), image] for rows_, cols, box, image in data.samples[row]["views"]
            ]
            right = data.sample["sse_text"][row]
            assert live.error_t[live.modality_t == TEXT].sum() == pytest.approx(right, rel=1e-9)


MANIFEST = {"scale_log2": 2, "sinks": {"multiple": 4.0, "median_norm": {"text": 2.0, "image": None}}}


def test_either_side_alone(mllm: Mllm, saev: SaeV) -> None:
    image = encode_pair(mllm, saev, MANIFEST, Pair("", [tiny.picture(0)]))
    assert (image.modality_t == IMAGE).sum() == 16 and not (image.modality_t == TEXT).any()
    text = encode_pair(mllm, saev, MANIFEST, Pair("the red dog", []))
    assert (text.modality_t == TEXT).any() and not text.views
    with pytest.raises(SaevxError, match="neither image nor text"):
        encode_pair(mllm, saev, MANIFEST, Pair("", []))


def test_what_the_store_cannot_hold(mllm: Mllm, saev: SaeV) -> None:
    with pytest.raises(SaevxError, match="too large for float16"):
        encode_pair(mllm, saev, {**MANIFEST, "scale_log2": 40}, Pair("the dog", [tiny.picture(0)]))


def test_importing_needs_no_sae_lens() -> None:
    """The server must start without it: it takes seconds to import."""
    import subprocess
    import sys

    code = "import sys, precompute.live.engine, precompute.cli; assert 'sae_lens' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
