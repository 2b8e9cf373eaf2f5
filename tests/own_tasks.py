"""Three tasks of somebody else's: a number, a class for every pixel, a set of boxes. No line of the package knows them.

They are small but whole: each is checked, trained, resumed, evaluated, asked, explained and exported by the verbs of
the command line (`tests/flows/test_own_tasks.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.ops import box_iou

from vitrail.core.config import Settings
from vitrail.core.errors import DataError
from vitrail.data.findings import Finding
from vitrail.data.truth import Truth
from vitrail.data.view import boxes_in_original, maps_in_original
from vitrail.layers.heads import NO_INPUTS, Head
from vitrail.tasks.base import Losses, Task
from vitrail.tasks.result import Gathered, Number, Overlays, Result, Scope, Shot

VOID = 255


# A number


@dataclass(frozen=True)
class Value:
    """A predicted number."""

    value: float

    def to_dict(self):
        return {"value": round(self.value, 6)}

    def __str__(self):
        return f"{self.value:.2f}"


class ValueHead(Head):
    def __init__(self, spec):
        super().__init__()
        self.linear = nn.Linear(spec.width, 1)

    def forward(self, features, inputs=NO_INPUTS):
        return {"value": self.linear(features.tokens.x.mean(1))[:, 0]}


class ValueEvaluation:
    """Closeness, 1 / (1 + mean absolute error), and the error itself."""

    main = "closeness"

    def __init__(self):
        self.kept = Gathered()

    def update(self, rows, output, truths, at):
        values = output["value"].numpy()
        self.kept.add(rows, {"off": np.abs(values - np.array(truths, np.float64))})

    def merge(self, other):
        self.kept.merge(other.kept)

    def scores(self):
        error = float(self.kept["off"].mean())
        return {
            "closeness": 1 / (1 + error),
            "loss": float((self.kept["off"] ** 2).mean()),
            "pictures": len(self.kept),
        }

    def calibrate(self):
        return {}

    def per_image(self):
        return {"error": self.kept["off"]}

    def resample(self, counts):
        return {"closeness": 1 / (1 + float(np.average(self.kept["off"], weights=counts)))}

    def result(self, scope=Scope()):
        found = self.scores()
        error = Number(float(self.kept["off"].mean()), unit="", better="lower", name="mean error")
        numbers = {"closeness": Number(found["closeness"], unit="", name="closeness"), "error": error}
        return Result("closeness", numbers, f"off by {error.text()} on {len(self.kept)} {scope.called}.")


class ReadValue(Task):
    """Regression: the truth is a number, written into the cell."""

    name = "own_tasks:ReadValue"
    outputs: Mapping[str, tuple[str, ...]] = {"value": ()}

    def read(self, row, root):
        return float(row.target)

    def check(self, row, facts, root):
        if not row.target.strip():
            yield Finding("no number", "no number", (row.id,), grave=True, out=True)

    def head(self, spec):
        return ValueHead(spec)

    def loss(self, output, targets):
        wanted = torch.tensor(targets, dtype=torch.float32, device=output["value"].device)
        return Losses({"squares": F.mse_loss(output["value"], wanted)})

    def decode(self, output, at, ask):
        return [Value(value) for value in output["value"].tolist()]

    def score(self, output, prediction):
        return output["value"]

    def render(self, image, prediction):
        ImageDraw.Draw(image).text((0, 0), str(prediction))
        return image

    def fingerprint(self, output):
        return output["value"][:, None]

    def agree(self, one, other, tolerance=0.0):
        return (one["value"] - other["value"]).abs() <= 1e-3 + tolerance

    def evaluation(self):
        return ValueEvaluation()


# A class for every pixel


@dataclass(frozen=True)
class Painted:
    """A class for every pixel of the original."""

    mask: np.ndarray
    names: tuple[str, ...]
    asked: str = ""

    def share(self, name):
        return float((self.mask == self.names.index(name)).mean())

    def to_dict(self):
        return {"areas": {name: round(self.share(name), 4) for name in self.names}}

    def rows(self):
        return [{"class": name, "share": round(self.share(name), 4)} for name in self.names]

    def __str__(self):
        return ", ".join(f"{name} {self.share(name):.0%}" for name in self.names)


class PixelHead(Head):
    """One number a class and patch, from four maps where an encoder gives them, drawn smoothly at the input's size."""

    def __init__(self, spec, classes):
        super().__init__()
        self.reads = "levels" if spec.depth > 1 else "patches"
        self.taps = (spec.depth // 2, spec.depth) if spec.depth > 1 else ()
        self.linear = nn.Conv2d(spec.width * max(1, len(self.taps)), classes, 1)

    def forward(self, features, inputs=NO_INPUTS):
        maps = features.levels if self.reads == "levels" else (features.tokens.map(),)
        size = inputs["images"].shape[-2:]
        return {"map": F.interpolate(self.linear(torch.cat(maps, 1)), size, mode="bilinear")}


class PaintSettings(Settings):
    smoothing: float = 0.0


class Overlap:
    """Mean intersection over union over the classes that occur, from one table of counts."""

    main = "miou"

    def __init__(self, classes):
        self.classes = classes
        self.kept = Gathered()

    def update(self, rows, output, truths, at):
        tables = []
        for one, truth, geometry in zip(output["map"], truths, at, strict=True):
            answer = maps_in_original(geometry, one, 0.0).argmax(0).numpy()
            seen = truth != VOID
            pairs = truth[seen].astype(np.int64) * self.classes + answer[seen]
            tables.append(np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes))
        self.kept.add(rows, {"tables": np.stack(tables)})

    def merge(self, other):
        self.kept.merge(other.kept)

    def _miou(self, table):
        union = table.sum(0) + table.sum(1) - table.diagonal()
        return float((table.diagonal()[union > 0] / union[union > 0]).mean())

    def scores(self):
        miou = self._miou(self.kept["tables"].sum(0))
        return {"miou": miou, "loss": 1 - miou, "pictures": len(self.kept)}

    def calibrate(self):
        return {}

    def per_image(self):
        return {"miou": np.array([self._miou(table) for table in self.kept["tables"]])}

    def resample(self, counts):
        return {"miou": self._miou(np.tensordot(counts, self.kept["tables"], 1))}

    def result(self, scope=Scope()):
        miou = self.scores()["miou"]
        number = Number(miou, name="mIoU", fact="mean overlap")
        shots = tuple(Shot(row.id, "", "") for row in self.kept.rows[:3])
        sections = (Overlays("Painted", "What it found, in red.", shots),)
        verdict = f"mIoU {number.text()} on {len(self.kept)} {scope.called}."
        return Result("miou", {"miou": number}, verdict, sections=sections)


