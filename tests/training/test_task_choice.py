"""The task and its settings: the user overrides a recipe file, which overrides the task's defaults and the data."""

from __future__ import annotations

import json
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest
import yaml

from vitrail.core import catalog
from vitrail.core.config import read, to_yaml
from vitrail.core.errors import DataError, SettingError, UnknownNameError, UsageError
from vitrail.data.builtin import materialise
from vitrail.data.prepare import prepare
from vitrail.data.truth import Truth
from vitrail.models.factory import create_encoder
from vitrail.runs.recipe import compose, recipes, regularization_of, task_part
from vitrail.runs.reproduce import train_command
from vitrail.runs.task_settings import _defaults, default_settings, settings_class
from vitrail.runs.train_options import TrainOptions, task_settings
from vitrail.tasks.base import Task
from vitrail.training.initialization import build_from_recipe
from vitrail.training.resolve_recipe import plan
from vitrail.training.validate_options import validate

COUNT = "tests.training.counting.task:Count"
FOLLOWS = "tests.training.test_task_choice:Follows"
SILENT = "tests.training.test_task_choice:Silent"


class Silent(Task):
    """A task without settings, outside a task folder."""


class Follows(Silent):
    """A task that supports distillation."""

    def follow(self, output, teacher, by):
        return (output - teacher).abs().mean()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The digits with one label per image, and with several."""
    single = materialise("digits", tmp_path_factory.mktemp("digits"))
    names = [path.relative_to(single.parent).as_posix() for path in sorted(single.glob("*/*0.png"))]
    rows = [f"{name},{'0|1' if number % 2 else '1'}\n" for number, name in enumerate(names)]
    table = single.parent / "labels.csv"
    table.write_text("path,labels\n" + "".join(rows))
    return {"single": prepare(single), "multi": prepare(table)}


@pytest.fixture
def file(tmp_path):
    """Write a recipe file."""

    def write(**values):
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps(values))
        return str(path)

    return write


def planned(prepared, **options):
    return plan("photos", prepared, TrainOptions(**{"weights": "none", "model": "vit_digits", **options}))


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_data_never_override_the_task_of_a_recipe(data, file, kind):
    recipe = file(task={"name": COUNT, "settings": {"slack": 2.0}})
    found = planned(data[kind], recipe=recipe)
    assert found.recipe.task.name == COUNT
    assert not any("task" in line for line in found.reasons)


def test_nothing_of_classification_is_forced_on_another_task(data, file):
    recipe = file(task={"name": SILENT, "settings": {"own": 2.0}})
    assert planned(data["single"], recipe=recipe).recipe.task.settings == {"own": 2.0}


def test_a_task_brings_its_own_defaults_by_name_and_regularization(data, file):
    assert planned(data["single"], task=COUNT).recipe.task.settings == {
        "most": 20,
        "slack": 0.1,
        "steep": True,
    }
    assert default_settings(COUNT, "deit", "strong") == {"most": 20, "slack": 0.1}
    assert default_settings(COUNT, "digits_vit", "mild") == {"most": 20}
    mild = file(regularization="mild", task={"settings": {"steep": False}})
    assert planned(data["single"], task=COUNT, recipe=mild).recipe.task.settings == {
        "most": 20,
        "steep": False,
    }


def test_what_the_user_says_wins(data, file):
    recipe = file(task={"name": COUNT, "settings": {"slack": 2.0, "most": 3}})
    found = planned(data["single"], recipe=recipe, set="slack=4").recipe.task
    assert (found.settings["slack"], found.settings["most"]) == (4, 3)
    other = planned(data["multi"], recipe=recipe, task="multilabel", set="dropout=0.3", mixup=0.4)
    assert other.recipe.task.name == "multilabel"
    assert other.recipe.task.settings == {"smoothing": 0.1, "mixup": 0.4, "cutmix": 1.0, "dropout": 0.3}
    assert other.reasons == (f"task multilabel: the recipe's settings of {COUNT} are left out",)


def test_the_data_decide_and_it_is_said(data):
    found = planned(data["multi"])
    assert found.recipe.task.name == "multilabel"
    assert any(line.startswith("task multilabel: some images have several labels") for line in found.reasons)
    assert not any("task" in line for line in planned(data["multi"], task="multilabel").reasons)
    assert planned(data["single"], task="multilabel").recipe.task.name == "multilabel"


def test_one_class_a_picture_is_refused_where_there_are_several(data, file):
    with pytest.raises(DataError, match="--task multilabel"):
        planned(data["multi"], recipe=file(task={"name": "classify"}))


def test_the_recipe_of_an_old_run_is_read(data, file):
    first = planned(data["single"], recipe="vit", mixup=0.3, elastic=True).recipe
    again = planned(data["single"], recipe=file(**yaml.safe_load(to_yaml(first))), set="dropout=0.1").recipe
    settings = first.task.settings
    assert again.task.name == "elastic"
    assert again.task.settings == {**settings, "settings": {**settings["settings"], "dropout": 0.1}}
    assert again.training == first.training


@pytest.mark.parametrize(("name", "task"), [("elastic", "classify"), ("elastic_multilabel", "multilabel")])
def test_earlier_recipes_with_everything_side_by_side_are_read(data, file, name, task):
    old = file(task={"name": name, "settings": {"sizes": [[20, 20]], "keeps": [0.6], "smoothing": 0.2}})
    found = planned(data["single"], recipe=old).recipe.task
    inner = {"smoothing": 0.2, "mixup": 0.8, "cutmix": 1.0}
    own = {"sizes": [[20, 20]], "keeps": [0.6]}
    assert found.name == "elastic"
    assert found.settings == {**own, "task": task, "settings": inner}
    plain = planned(data["single"], recipe=old, elastic=False).recipe.task
    assert (plain.name, plain.settings) == (task, inner)


def test_any_task_that_can_follow_is_trained_for_several_costs(data):
    found = planned(data["single"], task=FOLLOWS, elastic=True).recipe.task
    assert (found.name, found.settings["task"], found.settings["settings"]) == ("elastic", FOLLOWS, {})
    with pytest.raises(SettingError, match=r"is trained for one cost\. Leave --elastic out"):
        planned(data["single"], task=SILENT, elastic=True)
    assert planned(data["single"], task=SILENT, model="supervit_digits").recipe.task.name == SILENT


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": COUNT, "mixup": 0.2}, rf"--mixup is no setting of the task {COUNT}. It has: slack, most, steep "),
        ({"task": SILENT, "loss": "bce"}, "--loss is no setting of the task .* It has no settings. Leave --loss out"),
        ({"task": COUNT, "set": "slak=1"}, "--set slak=…: .* has no 'slak'. Did you mean 'slack'"),
        ({"task": COUNT, "set": "slack=-1"}, "--set slack must be 0 or more, not -1"),
        ({"task": COUNT, "set": "slack"}, "--set 'slack' cannot be read"),
        ({"task": COUNT, "balance": "loss"}, "has no class_weights. Use --balance sampling"),
        ({"mixup": 0.2, "set": "mixup=0.3"}, "--mixup and --set mixup=… say the same"),
        ({"set": "droput=0.3"}, "Did you mean 'dropout'"),
        ({"task": "elastic_multilabel"}, "Name that task, and add --elastic"),
        ({"task": "distill"}, "Name that task, and add --teacher"),
        ({"task": "clasify"}, "no task called 'clasify'. Did you mean 'classify'"),
        ({"task": "os:path"}, "'os:path' is not a subclass of vitrail.tasks.base.Task"),
        ({"task": "nosuch_module:Count"}, "PYTHONPATH"),
        ({"set": "head=x"}, "must be one of 'pixels' or 'linear', not 'x'.* Only the task segment has such a"),
        ({"set": "hed=linear"}, "the task segment has no 'hed'. Did you mean 'head'"),
        ({"set": "zzzz=1"}, "the task classify has no 'zzzz'.*the task segment has no 'zzzz'"),
        ({"tune": "draft", "set": "mixup=1"}, "--set mixup has no effect on a draft"),
    ],
)  # fmt: skip
def test_settings_that_the_task_has_not_are_refused_before_a_picture_is_opened(options, words):
    with pytest.raises(UsageError, match=words):
        validate(TrainOptions(**options))


def test_a_setting_of_the_task_that_data_may_choose_is_not_refused(data):
    validate(TrainOptions(set="thresholds=[0.3, 0.4]", weights="none"))
    with pytest.raises(UsageError, match="thresholds"):
        planned(data["single"], set="thresholds=[0.3, 0.4]")
    assert planned(data["multi"], set="thresholds=[0.3, 0.4]").recipe.task.settings["thresholds"] == [
        0.3,
        0.4,
    ]


def test_a_file_that_asks_for_class_weights_which_the_task_has_not(data, file):
    with pytest.raises(SettingError, match="class_weights"):
        planned(data["single"], recipe=file(task={"name": COUNT}, training={"balance": "loss"}))


def test_a_task_without_a_draft_is_trained_whole(data, file, tmp_path):
    with pytest.raises(UsageError, match="has no draft"):
        plan("photos", data["single"], TrainOptions(task=COUNT, tune="draft", weights=_weights(tmp_path)))
    found = plan("photos", data["single"], TrainOptions(task=COUNT, weights=_weights(tmp_path)))
    assert (found.recipe.training.tune, found.full) == ("full", None)
    assert "pool" not in found.recipe.task.settings


def _weights(folder):
    from safetensors.torch import save_file

    from vitrail.models.factory import describe

    encoder = create_encoder("vit_digits")
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    header = {"encoder": describe(encoder), "source": "timm", "licence": None}
    save_file(tensors, folder / "given.safetensors", metadata={"vitrail_encoder": json.dumps(header)})
    return str(folder / "given.safetensors")


def test_unknown_names_are_named():
    with pytest.raises(UnknownNameError, match="no task called 'guess'"):
        settings_class("guess")
    assert task_settings("a=1,b=[2, 3], c=x") == {"a": 1, "b": [2, 3], "c": "x"}


@pytest.mark.parametrize("task", dict.fromkeys(catalog.DEFAULT_TASKS.values()))
def test_defaults_are_settings_of_their_task_and_of_recipes_that_exist(task):
    for pattern in _defaults(task).recipes:
        assert any(fnmatchcase(name, pattern) for name in recipes()), pattern
    for name in recipes():
        part = task_part(task, name)["task"]["settings"]
        assert read(settings_class(task), part, name)
        if _defaults(task).regularization:
            assert bool(part) == (regularization_of(name) is not None)


def test_settings_and_recipes_need_no_torch():
    script = (
        "import sys\nfrom vitrail.core.catalog import SETTINGS\n"
        "from vitrail.runs.recipe import compose, recipes\nfrom vitrail.runs.task_settings import settings_class\n"
        "for task in SETTINGS: settings_class(task)\n"
        "for name in recipes(): compose(name, {'data': {}, 'model': {'name': 'x', 'imgsz': (1, 1)}})\n"
        "print([m for m in ('torch', 'timm', 'PIL') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_every_task_of_the_catalog_has_its_settings_there():
    assert set(catalog.SETTINGS) == set(catalog.TASKS)
    assert set(catalog.WRAPPERS) < set(catalog.TASKS)


@pytest.mark.parametrize(
    ("model", "size", "drops", "convolutional", "elastic"),
    [
        ("vit_digits", (32, 32), True, False, False),
        ("supervit_digits", (32, 32), True, False, True),
        ("mixer_s16", (224, 224), True, False, False),
        ("ghostnet_050", (224, 224), False, True, False),
        ("inception_v3", (299, 299), False, True, False),
        ("test_vit", (160, 160), True, False, False),
    ],
)
def test_what_an_encoder_says_of_its_training(model, size, drops, convolutional, elastic):
    import torch

    with torch.device("meta"):
        encoder = create_encoder(model)
    found = (encoder.image_size, encoder.takes_drop_path, encoder.convolutional, encoder.elastic)
    assert found == (size, drops, convolutional, elastic)


def recipe_of(task, **more):
    values = {"model": {"name": "vit_s16", "imgsz": (32, 32)}, "data": {"source": "x"}, "task": task, **more}
    return compose("vit", values)


@pytest.mark.parametrize(
    ("kind", "task", "more", "words"),
    [
        ("class", {"name": "classify", "settings": {"pool": "cls", "class_weights": [1, 2]}}, {}, ""),
        ("class", {"settings": {"mixup": 0.3, "dropout": 0.1}}, {}, "--mixup 0.3 --set dropout=0.1 "),
        ("class", {"name": "multilabel"}, {}, "--task multilabel "),
        ("classes", {"name": "multilabel"}, {}, ""),
        ("classes", {"name": "elastic_multilabel", "settings": {"keeps": [0.5], "sizes": []}}, {}, "--elastic "),
        ("class", {"name": COUNT, "settings": {"slack": 2, "most": 20}}, {}, f"--task {COUNT} --set slack=2 "),
        ("class", {"name": "classify"}, {"data": {"source": "x", "layout": "crops"}}, "--layout crops "),
    ],
)  # fmt: skip
def test_the_command_that_makes_a_run_again(kind, task, more, words):
    start = "vitrail train IMAGES --recipe recipe.yaml --model vit_s16 --weights none "
    found = train_command(recipe_of(task, **more), "none", kind)
    assert found == f"{start}{words}--val 0.15 --test 0.15 --seed 0"


def test_the_command_of_a_student_names_no_teacher():
    inner = task_part("classify", "vit")["task"]["settings"]
    task = {
        "name": "distill",
        "settings": {"teacher": "elsewhere/teacher", "task": "classify", "settings": inner},
    }
    found = train_command(recipe_of(task), "none", "class")
    assert found.split("none ")[1] == "--val 0.15 --test 0.15 --seed 0"


def test_the_tasks_with_a_draft_are_those_with_a_probe():
    probed = {
        name for name in catalog.DEFAULT_TASKS.values() if catalog.load("task", name).probe is not Task.probe
    }
    assert probed == catalog.DRAFTS


@pytest.mark.parametrize("start", [{"model": "eomt_s"}, {"weights": "eomt_l.coco_instance_640"}])
@pytest.mark.parametrize("task", ["instances", "panoptic"])
def test_a_head_that_only_answers_is_refused_before_the_data_are_read(start, task):
    with pytest.raises(UsageError, match=f"head of EoMT for {task} answers, but is not trained here"):
        validate(TrainOptions(**start, task=task))
    validate(TrainOptions(**start, task="segment"))


def test_a_head_that_only_answers_is_refused_where_the_data_chose_the_task():
    given = {
        "data": {"source": "cells"},
        "model": {"name": "eomt_s", "imgsz": (64, 64)},
        "task": {"name": "instances"},
    }
    with pytest.raises(SettingError, match="head of EoMT for instances answers, but is not trained here"):
        build_from_recipe(compose("eomt", given), Truth("instances", ("disc", "ring")))
