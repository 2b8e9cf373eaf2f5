"""Planted pairs are learnt: pictures of one coloured shape and captions find each other, and words their shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.shape_scenes import COLOURS, SHAPES, caption, pairs, scene
from vitrail.explainers.explanation import ImageExplainer, ScoringNetworks
from vitrail.infer.predictor import Predictor
from vitrail.infer.words import text_vectors
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

pytest.importorskip("tokenizers")
TRAIN, VAL, TEST = 640, 32, 128
KINDS = [(shape, colour) for shape in SHAPES for colour in COLOURS]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A model of pairs, and the pictures that it never saw."""
    root = tmp_path_factory.mktemp("planted")
    table = pairs(root / "pairs", {"train": TRAIN, "val": VAL, "test": TEST})
    options = TrainOptions(
        task="retrieve", model="vit_ti16", weights="none", seed=0, device="cpu", workers=0,
        network="image=[32,32],patch=[8,4],width=48,depth=2,heads=3",
        set="text_width=48,text_depth=1,text_heads=3,embed=32,context=12,vocabulary_size=300,pool=mean",
        epochs=12, batch=32, lr=3e-3, warmup=1, drop_path=0.0, augment="none", ema=0.9, out=str(root / "run"),
    )  # fmt: skip
    run = train(table, options)
    scenes = [scene(number) for number in range(TRAIN + VAL, TRAIN + VAL + TEST)]
    return Predictor(run.folder, "cpu"), scenes


def test_pictures_and_captions_find_each_other(learnt):
    predictor, scenes = learnt
    images = predictor.outputs([predictor.ready(one.pixels) for one in scenes])["image"].numpy()
    texts = text_vectors(predictor, [caption(i + TRAIN + VAL, one) for i, one in enumerate(scenes)])
    kinds = np.array([KINDS.index((one.shape, one.colour)) for one in scenes])
    cosines = images @ texts.T
    chance = np.mean(kinds[:, None] == kinds)
    assert chance < 0.12
    assert np.mean(kinds[cosines.argmax(1)] == kinds) > 0.8
    assert np.mean(kinds[cosines.argmax(0)] == kinds) > 0.8


@pytest.mark.parametrize(("method", "least"), [("occlusion", 0.6), ("relevance", 0.2)])
def test_words_point_at_their_shape(learnt, method, least):
    predictor, scenes = learnt
    networks, hits, shares = ScoringNetworks(predictor), [], []
    for one in scenes[:48]:
        look = ImageExplainer(predictor, one.pixels, networks)
        heat = look.explain(method, f"a {one.colour} {one.shape}").heat
        y, x = np.unravel_index(np.nanargmax(heat), heat.shape)
        left, top, right, bottom = one.box
        hits.append(top <= y < bottom and left <= x < right)
        shares.append((right - left) * (bottom - top) / heat.size)
    assert np.mean(shares) < 0.1  # chance
    assert np.mean(hits) > least
