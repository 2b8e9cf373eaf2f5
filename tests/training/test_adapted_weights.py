"""Weights of photographs on named bands: refused where nothing measures them, beside scratch in a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import band_scenes
import pytest
import torch

from vitrail.core.config import to_yaml
from vitrail.core.errors import SettingError, UsageError
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.bands import Band
from vitrail.models.factory import build, config_of
from vitrail.runs.network import build_network, build_task
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.compare.contestants import named, planned
from vitrail.studies.compare.sentences import credit
from vitrail.training.adapted_weights import refuse_guess
from vitrail.training.distillation import open_teacher
from vitrail.training.fit import train
from vitrail.training.initialization import build_from_recipe
from vitrail.training.resolve_recipe import plan
from vitrail.weights.convert import _write_own
from vitrail.weights.pretrained import Pretrained, from_path


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return band_scenes.scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def prepared(scene):
    return prepare(scene[0], LayoutOptions(labels=str(scene[1])))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    torch.manual_seed(0)
    config = replace(config_of("vit_digits"), channels=3)
    path = tmp_path_factory.mktemp("weights") / "photo.safetensors"
    _write_own(Pretrained("photo", config, build(config).state_dict(), {}, "vitrail"), path)
    return str(path)


def steps_of(*names):
    bands = tuple(Band(name) for name in names)
    count = len(names)
    return Preprocess(
        (8, 8), "squash", 1.0, (0.0,) * count, (1.0,) * count, count, scale=1.0, bands=bands, window=8
    )


@pytest.fixture
def of_bands(model_file):
    """Write a random model of a raster's bands."""

    def write(*names):
        task = build_task("classify", ("1", "2", "3"), {})
        encoder = build(replace(config_of("vit_digits"), channels=len(names)))
        return str(model_file("vit_digits", build_network(encoder, task).eval(), task, steps_of(*names)))

    return write


@pytest.mark.parametrize(
    "options",
    [{"weights": "auto", "model": "vit_s16"}, {"tune": "full", "model": "vit_s16"}, {"recipe": "finetune"}],
)
def test_a_training_is_refused_with_the_command_that_measures(prepared, options):
    network = options.get("model", "dinov2_s14")
    with pytest.raises(UsageError) as refused:
        refuse_guess(prepared, TrainOptions(**options))
    assert "VV, B08 the mean of red, green, blue" in str(refused.value)
    assert str(refused.value).endswith(f"--models {network}=auto,{network}=none")
    assert "vitrail compare" in str(refused.value)
    assert "--labels" in str(refused.value)


def test_the_training_itself_is_refused_before_weights_are_looked_for(scene, tmp_path):
    options = TrainOptions(labels=str(scene[1]), weights="auto", model="vit_s16", out=str(tmp_path / "run"))
    with pytest.raises(UsageError, match="a guess until it is measured"):
        train(str(scene[0]), options)
    assert not (tmp_path / "run").exists()


def test_from_scratch_and_from_weights_of_the_same_bands_pass(prepared, of_bands, photo):
    refuse_guess(prepared, TrainOptions())
    refuse_guess(prepared, TrainOptions(weights="none"))
    same = of_bands(*reversed(band_scenes.BANDS))
    refuse_guess(prepared, TrainOptions(weights=same))
    found = plan("scene.tif", prepared, TrainOptions(weights=same, tune="full"))
    assert found.recipe.model.name == "vit_digits"
    with pytest.raises(UsageError, match="vit_digits=none"):
        refuse_guess(prepared, TrainOptions(weights=photo))


@pytest.fixture
def unnamed(tmp_path):
    """Write a random network of some channels as weights that name no bands."""

    def write(channels):
        config = replace(config_of("vit_digits"), image=8, channels=channels)
        path = tmp_path / f"of{channels}.safetensors"
        _write_own(Pretrained(path.stem, config, build(config).state_dict(), {}, "vitrail"), path)
        return str(path)

    return write


def test_weights_without_names_of_bands_are_taken_in_order(prepared, unnamed):
    options = TrainOptions(weights=unnamed(len(band_scenes.BANDS)))
    refuse_guess(prepared, options)
    start = build_from_recipe(plan("scene.tif", prepared, options).recipe, prepared.manifest.truth)
    theirs = from_path(Path(str(options.weights))).encoder
    for name, ours in start.network.encoder.state_dict().items():
        assert torch.equal(ours, theirs[name])
    with pytest.raises(UsageError, match="read 16 bands, which they do not name; there are 5 here: VV, B02"):
        refuse_guess(prepared, TrainOptions(weights=unnamed(16)))


def test_adapted_and_fresh_stand_side_by_side(prepared, photo):
    models = f"vit_digits={photo},vit_digits=none"
    one, two = planned("scene.tif", prepared, models, TrainOptions())
    assert [one.name, two.name] == ["vit_digits=photo.safetensors", "vit_digits=none"]
    assert [one.pretrained, two.pretrained] == ["photo.safetensors", "none"]
    assert one.recipe.model.imgsz == two.recipe.model.imgsz == (8, 8)
    assert (one.recipe.training.tune, two.recipe.training.tune) == ("full", "scratch")
    assert one.recipe.training.augment == two.recipe.training.augment == "turns"
    start = build_from_recipe(one.recipe, prepared.manifest.truth)
    assert start.preprocess.band_names == band_scenes.BANDS
    assert start.preprocess.mean == two.recipe.model.mean
    told = credit([one, two], {})
    assert "All are the same network" in told
    assert "VV, B08 the mean of red, green, blue" in told


def test_plain_names_start_from_nothing_and_adapted_ones_are_not_alone(prepared, photo):
    found = planned("scene.tif", prepared, "vit_digits,vit_s16", TrainOptions())
    assert {one.pretrained for one in found} == {"none"}
    with pytest.raises(UsageError, match="add vit_digits=none to --models"):
        planned("scene.tif", prepared, f"vit_digits={photo},vit_s16=none", TrainOptions())
    with pytest.raises(UsageError, match="leave --tune draft out"):
        planned("scene.tif", prepared, f"vit_digits={photo},{photo}", TrainOptions(tune="draft"))
    with pytest.raises(UsageError, match="stands twice"):
        named("vit_digits=none,vit_digits=none")


def test_the_recipe_of_a_comparison_passes(prepared, photo, tmp_path):
    one, _ = planned("scene.tif", prepared, f"vit_digits={photo},vit_digits=none", TrainOptions())
    path = tmp_path / "adapted.yaml"
    path.write_text(to_yaml(one.recipe, "measured"))
    options = TrainOptions(recipe=str(path))
    refuse_guess(prepared, options)
    assert plan("scene.tif", prepared, options).recipe.model.weights == photo
    with pytest.raises(UsageError, match="a guess"):
        refuse_guess(prepared, replace(options, weights="auto"))


def test_a_teacher_reads_the_bands_of_the_student_by_name(of_bands):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    teacher = of_bands("VV", "B04", "B08")
    same, turned = (
        open_teacher(teacher, ("1", "2", "3"), steps_of(*names))
        for names in (("VV", "B04", "B08"), ("B08", "vv", "B04"))
    )
    torch.testing.assert_close(same(images)["logits"], turned(images[:, [2, 0, 1]])["logits"])
    with pytest.raises(SettingError, match="The teacher reads VV, B04, B08, the student VV, B04, B11"):
        open_teacher(teacher, ("1", "2", "3"), steps_of("VV", "B04", "B11"))
