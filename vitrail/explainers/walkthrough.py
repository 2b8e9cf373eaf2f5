"""Trace one image through a vision transformer, step by step: arXiv:2010.11929, figure 1 and equations 1 to 4."""

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
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.layers.heads import Output
from vitrail.layers.position import placed
from vitrail.layers.sdpa import AttentionMap, Recorder
from vitrail.layers.tokens import Features, Tokens
from vitrail.models.factory import create_encoder
from vitrail.runs.model_source import is_ours
from vitrail.runs.network import Network, build_network, build_task, take_head
from vitrail.runs.run_network import ASK
from vitrail.tasks.base import Prediction, Task
from vitrail.weights.preprocessing import answering_preprocess
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.resolve import find_weights

CLASSES = 1000
"""Classes of the randomly initialized classifier of a network that has none: as many as ImageNet."""


@dataclass(frozen=True)
class Subject:
    """The traced network with its task; `trained` is False if its weights are randomly initialized."""

    name: str
    network: Network
    preprocess: Preprocess
    task: Task[Any, Any]
    trained: bool
    answers: bool  # False if the classifier is randomly initialized


class Stage(NamedTuple):
    """An intermediate stage of a head: maps (d, row, col) with captions, and an explanation in words."""

    name: str
    words: str
    maps: tuple[tuple[str, Tensor], ...]


class Trace(NamedTuple):
    """The result of each step for one image; n patches, d numbers per token."""

    pixels: Tensor  # (channels, height, width), 0 … 255, the network's input
    rows: Tensor  # (n, channels · patch · patch): every patch as a row of normalised numbers
    tokens: Tensor  # (n, d): the rows times E
    placed: Tensor  # (prefix + n, d): with class token and positions, z_0
    places: Tensor  # (prefix + n, d): what the positions added
    layers: tuple[Tensor, ...]  # (prefix + n, d) after every block
    maps: tuple[AttentionMap, ...]  # the attention of every block
    final: Tensor  # (prefix + n, d): after the last norm, y
    logits: Tensor  # (k,), or of a map (k, row, col)
    answer: Prediction  # the decoded prediction
    stages: tuple[Stage, ...]  # intermediate stages, of a head that computes maps
    grid: tuple[int, int]
    projection_off: float  # largest difference of rows · E from the network's tokens
    way_off: float  # largest difference of the final logits from the network's own output


def open_subject(model: str, weights: str = "none") -> Subject:
    """Open a run, a model file, or a network by name, with `weights` or randomly initialized.

    Raises:
        SettingError: it is not a plain ViT (patches and equal blocks).
    """
    path = expanded(model)
    refuse_exported(path)
    # Of a pretrained run, the encoder is shown as published weights are.
    if is_ours(path) and (predictor := Predictor(path, "cpu")).task.answers:
        shown = (predictor.network, predictor.preprocess, predictor.task)
        subject = Subject(predictor.header.name, *shown, trained=True, answers=True)
    elif path.exists():
        subject = _published(find_weights(model))
    else:
        subject = _random_network(model) if weights == "none" else _published(find_weights(weights, model))
    _check(subject)
    return subject


def _random_network(model: str) -> Subject:
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
            f"{subject.name} is not a plain ViT, for which these steps are written. Use a ViT, DeiT or DINOv2 without "
            "stem, registers and overlapping patches, such as vit_b16."
        )


@torch.no_grad()
def trace(subject: Subject, image: Any) -> Trace:
    """Run an image (a path, bytes, Pillow image or array) through the network and keep the result of every step."""
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
    """Return the first of a task's outputs, which the page shows."""
    return output[next(iter(task.outputs))]


def answered(task: Task[Any, Any], output: Output, images: Tensor) -> Prediction:
    """Return the prediction for one image, in pixels of the network's input."""
    prediction: Prediction = task.decode(output, [whole_of(images)], ASK)[0]
    return prediction


def whole_of(images: Tensor) -> Geometry:
    """Return the identity geometry of an input (…, height, width)."""
    height, width = images.shape[-2:]
    return Geometry((height, width), (height, width), (0, 0, height, width))


def patch_rows(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches, each flattened to a row: (b, c, height, width) -> (b, n, c · patch · patch)."""
    return rearrange(images, "b c (row ph) (col pw) -> b (row col) (c ph pw)", ph=patch, pw=patch)


def from_rows(rows: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Assemble images from rows of patches: (b, n, c · patch · patch) -> (b, c, height, width)."""
    row, col = grid
    whole = "b (row col) (c ph pw) -> b c (row ph) (col pw)"
    return rearrange(rows, whole, row=row, col=col, ph=patch, pw=patch)


def _input(subject: Subject, image: Any) -> Tensor:
    from vitrail.data.decode import as_array
    from vitrail.data.rasters.whole_file import decode_for

    steps = subject.preprocess
    if isinstance(image, str | Path):
        array = decode_for(steps, Path(image))
    elif isinstance(image, bytes):
        array = decode_for(steps, image)
    else:
        array = as_array(image, steps.channels, steps.raw)
    return steps.eval(array)[0][None]