class Paint(Task):
    """Two classes of pixels; 255 is void."""

    name = "own_tasks:Paint"
    Settings = PaintSettings
    outputs: Mapping[str, tuple[str, ...]] = {"map": ("class", "row", "col")}

    @classmethod
    def gather(cls, truth, rows):
        return Truth(truth.kind, ("ground", "figure"), void=VOID)

    def read(self, row, root):
        try:
            return np.array(Image.open(root / row.target))
        except OSError as error:
            raise DataError(f"{row.target} is no mask: {error}.") from error

    def transform(self, target, view):
        return view.mask(target, VOID)

    def collate(self, targets):
        return torch.from_numpy(np.stack(targets).astype(np.int64)) if _alike(targets) else list(targets)

    def check(self, row, facts, root):
        size = self.read(row, root).shape
        if size != facts.size:
            yield Finding("mask size", f"a mask of {size} on {facts.size}", (row.id,), grave=True, out=True)

    def head(self, spec):
        return PixelHead(spec, len(self.labels))

    def loss(self, output, targets):
        count = max(1.0, self.weights(targets)["pixels"])
        summed = F.cross_entropy(output["map"].float(), targets, ignore_index=VOID, reduction="sum")
        return Losses({"pixels": summed / count})

    def weights(self, targets):
        return {"pixels": float((targets != VOID).sum())}

    def decode(self, output, at, ask):
        maps = [maps_in_original(geometry, one, 0.0) for one, geometry in zip(output["map"], at, strict=True)]
        return [Painted(one.argmax(0).numpy(), self.labels) for one in maps]

    def choices(self, prediction):
        return sorted(self.labels, key=lambda name: -prediction.share(name))

    def focus(self, prediction, choice):
        return Painted(prediction.mask, prediction.names, choice)

    def score(self, output, prediction):
        asked = prediction.asked or self.choices(prediction)[0]
        return output["map"][:, self.labels.index(asked)].mean((1, 2))

    def render(self, image, prediction):
        tint = Image.fromarray((prediction.mask > 0).astype(np.uint8) * 120)
        image.paste((255, 0, 0), mask=tint)
        return image

    def fingerprint(self, output):
        shares = output["map"].float().softmax(1)
        side = min(32, shares.shape[-1])
        return F.adaptive_avg_pool2d(shares, side).flatten(1)

    def agree(self, one, other, tolerance=0.0):
        p, q = one["map"].softmax(1), other["map"].softmax(1)
        answer = q.argmax(1, keepdim=True)
        same = (p.amax(1, keepdim=True) - p.gather(1, answer))[:, 0] <= tolerance
        return same.float().mean((1, 2)) >= 0.995

    def evaluation(self):
        return Overlap(len(self.labels))


