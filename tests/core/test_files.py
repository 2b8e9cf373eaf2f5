"""Folders that cannot be written: the message reports the first error, and the old file stays."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from vitrail.core import cache, files
from vitrail.core.environment import cache_dir, expanded
from vitrail.core.errors import RunError
from vitrail.core.files import (
    make_folder,
    refuse_unwritable,
    refuse_unwritable_folder,
    replace,
    replace_folder,
    write_text,
)


def test_a_file_is_written_below_folders_that_are_not_there_and_through_a_link(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "one")
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "a" / "b" / "c.txt")
    write_text(link, "two")
    assert link.is_symlink()
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "two"
    assert [one.name for one in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]


@pytest.mark.parametrize("name", ["n" * 240 + ".txt", "n" * 255, "ü" * 120 + ".png", "a." + "s" * 250])
def test_any_name_that_a_system_takes_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "text")
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_the_way_out_of_a_name_that_is_too_long(tmp_path):
    for refuse in (lambda path: write_text(path, "text"), refuse_unwritable, refuse_unwritable_folder):
        with pytest.raises(RunError, match=r"File name too long\. Choose a shorter name"):
            refuse(tmp_path / ("n" * 256))


def test_the_error_is_told_and_not_the_one_of_cleaning_up(tmp_path):
    """As on a disk that was unplugged: even removing the temporary file fails."""

    def lost(temporary: Path) -> None:
        temporary.unlink()
        temporary.parent.rename(tmp_path / "elsewhere")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"No space left on device\. Free some disk space"):
        replace(tmp_path / "folder" / "file.txt", lost)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("old")
    for write in (
        lambda: write_text(tmp_path / "file" / "x.txt", "text"),
        lambda: replace_folder(tmp_path / "file" / "x", lambda draft: None),
        lambda: refuse_unwritable(tmp_path / "file" / "x.txt"),
        lambda: make_folder(tmp_path / "file"),
    ):
        with pytest.raises(RunError, match="file"):
            write()
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_in_the_place_of_a_file_stays(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(RunError, match=r"page\.html could not be written"):
        write_text(tmp_path / "page.html", "text")
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_a_device_is_written_into_and_stays_a_device(tmp_path):
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(RunError, match="/dev/full could not be written: No space left on device"):
        write_text(Path("/dev/full"), "text")
    assert Path("/dev/full").is_char_device()
    write_text(Path(os.devnull), "text")
    assert Path(os.devnull).is_char_device()


def test_a_pipe_is_written_into(tmp_path):
    pipe, heard = tmp_path / "pipe.csv", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    refuse_unwritable(pipe)
    write_text(pipe, "a,b\n")
    reader.join(10)
    assert heard == ["a,b\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_disk_that_keeps_no_modes_takes_files_all_the_same(tmp_path, monkeypatch):
    def refused(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refused)
    write_text(tmp_path / "file.txt", "text")
    assert (tmp_path / "file.txt").read_text() == "text"


def test_a_folder_comes_whole_or_not_at_all(tmp_path):
    def fill(draft: Path) -> None:
        (draft / "one.txt").write_text("1")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"set could not be written: No space.* Free some disk space"):
        replace_folder(tmp_path / "set", fill)
    assert not list(tmp_path.iterdir())
    replace_folder(tmp_path / "set", lambda draft: (draft / "one.txt").write_text("1"))
    with pytest.raises(RunError):
        replace_folder(tmp_path / "set", lambda draft: (draft / "two.txt").write_text("2"))
    assert [one.name for one in (tmp_path / "set").iterdir()] == ["one.txt"]


def test_a_full_disk_is_found_before_the_work(small_disk):
    refuse_unwritable(small_disk / "page.html")
    with suppress(OSError):
        (small_disk / "much").write_bytes(bytes(4_000_000))
    with pytest.raises(RunError, match="Free some disk space"):
        refuse_unwritable(small_disk / "page.html")


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A cache that cannot be written, because a file has its name; the temporary folder is writable."""
    (tmp_path / "cache").write_text("no folder")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    cache._temporary.cache_clear()
    yield tmp_path
    cache._temporary.cache_clear()


def test_a_cache_that_cannot_be_written_is_said_once(closed, caplog):
    for name in ("steps", "bf16"):
        cache.keep_json(cache_dir() / name / "one.json", 1)
    found = cache.place("data")
    (said,) = caplog.messages
    assert said.startswith(f"{closed}/cache cannot be written (")
    assert said.endswith("Set VITRAIL_CACHE to another folder.")
    assert found.parent == closed / "temporary" / f"vitrail-{os.getuid()}"
    assert found.parent.stat().st_mode & 0o077 == 0
    assert cache.places("data") == (cache_dir() / "data", found)


def test_a_temporary_folder_of_somebody_else_is_not_trusted(closed):
    other = closed / "temporary" / f"vitrail-{os.getuid()}"
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    found = cache.place("data")
    assert other not in found.parents
    assert cache.places("data") == (cache_dir() / "data",)


def test_where_nothing_can_be_written_the_way_out_is_named(closed, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(closed / "cache"))
    with pytest.raises(RunError, match=r"Neither .* nor .* VITRAIL_CACHE=FOLDER"):
        cache.place("data")


def test_a_user_without_a_home_has_a_cache(monkeypatch, tmp_path):
    for name in ("VITRAIL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_dir() == tmp_path / f"vitrail-{os.getuid()}"
    assert expanded("~nobody-is-called-so/photos") == Path("~nobody-is-called-so/photos")


def test_errors_of_the_system_are_sentences():
    told = files.unusable(PermissionError(13, "Permission denied", "/there/x"))
    assert told == (
        "/there/x cannot be read or written: Permission denied. Check its permissions, or choose another place."
    )
