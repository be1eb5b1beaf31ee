"""A tokenizer.json with a regular expression that never ends (CWE-1333) is refused before a model reads with it."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from precompute.errors import PairError, SaevxError
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.model.patterns import check_patterns
from tests.helpers import tiny
from tests.helpers.tinies import Tiny

NEVER_END = [
    r"(a+)+$", r"(a|aa)+$", r"(\w+\s?)*$", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(?=(a+))\1*(a+)+$", r"(\s|\s\s)+x",
]  # fmt: skip
USUAL = [
    r"\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]


def with_part(model: Path, folder: Path, name: str, part: dict[str, Any]) -> Path:
    """A copy of the tiny model whose tokenizer has this part."""
    copy = Path(shutil.copytree(model, folder / "model"))
    content = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps({**content, name: part}))
    return copy


@pytest.mark.parametrize("pattern", NEVER_END)
@pytest.mark.parametrize("name", ["pre_tokenizer", "normalizer", "decoder"])
def test_a_pattern_that_never_ends_is_refused(tiny_files: Tiny, tmp_path: Path, name: str, pattern: str) -> None:
    regex = {"Regex": pattern}
    part = {"type": "Replace", "pattern": regex, "content": "x"}
    if name == "pre_tokenizer":
        part = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
    model = with_part(tiny_files.model, tmp_path, name, part)
    begin = time.process_time()
    with pytest.raises(SaevxError, match=r"regular expression that does not end in time .* mend its tokenizer\.json"):
        Mllm.load(model, layer=tiny.LAYER, device="cpu")
    assert time.process_time() - begin < 60


@pytest.mark.parametrize("pattern", USUAL)
def test_the_patterns_of_usual_models_are_taken(pattern: str) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace(Regex(pattern), "x")
    check_patterns("a model", PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_a_text_on_which_the_tokenizer_gives_up_is_rejected_alone(tiny_files: Tiny) -> None:
    """What the trial texts do not show."""
    mllm = Mllm.load(tiny_files.model, layer=tiny.LAYER, device="cpu")
    mllm.tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(r"(q+)+$"), "x")
    assert len(mllm.prepare([Pair("a red dog", [])]).length_b) == 1
    for read in (lambda text: mllm.prepare([Pair(text, [])]), lambda text: mllm.n_text_tokens([text])):
        with pytest.raises(PairError, match="tokenizer gives up on its text"):
            read("q" * 60 + "!")
