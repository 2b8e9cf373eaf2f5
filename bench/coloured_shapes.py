"""Planted pairs of pictures and captions: one to three coloured shapes, what is said of them, and where each lies.

`python -m bench.coloured_shapes FOLDER [--train 8000] [--val 500] [--test 1000] [--seed 0] [--side 64]` writes

    pairs/pairs.csv         image, caption and split of each pair
    pairs/images/           the pictures, PNG
    novel/images/           pictures of one shape in a combination of shape and colour that no pair of `pairs` shows
    truth.jsonl             for each picture its shapes (name, colour, box, mask), caption, meaning and background

A caption names every shape of its picture; with two shapes it may tell how they lie. It is right for every picture of
which it is true and which shows nothing else (`is_true`).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40), "green": (38, 150, 60), "blue": (40, 80, 214), "yellow": (240, 214, 40),
    "purple": (130, 50, 160), "white": (246, 246, 246), "black": (16, 16, 16),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross")
NOVEL = {("circle", "green"), ("square", "purple"), ("triangle", "yellow"), ("cross", "blue")}
"""Combinations that training never shows: each shape once, each colour at most once."""

COUNTS = (0.5, 0.38, 0.12)
"""Shares of pictures with one, two and three shapes."""

MOST = len(COUNTS)

SIDES, BORDER = ((0.34, 0.5), (0.3, 0.42), (0.28, 0.36)), 0.03
"""Smallest and largest side of the boxes in a picture of one, two and three shapes, and the free border, in shares."""

FINE = 4  # shapes are drawn at four times the size and averaged, so that their edges are smooth

ONE = (
    "{a}", "{colour} {shape}", "a picture of {a}", "there is {a}", "one {colour} {shape}", "a {shape} in {colour}",
    "a {shape} that is {colour}", "{a} and nothing else",
)  # fmt: skip
PAIR = ("{a} and {b}", "{a} with {b}", "a picture of {a} and {b}", "there are {a} and {b}")
THREE = ("{a}, {b} and {c}", "a picture of {a}, {b} and {c}", "{a} with {b} and {c}")
RELATED = {
    "left": ("{a} left of {b}", "{a} to the left of {b}", "{b} right of {a}", "left of {b} there is {a}"),
    "above": ("{a} above {b}", "{a} over {b}", "{b} below {a}", "below {a} there is {b}"),
}
"""How the first of two shapes lies to the second, in words."""


@dataclass(frozen=True)
class Shape:
    """A shape of a picture: `box` is (left, top, right, bottom) in pixels."""

    name: str
    colour: str
    box: tuple[int, int, int, int]

    @property
    def words(self) -> str:
        """The name with its colour, such as "red circle"."""
        return f"{self.colour} {self.name}"


@dataclass(frozen=True)
class Scene:
    """A picture and its caption; `relation` is "", or how the caption lets the first shape lie to the second."""

    picture: Image.Image
    masks: tuple[np.ndarray, ...]  # one (height, width) of booleans for each shape
    shapes: tuple[Shape, ...]
    caption: str
    relation: str
    ground: str


def draw_scene(draw: np.random.Generator, side: int, novel: bool = False, most: int = MOST) -> Scene:
    """Return a picture of at most `most` shapes; with `novel` of one in a combination that others never show."""
    count = 1 if novel else min(most, int(draw.choice(len(COUNTS), p=COUNTS)) + 1)
    shapes = _place(draw, side, _combinations(draw, count, novel))
    ground = str(draw.choice(list(GROUNDS)))
    pixels = GROUNDS[ground](draw, side).astype(np.float32)
    masks = []
    for shape in shapes:
        cover = _cover(shape, side)
        shade = np.array(COLOURS[shape.colour]) + draw.normal(0, 8, 3)
        pixels += cover[..., None] * (shade - pixels)
        masks.append(cover > 0.5)
    pixels += draw.normal(0, 3, pixels.shape)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    relation = _relation(shapes) if len(shapes) == 2 and draw.random() < 0.5 else ""
    if relation in ("right", "below"):  # said of the other shape
        shapes, masks, relation = shapes[::-1], masks[::-1], {"right": "left", "below": "above"}[relation]
    return Scene(picture, tuple(masks), tuple(shapes), _caption(draw, shapes, relation), relation, ground)


def phrase(words: str) -> str:
    """Return words with their article: "a red circle", "an orange star"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def is_true(said: dict[str, Any], shown: dict[str, Any]) -> bool:
    """Return whether the caption of one line of truth is true of the picture of another and names all it shows."""
    if sorted(_kinds(said)) != sorted(_kinds(shown)):
        return False
    if not said["relation"]:
        return True
    places = {(one["name"], one["colour"]): tuple(one["box"]) for one in shown["shapes"]}
    first, second = (places[kind] for kind in _kinds(said))
    return said["relation"] == _lies(first, second)


