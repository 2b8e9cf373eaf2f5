"""The fix loop on a small draft: what is listed, decided, refused, taken back, and compared on untouched images."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from data.pictures import encode, scene

from vitrail.core.errors import DataError, RunError, SettingError, UnknownNameError, VitrailError
from vitrail.data.decisions import Decision, History, history_path
from vitrail.data.manifest import TEST, Row
from vitrail.data.own_outputs import what_is
from vitrail.models.factory import build, config_of
from vitrail.runs.passport import EMBEDDED, Passport, causes, read_passport
from vitrail.runs.run import Run, open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.fix.fix_loop import decide, list_doubts
from vitrail.studies.fix.fix_options import FixOptions
from vitrail.studies.fix.frozen_network import open_network
from vitrail.studies.fix.run_images import open_images
from vitrail.studies.rerun import Places, rerun
from vitrail.tasks.classify.probe import ClassProbe
from vitrail.tasks.multilabel.evaluation import LabelEvaluation
from vitrail.tasks.multilabel.probe import LabelProbe
from vitrail.training.fit import train
from vitrail.weights.convert import _write_own
from vitrail.weights.pretrained import Pretrained

PLANTED = {"3/moved-from-2.png": "2", "1/moved-from-0.png": "0"}


@pytest.fixture(scope="module")
def made(some_digits, tmp_path_factory):
    """A draft of digits, of which two lie in the wrong folder and one twice, with two labels."""
    place = tmp_path_factory.mktemp("fix")
    torch.manual_seed(0)
    config = config_of("vit_digits")
    _write_own(
        Pretrained("tiny", config, build(config).state_dict(), {}, "vitrail"), place / "tiny.safetensors"
    )
    data = some_digits("0123", 25).rename(place / "few")
    for name, true in PLANTED.items():
        next(iter(sorted((data / true).iterdir()))).rename(data / name)
    shutil.copy(sorted((data / "0").iterdir())[5], data / "1" / "twin.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAIL_CACHE", str(place / "cache"))
        options = TrainOptions(weights=str(place / "tiny.safetensors"), imgsz="32", out=str(place / "run"))
        train(data, options)
        yield place


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of the run and of its data, so that decisions of one test are not those of another."""
    monkeypatch.setenv("VITRAIL_CACHE", str(made / "cache"))
    shutil.copytree(made / "few", tmp_path / "few")
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path


def listed(place, **more):
    return list_doubts(str(place / "run"), str(place / "few"), **more)


def decided(place, **asked):
    return decide(str(place / "run"), FixOptions(**asked), str(place / "few"))


def ids_of_tests(place):
    return [row.id for row in open_run(place / "run").manifest(place / "few").rows(TEST)]


def filled(place, table, **decisions):
    rows = list(csv.DictReader(table.read_text().splitlines()))
    for row in rows:
        row["decision"], row["new_label"] = decisions.get(row["id"], ("", ""))
    path = place / "filled.csv"
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_twins_stand_first_and_test_images_are_not_looked_at(place):
    found = listed(place)
    kinds = [one.why for one in found.doubts.entries]
    assert {one.row.id for one in found.doubts.of("twins")} == {
        "1/twin.png",
        found.doubts.entries[0].row.id,
    } | {one for entry in found.doubts.of("twins") for one in entry.copies}
    assert kinds[:2] == ["twins", "twins"]
    assert kinds == sorted(kinds, key=["twins", "doubted", "uncertain"].index)
    margins = [one.score.margin for one in found.doubts.of("doubted")]
    assert margins == sorted(margins)
    assert not {one.row.id for one in found.doubts.entries} & set(ids_of_tests(place))
    assert what_is("fix.csv", lambda _: found.table.read_bytes()) == "the list of vitrail fix"
    page = found.page.read_text()
    assert "Labels to look at" in page
    assert json.loads((place / "run/fix/result.json").read_text())["main"] == "doubted"


def test_a_table_that_was_filled_in_is_not_overwritten(place):
    first = listed(place).table
    rows = list(csv.reader(first.read_text().splitlines()))
    rows[1][rows[0].index("decision")] = "keep"
    with first.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    assert listed(place).table.name == "fix-2.csv"
    assert listed(place).table.name == "fix-2.csv"  # nothing is filled in there


