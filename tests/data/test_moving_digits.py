"""The clips of the built-in set: neither a frame nor the frames without their order tell the class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vitrail.data import moving_digits
from vitrail.data.builtin import materialise
from vitrail.data.moving_digits import DIRECTIONS, FRAMES, SIDE, frames_of

DIGIT = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)


def frames_as_bytes(frames: np.ndarray) -> list[bytes]:
    return [frame.tobytes() for frame in frames]


@pytest.mark.parametrize(
    "kept", [range(FRAMES), [0, 1, 3, 4, 5, 6, 8, 9], range(1, 10, 2)], ids=["all", "8", "5"]
)
def test_the_frames_without_their_order_are_those_of_either_direction(kept: range | list[int]) -> None:
    """Over all starts in a row, the bags of frames that a direction shows are as frequent as those of the other."""
    starts = [(right, 3) for right in range(SIDE)]
    bags = {
        name: Counter(
            tuple(sorted(frames_as_bytes(frames_of(DIGIT, start, name)[list(kept)]))) for start in starts
        )
        for name in DIRECTIONS
    }
    assert bags["left"] == bags["right"]
    alone = {
        name: Counter(frames_of(DIGIT, start, name)[4].tobytes() for start in starts) for name in DIRECTIONS
    }
    assert alone["left"] == alone["right"]
    assert len(alone["left"]) == len(starts)


def test_a_digit_moves_where_its_class_says() -> None:
    for name, step in DIRECTIONS.items():
        frames = frames_of(np.full((1, 1), 255, np.uint8), (0, 5), name)
        rows, cols = np.nonzero(frames)[1:]
        assert set(rows) == {5}
        assert set((np.diff(cols) + 16) % 32 - 16) == {step}  # the short way round the border


def test_the_files_are_equal_each_time_and_lossless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    monkeypatch.setattr(moving_digits, "SCANS", 3)
    one, two = materialise("moving_digits", tmp_path / "a"), materialise("moving_digits", tmp_path / "b")
    files = sorted(file.relative_to(one).as_posix() for file in one.rglob("*.mkv"))
    assert len(files) == 6
    assert files[0] == "left/v_left_g0001_c01.mkv"
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)
    with av.open(str(one / files[0])) as opened:
        shown = list(opened.decode(video=0))
    assert [round(frame.time, 3) for frame in shown] == [round(number / 10, 3) for number in range(FRAMES)]
    greys = np.stack([frame.to_ndarray(format="gray") for frame in shown])
    assert len(np.unique(greys)) <= 17
    assert {int(grey.sum()) for grey in greys} == {int(greys[0].sum())}