def write(folder: Path, counts: dict[str, int], novel: int, seed: int, side: int, most: int = MOST) -> None:
    """Write pictures, pairs and truth; `counts` are the pairs of each split, `most` the shapes of a picture."""
    draw = np.random.default_rng(seed)
    with (
        (folder_made(folder) / "truth.jsonl").open("w") as truth,
        _pairs(folder).open("w", newline="") as pairs,
    ):
        table = csv.writer(pairs)
        table.writerow(("image", "caption", "split"))
        for name, split in _names({**counts, "novel": novel}):
            scene = draw_scene(draw, side, split == "novel", most)
            scene.picture.save(folder / ("novel" if split == "novel" else "pairs") / "images" / name)
            if split != "novel":
                table.writerow((f"images/{name}", scene.caption, split))
            truth.write(json.dumps(_line(scene, name, split)) + "\n")


def read_truth(folder: Path, split: str) -> list[dict[str, Any]]:
    """Return the lines of truth of one split: train, val, test or novel."""
    lines = (json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]


def folder_made(folder: Path) -> Path:
    """Make the folders of the pictures."""
    for name in ("pairs", "novel"):
        (folder / name / "images").mkdir(parents=True)
    return folder


def _pairs(folder: Path) -> Path:
    return folder / "pairs" / "pairs.csv"


