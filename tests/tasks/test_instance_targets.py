"""Instances: what is read of objects with outlines, what a view shows of their masks, and what a check says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.augment import MOVING_TRUTH, build
from vitrail.data.instances import CELL, Instances, boxes_around, cut_mask, from_coco, from_runs, to_runs
from vitrail.data.manifest import Row
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.tasks.instances.cover import cover_in_view
from vitrail.tasks.instances.targets import InstanceTargets

SHAPE = (97, 131)
NAMES = ("cell", "core")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def disc(centre: tuple[float, float], radius: float, shape: tuple[int, int] = SHAPE) -> NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.hypot(x - centre[0], y - centre[1]) <= radius


def masked(name: str, mask: NDArray[np.bool_], **more: Any) -> dict[str, Any]:
    """Return an object of a row whose box is around its mask."""
    runs = to_runs(mask[None])[0]
    return {"class": name, "box": boxes_around([runs])[0].tolist(), "rle": runs.to_dict(), **more}


def row(*objects: dict[str, Any], part: str = "") -> Row:
    return Row("1.png", "1.png", part, json.dumps(list(objects)))


def read(*objects: dict[str, Any], part: str = "") -> Instances:
    return InstanceTargets(Truth("instances", NAMES)).read(row(*objects, part=part), Path())


def steps(size: tuple[int, int] = (64, 48), fit: str = "squash") -> Preprocess:
    return Preprocess(size, fit, 1.0, (0.0,) * 3, (1.0,) * 3, 3)  # type: ignore[arg-type]


def centre_of(cells: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the centre of mass (x, y) of a cover in pixels of the input."""
    y, x = (np.mgrid[: cells.shape[0], : cells.shape[1]] + 0.5) * CELL
    weight = cells / cells.sum()
    return float((x * weight).sum()), float((y * weight).sum())


def test_a_part_of_run_lengths_is_cut_as_the_whole_is_decoded() -> None:
    rng = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 0.98, 1.0):
        mask = rng.random((37, 53)) < density
        (runs,) = to_runs(mask[None])
        for box in ((0, 0, 53, 37), (5, 3, 41, 31), (52, 36, 53, 37), (7, 0, 8, 37)):
            left, top, right, bottom = box
            np.testing.assert_array_equal(cut_mask(runs, box), mask[top:bottom, left:right])


@pytest.mark.parametrize("counts", ["", "abc", "~~", "oooo", "11", [3, -3, 35], [36]])
def test_run_lengths_that_do_not_cover_their_image_are_refused(counts: Any) -> None:
    with pytest.raises(DataError, match=r"run lengths (count|of a mask are broken)"):
        from_coco({"size": [5, 7], "counts": counts})


