"""Scenes of everyday things and coloured shapes, with captions and true boxes.

One to three entities stand, jittered, on a plain or softly graded background. Objects are Fluent emoji (npm
`@lobehub/fluent-emoji-3d`, MIT) named as people name them; shapes are drawn. Every scene is a function of
(split, index) alone, so any scene can be made again by itself.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations, count
from typing import Literal

import numpy as np

SIZE = 224  # pixels, what the vision encoder takes
Split = Literal["train", "validation", "demo"]

# noun → code points of its drawings; the second, where there is one, is never shown in training.
OBJECTS: dict[str, list[str]] = {
    "dog": ["1f436", "1f415"], "cat": ["1f431", "1f408"], "mouse": ["1f42d", "1f401"], "rabbit": ["1f430", "1f407"],
    "fox": ["1f98a"], "bear": ["1f43b"], "lion": ["1f981"], "tiger": ["1f42f", "1f405"], "cow": ["1f42e", "1f404"],
    "pig": ["1f437", "1f416"], "horse": ["1f434", "1f40e"], "monkey": ["1f435", "1f412"], "frog": ["1f438"],
    "bird": ["1f426"], "chicken": ["1f414"], "duck": ["1f986"], "owl": ["1f989"], "bee": ["1f41d"],
    "butterfly": ["1f98b"], "spider": ["1f577-fe0f"], "snake": ["1f40d"], "turtle": ["1f422"], "fish": ["1f41f"],
    "whale": ["1f433", "1f40b"], "elephant": ["1f418"], "sheep": ["1f411"], "dragon": ["1f432", "1f409"],
    "tree": ["1f333", "1f332"], "flower": ["1f33c", "1f33a"], "rose": ["1f339"], "mushroom": ["1f344"],
    "apple": ["1f34e", "1f34f"], "banana": ["1f34c"], "lemon": ["1f34b"], "grape": ["1f347"], "strawberry": ["1f353"],
    "peach": ["1f351"], "cherry": ["1f352"], "carrot": ["1f955"], "corn": ["1f33d"], "potato": ["1f954"],
    "tomato": ["1f345"], "bread": ["1f35e"], "cheese": ["1f9c0"], "pizza": ["1f355"], "egg": ["1f95a"],
    "cake": ["1f370", "1f382"], "cookie": ["1f36a"], "candy": ["1f36c"], "cup": ["2615"], "bottle": ["1f37e"],
    "car": ["1f697", "1f699"], "bus": ["1f68c", "1f68d"], "truck": ["1f69a", "1f69b"], "train": ["1f686"],
    "boat": ["26f5"], "ship": ["1f6a2"], "rocket": ["1f680"], "bicycle": ["1f6b2"], "house": ["1f3e0", "1f3e1"],
    "tent": ["26fa"], "bridge": ["1f309"], "clock": ["23f0"], "phone": ["1f4f1"], "computer": ["1f4bb"],
    "camera": ["1f4f7"], "book": ["1f4d5"], "pencil": ["270f-fe0f"], "scissors": ["2702-fe0f"], "key": ["1f511"],
    "lock": ["1f512"], "hammer": ["1f528"], "bell": ["1f514"], "drum": ["1f941"], "guitar": ["1f3b8"],
    "violin": ["1f3bb"], "ball": ["26bd"], "crown": ["1f451"], "hat": ["1f3a9"], "shirt": ["1f455"], "shoe": ["1f45f"],
    "umbrella": ["2614"], "lamp": ["1f4a1"], "gift": ["1f381"], "balloon": ["1f388"], "chair": ["1fa91"],
    "bed": ["1f6cf-fe0f"],
}  # fmt: skip
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (245, 130, 20),
    "yellow": (250, 214, 30),
    "green": (34, 160, 70),
    "blue": (37, 99, 235),
    "purple": (130, 50, 200),
    "pink": (245, 130, 185),
    "brown": (125, 75, 35),
    "black": (25, 25, 28),
    "white": (248, 248, 248),
    "gray": (135, 138, 142),
}
SHAPES = ("circle", "rectangle", "triangle", "star")
PLACES = {(0, 0): "top left", (0, 1): "top right", (1, 0): "bottom left", (1, 1): "bottom right"}
NUMBERS = {2: "two", 3: "three"}


@dataclass(frozen=True)
class Entity:
    """One drawn thing: an object (`colour` None) or a coloured shape; box x0, y0, x1, y1 in pixels."""

    noun: str
    colour: str | None
    box: tuple[int, int, int, int]

    @property
    def words(self) -> str:
        return f"{self.colour} {self.noun}" if self.colour else self.noun


@dataclass
class Scene:
    """What an image shows, and its caption; `truth` is for evaluation and never reaches the model."""

    split: str
    index: int
    entities: list[Entity]
    background: str
    caption: str
    seed: int = 0
    second: bool = False

    def truth(self) -> dict[str, object]:
        return {"entities": [asdict(e) for e in self.entities], "background": self.background}


def pair_is_held_out(a: str, b: str) -> bool:
    """12 % of the unordered pairs of nouns, chosen by hash, never stand together in training."""
    key = "|".join(sorted((a, b)))
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100 < 12


def article(words: str) -> str:
    if words == "scissors":
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words


def plural(noun: str) -> str:
    irregular = {"mouse": "mice", "sheep": "sheep", "fish": "fish", "scissors": "scissors"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "ch", "sh", "tomato", "potato")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def deal(index: int, slot: int, attempt: int) -> str:
    """An object from shuffled decks: 1,500 demo scenes then show each of them often enough for ω (K = 16
    samples out of 1,000)."""
    cycle, place = divmod(index, len(OBJECTS))
    return list(OBJECTS)[np.random.default_rng([53, cycle, slot, attempt]).permutation(len(OBJECTS))[place]]


def scenes_from(split: Split, first: int = 0, *, second: bool = False) -> Iterator[Scene]:
    """The scenes of a split one after another, without end; `second` as in `make_scene`."""
    return (make_scene(split, index, second=second) for index in count(first))


def make_scene(split: Split, index: int, *, second: bool = False) -> Scene:
    """Scene number `index` of a split; `second` draws the second drawings, unseen in training, where there are any."""
    rng = np.random.default_rng([{"train": 11, "validation": 23, "demo": 37}[split], index])
    is_demo = split == "demo"
    attempt = 0
    while True:
        n = int(rng.choice([1, 2, 3, 3] if is_demo else [1, 2, 2, 3]))
        kinds: list[tuple[str, str | None]] = []
        is_same = n > 1 and rng.random() < (0.08 if is_demo else 0.22)
        for slot in range(1 if is_same else n):
            if rng.random() < (0.15 if is_demo else 0.4):
                kinds.append((SHAPES[rng.integers(4)], str(rng.choice(list(COLOURS)))))
            elif is_demo:
                kinds.append((deal(index, slot, attempt), None))
            else:
                kinds.append((list(OBJECTS)[rng.integers(len(OBJECTS))], None))
        attempt += 1
        if len({k[0] for k in kinds}) < len(kinds):
            continue
        objects = [k[0] for k in kinds if k[1] is None]
        is_held_out = any(pair_is_held_out(a, b) for a, b in combinations(objects, 2))
        if split == "train" and is_held_out:
            continue
        if is_same:
            kinds = kinds * n
        break
    colours = {c for _, c in kinds if c}
    background = str(rng.choice([c for c in COLOURS if c not in colours]))
    boxes = place_boxes(rng, len(kinds))
    entities = [Entity(noun, colour, box) for (noun, colour), box in zip(kinds, boxes, strict=True)]
    caption = write_caption(rng, entities, background)
    return Scene(split, index, entities, background, caption, seed=int(rng.integers(2**31)), second=second)


def place_boxes(rng: np.random.Generator, n: int) -> list[tuple[int, int, int, int]]:
    """n boxes that hardly touch, sizes 64–112 px."""
    while True:
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(200):
            side = int(rng.integers(64, 113 if n < 3 else 97))
            x, y = (int(v) for v in rng.integers(4, SIZE - side - 3, 2))
            box = (x, y, x + side, y + side)
            if all(box[2] <= b[0] + 4 or b[2] <= box[0] + 4 or box[3] <= b[1] + 4 or b[3] <= box[1] + 4 for b in boxes):
                boxes.append(box)
            if len(boxes) == n:
                return boxes


def centre(e: Entity) -> tuple[float, float]:
    return (e.box[0] + e.box[2]) / 2, (e.box[1] + e.box[3]) / 2


def corner(e: Entity) -> str | None:
    x, y = centre(e)
    if abs(x - SIZE / 2) < 18 or abs(y - SIZE / 2) < 18:
        return None
    return PLACES[int(y > SIZE / 2), int(x > SIZE / 2)]


def write_caption(rng: np.random.Generator, entities: list[Entity], background: str) -> str:
    """What, how many, which colour, where: worded in one of several ways."""

    def draw_one(options: list[str]) -> str:
        return options[rng.integers(len(options))]

    tail = draw_one(["", "", f" on {article(background)} background", f", {background} background"])
    first = entities[0]
    if len(entities) > 1 and all(e.noun == first.noun and e.colour == first.colour for e in entities):
        nouns = f"{first.colour} {plural(first.noun)}" if first.colour else plural(first.noun)
        number = NUMBERS[len(entities)]
        return draw_one([f"{number} {nouns}", f"there are {number} {nouns}", f"a picture of {number} {nouns}"]) + tail
    if len(entities) == 1:
        where = corner(first)
        words = article(first.words)
        options = [words, f"a photo of {words}", f"there is {words}", f"this is {words}"]
        if where:
            options += [
                f"{words} in the {where}",
                f"there is {words} in the {where}",
                f"in the {where} there is {words}",
            ]
        return draw_one(options) + tail
    if len(entities) == 2 and rng.random() < 0.6:
        (ax, ay), (bx, by) = centre(entities[0]), centre(entities[1])
        a, b = (article(e.words) for e in entities)
        if abs(ax - bx) > abs(ay - by):
            relation = "to the left of" if ax < bx else "to the right of"
        else:
            relation = "above" if ay < by else "below"
        return draw_one([f"{a} {relation} {b}", f"there is {a} {relation} {b}"]) + tail
    phrases = [article(e.words) for e in entities]
    things = ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return draw_one([things, f"a picture of {things}", f"here we see {things}", f"there is {things}"]) + tail


def ask(rng: np.random.Generator, scene: Scene) -> tuple[str, str]:
    """A question about a scene and its one-word answer."""
    options: list[tuple[str, str]] = []
    shapes = [e for e in scene.entities if e.colour]
    nouns = [e.noun for e in scene.entities]
    if len(shapes) == len(scene.entities) and len(shapes) == 1:
        options += [("What shape is in the picture?", shapes[0].noun)] * 2
    if len(shapes) == 1:
        options += [
            ("What color is the shape?", str(shapes[0].colour)),
            ("What shape is there?", shapes[0].noun),
        ]
    for e in shapes:
        if nouns.count(e.noun) == 1:
            options += [(f"What color is the {e.noun}?", str(e.colour))] * 2
    options.append(("What color is the background?", scene.background))
    objects = {e.noun for e in scene.entities if not e.colour}
    if len(objects) == 1 and len(set(nouns)) == 1:
        options.append(("What is in the picture?", nouns[0]))
    return options[rng.integers(len(options))]
