"""Names that are no UTF-8, archives with broken members, patterns of folders: named, never a traceback."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import zipfile

import pytest

from vitrail.cli.output import table
from vitrail.core.errors import VitrailError
from vitrail.core.text import one_line, printable

FOREIGN = b"\xff\xfex.png"


@pytest.fixture
def foreign(digits, tmp_path):
    """A copy of the digits with one name that is no UTF-8."""
    if sys.platform == "darwin":
        pytest.skip("macOS keeps no name that is not UTF-8")
    data = shutil.copytree(digits, tmp_path / "data")
    (data / "0" / os.fsdecode(FOREIGN)).write_bytes(sorted((digits / "0").iterdir())[0].read_bytes())
    return data


def test_names_are_written_so_that_anything_can_hold_them():
    assert printable("图 a.png") == "图 a.png"
    assert printable(os.fsdecode(FOREIGN)) == r"\xff\xfex.png"
    assert printable("\ud800") == r"\ud800"
    assert one_line("a\nb\x1b[1m") == r"a\nb\x1b[1m"
    assert str(VitrailError(os.fsdecode(FOREIGN))) == r"\xff\xfex.png"
    assert table(["picture", "answer"], [["a\nb", "1"]]).splitlines()[1] == r"a\nb     1"


def test_check_and_train_keep_a_foreign_name_out_and_go_on(vitrail, foreign, tmp_path):
    (foreign / os.fsdecode(b"\xfcber")).mkdir()
    found = json.loads(vitrail("check", foreign, "--json", "--html", tmp_path / "check.html").stdout)
    assert (found["kept"], found["quarantined"]) == (80, 2)
    text = next(one["text"] for one in found["findings"] if one["kind"] == "unreadable")
    assert r"0/\xff\xfex.png has a name that is no UTF-8: rename it" in text
    assert r"\xfcber has a name" in text
    assert vitrail("check", foreign).returncode == 0
    words = ["weights=none", "model=vit_digits", "epochs=1", "batch=16", "micro=16", "precision=float32"]
    done = vitrail("train", foreign, *words, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "run" / "manifest.csv").read_text(encoding="utf-8").splitlines()
    assert any(row.startswith(r"0/\xff\xfex.png,") and ",quarantined," in row for row in rows)


def test_predict_answers_a_foreign_name(vitrail, trained, foreign, tmp_path):
    file = foreign / "0" / os.fsdecode(FOREIGN)
    for words, stdin in (([file], None), ([file.parent], None), (["-"], os.fsencode(file) + b"\n")):
        done = vitrail("predict", trained, *words, "--json", "--csv", tmp_path / "out.csv", stdin=stdin)
        assert done.returncode == 0, done.stderr
        paths = [one["path"] for one in json.loads(done.stdout)]
        assert rf"{foreign}/0/\xff\xfex.png" in paths
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as rows:
            assert [row["path"] for row in csv.DictReader(rows)] == paths
    assert r"\xff\xfex.png" in vitrail("predict", trained, file).stdout


def test_a_list_of_names_that_is_no_utf8_is_answered_name_by_name(vitrail, trained, digits):
    good = sorted((digits / "1").iterdir())[0]
    done = vitrail("predict", trained, "-", "--json", stdin=b"missing \xe9.png\n" + os.fsencode(good))
    assert done.returncode == 1
    first, second = json.loads(done.stdout)
    assert first["path"] == r"missing \xe9.png"
    assert "does not exist" in first["error"]
    assert second["label"]


@pytest.fixture
def archive(digits, tmp_path):
    """A zip with a good image, one that is damaged, one that is encrypted, and one that is no image."""
    path = tmp_path / "mixed.zip"
    good = sorted((digits / "1").iterdir())[0].read_bytes()
    with zipfile.ZipFile(path, "w") as zipped:
        for name in ("damaged.png", "good.png", "locked.png"):
            zipped.writestr(name, good)
        zipped.writestr("text.png", "no image")
    data = bytearray(path.read_bytes())
    data[data.index(good) + 20] ^= 0xFF  # the checksum no longer fits
    local, central = data.index(b"locked.png") - 30, data.rindex(b"locked.png") - 46
    data[local + 6] |= 1  # the flag of encryption, in both places
    data[central + 8] |= 1
    path.write_bytes(data)
    return path


def test_bad_members_of_an_archive_are_named_and_the_others_answered(vitrail, trained, archive, tmp_path):
    done = vitrail("predict", trained, archive, "--json")
    assert done.returncode == 1
    found = {one["path"].rpartition("!")[2]: one for one in json.loads(done.stdout)}
    assert found["good.png"]["label"]
    for name, words in {
        "damaged.png": "broken",
        "locked.png": "is encrypted",
        "text.png": "holds text",
    }.items():
        assert f"mixed.zip!{name}" in found[name]["error"]
        assert words in found[name]["error"]
    out = ["--method", "rollout", "--no-check", "--out", tmp_path / "out", "--json"]
    done = vitrail("explain", trained, archive, *out)
    assert done.returncode == 1
    errors = [one["error"] for one in json.loads(done.stdout) if "error" in one]
    assert len(errors) == 3
    assert all("mixed.zip!" in one for one in errors)


def test_a_broken_archive_beside_a_picture(vitrail, trained, archive, digits):
    archive.write_bytes(archive.read_bytes()[:60])
    good = sorted((digits / "1").iterdir())[0]
    done = vitrail("predict", trained, archive, good, "--json")
    assert done.returncode == 1
    first, second = json.loads(done.stdout)
    assert "no whole archive" in first["error"]
    assert second["label"]


def test_bytes_from_standard_input_are_called_so(vitrail, trained):
    done = vitrail("predict", trained, "-", "--json", stdin=b"\x89PNG\r\n\x1a\n\0\0")
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)
    assert found["path"] == "-"
    assert "standard input" in found["error"]


def test_a_pattern_of_folders_is_an_error(vitrail, trained, tmp_path):
    (tmp_path / "onlydirs" / "a").mkdir(parents=True)
    done = vitrail("predict", trained, f"{tmp_path}/onlydirs/*", "--json")
    assert done.returncode == 1
    assert not done.stdout
    assert "Only folders match" in done.stderr