def test_decisions_make_a_new_run_and_leave_the_old_one_as_it_was(place):
    before = {path: path.read_bytes() for path in (place / "run").iterdir() if path.is_file()}
    found = listed(place)
    outside = {one.row.id: one.row.split for one in found.doubts.entries}
    choices = {id: ("relabel", label) for id, label in PLANTED.items() if id in outside}
    choices["1/twin.png"] = ("drop", "")
    after = decided(place, apply=str(filled(place, found.table, **choices)))
    assert {path: path.read_bytes() for path in before} == before
    assert after.comparison.tested == len(ids_of_tests(place))
    assert not after.comparison.guard()
    low, high = after.comparison.difference.interval()
    assert low <= after.comparison.difference.value <= high
    shares = after.comparison.after.value - after.comparison.before.value
    assert after.comparison.difference.value == pytest.approx(shares)
    new = {row.id: row for row in Run(after.run.folder).manifest(place / "few").rows(state=None)}
    for id, (what, label) in choices.items():
        assert new[id].state == "dropped" if what == "drop" else new[id].target == label
    report = json.loads((after.run.folder / "report.json").read_text())
    assert report["fix"] == after.comparison.to_dict()
    assert "Before and after the decisions" in (after.run.folder / "report.html").read_text()
    again = {one.row.id for one in listed(place).doubts.entries}
    assert not again & set(choices), "what was decided is not listed again"


def test_what_is_taken_back_is_as_before(place):
    id = next(iter(PLANTED))
    decided(place, relabel=(f"{id}={PLANTED[id]}",))
    back = decided(place, undo=(1,))
    assert back.comparison is None
    assert "No label of the run is changed" in back.why
    images = open_images(open_run(place / "run"), "classify", str(place / "few"))
    assert images.now.rows(state=None) == images.before.rows(state=None)


def test_the_guard_tells_when_the_test_set_was_used_to_decide(place):
    id = ids_of_tests(place)[0]
    first = decided(place, drop=(id,)).comparison
    assert first.touched == (id,)
    assert first.tested == len(ids_of_tests(place)) - 1
    assert any("1 test image relabelled or left out" in line for line in first.guard())
    listed(place, test=True)
    other = ids_of_tests(place)[1]
    second = decided(place, keep=(other,)).comparison
    assert other not in second.touched, "a label that is kept changes no test"
    assert second.listed
    assert second.earlier == 1
    assert any("told 2 times" in line for line in second.lines())


def test_a_decision_about_an_image_that_changed_is_refused_and_never_applied(place):
    found = listed(place)
    entry = found.doubts.entries[-1].row
    table = filled(place, found.table, **{entry.id: ("drop", "")})
    table.write_text(table.read_text().replace(entry.hash, "0" * len(entry.hash)))
    with pytest.raises(DataError, match="changed since the list was made"):
        decided(place, apply=str(table))
    assert not history_path(place / "few").exists()
    history = History().add([Decision(0, "drop", ("a.png",), hashes=("other",))])
    kept, notes = history.apply([Row("a.png", "a.png", target="0", hash="this")], lambda row: row)
    assert kept[0].state == "kept"
    assert "another one now: a.png" in notes[0]


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        ({"drop": ("nowhere.png",)}, UnknownNameError, "nowhere.png"),
        ({"relabel": ("0/nothing",)}, VitrailError, "IMAGE|name the image"),
        ({"relabel": ("3/moved-from-2.png=9",)}, DataError, "To add a class"),
        ({"drop": ("1/twin.png",), "keep": ("1/twin.png",)}, DataError, "two decisions"),
        ({"undo": (7,)}, DataError, "no decision 7"),
        ({"apply": "nowhere.csv"}, DataError, "cannot be read"),
    ],
)
def test_bad_decisions_are_refused_in_a_sentence(place, asked, error, match):
    with pytest.raises(error, match=match):
        decided(place, **asked)
    assert not history_path(place / "few").exists()


def test_no_class_is_emptied(place):
    rows = open_run(place / "run").manifest(place / "few").rows()
    ids = tuple(row.id for row in rows if row.target == "2" and row.split != TEST)
    with pytest.raises(DataError, match="no training image of 2"):
        decided(place, drop=ids)


def test_words_and_a_table_are_looked_at_together(place):
    found = listed(place)
    entry = found.doubts.entries[0].row
    table = filled(place, found.table, **{entry.id: ("drop", "")})
    with pytest.raises(DataError, match="two decisions"):
        decided(place, keep=(entry.id,), apply=str(table))
    rows = open_run(place / "run").manifest(place / "few").rows()
    ids = [row.id for row in rows if row.target == "2" and row.split != TEST]
    listed_ids = [one.row.id for one in found.doubts.entries if one.row.id in ids]
    if listed_ids:
        table = filled(place, found.table, **dict.fromkeys(listed_ids, ("drop", "")))
        with pytest.raises(DataError, match="no training image of 2"):
            decided(place, drop=tuple(set(ids) - set(listed_ids)), apply=str(table))
    assert not history_path(place / "few").exists()


