"""Overlapping patches: from pretrained weights through the command line to a map that lands where it should."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitrail.core.errors import SettingError, WeightsError
from vitrail.data.batch import Geometry
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.explainers.explanation import ImageExplainer
from vitrail.explainers.rollout import Rollout
from vitrail.explainers.to_original import onto_original
from vitrail.infer.predictor import Predictor
from vitrail.layers.tokens import FeatureSpec
from vitrail.models.dinov2 import DinoV2Config
from vitrail.models.factory import build, config_of, create_encoder
from vitrail.models.vit import ViTConfig
from vitrail.runs.network import build_network, build_task
from vitrail.runs.train_options import TrainOptions
from vitrail.training.draft import smaller_size
from vitrail.training.resolve_recipe import plan
from vitrail.weights.convert import _write_own, table_for
from vitrail.weights.infer_config import preset_of
from vitrail.weights.pretrained import Pretrained, from_path


def pretrained(config) -> Pretrained:
    torch.manual_seed(0)
    return Pretrained("tiny", config, build(config).state_dict(), {}, "vitrail")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "tiny.safetensors"
    _write_own(pretrained(config_of("vit_digits")), path)
    return path


def test_a_fine_grained_fine_tune_through_the_command_line(vitrail, digits, weights, tmp_path):
    run = tmp_path / "run"
    words = ["--recipe", "fine_grained", "--weights", weights, "--imgsz", "32", "--stride", "2", "epochs=1"]
    done = vitrail(
        "train", digits, *words, "batch=16", "micro=16", "precision=float32", "--out", run, "--json"
    )
    assert done.returncode == 0, done.stderr
    recipe = (run / "recipe.yaml").read_text()
    assert "recipe: fine_grained" in recipe
    assert "stride: 2" in recipe
    assert "tune: full" in recipe
    picture = next((digits / "1").iterdir())
    told = json.loads(vitrail("explain", run, picture, "--json", "--out", tmp_path / "shown").stdout)
    grid = np.array(told[0]["explanations"][0]["grid"])
    assert grid.shape == (15, 15), "patches of 4 pixels, one every 2, on 32 pixels"
    again = vitrail("eval", run, "--json")
    assert json.loads(again.stdout)["test"] == json.loads(done.stdout)["test"]


def test_a_draft_takes_overlapping_patches_too(vitrail, digits, weights, tmp_path):
    words = ["--weights", weights, "--imgsz", "32", "--stride", "2", "--out", tmp_path / "run", "--json"]
    done = vitrail("train", digits, *words)
    assert done.returncode == 0, done.stderr


def test_the_recipe_cuts_its_size_to_what_the_patches_tile_and_says_so(digits, tmp_path):
    path = tmp_path / "fourteen.safetensors"
    _write_own(pretrained(DinoV2Config(image=28, width=64, depth=1, heads=2)), path)
    options = TrainOptions(weights=str(path), recipe="fine_grained")
    planned = plan(str(digits), prepare(digits), options)
    assert planned.recipe.model.imgsz == (446, 446)
    assert planned.recipe.model.stride == 12
    assert any("446 px instead of 448 px" in line for line in planned.reasons)
    _write_own(pretrained(ViTConfig(image=32, width=64, depth=1, heads=2)), path)
    assert plan(str(digits), prepare(digits), options).recipe.model.imgsz == (448, 448)


def test_pretrained_weights_see_the_same_patches_and_more_between_them():
    source = pretrained(ViTConfig(image=35, patch=7, width=33, depth=1, heads=3))
    plain, dense = source.build(), source.build(stride=1)
    images = torch.randn(2, 3, 35, 35)
    coarse, fine = plain.embed(images).map(), dense.embed(images).map()
    assert fine.shape[-2:] == (29, 29)
    torch.testing.assert_close(fine[..., ::7, ::7], coarse)
    assert dense.position.grid == (29, 29)
    assert dense(images).tokens.grid == (29, 29)


def test_how_patches_stand_makes_no_other_network():
    assert preset_of(replace(config_of("vit_s16"), image=448, patch=(16, 12))) == "vit_s16"
    assert create_encoder("dinov2_s14", image=446, stride=12).spec.overlap_margin == 1.0
    assert build(config_of("vit_digits", stride=4)).config.patch == 4


def test_what_cannot_overlap_is_refused(vitrail, digits, weights):
    with pytest.raises(SettingError, match="would leave pixels out"):
        ViTConfig(image=448, patch=(16, 17))
    with pytest.raises(SettingError, match="Use 448 x 448 or"):
        ViTConfig(image=450, patch=(16, 12))
    with pytest.raises(SettingError, match="takes no --stride"):
        create_encoder("swin_t", stride=2)
    with pytest.raises(SettingError, match="takes no --stride"):
        create_encoder("resnet10t", stride=2)
    with pytest.raises(WeightsError, match="does not support overlapping patches"):
        table_for(ViTConfig(image=448, patch=(16, 12)), "timm")
    done = vitrail("train", digits, "--recipe", "fine_grained", "--weights", weights)
    assert done.returncode == 1
    assert "would leave pixels out" in done.stderr


def test_the_map_of_overlapping_patches_lands_where_the_patches_are():
    # Patches of 16 pixels, one every 4, on 64: the middle of patch (i, j) lies at 8 + 4 i, 8 + 4 j.
    grid = np.zeros((13, 13), np.float32)
    grid[3, 9] = 1.0
    for box, scale in (((0.0, 0.0, 64.0, 64.0), 1), ((0.0, 0.0, 128.0, 128.0), 2)):
        shape = (64 * scale, 64 * scale)
        heat = onto_original(grid, Geometry(shape, (64, 64), box), rim=6.0)
        rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
        centre = (heat * rows).sum() / heat.sum(), (heat * cols).sum() / heat.sum()
        assert centre == pytest.approx((20 * scale, 44 * scale), abs=0.01)
        assert np.isfinite(heat).all()


def test_explain_puts_the_map_there(monkeypatch, model_file):
    """The middle of a cell is that of its patch, not where cells without overlap would lie."""
    task = build_task("classify", ["a", "b"], {})
    config = ViTConfig(image=64, patch=(16, 4), width=16, depth=2, heads=2)
    look = ImageExplainer(
        Predictor(
            model_file(
                "overlapping", build_network(build(config), task), task, Preprocess((64, 64), "squash")
            )
        ),
        np.zeros((64, 64, 3), np.uint8),
    )
    grid = torch.zeros(1, 13, 13)
    grid[0, 3, 9] = 1
    monkeypatch.setattr(Rollout, "__call__", lambda self, subject, pixels: grid)
    heat = look.explain("rollout").heat
    rows, cols = np.mgrid[:64, :64] + 0.5
    centre = (heat * rows).sum() / heat.sum(), (heat * cols).sum() / heat.sum()
    assert centre == pytest.approx((20, 44), abs=0.01)


def test_a_draft_shrinks_to_a_size_that_overlapping_patches_tile():
    spec = FeatureSpec(8, strides=(12,), overlap_margin=2.0)
    height, width = smaller_size((448, 448), spec, cost=200.0) or (0, 0)
    assert 96 <= height == width < 448
    assert (height - 16) % 12 == 0


def test_weights_written_after_a_fine_grained_fine_tune_open_again(tmp_path):
    path = tmp_path / "own.safetensors"
    source = pretrained(ViTConfig(image=22, patch=(7, 5), width=64, depth=1, heads=2))
    _write_own(source, path)
    images = torch.randn(1, 3, 22, 22)
    found = from_path(path)
    assert found.config.patch == (7, 5)
    assert torch.equal(found.build()(images).tokens.x, source.build()(images).tokens.x)
    assert found.build(image=21, stride=7)(torch.randn(1, 3, 21, 21)).tokens.grid == (3, 3)
