"""The command line as a newcomer uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PARSER = {"attr", "attrs", "cyclopts", "docstring_parser"}


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (["--help"], set()),
        (["train", "--help"], PARSER),
        (["predict", "--help"], PARSER),
        (["trian"], set()),
        (["--version"], set()),
    ],
)
def test_help_is_quick_because_it_imports_nothing_but_the_parser(words, others):
    script = (
        "import sys; before = set(sys.modules)\n"
        "from vitrail.cli.main import run\n"
        f"code = run({words!r})\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(code, *sorted(new - sys.stdlib_module_names), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    code, *loaded = done.stderr.strip().splitlines()[-1].split()
    assert int(code) == (2 if words == ["trian"] else 0), done.stderr
    assert set(loaded) == {"vitrail", *others}


def test_every_verb_has_help_that_names_each_option():
    from vitrail.cli.help import app_of, option_names, verb_help
    from vitrail.cli.verbs import VERBS

    for verb in VERBS:
        page = verb_help(verb)
        assert page.startswith(f"Usage: vitrail {verb}")
        for name in option_names(app_of(verb)):
            if not name.startswith("no-") and f"--{name}" in page:
                line = next(i for i, row in enumerate(page.splitlines()) if f"--{name}" in row)
                rows = page.splitlines()[line : line + 2]
                assert any(len(row[26:].strip()) > 3 for row in rows), f"{verb} --{name} has no explanation"


def test_unknown_verb_and_option_name_the_nearest(vitrail):
    assert "vitrail train" in vitrail("trian").stderr
    done = vitrail("train", "photos", "--epoch", "3")
    assert done.returncode == 2
    assert "--epochs" in done.stderr
    done = vitrail("train", "photos", "epoch=3")
    assert done.returncode == 2
    assert "--epochs" in done.stderr


def test_bad_values_are_wrong_usage_or_plain_errors(vitrail, digits):
    assert vitrail("train", digits, "--epochs", "many").returncode == 2
    for words in (
        ["--imgsz", "huge"],
        ["--time", "soon"],
        ["--model", "vit_s61"],
        ["--augment", "wild"],
        ["--lr", "-1"],
    ):
        done = vitrail("train", digits, "weights=none", *words)
        assert done.returncode == 2, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert "vit_s16" in vitrail("train", digits, "weights=none", "--model", "vit_s61").stderr


def test_train_writes_a_whole_run(trained):
    report = json.loads((trained / "report.json").read_text())
    assert set(report["test"]["accuracy"]) == {"value", "low", "high"}
    assert report["test"]["per_class"].keys() == {"0", "1", "2", "3"}
    assert np.array(report["test"]["confusion"]["counts"]).sum() == report["test"]["pictures"]
    assert report["model"] == "vit_digits"
    assert report["weights"] == "none"
    assert report["seconds"] > 0
    for name in (
        "recipe.yaml",
        "model.safetensors",
        "README.md",
        "manifest.csv",
        "history.jsonl",
        "report.html",
    ):
        assert (trained / name).stat().st_size > 0
    for name in ("report.html", "README.md", "report.json"):
        assert str(trained.parent) not in (trained / name).read_text()


def test_an_existing_run_is_never_overwritten(vitrail, digits, trained, tmp_path):
    before = (trained / "model.safetensors").read_bytes()
    done = vitrail(
        "train",
        digits,
        "epochs=1",
        "weights=none",
        "model=vit_digits",
        "micro=16",
        "--out",
        trained,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"].endswith("few-2")
    assert f"{trained} already exists; this run is kept in {trained}-2." in done.stderr
    assert (trained / "model.safetensors").read_bytes() == before


def test_predict_table_json_csv_and_the_exit_code_for_broken_pictures(vitrail, trained, digits, tmp_path):
    good = sorted((digits / "2").iterdir())[0]
    broken = tmp_path / "broken one.png"
    broken.write_bytes(good.read_bytes()[:40])
    done = vitrail("predict", trained, good, broken, good, "--json", "--csv", tmp_path / "out.csv")
    assert done.returncode == 1
    first, second, third = json.loads(done.stdout)
    assert set(first) == {"path", "label", "probability", "top"}
    assert first["top"][0] == {"label": first["label"], "probability": first["probability"]}
    assert set(second) == {"path", "error"}
    assert "broken one.png" in second["error"]
    assert third == first
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "path,label,probability,error"
    assert len(rows) == 4


def test_a_name_that_stands_for_nothing_leaves_the_others_answered(vitrail, trained, digits, tmp_path):
    good = sorted((digits / "2").iterdir())[0]
    (tmp_path / "empty").mkdir()
    done = vitrail("predict", trained, tmp_path / "empty", good, tmp_path / "typo*.jpg", "--json")
    assert done.returncode == 1
    empty, answered, typo = json.loads(done.stdout)
    assert "holds no images" in empty["error"]
    assert answered["label"] in "0123"
    assert "No file matches" in typo["error"]
    alone = vitrail("predict", trained, tmp_path / "empty", "--json")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "holds no images" in alone.stderr


def test_predict_takes_folders_globs_zips_and_standard_input(vitrail, trained, digits, tmp_path):
    files = sorted((digits / "1").iterdir())
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in files[:3]:
            zipped.write(file, file.name)
    for words, stdin, count in (
        ([digits / "1"], None, 20),
        ([f"{digits}/1/*.png"], None, 20),
        ([archive], None, 3),
        (["-"], files[0].read_bytes(), 1),
        (["-"], "\n".join(map(str, files[:4])).encode(), 4),
    ):
        done = vitrail("predict", trained, *words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)) == count


def test_one_file_is_enough_to_predict(vitrail, trained, digits, tmp_path):
    alone = tmp_path / "given.safetensors"
    alone.write_bytes((trained / "model.safetensors").read_bytes())
    picture = sorted((digits / "3").iterdir())[0]
    from_run = json.loads(vitrail("predict", trained, picture, "--json").stdout)
    assert json.loads(vitrail("predict", alone, picture, "--json").stdout) == from_run


def test_dry_run_prints_a_plan_and_writes_nothing(vitrail, digits, tmp_path):
    done = vitrail(
        "train", digits, "--dry-run", "--json", "weights=none", "epochs=3", "--batch", "16", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["steps"] == 3 * (plan["splits"]["train"] // 16)
    assert plan["seconds"] > 0
    assert plan["memory"] > 1e7
    assert not list(tmp_path.iterdir())


def test_a_task_and_settings_that_are_named_like_options(vitrail, digits):
    few = ["weights=none", "model=vit_digits", "--batch", "16", "--dry-run", "--json"]
    words = ["--task", "multilabel", "--set", "mixup=0.3,dropout=0.1", "--network", "drop_path=0.2"]
    done = vitrail("train", digits, *few, *words, "epochs=3")
    assert done.returncode == 0, done.stderr
    recipe = json.loads(done.stdout)["recipe"]
    assert recipe["task"]["name"] == "multilabel"
    assert recipe["task"]["settings"] == {"smoothing": 0.1, "mixup": 0.3, "cutmix": 1.0, "dropout": 0.1}
    assert recipe["model"]["settings"] == {"drop_path": 0.2}
    assert recipe["training"]["epochs"] == 3


def test_models_lists_ours_and_timms(vitrail):
    rows = json.loads(vitrail("models", "vit_s*", "--json").stdout)
    assert [row["name"] for row in rows] == ["vit_s32", "vit_s16"]
    assert "resnet50" in vitrail("models", "resnet50", "--timm").stdout
    done = vitrail("models", "vit_s17")
    assert done.returncode == 1
    assert "vit_s16" in done.stderr


def test_errors_name_the_thing_and_the_way_out(vitrail, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        ("train", tmp_path / "nowhere"): "nowhere",
        ("train", tmp_path / "empty"): "no images",
        ("predict", tmp_path / "nothing.safetensors", "a.jpg"): "nothing.safetensors",
        ("train", "--resume", tmp_path / "empty"): "recipe.yaml",
        ("explain", trained, "--method", "rolout", "x.jpg"): "rollout",
    }
    for words, expected in cases.items():
        done = vitrail(*words)
        assert done.returncode == 1, (words, done.stderr)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


def test_predict_without_pictures_is_wrong_usage(vitrail, trained):
    done = vitrail("predict", trained)
    assert done.returncode == 2
    assert "--help" in done.stderr


def test_report_page_is_self_contained(trained):
    page = (trained / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert '<img src="data:image/png;base64,' in page


def test_paths_with_spaces_and_equals_signs_are_paths(vitrail, trained, digits, tmp_path):
    odd = tmp_path / "a=b 图.png"
    odd.write_bytes(sorted((digits / "0").iterdir())[0].read_bytes())
    done = vitrail("predict", trained, odd.name, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["path"] == odd.name


def test_of_several_processes_one_speaks(digits, cache, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = ["-m", "vitrail", "train", digits, "--json", "--out", tmp_path / "run", "weights=none"]
    few = ["epochs=1", "batch=16", "micro=8", "workers=0", "device=cpu", "model=vit_digits"]
    done = subprocess.run(
        [*launch, *map(str, words), *few],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "VITRAIL_CACHE": str(cache)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["finished"]


def test_python_face_is_the_same(trained, digits):
    import vitrail as package

    predictor = package.load(trained)
    picture = sorted((digits / "3").iterdir())[0]
    by_path = predictor(picture)[0]
    with Image.open(picture) as image:
        by_image, size = predictor(image)[0], image.size
    assert by_path == by_image
    assert predictor.encode([picture]).shape == (1, 64)
    assert package.explain(predictor, picture).heat.shape == size[::-1]
    assert Path(predictor.path).name == "model.safetensors"


def test_the_old_word_for_inspect_works_and_says_so(vitrail):
    old, new = vitrail("inside", "--help"), vitrail("inspect", "--help")
    assert old.returncode == 0
    assert old.stdout == new.stdout
    assert "`vitrail inside` is now called `vitrail inspect`" in old.stderr
    assert not new.stderr
