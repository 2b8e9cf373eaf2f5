"""Detection on a data set's own splits: ours beside torchvision's detectors and a YOLO, in equal minutes.

`python -m bench.detect CONTESTANT --data bccd.zip --weights dinov2-small-saliency [--minutes 12] [--out FILE]`

One contestant a call, so that each has the machine for itself. Ours: vit (a fine-tuned ViT-S/14). Peers, with the same
training images and scored by the same average precision: fcos_resnet50 (torchvision's FCOS from noise), fcos_lite0 and
frcnn_lite0 (torchvision's FCOS and Faster R-CNN on timm's EfficientNet-Lite0, a folder named by --cnn), and yolo9t
(libreyolo's YOLOv9-t from noise, no dependency: name a Python that has it with --python). A line of JSON is printed,
and added to FILE.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.data.boxes import Boxes, FoundBoxes, clip_to, make_found
from vitrail.data.manifest import TEST, TRAIN, Manifest, Row
from vitrail.data.open_image import load
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.runs.network import build_task
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.detect.evaluation import BoxEvaluation
from vitrail.tasks.detect.files import ImageBoxes, write_yolo
from vitrail.tasks.detect.task import Detect
from vitrail.training.fit import train
from vitrail.training.progress import Teller

SIZE = (336, 448)
BATCH = 8
PEERS = ("fcos_resnet50", "fcos_lite0", "frcnn_lite0", "yolo9t")

YOLO = """
import json, sys, time
from libreyolo import LibreYOLO9
folder, minutes, images = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
def trained(epochs, name):
    model = LibreYOLO9(None, size="t", device="cpu")
    began = time.monotonic()
    model.train(folder + "/data.yaml", epochs=epochs, batch=8, imgsz=448, device="cpu", workers=2, amp=False,
                project=folder, name=name, exist_ok=True, eval_interval=10_000, ema_decay=0.99, no_aug_epochs=2)
    return model, time.monotonic() - began
one = trained(1, "pilot")[1]
model, seconds = trained(max(3, int(60 * minutes / one)), "run")
answers = []
for image in images:
    found = model(image, conf=0.001, iou=0.6, imgsz=448)
    boxes = (found[0] if isinstance(found, list) else found).boxes
    answers.append([boxes.xyxy.tolist(), boxes.cls.tolist(), boxes.conf.tolist()])
json.dump({"answers": answers, "seconds": seconds}, open(folder + "/answers.json", "w"))
"""


def ours(asked: argparse.Namespace) -> dict[str, Any]:
    """Train as `vitrail train` does, and return what its report says of the test split."""
    with tempfile.TemporaryDirectory() as folder:
        options = TrainOptions(
            task="detect", model="dinov2_s14", weights=asked.weights, imgsz="336x448",
            time=f"{round(asked.minutes * 60)}s", out=asked.keep or f"{folder}/run", seed=0,
        )  # fmt: skip
        run = train(asked.data, options, listeners=(Teller(partial(print, file=sys.stderr)),))
        report: dict[str, Any] = json.loads(run.report_path.read_text(encoding="utf-8"))
        return report["test"]


def peer(asked: argparse.Namespace) -> dict[str, Any]:
    """Train a peer for as long on the same images, and return the same scores."""
    manifest = prepare(asked.data, LayoutOptions(), seed=0, task="detect").manifest
    task = build_task("detect", manifest.truth, {})
    assert isinstance(task, Detect)
    rows = manifest.rows(TEST)
    if asked.contestant == "yolo9t":
        found = yolo(asked, manifest, task, rows)
    else:
        network = torchvisions(asked, len(task.labels))
        fit(network, manifest, task, asked.minutes)
        found = [answer(network, load(manifest.root, row.path).image.copy()) for row in rows]
    return scored(manifest, task, rows, found)


def scored(
    manifest: Manifest, task: Detect, rows: Sequence[Row], found: Sequence[FoundBoxes]
) -> dict[str, Any]:
    """Return what our report says of these boxes."""
    evaluation = BoxEvaluation(task.labels, find=lambda output, at: [output["found"]])  # type: ignore[list-item]
    for row, one in zip(rows, found, strict=True):
        evaluation.update([row], {"found": one}, [task.read(row, manifest.root)], [])  # type: ignore[dict-item]
    details: dict[str, Any] = evaluation.result().to_dict()["test"]
    return details


def torchvisions(asked: argparse.Namespace, classes: int) -> nn.Module:
    """Return a detector of torchvision; class 0 of Faster R-CNN is the background."""
    from torchvision.models.detection import FCOS, FasterRCNN, fcos_resnet50_fpn

    sizes = {"min_size": SIZE[0], "max_size": SIZE[1]}
    if asked.contestant == "fcos_resnet50":
        return fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes + 1, **sizes)
    backbone = Pyramid(asked.cnn)
    if asked.contestant == "fcos_lite0":
        return FCOS(backbone, classes + 1, **sizes)
    return FasterRCNN(backbone, classes + 1, **sizes)


class Pyramid(nn.Module):
    """A published CNN of timm with torchvision's feature pyramid."""

    def __init__(self, folder: str) -> None:
        import timm
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        super().__init__()
        self.body = timm.create_model(
            f"local-dir:{folder}", pretrained=True, features_only=True, out_indices=(2, 3, 4)
        )
        widths = self.body.feature_info.channels()
        self.out_channels = 256
        self.fpn = FeaturePyramidNetwork(widths, 256, LastLevelP6P7(256, 256))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(i): level for i, level in enumerate(self.body(images))})  # type: ignore[no-any-return]


