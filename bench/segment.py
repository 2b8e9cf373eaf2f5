"""Segmentation on a data set's own splits: ours beside transformers' DPT and segmentation-models-pytorch's FPN.

`python -m bench.segment CONTESTANT --data camvid-320.zip --weights dinov2-small-saliency [--minutes 10] [--out FILE]`

One contestant a call, so that each has the machine for itself. Ours: linear; tuned (from that head, everything);
pixels; stem; overlap (patches of 14 px, one every 7); vvt; resnet50. Peers, with the same images, masks, crops, minutes
and scores: dpt, and fpn, which needs segmentation-models-pytorch (no dependency). A line of JSON is printed, and added
to FILE. What has no published weights in a package starts from noise: vvt, resnet50, fpn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.data.augment import build
from vitrail.data.loader import ImageDataset, Order, Share, evaluation, training
from vitrail.data.manifest import TEST, TRAIN, Manifest
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.runs.network import build_task
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.segment.evaluation import SegmentEvaluation
from vitrail.tasks.segment.report import FACTS
from vitrail.tasks.segment.task import Segment
from vitrail.training.fit import train
from vitrail.training.progress import Teller

VIT = "dinov2_s14"
OURS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "linear": {"model": VIT, "tune": "head", "set": "head=linear", "imgsz": "336x448"},
        "pixels": {"model": VIT, "tune": "full", "imgsz": "336x448"},
        "tuned": {"model": VIT, "tune": "full", "set": "head=linear", "imgsz": "336x448"},
        "stem": {"model": VIT, "tune": "full", "set": "stem=true", "imgsz": "336x448"},
        "overlap": {"model": VIT, "tune": "full", "stride": 7, "imgsz": "238x315"},
        "vvt": {"model": "vvt_t", "weights": "none", "imgsz": "240x320"},
        "resnet50": {"model": "resnet50", "weights": "none", "imgsz": "256x320"},
    }
)
PEERS = ("dpt", "fpn")
BATCH = 8


@dataclass(frozen=True)
class Peer:
    """A network of another library: its input, its rates, and logits (b, k, …) of its input."""

    network: nn.Module
    size: tuple[int, int]
    groups: list[dict[str, Any]]
    logits: Callable[[Tensor], Tensor]


def ours(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train as `vitrail train` does, and return what its report says of the test split."""
    with tempfile.TemporaryDirectory() as folder:
        stated = {"weights": asked.weights, **OURS[name]}
        options = TrainOptions(
            **stated, batch=BATCH, time=f"{round(asked.minutes * 60)}s", out=f"{folder}/run", seed=0
        )
        run = train(asked.data, options, listeners=(Teller(partial(print, file=sys.stderr)),))
        report: dict[str, Any] = json.loads(run.report_path.read_text(encoding="utf-8"))
        return report


def scored(
    task: Segment, network: Callable[[Any], Any], steps: Preprocess, manifest: Manifest
) -> SegmentEvaluation:
    """Return the evaluation of the test split, in the originals' pixels."""
    rows = {row.id: row for row in manifest.rows(TEST)}
    found = task.evaluation()
    pictures = ImageDataset(list(rows.values()), manifest.root, steps, task)
    for batch in evaluation(pictures, BATCH, Share()):
        with torch.inference_mode():
            output = network(batch.inputs)
        found.update([rows[one] for one in batch.ids], output, batch.targets, batch.geometry)
    return found


