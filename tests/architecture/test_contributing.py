"""The numbered lists of CONTRIBUTING.md hold: what a list names is added to a copy of the package, which then works."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import vitrail

ROOT = Path(vitrail.__file__).parents[1]
EXAMPLES = Path(__file__).with_name("additions")
ROWS = "rows.yaml"

NAMES = {
    "task": "regress",
    "network": "minivit",
    "layout": "sidecar",
    "explainer": "saliency",
    "verb": "tasks",
}
"""What is added, and the name that it has in its example."""


def steps(kind):
    """Return the numbered steps of a list, as one text."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^### How to add an? {kind}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert found, f"CONTRIBUTING.md does not say how to add a {kind}"
    items = re.findall(r"^\d+\. .*(?:\n   .*)*", found[1], re.M)
    assert 4 <= len(items) <= 8
    return "\n".join(items)


def paths(kind):
    """Return the paths that a list names."""
    found = re.findall(r"`([\w.]+(?:/[\w.]+)*/[\w.]*)`", steps(kind))
    return {path.replace("NAME", NAMES[kind]) for path in found}


def tables(kind):
    """Return the tables of the code, in capitals, that a list names."""
    return set(re.findall(r"`([A-Z]{3,}(?:_[A-Z]+)*)`", steps(kind))) - {"NAME"}


def rows_of(kind):
    """Return the rows of an example: page → table → row."""
    return yaml.safe_load((EXAMPLES / kind / ROWS).read_text(encoding="utf-8"))


def files_of(kind):
    """Return the files of an example, as they lie in the repository."""
    found = (EXAMPLES / kind).rglob("*")
    inside = [p.relative_to(EXAMPLES / kind) for p in found if p.is_file() and "__pycache__" not in p.parts]
    return {path.as_posix() for path in inside} - {ROWS}


def with_rows(text, rows):
    """Return a page with a row put in front of each of these tables."""
    for table, row in rows.items():
        if table == "import":
            text = text.replace("import annotations\n", f"import annotations\n\n{row}\n", 1)
            continue
        text, count = re.subn(
            rf"^({table}\b[^=\n]*= (?:MappingProxyType\()?\s*[({{])", rf"\1\n    {row}\n", text, flags=re.M
        )
        assert count == 1, f"there is no table {table}"
    return text


def follow(kind, folder):
    """Copy the package, and add to it what the list names: files, and rows of pages that there are."""
    # With the compiled pages, which fit as long as the times of the files are kept.
    shutil.copytree(ROOT / "vitrail", folder / "vitrail")
    rows = rows_of(kind)
    for path in paths(kind):
        there = folder / path
        there.parent.mkdir(parents=True, exist_ok=True)
        if (EXAMPLES / kind / path).is_file():
            assert not there.exists(), f"{path} is already there"
            shutil.copy(EXAMPLES / kind / path, there)
        elif path in rows:
            named = {table: row for table, row in rows[path].items() if table in {*tables(kind), "import"}}
            there.write_text(with_rows((ROOT / path).read_text(encoding="utf-8"), named), encoding="utf-8")


@pytest.fixture
def added(tmp_path):
    """Return what follows a list, and calls `python -m …` on the copy; a failed call fails the test."""
    if not (ROOT / "CONTRIBUTING.md").is_file():
        pytest.skip("an installed package has no CONTRIBUTING.md")

    def add(kind):
        home = tmp_path / "copy"
        follow(kind, home)
        environment = {**os.environ, "PYTHONPATH": str(home), "VITRAIL_CACHE": str(tmp_path / "cache")}

        def call(*words):
            command = [sys.executable, "-m", *map(str, words)]
            done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr + done.stdout
            return done.stdout

        return call

    return add


TRAIN = ("--weights", "none", "--epochs", 1, "--batch", 16, "--micro", 16, "--precision", "float32")
SMALL = ("--imgsz", 32, "--workers", 0, *TRAIN)


@pytest.mark.parametrize("kind", NAMES)
def test_a_list_names_what_its_example_adds(kind):
    named, rows = paths(kind), rows_of(kind)
    made = files_of(kind) | rows.keys()
    assert {path for path in named if path.startswith("vitrail/")} == {
        p for p in made if p.startswith("vitrail/")
    }
    assert made <= named
    assert [path for path in named - made if not (ROOT / path).exists()] == []
    assert tables(kind) == {table for page in rows.values() for table in page} - {"import"}


def test_a_task(added, some_digits, tmp_path):
    run, table = tmp_path / "run", some_digits("0123", 10) / "numbers.csv"
    with table.open("w", newline="", encoding="utf-8") as handle:
        lines = csv.writer(handle)
        lines.writerow(["path", "label"])
        for picture in sorted(table.parent.glob("*/*.png")):
            lines.writerow([picture.relative_to(table.parent).as_posix(), f"{picture.parent.name}.5"])
    call = added("task")
    found = json.loads(call("vitrail", "check", table, "--task", "regress", "--json"))
    assert found["pictures"] == found["kept"] == 40
    call("vitrail", "train", table, "--task", "regress", "--model", "vit_digits", *SMALL, "--out", run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["task"] == {"name": "regress", "settings": {"loss": "absolute"}}
    picture = next(table.parent.glob("3/*.png"))
    (answer,) = json.loads(call("vitrail", "predict", run, picture, "--json"))
    assert isinstance(answer["value"], float)
    report = json.loads(call("vitrail", "eval", run, "--json"))
    assert report["verdict"].startswith("off by")


def test_a_network(added, some_digits, tmp_path):
    run, call = tmp_path / "run", added("network")
    call("vitrail", "train", some_digits("01", 20), "--model", "minivit_s", *SMALL, "--out", run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    assert (recipe["recipe"], recipe["model"]["name"]) == ("minivit", "minivit_s")
    contracts = (
        "tests/contracts/test_encoders.py",
        "-k",
        "(minivit and not export) or every_family",
        "-p",
        "no:cacheprovider",
    )
    assert " passed" in call("pytest", "-q", *contracts)


def test_a_layout(added, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        Image.new("L", (40, 30), 40 * number).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("dark\n" if number < 3 else "light\n", encoding="utf-8")
    found = json.loads(added("layout")("vitrail", "check", pictures, "--json"))
    assert found["layout"] == "sidecar"
    assert (found["kept"], found["classes"]) == (6, ["dark", "light"])


@pytest.fixture(scope="module")
def model(model_file):
    """A small network with a classifier, as a training writes it."""
    import torch

    from vitrail.data.preprocess import Preprocess
    from vitrail.models.factory import create_encoder
    from vitrail.runs.network import build_network, build_task

    torch.manual_seed(0)
    task, encoder = build_task("classify", ["dark", "light"], {}), create_encoder("vit_digits_narrow")
    return model_file(
        "vit_digits_narrow", build_network(encoder, task).eval(), task, Preprocess.for_size((32, 32), 3)
    )


def test_an_explainer(added, model, some_digits, tmp_path):
    picture = next(some_digits("0", 1).glob("0/*.png"))
    words = (model, picture, "--method", "saliency", "--out", tmp_path / "out", "--json")
    (found,) = json.loads(added("explainer")("vitrail", "explain", *words))
    assert found["explanations"][0]["method"] == "saliency"
    assert Path(found["file"]).is_file()


def test_a_verb(added):
    call = added("verb")
    assert json.loads(call("vitrail", "tasks", "*el*", "--json")) == [
        "multilabel",
        "elastic",
        "elastic_multilabel",
    ]
    assert "only names like this" in call("vitrail", "tasks", "--help")
    assert "list what can be learned" in call("vitrail", "--help")
