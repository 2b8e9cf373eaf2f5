"""Distillation: open the teacher (a run, a model file or published weights) and wrap the task of the recipe."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import interpolate

from vitrail.core.catalog import DISTILL
from vitrail.core.environment import expanded
from vitrail.core.errors import SettingError, WeightsError
from vitrail.data.labels import shorten
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.bands import places
from vitrail.infer.bf16_check import Bf16Check, check_bf16, keep_in_float32
from vitrail.infer.predictor import Predictor
from vitrail.layers.heads import DistilledHead, Head, LinearHead, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.runs.network import Network
from vitrail.runs.recipe import Recipe
from vitrail.runs.task_wrapping import wrap
from vitrail.runs.train_options import TrainOptions
from vitrail.weights.preprocessing import answering_preprocess
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.resolve import find_weights


class _Opened(NamedTuple):
    network: Network
    preprocess: Preprocess
    columns: tuple[int, ...]  # the teacher's output for each of the student's classes


class Teacher:
    """A frozen network that predicts the student's images, with its own preprocessing.

    Student images (b, channels, height, width) -> output with logits (b, k) in the student's order of classes. The
    teacher gets the whole crop of the student, resized to the teacher's size with the teacher's interpolation and
    normalisation. The teacher's own crop is for whole images; here it would remove a part of what the student gets.
    """

    def __init__(self, opened: _Opened, student: Preprocess) -> None:
        if opened.preprocess.channels != student.channels:
            raise SettingError(
                f"The teacher takes {opened.preprocess.channels} channels and the student {student.channels}. "
                "Choose another teacher."
            )
        places = _bands_of(opened.preprocess, student)
        if opened.preprocess.scale != student.scale:
            raise SettingError(
                f"White is {opened.preprocess.scale:g} for the teacher and {student.scale:g} for the student. "
                "Choose another teacher."
            )
        self.network = opened.network.eval().requires_grad_(False)
        self.preprocess, self.student = opened.preprocess, student
        self.columns = list(opened.columns)
        self._places = places
        self._check = Bf16Check()
        self._checked = False

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Output:
        """Return the teacher's logits: (b, channels, height, width) -> (b, k)."""
        self.network.to(images.device)
        pixels = self.student.restore(images.float())
        pixels = pixels if self._places is None else pixels[:, self._places]
        fitted = interpolate(pixels, self.preprocess.size, mode=self.preprocess.interpolation, antialias=True)
        mean, std = (
            self.preprocess.scale * torch.tensor(part, device=images.device).view(-1, 1, 1)
            for part in (self.preprocess.mean, self.preprocess.std)
        )
        output = self._answer((fitted - mean) / std)
        return {"logits": output["logits"][:, self.columns]}

    def _answer(self, images: Tensor) -> Output:
        """Return the teacher's output, in bf16 when the training uses it and the teacher passes the bf16 check."""
        kind = images.device.type
        rounds = torch.is_autocast_enabled(kind)
        if rounds and not self._checked:
            self._checked = True
            with torch.autocast(kind, enabled=False):
                self._check = check_bf16(self.network.encoder, images)
            keep_in_float32(self.network.encoder, self._check.float32)
            for line in self._check.lines():
                warnings.warn(f"The teacher: {line}", stacklevel=2)
        with torch.autocast(kind, torch.bfloat16, enabled=rounds and self._check.faithful):
            output: Output = self.network({"images": images})
        return output


def _bands_of(teacher: Preprocess, student: Preprocess) -> list[int] | None:
    """Return where the teacher's bands stand in the student's images, or None where they have no other order.

    Raises:
        SettingError: their bands are others.
    """
    own, other = teacher.band_names, student.band_names
    if own == other:
        return None
    if sorted(map(str.casefold, own)) != sorted(map(str.casefold, other)):
        told = [shorten(names, most=12) or "colours" for names in (own, other)]
        raise SettingError(
            f"The teacher reads {told[0]}, the student {told[1]}. Choose a teacher of the same bands."
        )
    return places(other, own, "The student's image")


