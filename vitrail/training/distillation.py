"""Distillation: whether a training has a teacher, and that teacher: a run, a model file or published weights."""

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
from vitrail.data.preprocess import Preprocess
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
    """A frozen network that is asked about what the student sees, through its own preprocessing.

    Images as the student gets them (b, channels, height, width) -> logits (b, k) in the student's order of classes, as
    an output. The teacher sees the very crop of the student, all of it, brought to its own size by its own
    interpolation and in its own normalisation: its own crop was for whole images, and would cut from what the
    student is asked about.
    """

    def __init__(self, opened: _Opened, student: Preprocess) -> None:
        if opened.preprocess.channels != student.channels:
            raise SettingError(
                f"The teacher sees {opened.preprocess.channels} channels and the student {student.channels}; take "
                "another teacher."
            )
        if opened.preprocess.scale != student.scale:
            raise SettingError(
                f"White is {opened.preprocess.scale:g} to the teacher and {student.scale:g} to the student; take "
                "another teacher."
            )
        self.network = opened.network.eval().requires_grad_(False)
        self.preprocess, self.student = opened.preprocess, student
        self.columns = list(opened.columns)
        self._check = Bf16Check()
        self._checked = False

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Output:
        """Return the teacher's logits: (b, channels, height, width) -> (b, k)."""
        self.network.to(images.device)
        pixels = self.student.restore(images.float())
        fitted = interpolate(pixels, self.preprocess.size, mode=self.preprocess.interpolation, antialias=True)
        mean, std = (
            self.preprocess.scale * torch.tensor(part, device=images.device).view(-1, 1, 1)
            for part in (self.preprocess.mean, self.preprocess.std)
        )
        output = self._answer((fitted - mean) / std)
        return {"logits": output["logits"][:, self.columns]}

    def _answer(self, images: Tensor) -> Output:
        """Answer in bf16 where the training does and the teacher is seen to do it rightly."""
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


def open_teacher(source: str, labels: Sequence[str], student: Preprocess) -> Teacher:
    """Open the teacher that a user names, for a student of these classes with this preprocessing.

    Raises:
        SettingError: it knows other classes, or sees other channels.
        WeightsError, RunError: it cannot be had or is broken.
    """
    path = expanded(source)
    if (path / "recipe.yaml").is_file() or _is_model(path):
        return Teacher(_ours(path, labels), student)
    return Teacher(_published(source, labels), student)


def _is_model(path: Path) -> bool:
    """Tell whether this is a model file of ours, which knows its classes and its preprocessing."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as handle:
            return "vitrail" in (handle.metadata() or {})
    except (SafetensorError, OSError):
        return False  # what is wrong with it is told by who opens it as weights


def _ours(path: Path, labels: Sequence[str]) -> _Opened:
    predictor = Predictor(path, "cpu")
    known = predictor.labels
    missing = [label for label in labels if label not in known]
    if missing:
        raise SettingError(
            f"The teacher {path} does not know {', '.join(missing[:5])}. It must have learned every class of the "
            "student's images; train it on them first."
        )
    return _Opened(predictor.network, predictor.preprocess, tuple(known.index(label) for label in labels))


def _published(source: str, labels: Sequence[str]) -> _Opened:
    found = find_weights(source)
    encoder = found.build()
    network = Network(encoder, _classifier(found, encoder.spec))
    classes = len(found.head["linear.bias"])
    columns = _named(source, labels, found.labels) or _columns(source, labels, classes)
    return _Opened(network, answering_preprocess(found), columns)


def _classifier(found: Pretrained, spec: FeatureSpec) -> Head:
    if "linear.weight" not in found.head:
        raise WeightsError(
            f"The weights {found.name} have no classifier, so they cannot teach. Fine-tune them on your images "
            "first (vitrail train … --weights …), and name that run as the teacher."
        )
    classes = len(found.head["linear.weight"])
    hidden = len(found.head["pre_logits.weight"]) if "pre_logits.weight" in found.head else 0
    head: Head = (
        DistilledHead(spec, classes)
        if "dist.weight" in found.head
        else LinearHead(spec, classes, pool=found.pool, hidden=hidden)
    )
    head.load_state_dict({key: tensor.float() for key, tensor in found.head.items()})
    return head


def _named(source: str, labels: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """Find the student's classes among those that the weights name; () where they name none, or ImageNet's in words."""
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
    """Find the student's classes among ImageNet's, by their WordNet numbers, or take as many in order and say so."""
    if classes == 1000:
        from timm.data.imagenet_info import ImageNetInfo

        info: Any = ImageNetInfo()
        known: list[str] = list(info.label_names())
        if set(labels) <= set(known):
            return tuple(known.index(label) for label in labels)
    if classes == len(labels):
        warnings.warn(
            f"The teacher {source} does not name its {classes} classes; they are taken to be in the order of yours: "
            f"{', '.join(labels[:3])} …",
            stacklevel=2,
        )
        return tuple(range(classes))
    raise SettingError(
        f"The teacher {source} knows {classes} classes of its own, and not those of these images. Fine-tune it on "
        "them first, and name that run: --teacher runs/teacher"
    )


def with_teacher(recipe: Recipe, teaching: Mapping[str, Any], options: TrainOptions) -> Recipe:
    """Wrap the task of a recipe into distillation where the recipe file or the user names a teacher."""
    said = {"teacher": options.teacher, "kind": options.distill}
    teaching = {**teaching, **{key: value for key, value in said.items() if value is not None}}
    if "teacher" not in teaching:
        if teaching:
            raise SettingError("--distill says how a teacher is followed; name one: --teacher runs/large")
        return recipe
    wrapped = wrap(DISTILL, teaching, recipe.task.name, recipe.task.settings)
    return recipe.model_copy(update={"task": recipe.task.model_copy(update=wrapped)})
