"""Data as people have it: ids and captions of every kind, in a store that the real pass has made."""

import json
from pathlib import Path

from tests.helpers import tiny
from tests.helpers.tinies import make_tiny_store

IDS = [
    "a", "a/image", "b/features", "c/activations", "image", ".", "..", "a/../b", "a//b", "/abs", "a/", "100%", "x%2Fy",
    " lead", "trail ", "q?x#y", "a&b=c;d", "x" * 501, "y" * 4000, "日本/猫.png", "é", "e\u0301", "a\nb", "\n", "\r\n",
    "\0", "a\0b", "\u200b", "\u202eabc", "https://example.org/a/1.jpg?size=2", 'say "hi"', "<b>bold</b>", "\\x", "~",
    "~YS9pbWFnZQ", "شجرة", "🙂",
]  # fmt: skip
"""Sample ids; the encoded address of `a/image` is one of them."""

ODD_ID = "train/odd id ?#%é.jpg"
"""A sample id as people have them: a path with all that an address must escape."""

CAPTIONS = {
    "zh": "一只猫坐在红色的垫子上。", "zh2": "两只狗和一个球", "zh3": "红色的猫和蓝色的狗",
    "th": "ลูกแมวสีแดงนั่งบนพรม", "ja": "犬が赤いボールで遊んでいる", "lo": "ແມວນັ່ງຢູ່ເທິງເສື່ອ",
    "km": "ឆ្មាអង្គុយលើកម្រាល", "my": "ကြောင်သည်ဖျာပေါ်တွင်ထိုင်သည်",
    "ko": "고양이가 빨간 매트 위에 앉아 있다", "hi": "बिल्ली चटाई पर बैठी है", "ar": "القطة على السَّجادة",
    "cpp": "I write C++ and c code", "c#": "c# on .NET", "plain": "the cat is on a net",
    "emoji": "a dog 🙂 and a 👩\u200d💻", "robot": "a 🤖 🫠", "number": "offer #4167 for 50%",
    "accent": "un café", "accent2": "un cafe\u0301", "quoted": 'he said "no"', "shirt": "a red t-shirt",
    "space": "a red dog\n\non two  cups\t.", "html": "<script>alert(1)</script>", "nul": "a\0dog",
    "wide": "Ｃ＋＋ ﾎﾞｰﾙ", "repeats": "白花开了" * 7, "empty": "", "blank": " \n", "marks": "\u0301\u200b",
}  # fmt: skip
"""Captions by sample id."""


def make_store(root: Path, captions: dict[str, str] = CAPTIONS, ids: list[str] = IDS) -> Path:
    """The tiny model's store of twelve plain pairs, one a caption, and one an id."""
    data = tiny.make_data(root / "data", 12)
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    captions_of = {**captions, **{sample_id: f"a red dog {i}" for i, sample_id in enumerate(ids)}}
    for i, (sample_id, text) in enumerate(captions_of.items()):
        tiny.picture(100 + i).save(data / f"odd{i}.png")
        rows.append({"file_name": f"odd{i}.png", "text": text, "id": sample_id})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_tiny_store(root, sinks="keep")