def open_teacher(source: str, labels: Sequence[str], student: Preprocess) -> Teacher:
    """Open the teacher that the user names, for a student with these classes and this preprocessing.

    Raises:
        SettingError: the teacher has other classes or another number of channels.
        WeightsError, RunError: the teacher is not available or broken.
    """
    path = expanded(source)
    if (path / "recipe.yaml").is_file() or _is_model(path):
        return Teacher(_ours(path, labels), student)
    return Teacher(_published(source, labels), student)


def _is_model(path: Path) -> bool:
    """Tell whether this is a vitrail model file, which holds its classes and its preprocessing."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as handle:
            return "vitrail" in (handle.metadata() or {})
    except (SafetensorError, OSError):
        return False  # opening it as weights reports what is wrong


def _ours(path: Path, labels: Sequence[str]) -> _Opened:
    predictor = Predictor(path, "cpu")
    known = predictor.labels
    missing = [label for label in labels if label not in known]
    if missing:
        raise SettingError(
            f"The teacher {path} does not know {', '.join(missing[:5])}. It must be trained on every class of the "
            "student's images. Train it on them first."
        )
    return _Opened(predictor.network, predictor.preprocess, tuple(known.index(label) for label in labels))


def _published(source: str, labels: Sequence[str]) -> _Opened:
    weights = find_weights(source)
    encoder = weights.build()
    network = Network(encoder, _classifier(weights, encoder.spec))
    classes = len(weights.head["linear.bias"])
    columns = _named(source, labels, weights.labels) or _columns(source, labels, classes)
    return _Opened(network, answering_preprocess(weights), columns)


def _classifier(weights: Pretrained, spec: FeatureSpec) -> Head:
    if "linear.weight" not in weights.head:
        raise WeightsError(
            f"The weights {weights.name} have no classifier, so they cannot teach. Fine-tune them on your images "
            "first (vitrail train … --weights …), and name that run as the teacher."
        )
    classes = len(weights.head["linear.weight"])
    hidden = len(weights.head["pre_logits.weight"]) if "pre_logits.weight" in weights.head else 0
    head: Head = (
        DistilledHead(spec, classes)
        if "dist.weight" in weights.head
        else LinearHead(spec, classes, pool=weights.pool, hidden=hidden)
    )
    head.load_state_dict({key: tensor.float() for key, tensor in weights.head.items()})
    return head


def _named(source: str, labels: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """Return the columns of the student's classes by label; () without labels or with ImageNet's 1000 words."""
    if set(labels) <= set(known):
        return tuple(known.index(label) for label in labels)
    if not known or len(known) == 1000:
        return ()
    missing = [label for label in labels if label not in known]
    raise SettingError(
        f"The teacher {source} does not know {', '.join(missing[:5])}. Its classes are {', '.join(known[:5])}"
        f"{' …' if len(known) > 5 else ''}: name the folders of your images so, or fine-tune it on them first."
    )


def _columns(source: str, labels: Sequence[str], classes: int) -> tuple[int, ...]:
    """Return the columns of the student's classes in ImageNet, by WordNet id; or all in order, with a warning."""
    if classes == 1000:
        from timm.data.imagenet_info import ImageNetInfo

        info: Any = ImageNetInfo()
        known: list[str] = list(info.label_names())
        if set(labels) <= set(known):
            return tuple(known.index(label) for label in labels)
    if classes == len(labels):
        warnings.warn(
            f"The teacher {source} does not name its {classes} classes; they are assumed to be in your order: "
            f"{', '.join(labels[:3])} …",
            stacklevel=2,
        )
        return tuple(range(classes))
    raise SettingError(
        f"The teacher {source} has {classes} other classes, not those of these images. Fine-tune it on these images "
        "first, and name that run: --teacher runs/teacher"
    )


def with_teacher(recipe: Recipe, teaching: Mapping[str, Any], options: TrainOptions) -> Recipe:
    """Wrap the task of a recipe into distillation when the recipe file or the user names a teacher."""
    stated = {"teacher": options.teacher, "kind": options.distill}
    teaching = {**teaching, **{key: value for key, value in stated.items() if value is not None}}
    if "teacher" not in teaching:
        if teaching:
            raise SettingError("--distill needs a teacher. Name one: --teacher runs/large")
        return recipe
    wrapped = wrap(DISTILL, teaching, recipe.task.name, recipe.task.settings)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update=wrapped)})
