"""The layout of clips: class folders, tables and lists, folders of frames, archives; groups, and cuts by seconds."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from pathlib import Path

import pytest
from pictures import encode, folders, put, scene
from PIL import Image

from vitrail.core.errors import DataError, SettingError
from vitrail.data.decisions import History
from vitrail.data.layouts import Layout, sniff
from vitrail.data.open_image import load_clip
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.reports.data_page import data_page

CLIPS = LayoutOptions(layout="clips")


def files(root: Path, *names: str) -> Path:
    """Write files that are named like videos: a layout reads names only."""
    for name in names:
        put(root / name, b"video")
    return root


def found(layout: Layout) -> dict[str, tuple[str, str, str]]:
    return {entry.id: (entry.target, entry.split, entry.group) for entry in layout.entries()}


def said(layout: Layout) -> str:
    return " ".join((layout.why, *layout.notes))


def video(path: Path, frames: int, rate: int = 10) -> Path:
    """Write a video whose frames are different scenes."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for number in range(frames):
            grey = scene(100 * int(path.stem) + number, (48, 64), 1)[..., 0]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        file.mux(stream.encode())
    return path


def test_class_folders_of_videos(tmp_path: Path) -> None:
    layout = sniff(files(tmp_path, "run/1.mp4", "run/2.MOV", "walk/3.webm"))
    assert (layout.name, layout.noun) == ("clips", "clip")
    assert layout.why == "class folders, because 2 folders hold the clips: run, walk."
    assert found(layout) == {
        "run/1.mp4": ("run", "", "run/1.mp4"),
        "run/2.MOV": ("run", "", "run/2.MOV"),
        "walk/3.webm": ("walk", "", "walk/3.webm"),
    }
    assert found(sniff(tmp_path, layout="folders")) == found(layout)
    assert found(sniff(tmp_path, CLIPS)) == found(layout)


def test_split_folders_of_videos(tmp_path: Path) -> None:
    layout = sniff(files(tmp_path, "train/run/1.mp4", "train/walk/2.mp4", "val/run/3.mp4", "val/walk/4.mp4"))
    assert [(entry.target, entry.split) for entry in layout.entries()] == [
        ("run", "train"),
        ("walk", "train"),
        ("run", "val"),
        ("walk", "val"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "path,label\na/1.mp4,run\na/2.mp4,walk\n"),
        ("labels.csv", "video,action\n1,run\n2,walk\n"),
        ("train.csv", "a/1.mp4 run\na/2.mp4 walk\n"),
        ("list.txt", "a/1.mp4 run\na/2.mp4 walk\n"),
    ],
)
def test_tables_and_lists_of_videos(tmp_path: Path, name: str, text: str) -> None:
    files(tmp_path, "a/1.mp4", "a/2.mp4", "a/3.mp4")
    put(tmp_path / name, text.encode())
    layout = sniff(tmp_path / name, CLIPS if "video," in text else LayoutOptions())
    assert layout.name == "clips"
    assert {entry.path: entry.target for entry in layout.entries()} == {"a/1.mp4": "run", "a/2.mp4": "walk"}
    if name == "labels.csv":
        assert {entry.path: entry.target for entry in sniff(tmp_path).entries()} == {
            "a/1.mp4": "run",
            "a/2.mp4": "walk",
        }
        assert "1 clip that no table names left aside: a/3.mp4." in sniff(tmp_path).notes
        assert found(sniff(tmp_path, LayoutOptions(labels=name))) == found(layout)


def test_a_list_beside_videos_in_one_folder(tmp_path: Path) -> None:
    files(tmp_path, "1.mp4", "2.mp4", "3.mp4")
    put(tmp_path / "list.txt", b"1.mp4 0\n2.mp4 1\n3.mp4 0\n")
    assert [entry.target for entry in sniff(tmp_path).entries()] == ["0", "1", "0"]


def test_ucf_lists_and_recordings(tmp_path: Path) -> None:
    names = [
        f"v_{kind}_g{group:02}_c0{clip}" for kind in ("Run", "Walk") for group in (1, 2, 3) for clip in (1, 2)
    ]
    files(tmp_path, *(f"{name.split('_')[1]}/{name}.avi" for name in names))
    for number, held in ((1, "g01"), (2, "g02")):
        places = [f"{name.split('_')[1]}/{name}.avi" for name in names]
        train = [f"{place} {1 + ('Walk' in place)}" for place in places if held not in place]
        put(tmp_path / f"trainlist0{number}.txt", "\n".join(train).encode())
        put(tmp_path / f"testlist0{number}.txt", "\n".join(p for p in places if held in p).encode())
    put(tmp_path / "classInd.txt", b"1 Run\n2 Walk\n")
    layout = sniff(tmp_path)
    assert found(layout)["Run/v_Run_g01_c01.avi"] == ("Run", "test", "g01")
    assert found(layout)["Walk/v_Walk_g02_c02.avi"] == ("Walk", "train", "g02")
    assert "3 recordings (g01)" in said(layout)
    assert "testlist02.txt, trainlist02.txt left aside: other draws of the split" in said(layout)
    alone = sniff(tmp_path, LayoutOptions(groups="none", splits="none"))
    assert found(alone)["Run/v_Run_g01_c01.avi"] == ("Run", "", "Run/v_Run_g01_c01.avi")