def peer(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train a peer for as long, on the same images by the same crops, and return the same scores."""
    manifest = prepare(asked.data, seed=0).manifest
    task = build_task("segment", manifest.truth, {})
    assert isinstance(task, Segment)
    one = {"dpt": dpt, "fpn": fpn}[name](asked, len(task.labels))
    steps = Preprocess(one.size, "squash", 1.0)
    pictures = ImageDataset(manifest.rows(TRAIN), manifest.root, steps, task, build("scene"))
    order = Order(len(pictures), BATCH, 0)
    optimiser = torch.optim.AdamW(one.groups, weight_decay=0.01)
    rates = [group["lr"] for group in optimiser.param_groups]
    began, done = time.monotonic(), 0
    one.network.train()
    for batch in training(pictures, order, Share(), 0, sys.maxsize, 1):
        through = (time.monotonic() - began) / (60 * asked.minutes)
        if through >= 1:
            break
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (done + 1) / 20) * (1 - through) ** 0.9
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = one.logits(batch.images)
        full = F.interpolate(logits.float(), batch.targets.shape[-2:], mode="bilinear")
        F.cross_entropy(full, batch.targets, ignore_index=task.VOID).backward()
        optimiser.step()
        done += 1
    print(f"{name}: {done} steps of {BATCH}", file=sys.stderr)
    one.network.eval()

    def answer(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return {"map": one.logits(inputs["images"]).float()}

    return scored(task, answer, steps, manifest).result().to_dict()


class Dpt(nn.Module):
    """transformers' Dinov2 with the neck and the head of its DPTForSemanticSegmentation.

    That class itself builds a ViT of its own; its depth estimation puts the neck on a backbone in this way.
    """

    def __init__(self, weights: str, classes: int) -> None:
        from transformers import Dinov2Backbone, Dinov2Config, DPTConfig, DPTForSemanticSegmentation

        super().__init__()
        stages = ["stage3", "stage6", "stage9", "stage12"]
        backbone = Dinov2Config.from_pretrained(weights, out_features=stages, reshape_hidden_states=False)
        config = DPTConfig(
            backbone_config=backbone, hidden_size=backbone.hidden_size, patch_size=backbone.patch_size,
            num_labels=classes, neck_hidden_sizes=[48, 96, 192, 384], use_auxiliary_head=False,
        )  # fmt: skip
        whole = DPTForSemanticSegmentation(config)
        self.backbone = Dinov2Backbone.from_pretrained(weights, config=backbone, dtype=torch.float32)
        self.neck, self.head = whole.neck, whole.head

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, height, width) -> logits (b, k, height, width)."""
        rows, cols = (side // 14 for side in images.shape[-2:])
        maps: Tensor = self.head(self.neck(list(self.backbone(images).feature_maps), rows, cols))
        return maps


def dpt(asked: argparse.Namespace, classes: int) -> Peer:
    """Return DPT over the same Dinov2, on the square input of its defaults' shape."""
    network = Dpt(asked.weights, classes)
    rest = [*network.neck.parameters(), *network.head.parameters()]
    groups = [{"params": list(network.backbone.parameters()), "lr": 2e-5}, {"params": rest, "lr": 2e-4}]
    return Peer(network, (448, 448), groups, network)


def fpn(asked: argparse.Namespace, classes: int) -> Peer:
    """Return segmentation-models-pytorch's FPN with a ResNet-50, from noise as ours."""
    import segmentation_models_pytorch as smp

    network = smp.FPN("resnet50", encoder_weights=None, classes=classes)
    return Peer(network, (256, 320), [{"params": list(network.parameters()), "lr": 1e-3}], network)


def summary(name: str, asked: argparse.Namespace, found: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return what is told of a contestant; `seconds` are those from the call to the scores."""
    test = found["test"]
    return {
        "contestant": name,
        "minutes": asked.minutes,
        "seconds": round(seconds),
        **{key: test[key] for key in FACTS if key in test},
        "recall": {label: round(cells["recall"], 4) for label, cells in test["per_class"].items()},
        "verdict": found["verdict"],
    }


def words(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contestant", choices=[*OURS, *PEERS])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, help="DINOv2's ViT-S/14 in the files of transformers")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", help="a file to add the line of JSON to")
    return parser.parse_args(argv)


def main() -> None:
    """Run one contestant."""
    asked = words()
    torch.manual_seed(0)
    np.random.seed(0)
    run, began = ours if asked.contestant in OURS else peer, time.monotonic()
    found = run(asked.contestant, asked)
    told = json.dumps(summary(asked.contestant, asked, found, time.monotonic() - began), ensure_ascii=False)
    print(told)
    if asked.out:
        with Path(asked.out).open("a", encoding="utf-8") as file:
            file.write(told + "\n")


if __name__ == "__main__":
    main()
