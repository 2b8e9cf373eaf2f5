"""Detection: what is read of boxes, what a check says of them, and how they are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail import plots
from vitrail.core.errors import DataError, SettingError
from vitrail.data.decisions import History
from vitrail.data.manifest import Row
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.truth import Truth
from vitrail.tasks.detect.targets import DetectTargets

SIZE = (60, 90)
NAMES = ("cell", "core")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def picture(file: Path, seed: int, orientation: int = 1) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    smooth.save(file, exif=exif)


def box(name: str, *corners: float, **more: Any) -> dict[str, Any]:
    return {"class": name, "box": list(corners), **more}


def checked(
    root: Path,
    truths: list[list[dict[str, Any]]],
    orientation: int = 1,
    sizes: tuple[int, int] | None = None,
    history: History | None = None,
) -> Prepared:
    """Return the check of a COCO set with these boxes; `sizes` are the stated (height, width) of all images."""
    images, annotations = [], []
    for i, boxes in enumerate(truths):
        picture(root / f"{i}.jpg", i, orientation)
        size = {"height": sizes[0], "width": sizes[1]} if sizes else {}
        images.append({"id": i, "file_name": f"{i}.jpg", **size})
        for one in boxes:
            left, top, right, bottom = one["box"]
            annotation = {
                "image_id": i,
                "category_id": NAMES.index(one["class"]),
                "iscrowd": int("crowd" in one),
            }
            annotations.append({**annotation, "bbox": [left, top, right - left, bottom - top]})
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "boxes.json").write_text(json.dumps(content))
    return prepare(root, LayoutOptions(layout="boxes"), task="detect", history=history)


RIGHT = [box("cell", 1, 2, 30, 40), box("core", 50, 10, 70, 30)]


def texts(prepared: Prepared) -> dict[str, str]:
    return {finding.kind: finding.text for finding in prepared.report.findings}


def states(prepared: Prepared) -> dict[str, str]:
    return {row.id: row.state for row in prepared.manifest.rows(state=None)}


def row(*boxes: dict[str, Any], name: str = "a.png", part: str = "") -> Row:
    return Row(name, name, part, json.dumps(list(boxes)))


# Reading


def test_boxes_are_read_with_their_classes_and_what_does_not_count() -> None:
    targets = DetectTargets(Truth("boxes", NAMES))
    found = targets.read(
        row(
            box("core", 1, 2, 3, 4.5),
            box("cell", -3, 0, 9, 9, crowd=True),
            box("cell", 0, 0, 9, 9, difficult=True),
        ),
        Path(),
    )
    assert found.xyxy.tolist() == [[1, 2, 3, 4.5], [-3, 0, 9, 9], [0, 0, 9, 9]]
    assert (found.kinds.tolist(), found.crowd.tolist()) == ([1, 0, 0], [False, True, True])
    assert found.xyxy.dtype == np.float64
    assert found.kinds.dtype == np.int64
    assert len(targets.read(row(), Path()).kinds) == 0


def test_boxes_of_a_window_are_those_of_its_pixels() -> None:
    targets = DetectTargets(Truth("boxes", NAMES))
    found = targets.read(
        row(box("core", 5, 5, 30, 30), box("cell", 90, 90, 99, 99), part="window=10,20,50,60"), Path()
    )
    assert (found.xyxy.tolist(), found.kinds.tolist()) == ([[0, 0, 20, 10]], [1])


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("", "no boxes"),
        ("[1]", "cannot be read"),
        ('{"class": 1}', "cannot be read"),
        ('[{"class": "cell", "box": [1, 2, 3]}]', "cannot be read"),
        ('[{"class": "cell", "box": [1, 2, 3, NaN]}]', "not a number"),
        ('[{"class": "ox", "box": [1, 2, 3, 4]}]', "'ox'"),
    ],
)
def test_what_is_no_box_is_named(target: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        DetectTargets(Truth("boxes", NAMES)).read(Row("a.png", "a.png", "", target), Path())


def test_the_header_has_all_classes_and_other_truths_are_refused() -> None:
    rows = [row(box("ox", 0, 0, 1, 1)), row(box("cell", 0, 0, 1, 1)), row()]
    assert DetectTargets.gather(Truth("boxes", NAMES), rows).names == ("cell", "core", "ox")
    with pytest.raises(DataError, match="--task segment"):
        DetectTargets.gather(Truth("mask", NAMES), rows)
    with pytest.raises(DataError, match="have 0"):
        DetectTargets.gather(Truth("boxes"), [row()])
    targets = DetectTargets(Truth("boxes", NAMES))
    targets.follow_header(Truth("boxes", ("core",)), [row(box("core", 0, 0, 1, 1))])
    with pytest.raises(DataError, match="ox"):
        targets.follow_header(Truth("boxes", ("ox",)), rows)
    with pytest.raises(SettingError, match="balance"):
        targets.class_weights(rows, Path())


def test_equal_and_almost_equal_truths() -> None:
    targets = DetectTargets(Truth("boxes", NAMES))
    first = row(*RIGHT)
    assert targets.same(first, row(*RIGHT[::-1]), Path())
    assert not targets.same(first, row(RIGHT[0]), Path())
    moved = [box(one["class"], *(n + 2 for n in one["box"])) for one in RIGHT]
    assert targets.alike(first, row(*moved), Path())
    assert not targets.alike(first, row(), Path())
    assert not targets.alike(first, row(box("core", 1, 2, 30, 40), box("cell", 50, 10, 70, 30)), Path())
    assert targets.alike(row(), row(), Path())
    assert targets.most_objects([first, row(), row(*RIGHT, box("cell", 0, 0, 9, 9, crowd=True))]) == 2
    assert (targets.words(first), targets.words(row())) == ("1 cell, 1 core", "no object")
    assert targets.strata(row(*RIGHT[::-1])) == NAMES


# The check


def test_a_right_set_says_its_classes_sizes_and_background(tmp_path: Path) -> None:
    truths = [RIGHT] * 9 + [[], [], [box("cell", 0, 0, 89, 60, crowd=True)]]
    prepared = checked(tmp_path, truths, sizes=SIZE)
    said = texts(prepared)
    assert "12 images in 2 classes with 19 boxes" in prepared.about()
    assert said["box classes"] == (
        "Boxes: 9 cell in 10 images (and 1 crowd or difficult, which do not count), 9 core in 9 images."
    )
    assert said["box sizes"].startswith("Sizes: 9 small boxes (below 32 × 32 px), 10 medium, 0 large")
    assert said["background"] == "2 images without any box, learned as background: 9.jpg, 10.jpg."
    assert said["objects"] == "Objects in an image: 2 in the median, 2 at most."
    assert said["few boxes"].startswith("Fewer than 20 boxes of cell (9), core (9)")
    assert not any(finding.grave for finding in prepared.report.findings)
    assert set(states(prepared).values()) == {"kept"}


def test_what_is_wrong_with_single_boxes_is_said_and_done(tmp_path: Path) -> None:
    wrong = {
        "box outside": [*RIGHT, box("cell", 60, 30, 99, 50)],
        "flat box": [*RIGHT, box("cell", 5, 5, 5, 20), box("core", 9, 9, 9, 9)],
        "box lost": [*RIGHT, box("cell", 5, 5, 9, 20), box("core", 95, 10, 120, 30)],
        "doubled box": [*RIGHT, box("cell", 1, 2, 30, 40.5), box("core", 1, 2, 30, 40)],
        "rounding": [box("core", -1, 0, 90.9, 60)],
    }
    prepared = checked(tmp_path, [*wrong.values(), *[RIGHT] * 6])
    report = prepared.report
    for i, kind in enumerate(list(wrong)[:-1]):
        assert report.of(kind) == (f"{i}.jpg",), kind
    assert not report.of("rounding")
    assert "2 boxes of no size, left out" in texts(prepared)["flat box"]
    assert "1 box there twice" in texts(prepared)["doubled box"]  # the core is another class
    assert set(states(prepared).values()) == {"kept"}
    rows = {one.id: one for one in prepared.manifest.rows()}
    assert len(prepared.targets.read(rows["1.jpg"], tmp_path).kinds) == 2
    assert prepared.targets.noted[rows["0.jpg"].id, rows["0.jpg"].target].xyxy[2].tolist() == [60, 30, 90, 50]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_upright_image_are_right_in_every_orientation(orientation: int, tmp_path: Path) -> None:
    size = SIZE if orientation < 5 else SIZE[::-1]
    fitting = [box("cell", 0, 0, size[1], size[0]), box("core", 1, 2, 9, 20)]
    prepared = checked(tmp_path, [fitting] * 4, orientation, size)
    assert not any(finding.grave for finding in prepared.report.findings if finding.kind != "missing class")
    assert set(states(prepared).values()) == {"kept"}


@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_of_the_image_before_rotation_are_named(orientation: int, tmp_path: Path) -> None:
    """By their corners without a stated size, and by the stated size where the corners fit both frames."""
    outside = [box("cell", 70, 5, 88, 20)]  # upright it is 60 wide
    for name, truth, sizes in (
        ("corners", outside, None),
        ("both", outside, SIZE),
        ("size", RIGHT[:1], SIZE),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(DataError, match=r"frame|before rotation"):
            checked(tmp_path / name, [truth] * 4, orientation, sizes)
    (tmp_path / "fits").mkdir()
    upright = [box("cell", 5, 65, 20, 88)]  # only the stated size is swapped
    assert set(states(checked(tmp_path / "fits", [upright] * 4, orientation, SIZE)).values()) == {"kept"}


def test_boxes_for_another_size_are_named(tmp_path: Path) -> None:
    (tmp_path / "scaled").mkdir()
    with pytest.raises(DataError, match="image of 180 × 120 px on one of 90 × 60"):
        checked(tmp_path / "scaled", [RIGHT] * 4, sizes=(120, 180))
    (tmp_path / "other").mkdir()
    prepared = checked(tmp_path / "other", [RIGHT] * 4, sizes=(61, 70))
    assert len(prepared.report.of("box size")) == 4
    assert set(states(prepared).values()) == {"kept"}


def test_a_class_without_boxes_and_a_set_without_any(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    prepared = checked(tmp_path / "one", [RIGHT[:1]] * 4)
    assert texts(prepared)["boxless class"].startswith("No box of core, so it cannot be learned.")
    assert prepared.manifest.truth.names == NAMES
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no object that can be used"):
        checked(tmp_path / "none", [[]] * 4)


def test_equal_images_with_other_boxes_contradict_and_a_drop_is_kept(tmp_path: Path) -> None:
    truths = [[one] for one in RIGHT] * 4
    checked(tmp_path, truths)
    (tmp_path / "1.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    prepared = prepare(tmp_path, LayoutOptions(layout="boxes"), task="detect")
    assert {name for name, state in states(prepared).items() if state == "quarantined"} == {"0.jpg", "1.jpg"}
    assert "(1 cell) = 1.jpg (1 core)" in texts(prepared)["conflict"]


# Drawings


def test_boxes_are_drawn_in_the_colour_of_their_class(tmp_path: Path) -> None:
    targets = DetectTargets(Truth("boxes", NAMES))
    image = Image.new("RGB", (400, 300), "#808080")
    shown = row(
        box("cell", 40, 60, 200, 200), box("core", 250, 100, 399, 299), box("core", 0, 0, 9, 9, crowd=True)
    )
    both = np.asarray(targets.draw(image, shown, tmp_path)).reshape(-1, 3).tolist()
    one = np.asarray(targets.draw(image, shown, tmp_path, about="core")).reshape(-1, 3).tolist()
    colours = [[int(targets.colour(name)[i : i + 2], 16) for i in (1, 3, 5)] for name in NAMES]
    assert all(colour in both for colour in colours)
    assert [colour in one for colour in colours] == [False, True]
    assert targets.colour("ox") == ""
    assert targets.draw(image, Row("a", "a", "", "[1]"), tmp_path) is image


@pytest.mark.parametrize("size", [(40, 30), (640, 480), (3000, 400), (200, 5000)])
def test_plates_stay_inside_the_image_and_apart(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import ImageDraw

    plates: list[tuple[float, ...]] = []
    drawn = ImageDraw.ImageDraw.rectangle

    def rectangle(self: Any, xy: Any, fill: Any = None, outline: Any = None, width: int = 1) -> None:
        if fill == "#0072b2":  # a plate, and no square of the legend
            plates.append(tuple(xy))
        drawn(self, xy, fill, outline, width)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", rectangle)
    wide, tall = size
    places = (
        (0, 0, 0.2, 0.2),
        (0.8, 0, 1, 0.3),
        (0.7, 0.8, 1, 1),
        (0.3, 0.3, 0.6, 0.6),
        (0.31, 0.31, 0.6, 0.6),
    )
    boxes = [
        plots.DrawnBox((a * wide, b * tall, c * wide, d * tall), f"a long name {i}", "#0072b2")
        for i, (a, b, c, d) in enumerate(places)
    ]
    image = plots.shown(Image.new("RGB", size))
    plots.draw_boxes(Image.new("RGB", size), boxes)
    assert plates or min(size) < 100  # texts that would cover the image are in the legend
    for left, top, right, bottom in plates:
        assert 0 <= left < right <= image.width
        assert 0 <= top < bottom <= image.height
    from vitrail.data.boxes import box_areas, overlap_table

    table = np.array(plates).reshape(-1, 4)
    common = overlap_table(table, table) - np.diag(box_areas(table))
    assert (common.max(1, initial=0) <= 0.2 * box_areas(table)).all()


def test_texts_without_a_place_are_in_the_legend() -> None:
    many = [
        plots.DrawnBox((i % 20 * 5, i // 20 * 5, i % 20 * 5 + 6, i // 20 * 5 + 6), "cell", "#0072b2")
        for i in range(400)
    ]
    image = Image.new("RGB", (300, 260))
    assert plots.draw_boxes(image, many).height > 260
    assert plots.draw_boxes(image, many[:400:150]).size == image.size


def test_truth_beside_prediction_says_what_is_missed_and_invented() -> None:
    image = Image.new("RGB", (400, 300))
    truth = [
        plots.DrawnBox((10, 50, 90, 120), "cell", "#0072b2"),
        plots.DrawnBox((200, 50, 290, 120), "core", "#0072b2"),
        plots.DrawnBox((300, 200, 390, 290), "crowd", "#0072b2", faint=True),
    ]
    found = [
        plots.DrawnBox((12, 50, 92, 121), "cell 91%", "#0072b2"),
        plots.DrawnBox((100, 200, 180, 270), "cell 40%", "#0072b2"),
    ]
    drawn = plots.compare_boxes(image, truth, found, [(0, 0)])
    assert drawn.width > 2 * image.width
    half = drawn.width // 2
    sides = [
        {tuple(pixel) for pixel in np.asarray(part).reshape(-1, 3).tolist()}
        for part in (drawn.crop((0, 0, half, drawn.height)), drawn.crop((half, 0, drawn.width, drawn.height)))
    ]

    def rgb(colour: str) -> tuple[int, ...]:
        return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))

    from vitrail.plots.boxes import INVENTED, MATCHED, MISSED

    assert [rgb(MATCHED) in side for side in sides] == [True, True]
    assert [rgb(MISSED) in side for side in sides] == [True, False]
    assert [rgb(INVENTED) in side for side in sides] == [False, True]