def _alike(targets):
    return len({target.shape for target in targets}) == 1


# A set of boxes


@dataclass(frozen=True)
class Spots:
    """Boxes in the original's pixels (left, top, right, bottom), with classes and confidences, the surest first."""

    boxes: tuple[tuple[float, float, float, float], ...]
    labels: tuple[str, ...]
    confidences: tuple[float, ...]
    asked: int = 0

    def to_dict(self):
        return {"boxes": self.rows()}

    def rows(self):
        every = zip(self.labels, self.confidences, self.boxes, strict=True)
        corners = ("left", "top", "right", "bottom")
        return [
            {"class": label, "confidence": round(sure, 6)}
            | {name: round(side, 2) for name, side in zip(corners, box, strict=True)}
            for label, sure, box in every
        ]

    def __str__(self):
        return (
            ", ".join(f"{n} {c:.0%}" for n, c in zip(self.labels, self.confidences, strict=True)) or "nothing"
        )


class QueryHead(Head):
    """So many queries, each a class or none, and a box in shares of the input (cx, cy, w, h)."""

    def __init__(self, spec, queries, classes):
        super().__init__()
        self.queries, self.classes = queries, classes
        self.linear = nn.Linear(spec.width, queries * (classes + 1 + 4))

    def forward(self, features, inputs=NO_INPUTS):
        x = self.linear(features.tokens.patches.mean(1)).unflatten(1, (self.queries, -1))
        return {"logits": x[..., : self.classes + 1], "boxes": x[..., self.classes + 1 :].sigmoid()}


class Found:
    """The share of true boxes that an answer of their class overlaps by half at least."""

    main = "recall"

    def __init__(self, task):
        self.task, self.kept = task, Gathered()

    def update(self, rows, output, truths, at):
        hits, there = [], []
        for answer, truth in zip(self.task.decode(output, at, None), truths, strict=True):
            boxes = torch.tensor(answer.boxes).reshape(-1, 4)
            overlap = (
                box_iou(torch.tensor(truth["boxes"]).reshape(-1, 4), boxes)
                if len(boxes)
                else torch.zeros(len(truth["boxes"]), 1)
            )
            hits.append(int((overlap.amax(1) >= 0.5).sum()) if len(truth["boxes"]) else 0)
            there.append(len(truth["boxes"]))
        self.kept.add(rows, {"hits": np.array(hits), "there": np.array(there)})

    def merge(self, other):
        self.kept.merge(other.kept)

    def scores(self):
        recall = float(self.kept["hits"].sum() / max(1, self.kept["there"].sum()))
        return {"recall": recall, "loss": 1 - recall, "pictures": len(self.kept)}

    def calibrate(self):
        return {}

    def per_image(self):
        return {"recall": self.kept["hits"] / np.maximum(1, self.kept["there"])}

    def resample(self, counts):
        return {
            "recall": float((counts * self.kept["hits"]).sum() / max(1, (counts * self.kept["there"]).sum()))
        }

    def result(self, scope=Scope()):
        number = Number(self.scores()["recall"], name="found", fact="boxes found")
        return Result(
            "recall",
            {"recall": number},
            f"{number.text()} of the boxes found on {len(self.kept)} {scope.called}.",
        )


