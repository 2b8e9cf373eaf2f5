"""`vitrail fix` and `vitrail reproduce` by command, on a run trained from scratch."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run: lists of doubts are written into its folder."""
    return shutil.copytree(trained, tmp_path / "few")


def test_a_list_by_command_says_that_the_network_learned_from_the_labels(vitrail, run):
    done = vitrail("fix", run)
    assert done.returncode == 0, done.stderr
    assert "more probably wrong than right" in done.stdout
    assert f"table   {run}/fix/fix.csv" in done.stdout
    assert "next    vitrail fix" in done.stdout
    assert "learned from these labels itself" in done.stderr
    assert "Test images were not looked at" in done.stderr
    found = json.loads(vitrail("fix", run, "--json").stdout)
    assert found["images"] == 68  # 80 images without the 12 of the test


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--with-test", "--drop", "0/1.png"], 2, "decides nothing"),
        (["--out", "elsewhere"], 2, "there are none"),
        (["--drop", "nowhere.png"], 1, "nowhere.png"),
        (["--data", "nowhere"], 1, "nowhere"),
    ],
)
def test_bad_words_are_refused_in_a_sentence(vitrail, run, words, code, said):
    done = vitrail("fix", run, *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_is_made_again_from_its_report(vitrail, run):
    page = (run / "report.html").read_text()
    assert "vitrail reproduce report.html" in page
    assert str(run.parent) not in page
    done = vitrail("reproduce", run / "report.html", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run"] == f"{run}-again"
    made_of = {one["what"] for one in found["differs"]}
    assert not made_of & {"images", "truths", "split", "initial weights"}
    assert found["equal"] or made_of, "where nothing differs in how it was made, the bits are equal"


def test_a_report_of_an_earlier_vitrail_is_refused(vitrail, tmp_path):
    (tmp_path / "report.html").write_text("<html>an old report</html>")
    done = vitrail("reproduce", tmp_path / "report.html")
    assert done.returncode == 1
    assert "holds no passport" in done.stderr
