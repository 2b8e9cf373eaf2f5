from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, folders, put, scene
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data import decode, doctor, duplicates, image_facts
from vitrail.data.builtin import materialise, names, plant_faults
from vitrail.data.decisions import History, history_path
from vitrail.data.doctor import examine
from vitrail.data.layouts import sniff
from vitrail.data.manifest import KEPT, QUARANTINED
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.truth import Truth


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def kinds(report: doctor.Report) -> set[str]:
    return {finding.kind for finding in report.findings}


def photo(root: Path, counts: dict[str, int]) -> Path:
    """Class folders of images large enough to be recognised by their looks."""
    return folders(root, counts, size=(120, 160))


# The fault kit: every fault planted, every one found, none silent


def test_every_planted_fault_is_found(tmp_path: Path) -> None:
    root = tmp_path / "digits"
    shutil.copytree(materialise("digits", tmp_path / "data"), root)
    faults = plant_faults(root, seed=7)
    prepared = prepare(root)
    expected = {
        "conflict": "conflict", "twins": "twins", "truncated": "unreadable", "text": "unreadable",
        "empty": "unreadable", "flat": "flat", "exif": "converted", "cmyk": "converted", "16-bit": "converted",
        "alpha": "converted", "animated": "converted",
    }  # fmt: skip
    visible = [fault for fault in faults if fault.kind != "swapped label"]
    assert {fault.kind for fault in visible} == set(expected)
    for fault in visible:
        assert fault.path in prepared.report.of(expected[fault.kind]), fault
    kept = {row.id for row in prepared.manifest.rows()}
    for fault in visible:
        assert (fault.path in kept) == (expected[fault.kind] in {"twins", "flat", "converted"}), fault
    accused = {one for f in prepared.report.findings if f.grave for one in f.ids}
    guilty = {fault.path for fault in visible} | {f.detail.removeprefix("equal to ") for f in visible}
    assert accused <= guilty  # nothing else was accused


def test_no_false_twins_among_the_digits() -> None:
    assert not kinds(prepare("digits").report) & {"twins", "similar", "conflict", "doubtful", "alike", "leak"}


def test_a_bomb_and_an_odd_size_are_named(tmp_path: Path) -> None:
    photo(tmp_path / "set", {"a": 12, "b": 12})
    put(tmp_path / "set/a/long.png", encode(np.resize(scene(1), (60, 400, 3))))
    put(tmp_path / "set/b/scrap.png", encode(scene(2, (9, 9))))
    report = prepare(tmp_path / "set").report
    assert set(report.of("odd size")) == {"a/long.png", "b/scrap.png"}


# Twins


def disguised(data: bytes) -> dict[str, bytes]:
    image = Image.open(BytesIO(data))
    return {
        "again.png": encode(image, "PNG"),
        "worse.jpg": encode(image, "JPEG", quality=40),
        "smaller.png": encode(image.resize((101, 76), Image.Resampling.LANCZOS)),
        "darker.png": encode(Image.eval(image, lambda v: int(0.8 * v))),
        "squashed.png": encode(image.resize((160, 160))),
    }


def test_twins_are_known_by_their_looks(tmp_path: Path) -> None:
    root = photo(tmp_path / "set", {"a": 60, "b": 40})
    for name, data in disguised(encode(scene(3, (120, 160)))).items():
        put(root / "a" / name, data)
    report = examine(sniff(root))
    tied = {row.group for row in report.rows if row.id == "a/3.png" or not row.id[2].isdigit()}
    assert len(tied) == 1
    assert tied != {""}
    assert sum(row.group != "" for row in report.rows) == 6
    assert all(row.state == KEPT for row in report.rows)


def test_twins_never_cross_the_split(tmp_path: Path) -> None:
    root = photo(tmp_path / "set", {"a": 60, "b": 60})
    for i in range(20):
        put(root / "a" / f"again{i}.jpg", encode(scene(i, (120, 160)), "JPEG", quality=60))
    homes: dict[str, set[str]] = {}
    for row in prepare(root).manifest.rows():
        if row.group:
            homes.setdefault(row.group, set()).add(row.split)
    assert len(homes) == 20
    assert all(len(home) == 1 for home in homes.values())


def test_equal_pictures_with_different_labels_are_kept_out_and_similar_ones_shown(tmp_path: Path) -> None:
    root = photo(tmp_path / "set", {"a": 20, "b": 20})
    shutil.copy(root / "a/1.png", root / "b/equal.png")
    put(root / "b/similar.jpg", encode(scene(2, (120, 160)), "JPEG"))
    report = examine(sniff(root))
    states = {row.id: row.state for row in report.rows}
    assert (states["a/1.png"], states["b/equal.png"]) == (QUARANTINED, QUARANTINED)
    assert (states["a/2.png"], states["b/similar.jpg"]) == (KEPT, KEPT)
    assert set(report.of("doubtful")) == {"a/2.png", "b/similar.jpg"}
    reason = next(row.reason for row in report.rows if row.id == "a/1.png")
    assert reason == "the same image is labelled 'b' as b/equal.png"