def test_folders_of_frames(tmp_path: Path) -> None:
    names = [f"{kind}/{clip}" for kind in ("run", "walk") for clip in ("a", "b")]
    for seed, name in enumerate(names):
        for frame in range(9):
            put(tmp_path / name / f"{frame:04}.png", encode(scene(9 * seed + frame)))
    hint = "36 images in 4 folders look like frames of clips (run/a/0000.png)."
    assert hint in said(sniff(tmp_path))
    layout = sniff(tmp_path, CLIPS)
    assert [(entry.path, entry.target, entry.part, entry.group) for entry in layout.entries()] == [
        (name, name.split("/")[0], "frames=0,9", name) for name in names
    ]
    assert load_clip(layout.root, "run/a", "frames=0,9", 3).frames.shape[0] == 3
    with zipfile.ZipFile(tmp_path / "frames.zip", "w") as archive:
        for file in sorted((tmp_path / "run").parent.glob("*/*/*.png")):
            archive.write(file, file.relative_to(tmp_path))
    packed = sniff(tmp_path / "frames.zip", CLIPS)
    assert [entry.path for entry in packed.entries()] == [f"frames.zip!{name}" for name in names]
    assert load_clip(packed.root, "frames.zip!run/a", "frames=0,9", 3).frames.shape[0] == 3


def test_numbered_photos_are_no_frames(tmp_path: Path) -> None:
    folders(tmp_path, {"cat": 20, "dog": 20})
    assert "frames" not in said(sniff(tmp_path))
    with pytest.raises(DataError, match="cannot be read as clips"):
        sniff(tmp_path, CLIPS)


def test_archives_of_videos(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        for name in ("run/1.mp4", "walk/2.mp4"):
            archive.writestr(name, b"video")
    assert found(sniff(tmp_path / "clips.zip")) == {
        f"clips.zip!{kind}/{number}.mp4": (kind, "", f"clips.zip!{kind}/{number}.mp4")
        for kind, number in (("run", 1), ("walk", 2))
    }


def test_images_and_videos_are_not_mixed(tmp_path: Path) -> None:
    folders(tmp_path, {"run": 2, "walk": 1})
    files(tmp_path, "run/1.mp4")
    images = sniff(tmp_path)
    assert images.name == "folders"
    assert (
        "1 video left aside: run/1.mp4. Images and videos are not mixed; to take the videos: --layout clips"
        in said(images)
    )
    files(tmp_path, "run/2.mp4", "walk/3.mp4", "walk/4.mp4")
    clips = sniff(tmp_path)
    assert clips.name == "clips"
    assert "3 images left aside: run/0.png, run/1.png, walk/0.png. Images and videos are not mixed" in said(
        clips
    )


def test_what_is_no_set_of_clips(tmp_path: Path) -> None:
    files(tmp_path, "1.mp4", "2.mp4")
    with pytest.raises(
        DataError, match=r"2 videos and no images, and no labels\. Put the videos into one folder"
    ):
        sniff(tmp_path)
    with pytest.raises(DataError, match=r"2 videos and no images\. This task takes images"):
        sniff(tmp_path, task="segment")
    one = files(tmp_path / "one", "run/1.mp4", "run/2.mp4")
    with pytest.raises(
        DataError, match=r"one class only, 'run'\. Add a folder of clips of something else\.$"
    ):
        sniff(one)


def test_long_videos_are_cut_and_stay_in_one_split(tmp_path: Path) -> None:
    for name, frames in (
        ("run/1.mkv", 25),
        ("run/2.mkv", 9),
        ("walk/3.mkv", 23),
        ("walk/4.mkv", 40),
        ("walk/5.mkv", 31),
    ):
        video(tmp_path / name, frames)
    put(tmp_path / "run/6.mkv", b"")
    layout = sniff(tmp_path, LayoutOptions(seconds=1))
    parts = [(entry.id, entry.part) for entry in layout.entries()]
    assert parts[:5] == [
        ("run/1.mkv#0-9", "frames=0,10"),
        ("run/1.mkv#10-19", "frames=10,20"),
        ("run/1.mkv#20-24", "frames=20,25"),
        ("run/2.mkv", ""),
        ("run/6.mkv", ""),
    ]
    assert [part for name, part in parts if "walk/3" in name] == ["frames=0,10", "frames=10,23"]
    assert {entry.group for entry in layout.entries() if "walk/4" in entry.id} == {"walk/4.mkv"}
    assert "4 longer clips cut into 12 of 1 s" in said(layout)
    prepared = prepare(tmp_path, LayoutOptions(seconds=1), val=0.3, test=0.3)
    splits: dict[str, set[str]] = {}
    for row in prepared.manifest.rows():
        splits.setdefault(row.path, set()).add(row.split)
    assert all(len(own) == 1 for own in splits.values())
    assert "13 clips in 2 classes" in prepared.about()
    assert [row.id for row in prepared.manifest.rows(state="quarantined")] == ["run/6.mkv"]


def test_seconds_must_be_a_length() -> None:
    for wrong in (0, -1, float("inf")):
        with pytest.raises(SettingError, match="give the length of a clip in seconds"):
            LayoutOptions(seconds=wrong)
    assert LayoutOptions().with_words({"seconds": "2.5"}).words() == ("--seconds", "2.5")
    with pytest.raises(SettingError, match="give the length of a clip in seconds"):
        LayoutOptions().with_words({"seconds": "long"})


def test_the_page_of_a_check_shows_strips_of_frames(tmp_path: Path) -> None:
    for name in ("run/1.mkv", "run/2.mkv", "walk/3.mkv", "walk/4.mkv"):
        video(tmp_path / name, 12)
    page = data_page("clips", prepare(tmp_path), History())
    assert page.count('<figure class="clip">') >= 4
    wide = re.search(r'<figure class="clip"><img src="data:image/png;base64,([^"]+)"', page)
    assert wide is not None
    width, height = Image.open(io.BytesIO(base64.b64decode(wide[1]))).size
    assert 4 * height < 1.4 * width
    assert "4 clips in 2 classes can be used for training" in page
