"""A detector that cannot learn eight pictures by heart learns nothing: the first question of many threads."""

from __future__ import annotations

import numpy as np
import torch
from scenes import SHAPES, objects

from vitrail.data.batch import Batch
from vitrail.data.boxes import make_boxes
from vitrail.data.manifest import Row
from vitrail.data.preprocess import Preprocess
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network
from vitrail.tasks.base import Ask
from vitrail.tasks.detect.task import Detect
from vitrail.training.optim import Schedule, adamw

STEPS, RATE = 160, 1e-3


def test_eight_pictures_are_learnt_by_heart():
    torch.manual_seed(0)
    size = (48, 64)
    task = Detect(SHAPES, {"width": 64, "hidden": 128, "queries": 20, "groups": 3, "anchor": 0.2})
    network = build_network(create_encoder("vit_digits", image=size, channels=3), task).train()
    steps, rows = Preprocess(size, "squash", 1.0), [Row(str(i), f"{i}.png") for i in range(8)]
    images, targets, truths, at = [], [], [], []
    for i in range(8):
        pixels, stated = objects(i)
        truth = make_boxes([one["box"] for one in stated], [SHAPES.index(one["class"]) for one in stated])
        view = steps.view(pixels.shape[:2])
        images.append(view.image(pixels))
        targets.append(task.transform(truth, view))
        truths.append(truth)
        at.append(view.geometry)
    batch = Batch(
        {"images": torch.stack(images)}, task.collate(targets), tuple(row.id for row in rows), tuple(at)
    )
    optimiser, schedule = adamw(network, RATE, 1e-4), Schedule(RATE, 10, STEPS)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = schedule(step)
        task.training_loss(network, batch, np.random.default_rng(step), step / STEPS).total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    network.eval()
    with torch.no_grad():
        output = network(batch.inputs)
    evaluation = task.evaluation()
    evaluation.update(rows, output, truths, at)
    assert evaluation.scores()["map50"] >= 0.95
    fitted = Detect(SHAPES, {**task.settings.model_dump(), **evaluation.calibrate()})
    found = fitted.decode(output, at, Ask())
    assert [len(one) for one in found] == [
        len(truth.kinds) for truth in truths
    ]  # each object once, and no other box
