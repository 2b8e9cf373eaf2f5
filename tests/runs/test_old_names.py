"""Names of earlier versions that users hold: a task in a recipe, an option or a model file, and a verb."""

from __future__ import annotations

import torch

from vitrail.core.catalog import OLD_TASKS, with_task_name
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import create_encoder, describe
from vitrail.runs.model_file import Header, read_model, write_model
from vitrail.runs.network import build_network, build_task
from vitrail.runs.proof import answer
from vitrail.runs.recipe import compose


def test_tasks_of_recipes_keep_working_under_their_old_names():
    stated = {
        "data": {"source": "photos"},
        "model": {"name": "vit_digits", "imgsz": (32, 32)},
        "task": {"name": "classify_multi"},
    }
    made = compose("digits_vit", stated)
    assert made.task.name == "multilabel"
    wrapped = {"name": "distill", "settings": {"task": "classify_multi", "weight": 0.5}}
    assert with_task_name(wrapped) == {"name": "distill", "settings": {"task": "multilabel", "weight": 0.5}}
    assert wrapped["settings"]["task"] == "classify_multi", "what the caller holds stays"


def test_every_old_name_is_a_task_of_today():
    for old, new in OLD_TASKS.items():
        task = build_task(old, ["a", "b"], {})
        assert task.name == new


def test_a_model_file_with_the_old_name_answers_as_it_did(tmp_path):
    torch.manual_seed(0)
    task = build_task("multilabel", ["a", "b", "c"], {})
    network = build_network(create_encoder("vit_digits", image=(32, 32)), task)
    steps = Preprocess.for_size(32)
    header = Header(
        name="photos",
        encoder=describe(network.encoder),
        task={"name": "classify_multi", "labels": ["a", "b", "c"], "settings": task.settings.model_dump()},
        preprocess=steps.to_dict(),
        proof=answer(network, task, steps),
    )
    path = tmp_path / "model.safetensors"
    write_model(path, network, header)
    predictor = Predictor(path)
    assert predictor.task.name == "multilabel"
    assert read_model(path).header.task["name"] == "multilabel"
    image = torch.zeros(40, 40, 3, dtype=torch.uint8).numpy()
    assert set(predictor.predict([image])[0].to_dict()) >= {"labels"}