def _names(counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    for split, count in counts.items():
        for number in range(count):
            yield f"{split}-{number:05}.png", split


def _line(scene: Scene, name: str, split: str) -> dict[str, Any]:
    shapes = [
        {**asdict(shape), "mask": _runs(mask)} for shape, mask in zip(scene.shapes, scene.masks, strict=True)
    ]
    facts = {"caption": scene.caption, "relation": scene.relation, "ground": scene.ground}
    return {"image": name, "split": split, "shapes": shapes, **facts}


def _runs(mask: np.ndarray) -> list[int]:
    """Return the lengths of runs in raster order, outside first."""
    flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
    changes = np.flatnonzero(np.diff(flat))
    return [int(length) for length in np.diff(np.concatenate([[0], changes]))]


def _kinds(line: dict[str, Any]) -> list[tuple[str, str]]:
    return [(shape["name"], shape["colour"]) for shape in line["shapes"]]


def _combinations(draw: np.random.Generator, count: int, novel: bool) -> list[tuple[str, str]]:
    """Draw different combinations of shape and colour."""
    every = [(name, colour) for name in SHAPES for colour in COLOURS]
    these = [kind for kind in every if (kind in NOVEL) == novel]
    return [these[i] for i in draw.choice(len(these), count, replace=False)]


def _place(draw: np.random.Generator, side: int, kinds: Sequence[tuple[str, str]]) -> list[Shape]:
    """Place shapes so that no boxes overlap; begin again if there is no room."""
    while True:
        boxes: list[tuple[int, int, int, int]] = []
        for _ in kinds:
            for _ in range(30):
                box = _box(draw, side, *SIDES[len(kinds) - 1])
                if all(_lies(box, other) for other in boxes):
                    boxes.append(box)
                    break
        if len(boxes) == len(kinds):
            return [Shape(*kind, box) for kind, box in zip(kinds, boxes, strict=True)]


def _box(draw: np.random.Generator, side: int, smallest: float, largest: float) -> tuple[int, int, int, int]:
    size, border = round(side * draw.uniform(smallest, largest)), round(BORDER * side)
    left, top = (int(draw.integers(border, side - size - border + 1)) for _ in range(2))
    return left, top, left + size, top + size


def _lies(box: Sequence[int], other: Sequence[int]) -> str:
    """Return how a box lies to another, by the axis with the wider gap: left, right, above or below; "" if not."""
    gaps = {
        "left": other[0] - box[2], "right": box[0] - other[2], "above": other[1] - box[3], "below": box[1] - other[3],
    }  # fmt: skip
    widest = max(gaps, key=gaps.__getitem__)
    return widest if gaps[widest] >= 0 else ""


def _relation(shapes: Sequence[Shape]) -> str:
    return _lies(shapes[0].box, shapes[1].box)


def _caption(draw: np.random.Generator, shapes: Sequence[Shape], relation: str) -> str:
    names = dict(zip("abc", (phrase(shape.words) for shape in shapes), strict=False))
    if relation:
        return str(draw.choice(RELATED[relation])).format(**names)
    forms = (ONE, PAIR, THREE)[len(shapes) - 1]
    return str(draw.choice(forms)).format(**names, colour=shapes[0].colour, shape=shapes[0].name)


def _cover(shape: Shape, side: int) -> np.ndarray:
    """Return how much of each pixel a shape covers, 0 … 1: (side, side)."""
    fine = Image.new("L", (side * FINE, side * FINE))
    pen = ImageDraw.Draw(fine)
    left, top, right, bottom = (FINE * edge for edge in shape.box)
    box, third = (left, top, right - 1, bottom - 1), (right - left) / 3
    if shape.name == "circle":
        pen.ellipse(box, fill=255)
    elif shape.name == "square":
        pen.rectangle(box, fill=255)
    elif shape.name == "triangle":
        pen.polygon([((left + right) / 2, top), (right - 1, bottom - 1), (left, bottom - 1)], fill=255)
    else:
        pen.rectangle((left + third, top, right - third, bottom - 1), fill=255)
        pen.rectangle((left, top + third, right - 1, bottom - third), fill=255)
    return np.asarray(fine, np.float32).reshape(side, FINE, side, FINE).mean((1, 3)) / 255


def _plain(draw: np.random.Generator, side: int) -> np.ndarray:
    return np.broadcast_to(_grey(draw), (side, side, 3))


def _slope(draw: np.random.Generator, side: int) -> np.ndarray:
    return _mixed(
        draw, np.linspace(0, 1, side)[None, :].repeat(side, 0) if draw.random() < 0.5 else _down(side)
    )


def _down(side: int) -> np.ndarray:
    return np.linspace(0, 1, side)[:, None].repeat(side, 1)


def _stripes(draw: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    angle, wide = draw.uniform(0, np.pi), draw.uniform(3, 8)
    return _mixed(draw, (np.sin((x * np.cos(angle) + y * np.sin(angle)) * np.pi / wide) > 0).astype(float))


def _checks(draw: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    wide = int(draw.integers(3, 9))
    return _mixed(draw, ((x // wide + y // wide) % 2).astype(float))


def _grain(draw: np.random.Generator, side: int) -> np.ndarray:
    return _mixed(draw, draw.random((side, side)))


def _mixed(draw: np.random.Generator, share: np.ndarray) -> np.ndarray:
    """Mix two greys of which neither hides a shape: shares (side, side) -> (side, side, 3)."""
    return _grey(draw) * (1 - share[..., None]) + _grey(draw) * share[..., None]


def _grey(draw: np.random.Generator) -> np.ndarray:
    return draw.uniform(95, 175) + draw.normal(0, 10, 3)


GROUNDS = {"plain": _plain, "slope": _slope, "stripes": _stripes, "checks": _checks, "grain": _grain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, count in (
        ("train", 8000),
        ("val", 500),
        ("test", 1000),
        ("novel", 600),
        ("seed", 0),
        ("side", 64),
    ):
        parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args()
    splits = {name: getattr(given, name) for name in ("train", "val", "test")}
    write(given.folder, splits, given.novel, given.seed, given.side)


if __name__ == "__main__":
    main()
