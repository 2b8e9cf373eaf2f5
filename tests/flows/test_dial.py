"""The dial of a model that was trained for one cost: measured, chosen by latency or by name, and refused in words."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from vitrail.core.errors import SettingError
from vitrail.data.preprocess import Preprocess
from vitrail.infer.latency import read_latency
from vitrail.infer.operating_points import chosen
from vitrail.infer.point_speeds import PointSpeed, speeds_here
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import readers_of, root_of
from vitrail.layers.elastic import OperatingPoint, read_point
from vitrail.models.factory import build
from vitrail.models.mixer import MixerConfig
from vitrail.runs.model_file import read_model, write_model
from vitrail.runs.network import build_network, build_task
from vitrail.runs.run import Run


@pytest.fixture(scope="module")
def dialled(trained, tmp_path_factory, cache):
    """A copy of the trained run whose operating points were measured."""
    from vitrail.reports.operating_points import PointsWish, evaluate_points

    folder = tmp_path_factory.mktemp("dialled") / "run"
    shutil.copytree(trained, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAIL_CACHE", str(cache))
        report, _ = evaluate_points(str(folder), PointsWish())
    assert report["stored"]
    return folder


def rows_of(folder):
    return read_model(Run(folder).model_path).header.points


def test_every_point_of_a_plain_vit_is_measured_and_stored(dialled, trained):
    rows = {row["point"]: row for row in rows_of(dialled)}
    predictor = Predictor(dialled)
    assert set(rows) == {str(point) for point in predictor.dial}
    assert predictor.points == (predictor.point,)
    kinds = {"merge" in name for name in rows}, {read_point(name).size for name in rows}
    assert kinds[0] == {True, False}
    assert len(kinds[1]) == 4
    assert any(read_point(name).patch for name in rows)
    whole = rows[str(predictor.point)]
    for name, row in rows.items():
        assert row["gmacs"] <= whole["gmacs"]
        assert row["latency_ms"] >= row["middle_ms"] > 0
        assert row["score"]["low"] <= row["score"]["value"] <= row["score"]["high"]
        if row["beaten_by"]:
            better = rows[row["beaten_by"]]
            assert better["score"]["value"] >= row["score"]["value"]
            assert better["images_per_second"] >= row["images_per_second"], name
    before, after = (read_model(Run(one).model_path) for one in (trained, dialled))
    assert before.header.proof == after.header.proof
    assert all(torch.equal(before.tensors[name], tensor) for name, tensor in after.tensors.items())


def test_the_page_and_the_report_show_the_front(dialled):
    page = (dialled / "points.html").read_text()
    assert "<img" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    report = json.loads((dialled / "report.json").read_text())
    assert len(report["points"]) == len(rows_of(dialled))
    assert not any("task" in row for row in report["points"])
    assert "--latency" in (dialled / "report.html").read_text()


def test_the_table_of_the_command_line(vitrail, dialled, trained):
    done = vitrail("eval", dialled, "--points", "32px/1,24px/merge4", "--beside", trained)
    assert done.returncode == 1
    assert "24px/merge4" in done.stderr
    name = next(name for name in (row["point"] for row in rows_of(dialled)) if "merge" in name)
    done = vitrail("eval", dialled, "--points", f"32px/1,{name}", "--beside", trained, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["points"]
    assert [row["point"] for row in rows] == ["32px/1", name, "32px/1"]
    assert rows[-1]["network"] == trained.name
    assert rows[0]["score"]["value"] == pytest.approx(rows[-1]["score"]["value"])  # the same weights


def test_a_point_answers_with_what_was_calibrated_there(vitrail, dialled, digits):
    name = next(row["point"] for row in rows_of(dialled) if "merge" in row["point"])
    picture = sorted((digits / "3").iterdir())[0]
    done = vitrail("predict", dialled, picture, "--point", name, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)[0]
    predictor = Predictor(dialled, point=name)
    assert predictor(picture)[0].probability == pytest.approx(answer["probability"], abs=1e-5)
    row = next(row for row in rows_of(dialled) if row["point"] == name)
    assert predictor.task.settings.temperature == pytest.approx(row["task"]["settings"]["temperature"])
    whole = Predictor(dialled)
    assert predictor(picture)[0].probabilities != whole(picture)[0].probabilities
    assert set(predictor(picture)[0].to_dict()) == set(whole(picture)[0].to_dict())


def test_a_latency_chooses_the_most_accurate_point_that_keeps_it(vitrail, dialled, digits):
    rows = rows_of(dialled)
    slowest = max(row["latency_ms"] for row in rows)
    best = max(row["score"]["value"] for row in rows)
    done = vitrail("predict", dialled, digits / "3", "--latency", f"{slowest + 1:.0f}ms", "--json")
    assert done.returncode == 0, done.stderr
    name = re.search(r"Answered at (\S+):", done.stderr)[1]
    assert next(row for row in rows if row["point"] == name)["score"]["value"] == best
    assert "In this job" in done.stderr
    assert len(json.loads(done.stdout)) == 20


def test_a_latency_that_no_point_keeps_names_the_quickest(vitrail, dialled, digits):
    done = vitrail("predict", dialled, digits / "3", "--latency", "0.001ms")
    assert done.returncode == 1
    assert re.search(r"The quickest, \S+, takes [\d.]+ ms", done.stderr)
    assert "Timing" in done.stderr  # timed once more before it is refused
    assert "--latency" in done.stderr


def test_points_of_another_machine_are_timed_again(dialled, tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    folder = tmp_path / "run"
    shutil.copytree(dialled, folder)
    file = read_model(Run(folder).model_path)
    elsewhere = [{**row, "machine": "another one", "latency_ms": 1e9} for row in file.header.points]
    predictor = Predictor(folder)
    header = file.header.model_copy(update={"points": elsewhere})
    write_model(Run(folder).model_path, predictor.network, header)
    predictor, said = Predictor(folder), []
    run = Run(folder)
    readers = readers_of(run, root_of(run), ("val",), predictor.preprocess, 8)
    found = speeds_here(predictor, readers, said.append)
    whole = str(predictor.point)
    assert set(found) == {row["point"] for row in elsewhere if not row["beaten_by"] or row["point"] == whole}
    assert all(isinstance(speed, PointSpeed) and speed.latency < 1e6 for speed in found.values())
    assert "this is done once" in said[0]
    assert speeds_here(predictor, readers, said.append) == {
        name: PointSpeed.of(speed.to_dict()) for name, speed in found.items()
    }
    assert len(said) == 1  # the second time they are known


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--point", "28px/merge1"), "neither trained nor measured"),
        (("--point", "huge"), "cannot be read"),
        (("--latency", "soon"), "cannot be read"),
        (("--latency", "5ms", "--point", "32px/1"), "contradict"),
        (("--latency", "5ms", "--tiles", "64"), "contradict"),
    ],
)
def test_what_cannot_be_asked_is_said(vitrail, dialled, digits, words, named):
    done = vitrail("predict", dialled, digits / "3", *words)
    assert done.returncode in (1, 2)
    assert named in done.stderr


def test_an_unreadable_image_stops_nothing(vitrail, dialled, digits, tmp_path):
    """Beside a lone file, images of the job are those to time with."""
    alone = tmp_path / "model.safetensors"
    file = read_model(Run(dialled).model_path)
    elsewhere = [{**row, "machine": "another one"} for row in file.header.points]
    header = file.header.model_copy(update={"points": elsewhere})
    write_model(alone, Predictor(dialled).network, header)
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "a.jpg").write_text("no image")
    shutil.copy(sorted((digits / "3").iterdir())[0], tmp_path / "mix" / "b.png")
    done = vitrail("predict", alone, tmp_path / "mix", "--latency", "10s", "--json")
    assert done.returncode == 1
    answers = json.loads(done.stdout)
    assert [bool(answer.get("error")) for answer in answers] == [True, False]
    assert "The image took" in done.stderr


def test_points_measured_otherwise_are_not_mixed(vitrail, dialled, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(dialled, folder)
    file = read_model(Run(folder).model_path)
    elsewhere = [{**row, "machine": "another one"} for row in file.header.points]
    header = file.header.model_copy(update={"points": elsewhere})
    write_model(Run(folder).model_path, Predictor(folder).network, header)
    done = vitrail("eval", folder, "--points", "32px/1", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["point"] for row in rows_of(folder)] == ["32px/1"]
    assert "measured otherwise" in " ".join(json.loads(done.stdout)["notes"])


def test_models_beside_are_checked_before_anything_is_measured(vitrail, dialled, model_file):
    task = build_task("classify", ["x", "y"], {})
    config = MixerConfig(image=32, patch=8, width=16, depth=2, places=8, hidden=16)
    path = model_file("mixer", build_network(build(config), task).eval(), task, Preprocess.for_size(32))
    before = rows_of(dialled)
    done = vitrail("eval", dialled, "--points", "32px/1", "--beside", path)
    assert done.returncode == 1
    assert "2 classes" in done.stderr
    assert rows_of(dialled) == before


def test_a_model_that_was_not_measured_says_how(vitrail, trained, digits):
    done = vitrail("predict", trained, digits / "3", "--latency", "5ms")
    assert done.returncode == 1
    assert "--points all" in done.stderr


def test_a_network_without_a_dial_says_who_has_one(vitrail, model_file, digits):
    task = build_task("classify", ["0", "1"], {})
    config = MixerConfig(image=32, patch=8, width=16, depth=2, places=8, hidden=16)
    network = build_network(build(config), task).eval()
    path = model_file("mixer", network, task, Preprocess.for_size(32))
    for words in (
        ("eval", path, digits, "--points", "all"),
        ("predict", path, digits / "3", "--latency", "5ms"),
    ):
        done = vitrail(*words)
        assert done.returncode == 1
        assert "one operating point only" in done.stderr
        assert "DeiT" in done.stderr


def test_latencies_are_read():
    assert read_latency("15ms") == read_latency("15") == 15
    assert read_latency("0.2s") == 200
    for wrong in ("", "fast", "-1ms", "0"):
        with pytest.raises(SettingError, match="15ms"):
            read_latency(wrong)


def test_points_are_read_as_they_are_written():
    for point in (
        OperatingPoint((160, 160), 0.7),
        OperatingPoint((160, 224), merge=8),
        OperatingPoint((224, 224), patch=16),
        OperatingPoint((224, 224), 0.5, 4, 28),
        OperatingPoint((224, 224)),
    ):
        assert read_point(str(point)) == point
    with pytest.raises(SettingError, match="merge8"):
        read_point("160px/merge")
    with pytest.raises(SettingError, match="--points all"):
        chosen("160px/merge8", [OperatingPoint((224, 224))], "runs/a")
