"""Truths are read lazily with their images, move with them in training, and stay in their frame otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encode, put
from PIL import Image

from vitrail.core.errors import DataError, SettingError
from vitrail.data.augment import build
from vitrail.data.loader import ImageDataset, Order, Share, evaluation, training
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.view import View

VOID = 255
STEPS = Preprocess((31, 43), "pad", 1.0, (0.0,), (1.0,), 1)


class Masks:
    """A mask beside each image."""

    def read(self, row: Row, root: Path) -> Any:
        file = (root / row.path).with_suffix(".mask")
        if not file.is_file():
            raise DataError(f"{row.path} has no mask. Draw one.")
        with Image.open(file) as image:
            return np.asarray(image)

    def drawn(self, target: Any, key: int) -> Any:
        return target

    def transform(self, target: Any, view: View) -> Any:
        return view.mask(target, VOID)

    def view(self, target: Any, draw: Any, key: int) -> Any:
        return draw(0)

    def collate(self, targets: Any) -> Any:
        return tuple(targets)


def masks(root: Path, many: int = 5) -> list[Row]:
    """Write images whose right half is white, with masks that say so."""
    for i in range(many):
        half = np.zeros((47 + i, 61 + 2 * i), np.uint8)
        half[:, half.shape[1] // 2 :] = 1
        put(root / f"{i}.png", encode(half * 255))
        put(root / f"{i}.mask", encode(half))
    return [Row(str(i), f"{i}.png", "") for i in range(many)]


@pytest.mark.parametrize("workers", [0, 1])
def test_masks_move_with_their_pictures_in_training(tmp_path: Path, workers: int) -> None:
    rows = masks(tmp_path)
    pictures = ImageDataset(rows, tmp_path, STEPS, Masks(), build("flip_crop", channels=1))
    seen = 0
    for batch in training(pictures, Order(5, 5, 0), Share(), 0, 3, workers):
        for image, mask, one in zip(batch.images, batch.targets, batch.geometry, strict=True):
            assert mask.shape == (31, 43)
            assert (image[0].numpy() > 0.5)[mask != VOID].mean() == pytest.approx((mask == 1).mean(), abs=0.1)
            assert one.size == (31, 43)
            seen += one.moved is not None
    assert seen


def test_at_evaluation_masks_lie_as_they_lie(tmp_path: Path) -> None:
    rows = masks(tmp_path)
    batch = next(evaluation(ImageDataset(rows, tmp_path, STEPS, Masks()), 5, Share()))
    for i, (mask, one) in enumerate(zip(batch.targets, batch.geometry, strict=True)):
        assert mask.shape == one.original == (47 + i, 61 + 2 * i)


def test_a_truth_is_read_when_its_picture_is(tmp_path: Path) -> None:
    rows = masks(tmp_path)
    pictures = ImageDataset(rows, tmp_path, STEPS, Masks())
    (tmp_path / "3.mask").unlink()
    with pytest.raises(DataError, match=r"3\.png has no mask"):
        list(evaluation(pictures, 5, Share()))


class Numbers(Masks):
    """Truths that are numbers in their cells."""

    def read(self, row: Row, root: Path) -> Any:
        return float(row.target)

    def words(self, row: Row) -> str:
        return row.target


def test_a_truth_that_a_task_cannot_read_is_named_with_its_picture(tmp_path: Path) -> None:
    rows = [row._replace(target="twelve") for row in masks(tmp_path)]
    with pytest.raises(
        DataError, match=r"0: its truth 'twelve' cannot be read by Numbers \(ValueError: .*--task"
    ):
        list(evaluation(ImageDataset(rows, tmp_path, STEPS, Numbers()), 5, Share()))


def test_an_augmentation_that_no_mask_follows_is_refused(tmp_path: Path) -> None:
    pictures = ImageDataset(masks(tmp_path), tmp_path, STEPS, Masks(), build("trivial", channels=1))
    with pytest.raises(SettingError, match="flip_crop"):
        list(training(pictures, Order(5, 5, 0), Share(), 0, 1, 0))
