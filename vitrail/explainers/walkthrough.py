"""One image's way through a vision transformer, step by step: arXiv:2010.11929, figure 1 and equations 1 to 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor

from vitrail.core.environment import expanded
from vitrail.core.errors import SettingError
from vitrail.data.batch import Geometry
from vitrail.data.preprocess import Preprocess
from vitrail.explainers.open_encoder import is_ours
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.layers.heads import Output
from vitrail.layers.position import placed
from vitrail.layers.sdpa import AttentionMap, Recorder
from vitrail.layers.tokens import Features, Tokens
from vitrail.models.factory import create_encoder
from vitrail.runs.network import Network, build_network, build_task, take_head
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Prediction, Task
from vitrail.weights.preprocessing import answering_preprocess
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.resolve import find_weights

CLASSES = 1000
"""What a network without a classifier of its own is given, freshly drawn: as many as ImageNet has."""


@dataclass(frozen=True)
class Subject:
    """The network that is looked into, and what it answers; `trained` is False where its weights were freshly drawn."""

    name: str
    network: Network
    preprocess: Preprocess
    task: Task[Any, Any]
    trained: bool
    answers: bool  # False where the classifier was freshly drawn


class Stage(NamedTuple):
    """What a head makes on its way: maps (d, row, col) with their captions, and in words what is done."""

    name: str
    words: str
    maps: tuple[tuple[str, Tensor], ...]


class Trace(NamedTuple):
    """What stands on each step, of one image; n patches, d numbers a token."""

    pixels: Tensor  # (channels, height, width), 0 … 255, as the network sees them
    rows: Tensor  # (n, channels · patch · patch): every patch as a row of normalised numbers
    tokens: Tensor  # (n, d): the rows times E
    placed: Tensor  # (prefix + n, d): with class token and positions, z_0
    places: Tensor  # (prefix + n, d): what the positions added
    layers: tuple[Tensor, ...]  # (prefix + n, d) after every block
    maps: tuple[AttentionMap, ...]  # the attention of every block
    final: Tensor  # (prefix + n, d): after the last norm, y
    logits: Tensor  # (k,), or of a map (k, row, col)
    answer: Prediction  # what the task makes of them
    stages: tuple[Stage, ...]  # of a head that makes maps
    grid: tuple[int, int]
    projection_off: float  # how far rows · E lies from what the network computed
    way_off: float  # how far this walk's end lies from the network's own answer


def open_subject(model: str, weights: str = "none") -> Subject:
    """Open a run, a model file, or a network by name, with `weights` or freshly drawn ones.

    Raises:
        SettingError: it is no plain column on patches.
    """
    path = expanded(model)
    refuse_exported(path)
    if is_ours(path):
        predictor = Predictor(path, "cpu")
        shown = (predictor.network, predictor.preprocess, predictor.task)
        subject = Subject(predictor.header.name, *shown, trained=True, answers=True)
    elif path.exists():
        subject = _published(find_weights(model))
    else:
        subject = _drawn(model) if weights == "none" else _published(find_weights(weights, model))
    _check(subject)
    return subject


def _drawn(model: str) -> Subject:
    torch.manual_seed(0)
    encoder = create_encoder(model)
    task = _classes(CLASSES)
    network = build_network(encoder, task).eval()
    preprocess = Preprocess.for_size(encoder.image_size, encoder.config.channels)
    return Subject(model, network, preprocess, task, trained=False, answers=False)


def _published(found: Pretrained) -> Subject:
    classifier = found.head.get("linear.bias")
    task = _classes(CLASSES if classifier is None else len(classifier), found.pool, found.labels)
    encoder = found.build()
    torch.manual_seed(0)
    network = build_network(encoder, task)
    answers = take_head(network, found.head)
    return Subject(
        found.name, network.eval(), answering_preprocess(found), task, trained=True, answers=answers
    )


def _classes(count: int, pool: str | None = None, known: Sequence[str] = ()) -> Task[Any, Any]:
    named = known if len(set(known)) == count else [f"class {number}" for number in range(count)]
    return build_task("classify", list(named), {"pool": pool} if pool else {})


def _check(subject: Subject) -> None:
    if not subject.network.encoder.plain_column:
        raise SettingError(
            f"{subject.name} is no plain row of patches and blocks, which these steps tell of. Take a ViT, a DeiT or "
            "a DINOv2 without stem, registers and overlapping patches, such as vit_b16."
        )


@torch.no_grad()
def trace(subject: Subject, image: Any) -> Trace:
    """Take an image (a path, bytes, Pillow image or array) through the network, keeping what every step gives."""
    encoder: Any = subject.network.encoder
    images = _input(subject, image)
    embedded: Tokens = encoder.embed(images)
    rows = patch_rows(images, encoder.config.patch)
    weight = encoder.embed.project.weight.flatten(1)
    by_hand = rows[0] @ weight.T + encoder.embed.project.bias
    bare, first = encoder.prefix(embedded), placed(embedded, encoder.prefix, encoder.position)
    recorder, tokens, layers = Recorder(), first, []
    for block in encoder.blocks:
        tokens = block(tokens, recorder)
        layers.append(tokens.x[0])
    final = tokens.with_x(encoder.norm(tokens.x))
    head: Any = subject.network.head
    after = [layers[place - 1] for place in head.taps]
    features = Features(final, tuple(tokens.with_x(encoder.norm(one[None])).map() for one in after))
    output, stages = head(features, {"images": images}), getattr(head, "stages", None)
    logits = first_of(subject.task, output)
    return Trace(
        pixels=subject.preprocess.restore(images)[0],
        rows=rows[0],
        tokens=embedded.x[0],
        placed=first.x[0],
        places=(first.x - bare.x)[0],
        layers=tuple(layers),
        maps=tuple(recorder.maps),
        final=final.x[0],
        logits=logits[0],
        answer=answered(subject.task, output, images),
        stages=() if stages is None else tuple(Stage(*one) for one in stages(features, images)),
        grid=cast(tuple[int, int], embedded.grid),
        projection_off=float((by_hand - embedded.x[0]).abs().max()),
        way_off=float((logits - first_of(subject.task, subject.network({"images": images}))).abs().max()),
    )


def first_of(task: Task[Any, Any], output: Output) -> Tensor:
    """Return the first of a task's outputs, which the page follows to the end."""
    return output[next(iter(task.outputs))]