class FindSpots(Task):
    """Detection by a set of queries, matched by the Hungarian method (DETR, arXiv:2005.12872)."""

    name = "own_tasks:FindSpots"
    QUERIES = 6
    outputs: Mapping[str, tuple[str, ...]] = {"logits": ("query", "class"), "boxes": ("query", "corner")}

    def read(self, row, root):
        found = json.loads(row.target)
        boxes = np.array([one["box"] for one in found], np.float32).reshape(-1, 4)
        return {
            "boxes": boxes,
            "classes": np.array([self.labels.index(one["class"]) for one in found], np.int64),
        }

    def transform(self, target, view):
        boxes, share = view.boxes(target["boxes"])
        height, width = view.geometry.size
        seen = share > 0.3
        scaled = boxes[seen] / np.array([width, height, width, height], np.float32)
        return {"boxes": scaled, "classes": target["classes"][seen]}

    def words(self, row):
        return f"{len(json.loads(row.target))} boxes"

    def head(self, spec):
        return QueryHead(spec, self.QUERIES, len(self.labels))

    def loss(self, output, targets):
        boxes, classes, count = [], [], max(1.0, self.weights(targets)["boxes"])
        for logits, found, target in zip(output["logits"], output["boxes"], targets, strict=True):
            wanted = torch.as_tensor(target["boxes"]).to(found)
            cost = torch.cdist(_corners(found), wanted, 1).detach().cpu().numpy()
            query, true = linear_sum_assignment(cost)
            label = torch.full((self.QUERIES,), len(self.labels), device=logits.device)
            label[query] = torch.as_tensor(target["classes"])[true].to(logits.device)
            classes.append(F.cross_entropy(logits.float(), label))
            boxes.append((_corners(found)[query] - wanted[true]).abs().sum())
        return Losses({"boxes": torch.stack(boxes).sum() / count, "classes": torch.stack(classes).mean()})

    def weights(self, targets):
        return {"boxes": float(sum(len(target["boxes"]) for target in targets))}

    def decode(self, output, at, ask):
        found = []
        for logits, boxes, geometry in zip(output["logits"], output["boxes"], at, strict=True):
            sure, label = logits.softmax(-1)[:, :-1].max(-1)
            order = [i for i in sure.argsort(descending=True).tolist() if sure[i] > 0.3]
            height, width = geometry.size
            corners = boxes_in_original(
                geometry, (_corners(boxes) * torch.tensor([width, height] * 2)).numpy()
            )
            found.append(
                Spots(
                    tuple(tuple(corners[i].tolist()) for i in order),
                    tuple(self.labels[int(label[i])] for i in order),
                    tuple(float(sure[i]) for i in order),
                )
            )
        return found

    def score(self, output, prediction):
        return output["logits"].softmax(-1)[..., :-1].amax((1, 2))

    def render(self, image, prediction):
        for box in prediction.boxes:
            ImageDraw.Draw(image).rectangle([*map(float, box)], outline=(255, 0, 0))
        return image

    def fingerprint(self, output):
        """Confidence drawn softly into a grid: whatever order the queries have, it is the same."""
        centre = (torch.arange(16) + 0.5) / 16
        corners = _corners(output["boxes"].float())
        across = _inside(centre, corners[..., 0], corners[..., 2])
        down = _inside(centre, corners[..., 1], corners[..., 3])
        sure = output["logits"].float().softmax(-1)[..., :-1]
        return torch.einsum("bqk,bqr,bqc->bkrc", sure, down, across).flatten(1) / self.QUERIES

    def agree(self, one, other, tolerance=0.0):
        return torch.tensor(
            [_same_set(*sides) for sides in zip(*(_sets(side) for side in (one, other)), strict=True)]
        )

    def evaluation(self):
        return Found(self)


def _corners(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)


def _inside(centre, low, high):
    return ((centre - low[..., None]) * 40).sigmoid() * ((high[..., None] - centre) * 40).sigmoid()


def _sets(output):
    sure = output["logits"].softmax(-1)
    return [
        (corners[keep], label[keep])
        for corners, label, keep in zip(
            _corners(output["boxes"]), sure.argmax(-1), sure[..., :-1].amax(-1) > 0.3, strict=True
        )
    ]


def _same_set(one, other):
    (boxes, labels), (others, names) = one, other
    if len(boxes) != len(others):
        return False
    if not len(boxes):
        return True
    mine, theirs = linear_sum_assignment(-box_iou(boxes, others).numpy())
    alike = (boxes[mine] - others[theirs]).abs().amax(-1) < 0.005
    return bool((alike & (labels[mine] == names[theirs])).all())