def test_small_pictures_are_twins_by_equal_pixels_only(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"a": 20, "b": 20}, size=(32, 32))
    put(root / "a/equal.bmp", encode(scene(1, (32, 32)), "BMP"))
    put(root / "a/similar.jpg", encode(scene(2, (32, 32)), "JPEG", quality=95))
    report = examine(sniff(root))
    assert set(report.of("twins")) == {"a/1.png", "a/equal.bmp"}
    assert not report.of("similar")


def test_flat_pictures_are_no_twins(tmp_path: Path) -> None:
    root = photo(tmp_path / "set", {"a": 20, "b": 20})
    for i in range(6):
        put(root / "a" / f"flat{i}.png", encode(np.full((90, 90, 3), 40 * i, np.uint8)))
    report = examine(sniff(root))
    assert len(report.of("flat")) == 6
    assert not report.of("similar")


def test_a_crowd_of_look_alikes_is_shown_but_not_tied(tmp_path: Path) -> None:
    root = photo(tmp_path / "set", {"a": 20, "b": 30})
    for i in range(10):
        noisy = scene(500, (120, 160)).astype(int) + np.random.default_rng(i).integers(-6, 7, (120, 160, 3))
        put(root / "b" / f"frame{i}.png", encode(np.clip(noisy, 0, 255).astype(np.uint8)))
    report = examine(sniff(root))
    assert len(report.of("alike")) == 10
    assert all(row.group == "" for row in report.rows)


def test_leaks_across_a_given_split_are_named_and_left(tmp_path: Path) -> None:
    root = photo(tmp_path / "set", {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 5})
    put(root / "test/a/leak.jpg", encode(scene(4, (120, 160)), "JPEG", quality=80))
    prepared = prepare(root)
    assert set(prepared.report.of("leak")) == {"train/a/4.png", "test/a/leak.jpg"}
    assert {row.id: row.split for row in prepared.manifest.rows()}["test/a/leak.jpg"] == "test"


def test_named_groups_and_twins_join(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path / "set" / f"{i}.png", encode(scene(i, (120, 160))))
    put(tmp_path / "set" / "12.png", encode(scene(0, (120, 160))))
    rows = "".join(f"{i}.png,{'ab'[i % 2]},p{i // 3}\n" for i in range(13))
    put(tmp_path / "set" / "labels.csv", f"image,label,patient\n{rows}")
    groups = {row.id: row.group for row in examine(sniff(tmp_path / "set")).rows}
    assert {groups[f"{i}.png"] for i in (0, 1, 2, 12)} == {"p0"}
    assert groups["5.png"] == "p1"


def test_all_neighbours_are_found_and_only_they() -> None:
    rng = np.random.default_rng(0)
    sketches = rng.integers(0, 1 << 63, 300, dtype=np.uint64)
    sketches[:60] = sketches[100:160] ^ (np.uint64(1) << rng.integers(0, 63, 60, dtype=np.uint64))
    sketches[60:80] = sketches[100:120]
    sketches[80:100] = sketches[120:140]
    for _ in range(3):
        sketches[80:100] ^= np.uint64(1) << rng.integers(0, 63, 20, dtype=np.uint64)
    every = {
        (i, j)
        for i in range(300)
        for j in range(i + 1, 300)
        if int(sketches[i] ^ sketches[j]).bit_count() <= 4
    }
    assert len(every) >= 100
    assert set(duplicates.neighbours(sketches)) == every


# Classes


def test_classes_that_are_empty_tiny_uneven_or_twice_there_are_said(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"many": 60, "few": 5, "Few": 4, "gone": 0})
    put(root / "gone/1.png", b"")
    found = {finding.kind: finding.text for finding in prepare(root).report.findings}
    assert "gone" in found["empty class"]
    assert "Few (4), few (5)" in found["tiny class"]
    assert "'many' has 15 times as many" in found["imbalance"]
    assert "--balance" in found["imbalance"]
    assert "'Few' and 'few'" in found["spelling"]


def test_a_class_missing_in_a_split_shifts_no_label(tmp_path: Path) -> None:
    prepared = prepare(
        folders(tmp_path / "set", {"train/a": 9, "train/b": 9, "train/c": 9, "val/b": 3, "test/c": 3})
    )
    assert prepared.manifest.truth.names == ("a", "b", "c")
    assert any("No test image of a, b" in line for line in prepared.report.lines())


# What cannot be used at all


