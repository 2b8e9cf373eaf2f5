"""Which clips the arguments of a command name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from vitrail.core.errors import DataError
from vitrail.infer.inputs import expand


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"some bytes")
    return root


def below(*names: Path | str) -> list[str]:
    return [source.below for source in expand(map(str, names), clips=True)]


def test_videos_of_a_folder_and_what_lies_beside_them(tmp_path: Path) -> None:
    put(tmp_path, "b/2.MP4", "1.mkv", "cover.jpg", "notes.txt")
    lines: list[str] = []
    sources = list(expand([str(tmp_path)], None, lines.append, clips=True))
    assert [source.below for source in sources] == ["1.mkv", "b/2.MP4"]
    assert lines == ["1 image left aside, the model takes clips: cover.jpg."]
    assert [source.below for source in expand([str(tmp_path)])] == ["cover.jpg"]


def test_folders_of_frames(tmp_path: Path) -> None:
    put(tmp_path, *(f"{clip}/f{number:03}.png" for clip in ("a", "b") for number in range(3)))
    assert below(tmp_path) == ["a", "b"]
    assert [source.open() for source in expand([str(tmp_path / "a")], clips=True)] == [tmp_path / "a"]


def test_archives_and_lists(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("run/1.mp4", b"x")
        archive.writestr("run/1.jpg", b"x")
    assert below(tmp_path / "c.zip") == ["run/1.mp4"]
    put(tmp_path / "more", "2.mp4")
    listed = expand(["-"], f"{tmp_path / 'c.zip'}\n{tmp_path / 'more'}\n".encode(), clips=True)
    assert [source.below for source in listed] == ["run/1.mp4", "2.mp4"]


def test_nothing_to_take(tmp_path: Path) -> None:
    put(tmp_path, "cat.jpg")
    with pytest.raises(DataError, match="holds no videos and no folders of numbered frames"):
        below(tmp_path)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("1.jpg", b"x")
    with pytest.raises(DataError, match=r"holds no videos\. Name an archive with videos"):
        below(tmp_path / "c.zip")
