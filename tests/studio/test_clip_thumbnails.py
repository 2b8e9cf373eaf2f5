"""Thumbnails of clips, and clips that a user gives a model to look at."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.builtin import materialise
from vitrail.data.manifest import Row
from vitrail.studio.pictures import Pictures
from vitrail.studio.thumbnails import Thumbnails, Turns, stamp_of

pytest.importorskip("av")
NAME = "left/v_left_g0001_c01.mkv"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise("moving_digits", tmp_path_factory.mktemp("clips"))


def test_a_clip_is_shown_by_its_middle_frame(clips: Path) -> None:
    thumbnails = Thumbnails(Turns(lambda: 1))
    whole, part = Row(NAME, NAME), Row(f"{NAME}#0-1", NAME, "frames=0,2")
    shown = [thumbnails.thumbnail(clips, row, stamp_of(clips, row)) for row in (whole, part, whole)]
    assert Image.open(io.BytesIO(shown[0])).size == (128, 128)
    assert shown[0] == shown[2] != shown[1]


def test_a_video_is_kept_and_a_broken_one_is_refused(clips: Path, tmp_path: Path) -> None:
    pictures = Pictures(tmp_path / "kept")
    kept = pictures.add("clip.mkv", (clips / NAME).read_bytes())
    assert kept.path.read_bytes() == (clips / NAME).read_bytes()
    with pytest.raises(DataError, match=r"broken\.mp4"):
        pictures.add("broken.mp4", b"no video")