def test_sources_with_nothing_to_learn_from_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "broken/a/1.png", b"x")
    put(tmp_path / "broken/b/1.png", b"x")
    with pytest.raises(DataError, match="can be read, the first because"):
        prepare(tmp_path / "broken")
    put(folders(tmp_path / "half", {"a": 3}) / "b/1.png", b"x")
    with pytest.raises(DataError, match="fewer than two classes"):
        prepare(tmp_path / "half")


def test_measurements_are_no_classes(tmp_path: Path) -> None:
    for i in range(24):
        put(tmp_path / "set" / f"{i}.png", encode(scene(i)))
    put(tmp_path / "set" / "t.csv", "image,label\n" + "".join(f"{i}.png,{i / 7:.3f}\n" for i in range(24)))
    with pytest.raises(DataError, match="has its own label, so these are not classes"):
        prepare(tmp_path / "set")


def test_several_labels_a_picture_are_said(tmp_path: Path) -> None:
    for i in range(24):
        put(tmp_path / "set" / f"{i}.png", encode(scene(i)))
    rows = "".join(f"{i}.png,{['a', 'a;b', 'b', ''][i % 4]}\n" for i in range(24))
    put(tmp_path / "set" / "t.csv", f"image,labels\n{rows}")
    prepared = prepare(tmp_path / "set")
    assert prepared.manifest.truth == Truth("classes", ("a", "b"))
    assert "24 images in 2 classes, any number of labels per image" in prepared.about()


def test_one_picture_in_a_class_is_enough_to_go_on(tmp_path: Path) -> None:
    prepared = prepare(folders(tmp_path / "set", {"a": 20, "b": 1}))
    assert prepared.manifest.counts(prepared.targets)["train"]["b"] == 1
    assert any("Too few images" in note for note in prepared.notes)


# Resumable, cached, harmless


def test_nothing_of_the_data_is_touched(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"a": 12, "b": 12})
    before = {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in root.rglob("*") if file.is_file()
    }
    prepare(root)
    assert {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in root.rglob("*") if file.is_file()
    } == before


def test_a_second_check_decodes_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path / "set", {"a": 12, "b": 12})
    put(root / "a/bad.jpg", b"text")
    first = prepare(root)
    decoded = []
    glance = decode.glance
    monkeypatch.setattr(
        image_facts, "glance", lambda data, name, least: decoded.append(name) or glance(data, name, least)
    )
    (root / "a/0.png").rename(root / "a/renamed.png")
    put(root / "a/bad.jpg", b"text").rename(root / "a/worse.jpg")
    put(root / "b/new.png", encode(scene(77)))
    second = prepare(root)
    assert len(decoded) == 1
    reasons = {row.id: row.reason for row in second.manifest.rows(state=QUARANTINED)}
    assert reasons["a/worse.jpg"].startswith("a/worse.jpg holds text")
    assert len(second.report.rows) == len(first.report.rows) + 1


def test_a_killed_check_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path / "set", {"a": 12, "b": 12}, size=(20, 20))
    monkeypatch.setattr(doctor, "CHUNK", 8)
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= 16:
            raise KeyboardInterrupt

    cache = tmp_path / "check.sqlite"
    with pytest.raises(KeyboardInterrupt):
        examine(sniff(root), cache=cache, progress=stop)
    assert seen == [(8, 24), (16, 24)]
    with sqlite3.connect(cache) as base:
        assert base.execute("select count(*) from facts_3").fetchone() == (16,)
    base.close()
    assert examine(sniff(root), cache=cache).rows == examine(sniff(root)).rows


@pytest.mark.parametrize("spoil", [b"no database", None])
def test_a_cache_that_cannot_be_used_is_no_obstacle(tmp_path: Path, spoil: bytes | None) -> None:
    root = folders(tmp_path / "set", {"a": 12, "b": 12})
    cache = tmp_path / "x.sqlite"
    cache.write_bytes(spoil) if spoil else cache.mkdir()
    assert examine(sniff(root), cache=cache).rows == examine(sniff(root)).rows