def test_an_image_that_changed_is_not_called_unknown(place):
    row = open_run(place / "run").manifest(place / "few").rows()[0]
    file = place / "few" / row.path
    file.write_bytes(encode(scene(7, (20, 20))))
    with pytest.raises(DataError, match="changed since"):
        decided(place, keep=(row.id,))


def test_a_run_whose_images_are_gone_or_changed(place):
    run = open_run(place / "run")
    changed = run.manifest(place / "few").rows()[0]
    other = next(path for path in (place / "few" / "3").iterdir())
    shutil.copy(other, place / "few" / changed.path)
    images = open_images(run, "classify", str(place / "few"))
    assert any("changed since the run" in note and changed.id in note for note in images.notes)
    assert changed.id not in {row.id for row in images.now.rows(state=None)}
    recipe = run.recipe_path.read_text()
    run.recipe_path.write_text(recipe.replace(run.recipe().data.source, str(place / "gone" / "few")))
    history = run.history_path.read_text().replace(str(run.root()), str(place / "gone" / "few"))
    run.history_path.write_text(history)
    with pytest.raises(DataError, match="--data PLACE"):
        open_images(open_run(place / "run"), "classify")


def test_a_task_that_cannot_tell_says_so(place):
    path = place / "run"
    network = open_network(open_run(path))
    assert network.notes == ()
    assert isinstance(network.probe, ClassProbe)
    from vitrail.studies.fix.frozen_network import refuse_unable
    from vitrail.tasks.segment.task import Segment

    task = Segment(["a", "b"])
    with pytest.raises(SettingError, match="segment cannot tell"):
        refuse_unable(
            network.start.__class__(network.start.network, task, network.start.preprocess), "segment", "x"
        )


def test_labels_of_several_are_scored_by_the_one_that_fits_least():
    logits = np.tile([4.0, -4.0, 0.5], (40, 1)).astype(np.float32)
    truths = [(0, 2)] * 39 + [(1, 2)]
    logits[-1] = [-4.0, -6.0, 4.0]
    evaluation = LabelEvaluation("abc", 1.0, (0.5, 0.5, 0.5))
    rows = [Row(str(i), "") for i in range(40)]
    evaluation.update(rows, {"logits": torch.from_numpy(logits)}, truths, [])
    scores = LabelProbe("abc").label_scores(evaluation)
    assert scores[0].confidence == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-6)
    assert (scores[0].label, scores[0].proposal) == ("a|c", "a")
    assert (scores[-1].label, scores[-1].proposal) == ("b|c", "c")
    assert scores[-1].margin == pytest.approx(2 * scores[-1].confidence - 1)
    assert scores[-1].note, "the only image with b: nothing tells what b looks like"
    assert not scores[-1].doubted


def test_a_draft_is_reproduced_to_the_bit_from_its_page_alone(place):
    page = shutil.copy(place / "run/report.html", place / "moved.html")
    text = (place / "run/report.html").read_text()
    assert str(place) not in text
    run = open_run(place / "run")
    weights = run.recipe().model.weights
    found = rerun(page, Places(str(place / "few"), weights, str(place / "again")))
    assert found.equal, found.lines()
    assert found.lines()[0].startswith("Equal to the bit")


def test_a_rerun_says_what_differs(place):
    run = open_run(place / "run")
    decided_ids = run.manifest(place / "few").rows()[:1]
    History().decide("drop", [decided_ids[0].id]).write(history_path(place / "few"))
    found = rerun(place / "run", Places(str(place / "few"), run.recipe().model.weights, str(place / "again")))
    assert not found.equal
    assert {"images", "truths", "split"} <= {one.what for one in found.causes}
    assert decided_ids[0].id in found.pictures
    assert "Not equal to the bit" in found.lines()[0]


def test_passports_of_another_version_and_pages_without_one(place):
    text = (place / "run/report.html").read_text()
    values = json.loads(EMBEDDED.search(text)[1])
    page = place / "page.html"
    page.write_text(text.replace('"format": 1', '"format": 2').replace('"format":1', '"format":2'))
    with pytest.raises(RunError, match=r"format 2.*reads format 1"):
        read_passport(page)
    page.write_text("<html></html>")
    with pytest.raises(RunError, match="holds no passport"):
        read_passport(page)
    page.write_text(json.dumps({"passport": {"format": 1}}))
    with pytest.raises(RunError, match="broken passport"):
        read_passport(page)
    with pytest.raises(RunError, match="cannot be read"):
        read_passport(place / "nowhere.html")
    then = Passport.model_validate(values)
    other = then.model_copy(update={"environment": then.environment | {"torch": "0.1"}})
    assert [one.text() for one in causes(other, then)] == [
        f"torch: 0.1 then, {then.environment['torch']} now"
    ]
    assert causes(then, then) == []
