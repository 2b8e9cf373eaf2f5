from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from clip_files import SIZE, cut, film, number_of, numbered, sound
from PIL import Image

from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data import videos
from vitrail.data.doctor import examine
from vitrail.data.image_facts import Memory, look
from vitrail.data.layouts import Entry
from vitrail.data.open_image import files_of, load, load_clip, read, row_hash
from vitrail.data.parts import frames_part
from vitrail.data.video_index import index_of
from vitrail.data.videos import frames_of, read_clip, video_facts, write_video

pytest.importorskip("av", reason="needs the extra video")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 50 frames in two seconds."""
    return film(tmp_path_factory.mktemp("film") / "whole.mp4", numbered(50))


# Frames by their time


def test_frames_are_the_middles_of_equal_spans(whole: Path) -> None:
    clip = read_clip(whole, "", 5)
    assert clip.frames.shape == (5, *SIZE, 3)
    assert clip.frames.dtype == np.uint8
    assert [number_of(frame) for frame in clip.frames] == [5, 15, 25, 35, 45]
    assert clip.times == (0.2, 0.6, 1.0, 1.4, 1.8)
    assert clip.notes == ()


@pytest.mark.parametrize(("first", "stop"), [(0, 4), (13, 17), (8, 22), (46, 50), (37, 38)])
def test_every_part_gives_its_own_frames(whole: Path, first: int, stop: int) -> None:
    clip = read_clip(whole, frames_part(first, stop), stop - first)
    assert [number_of(frame) for frame in clip.frames] == list(range(first, stop))
    np.testing.assert_allclose(clip.times, np.arange(first, stop) / 25, atol=1e-6)


def test_a_key_draws_a_frame_of_each_span(whole: Path) -> None:
    drawn = [read_clip(whole, "", 5, key=key).times for key in (*range(20), 3)]
    assert drawn[3] == drawn[-1]
    assert len(set(drawn)) > 10
    for times in drawn:
        assert [int(round(second * 25) // 10) for second in times] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg2video")]
)
def test_other_containers_give_the_same_frames(tmp_path: Path, name: str, codec: str) -> None:
    path = film(tmp_path / name, numbered(50), codec=codec)
    clip = read_clip(path, frames_part(20, 40), 5)
    assert [number_of(frame) for frame in clip.frames] == [22, 26, 30, 34, 38]
    assert read_clip(path.read_bytes(), frames_part(20, 40), 5).times == clip.times


def test_frames_at_irregular_times_are_chosen_by_time(tmp_path: Path) -> None:
    stamps = [*range(0, 1000, 20), *range(1000, 6000, 500)]  # 50 frames in the first second, 10 in five more
    path = film(tmp_path / "phone.mp4", numbered(60), stamps=stamps)
    facts = video_facts(path)
    assert facts.frames == 60
    assert facts.seconds == pytest.approx(6, abs=0.5)
    assert any("irregular" in note for note in facts.notes)
    assert read_clip(path, "", 6).times == (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)


def test_only_what_is_needed_is_decoded(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = videos.upright

    def counted(frame: object, size: object = None) -> object:
        seen.append(frame)
        return plain(frame, size)  # type: ignore[arg-type]

    monkeypatch.setattr("vitrail.data.video_frames.upright", counted)
    read_clip(whole, frames_part(40, 50), 2)
    assert len(seen) == 2
    index = index_of(whole, "whole")
    assert len(index) == 50
    assert len(index.keys) == 5
    assert index.exact
    assert not index.cut


def test_all_frames_come_in_order(whole: Path) -> None:
    found = list(frames_of(whole))
    assert [number_of(frame) for _, frame in found] == list(range(50))
    assert [round(second * 25) for second, _ in found] == list(range(50))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    frames = numbered(12, (31, 45))
    write_video(tmp_path / "new" / "odd.mp4", iter(frames), 12.5)
    facts = video_facts(tmp_path / "new" / "odd.mp4")
    assert facts[:4] == (12, pytest.approx(0.96), pytest.approx(12.5), (32, 46))
    assert facts.notes == ()
    back = read_clip(tmp_path / "new" / "odd.mp4", "", 12).frames[:, :31, :45]
    assert np.abs(back.astype(int) - frames)[:, 20:, 30:].max() < 8
    with pytest.raises(DataError, match="at least one frame"):
        write_video(tmp_path / "none.mp4", [], 25)
    assert not (tmp_path / "none.mp4").exists()


# Files with something wrong, each with its sentence


def test_a_missing_tail_is_named_and_the_rest_is_used(tmp_path: Path, whole: Path) -> None:
    path = cut(tmp_path / "cut.mp4", whole, 0.8)
    facts = video_facts(path)
    assert facts.missing is not None
    assert 0.4 < facts.missing < 2
    clip = read_clip(path, "", 4)
    assert clip.notes == (f"its end is missing from second {facts.missing:.1f} on, the rest is used",)
    assert facts.notes[: len(clip.notes)] == clip.notes
    assert [number_of(frame) for frame in clip.frames] == [round(second * 25) for second in clip.times]
    assert max(clip.times) < facts.missing
    assert read_clip(path, frames_part(0, 8), 4).notes == ()  # this part is whole
    with pytest.raises(DataError, match="because its end is missing"):
        read_clip(path, frames_part(48, 50), 2)


def test_a_missing_tail_of_a_matroska_file_is_named(tmp_path: Path) -> None:
    source = film(tmp_path / "whole.mkv", numbered(100), options={"cluster_time_limit": "400"})
    path = cut(tmp_path / "cut.mkv", source, 0.5)
    facts = video_facts(path)
    assert facts.missing is not None
    assert 1 < facts.missing < 3
    clip = read_clip(path, frames_part(20, 30), 2)
    assert [number_of(frame) for frame in clip.frames] == [22, 27]


def test_a_file_that_is_cut_before_its_list_of_frames(tmp_path: Path) -> None:
    source = film(tmp_path / "phone.mp4", numbered(30), options={"brand": "mp42"})
    with pytest.raises(DataError, match="cut off before its list of frames"):
        read_clip(cut(tmp_path / "cut.mp4", source, 0.5), "", 4)


def test_one_frame_is_repeated(tmp_path: Path) -> None:
    path = film(tmp_path / "one.mp4", numbered(1))
    clip = read_clip(path, "", 3)
    assert clip.frames.shape == (3, *SIZE, 3)
    assert (clip.frames == clip.frames[:1]).all()
    assert clip.times == (0.0, 0.0, 0.0)
    assert clip.notes == (videos.ONE_FRAME,)
    assert video_facts(path).notes == (videos.ONE_FRAME,)


def test_fewer_frames_than_wanted_are_repeated(tmp_path: Path, whole: Path) -> None:
    clip = read_clip(whole, frames_part(0, 4), 8)
    assert [number_of(frame) for frame in clip.frames] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert clip.notes == ("4 frames where 8 are wanted: some are repeated",)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    path = film(tmp_path / "turned.mp4", numbered(3), rotation=degrees)
    upright = np.rot90(numbered(3), degrees // 90, axes=(1, 2))
    clip, facts = read_clip(path, "", 3), video_facts(path)
    assert clip.frames.shape == upright.shape
    assert facts.size == upright.shape[1:3]
    assert np.abs(clip.frames.astype(int) - upright).mean() < 6
    assert clip.notes == facts.notes == ("turned upright by its rotation tag",)
    assert facts.rotation == degrees % 360
    assert next(frames_of(path))[1].shape == upright.shape[1:]


def test_many_frames_a_second_are_taken_by_time(tmp_path: Path) -> None:
    path = film(tmp_path / "slow.mp4", numbered(48), rate=120)
    facts = video_facts(path)
    assert facts.rate == pytest.approx(120)
    assert facts.notes[0].startswith("120 frames a second")
    assert read_clip(path, "", 4).times == pytest.approx((0.05, 0.15, 0.25, 0.35))


def test_a_broken_middle_is_bridged(tmp_path: Path, whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    third = len(data) // 3
    data[third : third + 400] = b"\xff" * 400
    path = tmp_path / "scratched.mp4"
    path.write_bytes(data)
    clip = read_clip(path, "", 50)
    assert clip.frames.shape == (50, *SIZE, 3)
    assert len(list(frames_of(path))) > 30


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"x.mp4 is empty \(0 bytes\)"),
        (b"a list of films\nfilm,class\n" * 30, "x.mp4 holds text, not a video"),
        (b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n", "x.mp4 holds text, not a video"),
        (b"<!DOCTYPE html><html>", "x.mp4 is a saved web page"),
        (bytes(4000), "x.mp4 holds only zeros"),
        (
            b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9,
            "x.mp4 is broken, or no video of a kind that is known",
        ),
    ],
)
def test_what_is_no_video_says_what_it_is(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(DataError, match=sentence):
            read_clip(source, "", 2, name="x.mp4")


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds sound only, no pictures"):
        read_clip(sound(tmp_path / "song.mp4"), "", 2)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_clip(tmp_path / "gone.mp4", "", 2)


def test_parts_that_do_not_exist(whole: Path) -> None:
    with pytest.raises(DataError, match="50 frames, and none of the part"):
        read_clip(whole, "frames=50,60", 2)
    with pytest.raises(DataError, match=r"is empty\. Mend it"):
        read_clip(whole, "frames=7,7", 2)
    assert read_clip(whole, "frames=40,60", 2).notes == (
        "its part ends with frame 59, the file with frame 49",
    )


def test_a_missing_extra_is_named(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitrail\[video\]'"):
        video_facts(whole.read_bytes())
    facts = look(whole.parent, whole.name, Memory(tmp_path / "facts.db"))
    assert "pip install 'vitrail[video]'" in facts.error
    monkeypatch.delitem(sys.modules, "av")
    assert not look(whole.parent, whole.name, Memory(tmp_path / "facts.db")).error  # the refusal is not kept


# Rows of manifests


def test_the_image_of_a_clip_is_its_middle_frame(whole: Path) -> None:
    root, name = whole.parent, whole.name
    assert number_of(load(root, name).image) == 25
    assert number_of(load(root, name, part="frames=10,20").image) == 15
    assert load(root, name, 1).image.shape == (*SIZE, 1)
    assert read(root, name, "frames=10,20").startswith(b"\x93NUMPY")
    assert files_of(root, name, "frames=10,20") == (whole,)
    assert load_clip(root, name, "", 2, channels=1).frames.shape == (2, *SIZE, 1)


def test_clips_in_archives_are_clips(whole: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as packed:
        packed.write(whole, "walk/a.mp4")
    path = "films.zip!walk/a.mp4"
    assert (load_clip(tmp_path, path, "", 3).frames == read_clip(whole, "", 3).frames).all()
    assert number_of(load(tmp_path, path).image) == 25
    assert row_hash(tmp_path, path) == row_hash(whole.parent, whole.name)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_frames_is_a_clip(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "walk" / "a").mkdir(parents=True)
    for i, frame in enumerate(numbered(12)):
        Image.fromarray(frame).save(tmp_path / "walk" / "a" / f"{i + 1}.png")  # 10.png follows 9.png
    path = "walk/a"
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in (tmp_path / "walk" / "a").iterdir():
                archive.write(file, f"walk/a/{file.name}")
        path = "set.zip!walk/a"
    clip = load_clip(tmp_path, path, "frames=4,12", 4)
    assert [number_of(frame) for frame in clip.frames] == [5, 7, 9, 11]
    assert clip.times == (0.2, 0.28, 0.36, 0.44)
    assert number_of(load(tmp_path, path, part="frames=0,12").image) == 6
    assert row_hash(tmp_path, path, "frames=0,6") != row_hash(tmp_path, path, "frames=6,12")
    assert len(files_of(tmp_path, path, "frames=0,12")) == (1 if packed else 12)
    with pytest.raises(DataError, match="12 frames, and none of"):
        load_clip(tmp_path, path, "frames=12,20", 4)
    with pytest.raises(DataError, match=r"holds no frames|is no folder of frames"):
        load_clip(tmp_path, f"{path}b", "frames=0,4", 4)


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i, side in enumerate((20, 20, 30)):
        Image.new("RGB", (side, 20)).save(tmp_path / "a" / f"{i}.png")
    with pytest.raises(DataError, match=r"frames of two sizes: a/0.png is 20x20, a/2.png 30x20"):
        load_clip(tmp_path, "a", "frames=0,3", 3)


def test_a_check_names_every_bad_clip(tmp_path: Path, whole: Path) -> None:
    film(tmp_path / "good.mp4", numbered(20))
    film(tmp_path / "one.mp4", numbered(1))
    film(tmp_path / "fast.mp4", numbered(30)[::-1], rate=120)
    film(tmp_path / "turned.mp4", numbered(25)[5:], rotation=90)
    cut(tmp_path / "cut.mp4", whole, 0.6)
    sound(tmp_path / "song.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.mp4").write_text("no film at all\n" * 20)
    names = sorted(path.name for path in tmp_path.iterdir())
    report = examine([Entry(name, name, name[0]) for name in names], tmp_path)
    told = {finding.ids: finding.text for finding in report.general if finding.kind == "converted"}
    assert told[("one.mp4",)].startswith("1 clip: one frame only")
    assert told[("fast.mp4",)].startswith("1 clip: 120 frames a second")
    assert told[("turned.mp4",)].startswith("1 clip: turned upright by its rotation tag")
    assert told[("cut.mp4",)].startswith("1 clip: its end is missing from second ")
    broken = {row.path: row.reason for row in report.rows if row.state != "kept"}
    assert set(broken) == {"empty.mp4", "notes.mp4", "song.mp4"}
    assert broken["empty.mp4"].startswith("empty.mp4 is empty (0 bytes)")
    assert "holds text, not a video" in broken["notes.mp4"]
    assert "sound only" in broken["song.mp4"]


def test_clips_that_share_their_middle_frame_are_no_duplicates(tmp_path: Path) -> None:
    frames = numbered(21, (32, 32))
    up = film(tmp_path / "up.mp4", frames)
    film(tmp_path / "down.mp4", frames[::-1])
    (tmp_path / "again.mp4").write_bytes(up.read_bytes() + b"\0\0\0\x08free")  # another file, the same frames
    entries = [Entry(name, name, name) for name in ("up.mp4", "down.mp4", "again.mp4")]
    report = examine(entries, tmp_path)
    (conflict,) = [finding for finding in report.general if finding.kind == "conflict"]
    assert set(conflict.ids) == {"up.mp4", "again.mp4"}
