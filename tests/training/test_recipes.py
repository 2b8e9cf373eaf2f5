"""Every network gets its recipe, and every recipe is valid."""

from __future__ import annotations

import pytest

from vitrail.core import catalog
from vitrail.core.errors import SettingError
from vitrail.data.builtin import materialise
from vitrail.data.prepare import prepare
from vitrail.models.factory import create_encoder
from vitrail.models.names import timm_name
from vitrail.runs.recipe import compose, recipe_for, recipes
from vitrail.runs.train_options import TrainOptions, network_settings
from vitrail.training.resolve_recipe import plan


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(materialise("digits", tmp_path_factory.mktemp("digits")))


def planned(prepared, **options):
    return plan("photos", prepared, TrainOptions(weights="none", **options)).recipe


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_can_be_read(name):
    made = compose(name, {"data": {"source": "photos"}, "model": {"name": "vit_s16", "imgsz": (32, 32)}})
    assert made.recipe == name


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("resnet18", "resnet"),
        ("bit_r50x1", "bit"),
        ("resnetv2_50x1_bit.goog_in21k", "bit"),
        ("efficientnet_b0", "efficientnet"),
        ("efficientnet_b0_noisy_student", "efficientnet"),
        ("efficientnet_v2_s", "efficientnetv2"),
        ("vgg11", "vgg"),
        ("densenet121", "densenet"),
        ("inception_v3", "inception_v3"),
        ("xception", "xception"),
        ("convnext_atto", "convnext"),
        ("vit_ti16", "vit"),
        ("vit_r_ti16", "hybrid"),
        ("vit_tiny_patch16_224", "vit"),
        ("deit_ti16", "deit"),
        ("deit3_s16", "deit3"),
        ("mae_digits", "mae"),
        ("swin_t", "swin"),
        ("t2t_vit_7", "t2t"),
        ("mixer_s16", "mixer"),
        ("dinov2_s14", "dinov2"),
        ("detr_r50", "detr"),
        ("supervit_s", "supervit"),
        ("vvt_t", "vvt"),
        ("wetmapformer", "wetmapformer"),
        ("wetmapformer_m", "wetmapformer"),
        ("ghostnet_050", "cnn_scratch"),
        ("test_vit", "scratch_small"),
    ],
)
def test_the_network_decides(prepared, model, recipe):
    assert planned(prepared, model=model).recipe == recipe


def test_every_preset_has_a_recipe_of_its_own():
    assert [name for name in catalog.presets() if recipe_for(name, "scratch") is None] == []


def test_a_recipe_that_is_named_wins(prepared):
    assert planned(prepared, model="resnet18", recipe="cnn_scratch").recipe == "cnn_scratch"


def test_what_a_network_lacks_is_left_out(prepared):
    assert planned(prepared, model="ghostnet_050").model.drop_path is None
    assert planned(prepared, model="convnext_atto").model.drop_path == 0.1


@pytest.mark.parametrize("position", ["none", "1d", "2d", "relative"])
def test_the_position_ablation_changes_the_position_alone(prepared, position):
    found = planned(prepared, recipe="position_ablation", network=f"position={position}")
    settings = {"patch": 4, "width": 192, "depth": 6, "heads": 3, "position": position}
    assert (found.model.name, found.model.imgsz, found.model.settings) == ("vit_s16", (32, 32), settings)
    encoder = create_encoder("vit_s16", image=found.model.imgsz, settings=settings)
    assert (encoder.config.position, encoder.config.depth) == (position, 6)


def test_settings_of_a_network_are_checked():
    with pytest.raises(SettingError, match="Did you mean 'depth'"):
        create_encoder("vit_s16", settings={"dept": 3})
    with pytest.raises(SettingError, match="'depth' of the network is not valid"):
        create_encoder("vit_s16", settings={"depth": "many"})
    with pytest.raises(SettingError, match=r"timm's resnet18 has none"):
        create_encoder("resnet18", settings={"depth": 3})
    with pytest.raises(SettingError, match="position=2d,depth=6"):
        network_settings("position")
    assert network_settings("depths=[2, 2],position=none") == {"depths": [2, 2], "position": "none"}


def test_published_weights_take_no_other_settings(prepared):
    options = TrainOptions(model="vit_s16", network="depth=3", weights="auto")
    with pytest.raises(SettingError, match="--weights none"):
        plan("photos", prepared, options)


def test_few_pictures_get_a_smaller_batch_and_its_rate(some_digits):
    prepared = prepare(some_digits("012", 60))
    chosen = plan(
        "photos", prepared, TrainOptions(weights="none", model="vit_digits", recipe="scratch_small")
    )
    assert chosen.recipe.training.batch == 8
    assert chosen.recipe.training.lr == pytest.approx(0.001 * (8 / 128) ** 0.5)
    assert any(
        "batch 8 and learning rate 0.00025 instead of 128 and 0.001" in line for line in chosen.reasons
    )
    said = TrainOptions(weights="none", model="vit_digits", recipe="scratch_small", batch=128)
    assert plan("photos", prepared, said).recipe.training.lr == 0.001


def test_a_fine_tuning_recipe_from_scratch_is_remarked(prepared):
    options = TrainOptions(weights="none", model="vit_digits", recipe="finetune")
    assert any("made for published weights" in line for line in plan("photos", prepared, options).reasons)


def test_the_names_of_the_papers():
    assert timm_name("efficientnet_l2_noisy_student") == "tf_efficientnet_l2.ns_jft_in1k"
    assert timm_name("bit_r152x4") == "resnetv2_152x4_bit"
    assert timm_name("resnet50") == "resnet50"
