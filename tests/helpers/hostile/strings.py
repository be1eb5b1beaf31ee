"""Texts that would run as a script, or break a page, where a place forgot that they are text; a store full of them."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.helpers import tiny
from tests.helpers.tinies import make_tiny_store

MARK = "ran"
"""The global that a script of theirs sets."""


class StringCase(NamedTuple):
    """A text without a space, so that it can be one token too. It must be shown as it is written."""

    name: str
    text: str


CASES = [
    StringCase("script", "<script>ran=1</script>"),
    StringCase("script that ends an attribute", "\"'><script>ran=1</script>"),
    StringCase("script that ends a script", "</script><script>ran=1</script>"),
    StringCase("script that ends a text area", "</textarea></title></style><script>ran=1</script>"),
    StringCase("script that ends a comment", "--><script>ran=1</script>"),
    StringCase("image", "<img/src=x/onerror=ran=1>"),
    StringCase("drawing", "</text></svg><svg/onload=ran=1>"),
    StringCase("handler in double quotes", '"onmouseover="ran=1"autofocus/onfocus="ran=1'),
    StringCase("handler in single quotes", "'onmouseover='ran=1'autofocus/onfocus='ran=1"),
    StringCase("address", "javascript:ran=1"),
    StringCase("address after a space", "\u00a0java\tscript:ran=1".replace("\t", "&Tab;")),
    StringCase("document in an address", "data:text/html,<script>parent.ran=1</script>"),
    StringCase("base and meta", "<base/href=//127.0.0.1:9/><meta/http-equiv=refresh/content=0;url=//127.0.0.1:9/>"),
    StringCase("frame", "<iframe/srcdoc='<script>parent.ran=1</script>'>"),
    StringCase("style", "<style>*{display:none!important}</style>"),
    StringCase("entities", "&lt;script&gt;ran=1&lt;/script&gt;&#60;script&#62;"),
    StringCase("template", "{{ran.constructor('ran=1')()}}${ran=1}<%=ran=1%>#{ran=1}".replace(" ", "")),
    StringCase("prototype", "__proto__"),
    StringCase("constructor", "constructor"),
    StringCase("separators", "\u2028\u2029ran=1//"),
    StringCase("overlong UTF-8 as text", "%3Cscript%3Eran=1%3C/script%3E%00"),
    StringCase("right to left", "\u202e\u2066>tpircs<\u2069\u202c"),
    StringCase("formula", '=HYPERLINK("javascript:ran=1")'),
]


def tokenizer(**marks: str) -> PreTrainedTokenizerFast:
    """Each word between spaces is a token, the hostile ones too."""
    words = ["<pad>", "<s>", "</s>", "<image>", "<unk>", *tiny.WORDS, *(case.text for case in CASES)]
    result = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, unk_token="<unk>"))
    result.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=result,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token=AddedToken("<unk>", special=True),
        extra_special_tokens={"image_token": "<image>"},
    )


def make_store(root: Path) -> Path:
    """A real pass over hostile captions, ids, file names and fields, with a model whose tokens and names are hostile
    too: each caption has a hostile word beside plain ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "tokenizer", tokenizer)
        model = tiny.make_llava(root / "model")
    data = tiny.make_data(root / "data", 2 * len(CASES))
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        text = CASES[i % len(CASES)].text
        name = f"{i} {text.replace('/', '∕')}"[:60] + ".png"
        (data / row["file_name"]).rename(data / name)
        row.update(file_name=name, text=f"{row['text']} {text} {text} dog", **{text: text})
        row["id"] = f"{i} {text}" if i % 2 else text
    rows += [{"file_name": case.text, "text": case.text, "id": f"bad {case.text}"} for case in CASES]
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = CASES[1].text
    names = {f"{part}_name": f"{part} {script}" for part in ("model", "sae", "data")}
    return make_tiny_store(root, model=str(model), sinks="keep", ds=20, **names)