def test_rings_and_objects_in_two_pieces_stay_what_they_are() -> None:
    ring = disc((40, 50), 30) & ~disc((40, 50), 20)
    pieces = disc((100, 20), 8) | disc((110, 80), 6)
    found = read(masked("cell", ring), masked("core", pieces))
    np.testing.assert_array_equal(from_runs(found.masks, SHAPE), [ring, pieces])
    assert found.boxes.kinds.tolist() == [0, 1]
    seen = InstanceTargets(Truth("instances", NAMES)).transform(found, steps(SHAPE).view(SHAPE))
    assert seen.cover is not None
    assert seen.cover.shape == (2, 25, 33)
    assert seen.cover[0, 50 // CELL, 40 // CELL] == 0  # the hole
    assert (seen.cover[1, 20 // CELL, 100 // CELL], seen.cover[1, 80 // CELL, 110 // CELL]) == (255, 255)


def test_polygons_are_drawn_and_several_are_one_object() -> None:
    square, other = [10, 10, 20, 10, 20, 20, 10, 20], [30, 30, 40, 30, 40, 40, 30, 40]
    one = {
        "class": "cell",
        "box": [10, 10, 40, 40],
        "polygons": [square, other, [1, 2]],
        "of": list(SHAPE),
    }
    (mask,) = from_runs(read(one).masks, SHAPE)
    assert mask.sum() == 200
    assert mask[12, 12]
    assert mask[35, 35]


@pytest.mark.parametrize("size", [(64, 48), (97, 131), (128, 160), (61, 83)])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_disc_lands_where_its_centre_lands(size: tuple[int, int], fit: str) -> None:
    view = steps(size, fit).view(SHAPE)
    centre = (60.3, 45.7)
    mask = disc(centre, 20)
    found = read(masked("cell", mask))
    seen = InstanceTargets(Truth("instances", NAMES)).transform(found, view)
    assert seen.cover is not None
    ((x, y),) = view.points(np.array([centre]))
    assert np.hypot(*np.subtract(centre_of(seen.cover[0]), (x, y))) < 0.25


@pytest.mark.parametrize("name", MOVING_TRUTH)
def test_covers_are_the_mask_of_the_view_averaged_over_cells(name: str) -> None:
    rng = np.random.default_rng(3)
    mask = disc((60, 45), 35) & (rng.random(SHAPE) < 0.9)
    found = read(masked("cell", mask))
    for key in range(8):
        view = steps((64, 48)).view(SHAPE, build(name), key)
        plain = view.mask(mask.astype(np.uint8), 0)
        wanted = plain.reshape(16, 4, 12, 4).mean((1, 3)) * 255
        cover = cover_in_view(found.masks, view)
        assert (
            np.abs(cover.cells[0] - wanted).max() <= 255 / 8
        )  # a tie of a pixel's centre may fall to either side
        assert np.abs(cover.cells[0] - wanted).mean() < 0.5
        if plain.any():
            rows, cols = np.flatnonzero(plain.any(1)), np.flatnonzero(plain.any(0))
            assert np.abs(cover.seen[0] - [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]).max() <= 1


def test_what_leaves_the_view_goes_with_its_mask() -> None:
    objects = (
        masked("cell", disc((20, 48), 10)),
        masked("core", disc((65, 48), 12)),
        masked("cell", disc((120, 48), 8)),
    )
    view = steps((97, 97), "crop").view(SHAPE)
    seen = InstanceTargets(Truth("instances", NAMES)).transform(read(*objects), view)
    assert seen.cover is not None
    assert len(seen.cover) == len(seen.boxes.kinds) < 3
    place = seen.boxes.kinds.tolist().index(1)
    assert np.hypot(*np.subtract(centre_of(seen.cover[place]), (65 - 17, 48))) < 0.25
    assert seen.masks == ()


def test_the_box_of_a_cut_object_follows_what_is_left_of_its_mask() -> None:
    corner = np.zeros(SHAPE, bool)
    corner[10:20, 5:60] = True  # a lying bar, and below its hidden end a standing one
    corner[10:90, 5:12] = True
    view = steps((97, 97), "crop").view(SHAPE)  # from column 17 on
    seen = InstanceTargets(Truth("instances", NAMES)).transform(read(masked("cell", corner)), view)
    np.testing.assert_allclose(seen.boxes.xyxy, [[0, 10, 43, 20]], atol=1)
    whole = InstanceTargets(Truth("instances", NAMES)).transform(
        read(masked("cell", corner) | {"box": [5, 5, 70, 90]}), steps(SHAPE).view(SHAPE)
    )
    np.testing.assert_allclose(whole.boxes.xyxy, [[5, 5, 70, 90]])  # nothing is hidden: as it is stated


def test_objects_without_an_outline_are_crowds_that_fill_their_box() -> None:
    bare = {"class": "core", "box": [10, 20, 30, 40], "of": list(SHAPE)}
    empty = masked("cell", np.zeros(SHAPE, bool)) | {"box": [50, 50, 60, 60]}
    nothing = masked("cell", np.zeros(SHAPE, bool))
    found = read(masked("cell", disc((60, 40), 9)), bare, empty, nothing)
    assert found.boxes.crowd.tolist() == [False, True, True]
    masks = from_runs(found.masks, SHAPE)
    assert masks[1, 20:40, 10:30].all()
    assert masks[1].sum() == 400
    assert masks[2].sum() == 100


def test_a_window_has_its_part_of_the_masks() -> None:
    objects = masked("cell", disc((60, 40), 20)), masked("core", disc((10, 10), 5))
    found = read(*objects, part="window=50,30,90,70")
    assert found.boxes.xyxy.tolist() == [[0, 0, 30, 30]]
    np.testing.assert_array_equal(from_runs(found.masks, (40, 40))[0], disc((60, 40), 20)[30:70, 50:90])


def test_an_outline_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="on one of"):
        read(masked("cell", disc((60, 40), 20)), masked("cell", disc((30, 30), 9, (60, 70))))
    with pytest.raises(DataError, match="object 1 of its list has a polygon"):
        read(
            {"class": "cell", "box": [0, 0, 1, 1], "polygons": [[0, 0, 1, 1, float("nan"), 2]], "of": [5, 5]}
        )


def checked(
    root: Path, *objects: dict[str, Any], orientation: int = 1, stated: tuple[int, int] = SHAPE
) -> Prepared:
    """Return the check of a COCO set of one image with these objects, and a second image with a disc."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    rng = np.random.default_rng(1)
    root.mkdir(exist_ok=True)
    listed = [list(objects), [masked("cell", disc((60, 45), 20))]]
    images, annotations = [], []
    for i, own in enumerate(listed):
        pixels = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
        turned = orientation if not i else 1
        Image.fromarray(pixels if turned < 5 else pixels.transpose(1, 0, 2)).save(
            root / f"{i}.png", exif=exif if turned > 1 else None
        )
        height, width = stated if not i else SHAPE
        images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
        for one in own:
            left, top, right, bottom = one["box"]
            outline = (
                {"segmentation": one.get("rle") or one["polygons"]}
                if {"rle", "polygons"} & one.keys()
                else {}
            )
            annotations.append(
                {"image_id": i, "category_id": NAMES.index(one["class"]), "iscrowd": int("crowd" in one)}
                | {"bbox": [left, top, right - left, bottom - top]}
                | outline
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    (root / "objects.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return prepare(root, LayoutOptions(layout="boxes"), task="instances")


def texts(prepared: Prepared) -> dict[str, str]:
    return {finding.kind: finding.text for finding in prepared.report.findings}


def test_a_check_counts_masks_and_their_sizes(tmp_path: Path) -> None:
    crowd = masked("core", disc((100, 70), 15), crowd=True)
    prepared = checked(tmp_path, masked("core", disc((30, 40), 20)), masked("cell", disc((80, 30), 9)), crowd)
    said = texts(prepared)
    assert said["object classes"].startswith("Objects: 2 cell in 2 images, 1 core in 1 image (and 1 crowd")
    assert "1,261" in said["mask sizes"] or "median mask" in said["mask sizes"]
    assert (
        not {"no outline", "empty mask", "box apart", "doubled mask", "masks overlap", "mask size"}
        & said.keys()
    )


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("no outline", {"class": "core", "box": [10, 10, 30, 30]}),
        ("empty mask", masked("core", np.zeros(SHAPE, bool)) | {"box": [10, 10, 30, 30]}),
        ("few corners", {"class": "core", "box": [10, 10, 30, 30], "polygons": [[10, 10, 30, 30]]}),
        ("box apart", masked("core", disc((90, 60), 10)) | {"box": [70, 50, 100, 70]}),
        ("doubled mask", masked("cell", disc((30, 40), 20))),
        ("masks overlap", masked("core", disc((30, 40), 15))),
        (
            "mask outside",
            {"class": "core", "box": [100, 60, 140, 90], "polygons": [[100, 60, 140, 60, 140, 90]]},
        ),
    ],
)
def test_a_check_names_what_is_wrong_with_masks(tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    prepared = checked(tmp_path, masked("cell", disc((30, 40), 20)), more)
    assert kind in texts(prepared)
    assert all(one.state == "kept" for one in prepared.manifest.rows(state=None))


def test_masks_of_another_size_keep_the_image_out(tmp_path: Path) -> None:
    prepared = checked(tmp_path, masked("cell", disc((20, 20), 9, (90, 131))))
    assert {one.id: one.state for one in prepared.manifest.rows(state=None)}["0.png"] == "quarantined"
    assert "mask size" in texts(prepared)


def test_outlines_are_those_of_the_upright_image(tmp_path: Path) -> None:
    mask = disc((100, 40), 15)
    prepared = checked(
        tmp_path, masked("cell", mask), orientation=5
    )  # its pixels are those of the transposed image
    (one,) = [own for own in prepared.manifest.rows(state=None) if own.id == "0.png"]
    assert one.state == "kept"
    found = InstanceTargets(prepared.manifest.truth).read(one, tmp_path)
    np.testing.assert_array_equal(from_runs(found.masks, SHAPE)[0], mask)
    lying = checked(tmp_path / "lying", masked("cell", mask.T), orientation=5, stated=SHAPE[::-1])
    assert "quarantined" in {own.state for own in lying.manifest.rows(state=None)}


def test_masks_are_drawn_in_the_colour_of_their_class() -> None:
    targets = InstanceTargets(Truth("instances", NAMES))
    image = Image.new("RGB", SHAPE[::-1])
    drawn = targets.draw(image, row(masked("cell", disc((60, 45), 20))), Path())
    scale = drawn.width // image.width
    assert sum(drawn.getpixel((60 * scale, 45 * scale))) > 0  # type: ignore[arg-type]
    assert drawn.getpixel((100 * scale, 80 * scale)) == (0, 0, 0)
    about = targets.draw(image, row(masked("cell", disc((60, 45), 20))), Path(), about="core")
    assert about.size == (image.width * scale, image.height * scale)


def test_boxes_alone_are_no_instances(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no outline of any object"):
        InstanceTargets(Truth("boxes", NAMES)).usable([row({"class": "cell", "box": [0, 0, 5, 5]})], ())
    with pytest.raises(DataError, match="kind 'mask'"):
        InstanceTargets.gather(Truth("mask", NAMES), [])
    assert tmp_path