def fit(network: nn.Module, manifest: Manifest, task: Detect, minutes: float) -> None:
    """Train with AdamW, warm-up and cosine over the time, flips, and the sizes that the detectors draw themselves."""
    images = [
        (load(manifest.root, row.path).image, task.read(row, manifest.root)) for row in manifest.rows(TRAIN)
    ]
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=1e-4)
    draw, began, done = np.random.default_rng(0), time.monotonic(), 0
    network.train()
    while (through := (time.monotonic() - began) / (60 * minutes)) < 1:
        rate = 3e-4 * min(1.0, (done + 1) / 40) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * through)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        some = [images[i] for i in draw.choice(len(images), BATCH, replace=False)]
        pixels, targets = zip(*(_example(*one, mirrored=draw.random() < 0.5) for one in some), strict=True)
        losses = network(list(pixels), list(targets))
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        done += 1
    print(f"{done} steps of {BATCH}", file=sys.stderr)
    network.eval()


def _example(image: Any, truth: Boxes, *, mirrored: bool) -> tuple[Tensor, dict[str, Tensor]]:
    truth = clip_to(truth, image.shape[:2])
    pixels = torch.from_numpy((image[:, ::-1] if mirrored else image).copy()).permute(2, 0, 1) / 255
    boxes = torch.from_numpy(truth.xyxy).float()
    if mirrored:
        boxes = torch.stack(
            [image.shape[1] - boxes[:, 2], boxes[:, 1], image.shape[1] - boxes[:, 0], boxes[:, 3]], 1
        )
    return pixels, {"boxes": boxes, "labels": torch.from_numpy(truth.kinds) + 1}


@torch.inference_mode()
def answer(network: nn.Module, image: Any) -> FoundBoxes:
    """Return the boxes of one image."""
    (found,) = network([torch.from_numpy(image).permute(2, 0, 1) / 255])
    return make_found(found["boxes"].numpy(), found["labels"].numpy() - 1, found["scores"].numpy())


def yolo(
    asked: argparse.Namespace, manifest: Manifest, task: Detect, rows: Sequence[Row]
) -> list[FoundBoxes]:
    """Train libreyolo's YOLOv9-t in its own Python, for as many epochs as fit into the minutes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, some in (("train", manifest.rows(TRAIN)), ("val", rows)):
            (folder / split / "images").mkdir(parents=True)
            images = [
                ImageBoxes(f"images/{i}.jpg", _size(manifest, row), task.read(row, manifest.root))
                for i, row in enumerate(some)
            ]
            write_yolo(folder / split, images, task.labels)
            for i, row in enumerate(some):
                Image.fromarray(load(manifest.root, row.path).image).save(
                    folder / split / "images" / f"{i}.jpg", quality=95
                )
        names = json.dumps(list(task.labels))
        (folder / "data.yaml").write_text(
            f"path: {folder}\ntrain: train/images\nval: val/images\nnames: {names}\n"
        )
        pictures = [str(folder / "val" / "images" / f"{i}.jpg") for i in range(len(rows))]
        subprocess.run(
            [asked.python, "-c", YOLO, str(folder), str(asked.minutes), *pictures],
            check=True,
            stdout=sys.stderr,
        )
        told = json.loads((folder / "answers.json").read_text())
        print(f"{told['seconds']:.0f} s of training", file=sys.stderr)
        return [make_found(*one) for one in told["answers"]]


def _size(manifest: Manifest, row: Row) -> tuple[int, int]:
    shape = load(manifest.root, row.path).image.shape
    return shape[0], shape[1]


def words(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contestant", choices=["vit", *PEERS])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", help="DINOv2's ViT-S/14 in the files of transformers")
    parser.add_argument("--cnn", help="a folder of timm with a published EfficientNet-Lite0")
    parser.add_argument("--python", default=sys.executable, help="a Python that has libreyolo")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--keep", help="where our run is kept")
    parser.add_argument("--out", help="a file to add the line of JSON to")
    return parser.parse_args(argv)


def main() -> None:
    """Run one contestant."""
    asked = words()
    torch.manual_seed(0)
    np.random.seed(0)
    run: Callable[[argparse.Namespace], dict[str, Any]] = ours if asked.contestant == "vit" else peer
    began = time.monotonic()
    test = run(asked)
    scores = {name: test[name] for name in ("map50", "map", "map75", "f1") if name in test}
    classes = {name: cells["AP50"]["value"] for name, cells in test["per_class"].items()}
    line = {
        "contestant": asked.contestant,
        "minutes": asked.minutes,
        "seconds": round(time.monotonic() - began),
    }
    told = json.dumps({**line, **scores, "AP50": classes})
    print(told)
    if asked.out:
        with Path(asked.out).open("a", encoding="utf-8") as file:
            file.write(told + "\n")


if __name__ == "__main__":
    main()