def answered(task: Task[Any, Any], output: Output, images: Tensor) -> Prediction:
    """Return what a task says of one image, in the network's own pixels."""
    said: Prediction = task.decode(output, [whole_of(images)], ASK)[0]
    return said


def whole_of(images: Tensor) -> Geometry:
    """Return how an input lies on itself: (…, height, width)."""
    height, width = images.shape[-2:]
    return Geometry((height, width), (height, width), (0, 0, height, width))


def patch_rows(images: Tensor, patch: int) -> Tensor:
    """Cut images into squares, each laid out as a row: (b, c, height, width) -> (b, n, c · patch · patch)."""
    return rearrange(images, "b c (row ph) (col pw) -> b (row col) (c ph pw)", ph=patch, pw=patch)


def from_rows(rows: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Put images together from rows of patches: (b, n, c · patch · patch) -> (b, c, height, width)."""
    row, col = grid
    whole = "b (row col) (c ph pw) -> b c (row ph) (col pw)"
    return rearrange(rows, whole, row=row, col=col, ph=patch, pw=patch)


def _input(subject: Subject, image: Any) -> Tensor:
    from vitrail.data.decode import as_array, decode

    channels, raw = subject.preprocess.channels, subject.preprocess.raw
    if isinstance(image, str | Path):
        array = decode(Path(image), channels, raw=raw).image
    else:
        array = (
            decode(image, channels, raw=raw).image
            if isinstance(image, bytes)
            else as_array(image, channels, raw)
        )
    return subject.preprocess.eval(array)[0][None]
