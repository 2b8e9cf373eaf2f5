"""Every recipe resolves to the same settings as when task, network and training were in one file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vitrail.data.builtin import materialise
from vitrail.data.prepare import prepare
from vitrail.models.factory import create_encoder, describe
from vitrail.runs.recipe import Recipe, recipes
from vitrail.runs.train_options import TrainOptions
from vitrail.training.resolve_recipe import plan

TABLE = Path(__file__).with_name("resolved_recipes.json")
"""What the code answered before recipes were split: {case: {"classify" or "multilabel": plan}}.

Two things were added since: `crop_fraction`, and that an elastic task names the one it wraps.
"""

SAID_SINCE = "do not state their preprocessing: ImageNet's mean and deviation are used"
"""A newer line of a plan about weights; it does not change the settings."""

TEACHER = "somebody"

OLD_FILE = {
    "recipe": "vit",
    "schema_version": 1,
    "model": {"name": "vit_digits", "imgsz": [32, 32], "fit": "squash"},
    "task": {"settings": {"mixup": 0.3, "pool": "mean"}},
    "training": {"epochs": 7, "batch": 32},
}
"""A recipe file that leaves the task to the data."""

SPECIAL: dict[str, dict[str, Any]] = {
    "supervit": {"model": "supervit_digits", "weights": "none"},
    "supervit without its costs": {"model": "supervit_digits", "weights": "none", "elastic": False},
    "elastic vit": {"model": "vit_digits", "weights": "none", "elastic": True, "recipe": "scratch_small"},
    "teacher": {"model": "deit_ti16_distilled", "weights": "none", "teacher": TEACHER, "distill": "soft"},
    "taught supervit": {"model": "supervit_digits", "weights": "none", "teacher": TEACHER},
    "settings of the task": {
        "model": "vit_digits", "weights": "none", "mixup": 0.5, "cutmix": 0.0, "smoothing": 0.2, "loss": "bce",
        "pool": "mean",
    },
    "convolutional": {"model": "resnet10t", "weights": "none"},
    "without a drop path": {"model": "ghostnet_050", "weights": "none"},
    "overlapping patches": {"model": "vit_s16", "weights": "none", "recipe": "fine_grained"},
    "head": {"weights": "file", "tune": "head"},
    "full": {"weights": "file", "tune": "full"},
    "draft": {"weights": "file"},
    "file": {"weights": "none", "recipe": "file"},
    "file and options": {"weights": "none", "recipe": "file", "mixup": 0.1, "imgsz": "24", "batch": 16},
    "file and weights": {"weights": "file", "tune": "full", "recipe": "file"},
    "built-in data": {"source": "digits", "model": "vit_digits"},
    "built-in data, convolutional": {"source": "digits", "model": "resnet10t"},
}  # fmt: skip


FROM_WEIGHTS = (
    "cnn_finetune", "deit3", "draft", "fine_grained", "finetune", "finetune_small", "head", "vgg_finetune", "vit",
)  # fmt: skip
"""Recipes that are tried with weights, too: those made for them, and two that are not."""


def cases() -> dict[str, dict[str, Any]]:
    """Every recipe from scratch and from weights, and the other options that change a task's settings."""
    found = dict(SPECIAL)
    for name in recipes():
        model = {} if name == "position_ablation" else {"model": "vit_digits"}
        found[f"{name}, from scratch"] = {"weights": "none", "recipe": name, **model}
    for name in FROM_WEIGHTS:
        found[f"{name}, from weights"] = {"weights": "file", "recipe": name}
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The digits with one label per image, and with several."""
    single = materialise("digits", tmp_path_factory.mktemp("digits"))
    table = single.parent / "labels.csv"
    with table.open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["path", "labels"])
        for path in sorted(single.glob("*/*.png")):
            number = int(path.parent.name)
            labels = f"{number}|{number + 1}" if number % 2 == 0 else str(number)
            rows.writerow([path.relative_to(single.parent).as_posix(), labels])
    return {"classify": prepare(single), "multilabel": prepare(table)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights and a recipe as files, by the option that names them."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    encoder = create_encoder("vit_digits")
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    header = {"encoder": describe(encoder), "source": "timm", "licence": "apache-2.0"}
    save_file(tensors, folder / "given.safetensors", metadata={"vitrail_encoder": json.dumps(header)})
    (folder / "mine.yaml").write_text(json.dumps(OLD_FILE))
    return {"weights": str(folder / "given.safetensors"), "recipe": str(folder / "mine.yaml")}


def changed(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe that are not defaults, without the data."""
    return recipe.model_dump(mode="json", exclude_defaults=True, exclude={"data"})


def resolved(data: dict[str, Any], files: dict[str, str], case: dict[str, Any]) -> dict[str, Any]:
    """Return the plan for a case, by the kind of data."""
    options = {name: files[name] if value == "file" else value for name, value in case.items()}
    source = options.pop("source", "photos")
    answers = {}
    for task, prepared in data.items():
        planned = plan(source, prepared, TrainOptions(**options))
        values = {
            "recipe": changed(planned.recipe),
            "full": planned.full and changed(planned.full),
            "reasons": [reason for reason in planned.reasons if not reason.endswith(SAID_SINCE)],
        }
        text = json.dumps(values)
        for name, path in files.items():
            text = text.replace(path, f"{name} file")
        answers[task] = json.loads(text)
    return answers


@pytest.mark.parametrize("name", json.loads(TABLE.read_text()))  # a newer recipe never resolved otherwise
def test_a_recipe_resolves_as_it_did(data, files, name):
    assert resolved(data, files, cases()[name]) == json.loads(TABLE.read_text())[name]