def test_two_checks_at_once_share_a_cache(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"a": 12, "b": 12})
    cache, reports = tmp_path / "x.sqlite", []
    threads = [
        threading.Thread(target=lambda: reports.append(examine(sniff(root), cache=cache))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 3
    assert reports[0] == reports[1] == reports[2]


def test_an_archive_is_checked_like_its_folder(tmp_path: Path) -> None:
    root = photo(tmp_path / "set", {"a": 12, "b": 12})
    put(root / "a/bad.png", b"")
    shutil.make_archive(str(tmp_path / "set"), "zip", root)
    packed = prepare(tmp_path / "set.zip")
    plain = prepare(root)
    assert [r.hash for r in packed.manifest.rows(state=None)] == [
        r.hash for r in plain.manifest.rows(state=None)
    ]
    assert packed.manifest.states() == plain.manifest.states()


def test_a_report_is_plain_values_and_plain_words(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"a": 12, "b": 12})
    put(root / "a/bad.png", b"")
    prepared = prepare(root)
    told = json.loads(json.dumps(prepared.to_dict()))
    assert (told["pictures"], told["kept"], told["quarantined"], told["layout"]) == (25, 24, 1, "folders")
    assert told["sizes"]["median"] == [53, 71]
    assert told["findings"][0]["ids"] == ["a/bad.png"]
    assert (
        prepared.summary()
        == f"24 images in 2 classes, 1 kept out, 1 finding to look at (vitrail check {root})."
    )
    assert prepared.lines()[0].endswith("24 images in 2 classes, 71 × 53 px.")
    assert "a/bad.png is empty (0 bytes)" in prepared.lines()[1]


def test_entries_may_not_share_an_id(tmp_path: Path) -> None:
    entries = list(sniff(folders(tmp_path / "set", {"a": 2, "b": 2})).entries())
    with pytest.raises(DataError, match="more than once"):
        examine([*entries, entries[0]], tmp_path / "set")


# Decisions and their undoing


def conflicting(root: Path) -> Path:
    photo(root, {"a": 12, "b": 12})
    shutil.copy(root / "a/1.png", root / "b/equal.png")
    return root


def decided(root: Path, history: History) -> Prepared:
    history.write(history_path(root))
    return prepare(root)


def test_the_doctor_s_decisions_can_be_taken_back(tmp_path: Path) -> None:
    root = conflicting(tmp_path / "set")
    first = prepare(root)
    history = History().note(first.report.findings)
    assert [(one.number, one.what, one.ids) for one in history.decisions] == [
        (1, "quarantine", ("a/1.png", "b/equal.png"))
    ]
    assert history.note(first.report.findings) == history  # a second check decides nothing twice
    assert decided(root, history).manifest.states()["kept"] == 23
    undone = history.undo(1)
    assert decided(root, undone).manifest.states()["kept"] == 25
    assert decided(root, undone.undo(2)).manifest.states()["kept"] == 23
    with pytest.raises(DataError, match="taken back already"):
        undone.undo(1)
    with pytest.raises(DataError, match="1 to 2"):
        undone.undo(9)


def test_people_decide(tmp_path: Path) -> None:
    root = conflicting(tmp_path / "set")
    put(root / "a/bad.png", b"")
    history = (
        History()
        .decide("drop", ["b/equal.png"])
        .decide("keep", ["a/1.png", "a/bad.png"])
        .decide("relabel", ["a/2.png"], "b")
    )
    rows = {row.id: row for row in decided(root, history).manifest.rows(state=None)}
    assert (rows["b/equal.png"].state, rows["b/equal.png"].reason) == ("dropped", "dropped by hand")
    assert rows["a/1.png"].state == "kept"
    assert rows["a/bad.png"].state == "quarantined"  # nobody can decide that it can be read
    assert rows["a/2.png"].target == "b"
    back = decided(root, history.undo(3).undo(1)).manifest.rows(state=None)
    assert next(row for row in back if row.id == "a/2.png").target == "a"
    assert any("as decided before" in note for note in prepare(root).notes)


def test_a_history_is_lines_of_json_beside_the_data(tmp_path: Path) -> None:
    path = history_path(tmp_path / "photos")
    assert path == tmp_path / "photos.vitrail.jsonl"
    history = History().decide("drop", ["雪.png"], reason="blurred").undo(1)
    history.write(path)
    assert History.read(path) == history
    assert [one.text() for one in history.decisions] == ["1  dropped 雪.png: blurred", "2  took back 1"]
    put(path, '{"number": 1}\n')
    with pytest.raises(DataError, match="Line 1"):
        History.read(path)


# Built-in data


def test_the_digits_are_written_once_as_class_folders(tmp_path: Path) -> None:
    assert names() == ("digits", "moving_digits")
    root = materialise("digits", tmp_path)
    files = sorted(root.rglob("*.png"))
    assert len(files) == 1797
    assert np.asarray(Image.open(root / "0" / "0000.png")).max() == 239  # 15 of 16
    changed = files[0].stat().st_mtime_ns
    assert materialise("digits", tmp_path) == root
    assert files[0].stat().st_mtime_ns == changed


def test_real_photographs(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    archive = shared("data/photos-100.zip")
    entries = [
        e._replace(path=f"{archive.name}!{e.path}") if "!" not in e.path else e for e in _flat(archive)
    ]
    report = examine(entries, archive.parent)
    assert all(row.state == KEPT for row in report.rows)
    assert kinds(report) <= {"converted", "tiny class"}


def _flat(archive: Path) -> list[doctor.Entry]:
    from vitrail.data.archives import members

    return [
        doctor.Entry(m.name, m.name, m.name.split("_")[-1])
        for m in members(archive)
        if m.name.endswith("JPEG")
    ]
