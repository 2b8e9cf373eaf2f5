"""Training that begins with the head of published weights: settings, tensors, classes, and a lower first loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scenes import boxed
from torch import nn

from vitrail.data.prepare import prepare
from vitrail.data.truth import Truth
from vitrail.infer.predictor import load
from vitrail.layers.heads import Head
from vitrail.layers.query_decoder import DecoderShape
from vitrail.layers.tokens import FeatureSpec
from vitrail.models.factory import create_encoder
from vitrail.models.vit import ViT
from vitrail.runs.network import build_network, build_task
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.detect.head import DetectHead
from vitrail.training.fit import train
from vitrail.training.head_transfer import PublishedHead, carries_over, settings_from, take_head
from vitrail.training.initialization import build_from_recipe
from vitrail.training.resolve_recipe import plan
from vitrail.training.session import first_batch, training_images
from vitrail.weights.convert import convert
from vitrail.weights.pretrained import Pretrained, from_path

SIZES = "width=32,hidden=48,layers=2,queries=12,groups=3,anchor=0.2"
TAKEN = {"width": 32, "hidden": 48, "layers": 2, "points": 2, "anchor": 0.2, "margin": 0.0, "head_rate": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxed(tmp_path_factory.mktemp("shapes") / "shapes", 40)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images, whose objects have other names and one class more."""
    folder = boxed(tmp_path_factory.mktemp("others") / "others", 40)
    path = next(folder.glob("**/*.json"))
    content = json.loads(path.read_text())
    content["categories"] = [
        {"id": one["id"], "name": {"square": "Square", "disc": "ball"}[one["name"]]} for one in content["categories"]
    ] + [{"id": 99, "name": "rare"}]  # fmt: skip
    content["annotations"][0]["category_id"] = 99
    path.write_text(json.dumps(content))
    return folder


def options(**more: Any) -> TrainOptions:
    usual: dict[str, Any] = {
        "imgsz": "48x64", "batch": 8, "micro": 8, "lr": 0.001, "warmup": 0, "augment": "none", "drop_path": 0.0,
        "precision": "float32", "val": 0.2, "test": 0.2, "device": "cpu",
    }  # fmt: skip
    return TrainOptions(**{**usual, **more})


@pytest.fixture(scope="module")
def weights(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of discs and squares, trained for some steps, as weights alone."""
    folder = tmp_path_factory.mktemp("weights")
    made = options(model="vit_digits", weights="none", set=SIZES, epochs=20, ema=0.5, out=str(folder / "run"))
    convert(train(data, made).model_path, folder / "shapes.safetensors")
    return folder / "shapes.safetensors"


def test_the_first_loss_is_lower_than_from_noise_and_the_tensors_are_equal(others, weights):
    prepared = prepare(others, val=0.2, test=0.2)
    recipe = plan(str(others), prepared, options(weights=str(weights), set="queries=12,groups=3")).recipe
    torch.manual_seed(0)
    start = build_from_recipe(recipe, prepared.manifest.truth)
    noise = build_network(from_path(weights).build(), start.task)
    batch = first_batch(recipe, training_images(recipe, prepared.manifest, start.task, start.preprocess))
    with torch.no_grad():
        with_head, from_noise = (
            float(start.task.loss(network.train()(batch.inputs), batch.targets).total)
            for network in (start.network, noise)
        )
    assert with_head < 0.9 * from_noise
    found, own = from_path(weights), start.network.head.state_dict()
    plain = [name for name in own if "classes." not in name]
    assert len(plain) > 60
    for name in plain:
        torch.testing.assert_close(own[name], found.head[name], rtol=0, atol=0)
    assert start.task.labels == ("ball", "Square", "rare")
    disc, square = found.head["decoder.classes.weight"]
    torch.testing.assert_close(
        own["decoder.classes.weight"], torch.stack([disc, square, disc]), rtol=0, atol=0
    )
    assert start.lines == (
        f"head of shapes: {len(own)} of {len(own)} tensors taken; 1 class by name (Square); 2 classes with the rows of "
        "published ones, repeated, not random",
    )


def test_a_plan_takes_the_settings_of_the_head_unless_they_are_stated(data, weights):
    prepared = prepare(data, val=0.2, test=0.2)
    made = plan(str(data), prepared, options(weights=str(weights), set="layers=3"))
    assert made.origins["the weights"] == {
        f"task.settings.{name}": value for name, value in TAKEN.items() if name != "layers"
    }
    assert {**TAKEN, "layers": 3}.items() <= made.recipe.task.settings.items()
    start = build_from_recipe(made.recipe, prepared.manifest.truth)
    assert start.lines[0].endswith("; new: decoder.layers.2")
    wider = plan(str(data), prepared, options(weights=str(weights), set="width=64"))
    assert "the weights" not in wider.origins
    assert wider.recipe.task.settings["head_rate"] != 1
    assert "does not fit" in build_from_recipe(wider.recipe, prepared.manifest.truth).lines[0]


@pytest.mark.parametrize(("groups", "queries"), [(2, 5), (5, 20)])
def test_groups_and_queries_are_cut_or_repeated_in_turn(weights, groups, queries):
    found = from_path(weights)
    settings = {"width": 32, "hidden": 48, "layers": 2, "queries": queries, "groups": groups}
    task = build_task("detect", ("disc", "square"), settings)
    network = build_network(found.build(), task)
    take_head(network, task, "detect", found)
    own, theirs = network.head.state_dict(), found.head["decoder.content.weight"]
    for group in range(groups):
        torch.testing.assert_close(
            own[f"decoder.proposers.{group}.read.weight"],
            found.head[f"decoder.proposers.{group % 3}.read.weight"],
        )
        for query in range(queries):
            row = own["decoder.content.weight"][group * queries + query]
            assert torch.equal(row, theirs[group % 3 * 12 + query % 12])


def test_a_head_of_another_task_is_left(weights):
    assert carries_over(PublishedHead("instances", {}), "detect")
    assert not carries_over(PublishedHead("classify", {}), "detect")
    assert not carries_over(None, "detect")
    found = from_path(weights)
    task = build_task("segment", ("ground", "disc"), {"width": 32})
    assert take_head(build_network(found.build(), task), task, "segment", found) == ()


NARROW = {"width": 32, "hidden": 48, "layers": 2, "queries": 5, "groups": 2}
SCENE = Truth("panoptic", ("disc", "sky", "square"), things=("disc", "square"))


def of_task(name: str, truth: Any, **more: Any) -> tuple[Any, Any]:
    """Return a network and its task."""
    task = build_task(name, truth, {**NARROW, **more})
    return build_network(create_encoder("vit_digits"), task), task


def as_weights(network: Any, task: Any, name: str) -> Pretrained:
    own = network.encoder.config
    settings, things = task.settings.model_dump(), tuple(task.truth.things)
    return Pretrained("theirs", own, {}, network.head.state_dict(), "own", None, None, None, (), task.labels, name,
                      settings, things)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target", "front", "new"),
    [
        ("detect", "instances", "", "; new: masks"),
        ("instances", "detect", "", "2 classes by name (disc, square)"),
        ("instances", "panoptic", "things.", "; new: pixels"),
        ("detect", "panoptic", "things.", "; new: things.masks, pixels"),
        ("panoptic", "panoptic", "", "3 classes by name (disc, square, sky)"),
    ],
)
def test_related_tasks_share_what_they_have_in_common(source, target, front, new):
    names = {"panoptic": SCENE}
    given, task = of_task(source, names.get(source, ("square", "disc")))
    network, own = of_task(target, names.get(target, ("disc", "square")))
    said = take_head(network, own, target, as_weights(given, task, source))
    assert said[0].endswith(new)
    found, theirs = network.head.state_dict(), given.head.state_dict()
    assert torch.equal(found[f"{front}decoder.content.weight"] if front else found[next(iter(found))],
                       theirs["decoder.content.weight"] if front else theirs[next(iter(found))])  # fmt: skip


def test_each_part_of_a_panoptic_head_goes_where_it_fits():
    given, task = of_task("panoptic", SCENE)
    weights = as_weights(given, task, "panoptic")
    network, own = of_task("instances", ("square", "star"))
    take_head(network, own, "instances", weights)
    rows = given.head.state_dict()["things.decoder.classes.weight"]
    assert torch.equal(network.head.state_dict()["decoder.classes.weight"], rows[[1, 1]])
    areas = build_task("segment", ("sky", "disc"), {"width": task.settings.pixel_width})
    network = build_network(create_encoder("vit_digits"), areas)
    take_head(network, areas, "segment", weights)
    rows = given.head.state_dict()["pixels.linear.weight"]
    assert torch.equal(network.head.state_dict()["linear.weight"], rows[[1, 0]])


def test_settings_of_the_same_name_but_another_meaning_are_not_taken():
    head = PublishedHead("panoptic", {"width": 32, "stem": False, "layers": 2})
    assert settings_from(head, "segment", {}) == {"head_rate": 1}
    assert settings_from(head, "instances", {}) == {"head_rate": 1, "width": 32, "layers": 2}


class OwnHead(DetectHead):
    """A head with a softmax over its classes and "no object", which comes last."""

    def __init__(self, spec: FeatureSpec, classes: int) -> None:
        super().__init__(
            spec, classes, DecoderShape(width=32, layers=1, queries=3, groups=1, heads=1, hidden=16)
        )
        self.choose = nn.Linear(8, classes + 1)


class OwnEncoder(ViT):
    """A network whose head is part of its paper."""

    def own_head(self, task: str, classes: int) -> Head | None:
        return OwnHead(self.spec, classes) if task == "detect" else None


def test_the_row_of_no_object_stays_the_last():
    config = create_encoder("vit_digits").config
    published = build_network(OwnEncoder(config), build_task("detect", ("disc", "square"), {}))
    found = Pretrained(
        "theirs", config, {}, published.head.state_dict(), "own", labels=("disc", "square"), task="detect"
    )
    task = build_task("detect", ("one", "square", "two", "three"), {})
    network = build_network(OwnEncoder(config), task)
    said = take_head(network, task, "detect", found)
    disc, square, nothing = published.head.state_dict()["choose.bias"]
    own = network.head.state_dict()["choose.bias"]
    assert torch.equal(own, torch.stack([disc, square, disc, square, nothing]))
    assert "1 class by name (square)" in said[0]
    assert "; new" not in said[0]


def test_a_training_says_what_it_took(others, weights, tmp_path):
    said: list[str] = []
    run = train(
        others,
        options(weights=str(weights), epochs=1, out=str(tmp_path / "run")),
        listeners=[lambda event: said.extend(event.values.get("lines", []))],
    )
    assert any(line.startswith("head of shapes: ") for line in said)
    assert load(run.folder).labels == ("ball", "Square", "rare")
