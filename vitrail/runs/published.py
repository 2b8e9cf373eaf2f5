"""Published weights with a head as model files: made once from their weights, and kept in the cache.

The file is an ordinary one, so that prediction, explanation, evaluation, export and speed take it as any other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from vitrail import __version__
from vitrail.core.cache import place, places
from vitrail.core.errors import WeightsError, nearest
from vitrail.core.files import write_text
from vitrail.core.text import command
from vitrail.data.preprocess import EIGHT_BITS, Preprocess
from vitrail.data.truth import Truth
from vitrail.models.factory import describe
from vitrail.runs.model_file import Header, write_model
from vitrail.runs.model_source import has_our_header, is_exported
from vitrail.runs.network import Network, build_network, build_task, reads_words, stored_of, take_head
from vitrail.runs.proof import answer
from vitrail.runs.published_head import Answering, with_own_head, with_text_tower
from vitrail.tasks.base import Task
from vitrail.weights.class_names import ClassNames, class_names
from vitrail.weights.download import WeightsUnavailableError, ways_out
from vitrail.weights.local_registry import known
from vitrail.weights.parts import parts_of
from vitrail.weights.preprocessing import deviations, published_preprocess
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.read_request import CLASSIFY
from vitrail.weights.resolve import Located, locate_classifier

MADE = 2
"""Version of the files made here; another one makes them again."""

NOTES = "vitrail_notes"
"""The entry of the file's metadata with the notes for the user, as JSON."""

DIGEST = "digest"
"""The file beside it with its digest, by which a damaged file is found and made again."""

EVALUATED_IN_PILLOW = ("timm", "huggingface", "official")
"""Sources whose figures were measured on images that Pillow resized, which rounds to whole numbers."""


class Published(NamedTuple):
    """A model file made of published weights, and notes for the user: which weights they are, what was assumed."""

    path: Path
    notes: tuple[str, ...]


def published_model(source: str) -> Published:
    """Return the model file of published weights: a name of timm's or ours, organisation/repository, or a path.

    Raises:
        WeightsError: the weights are not available, or have no head that could answer.
        RunError: the file could not be written.
    """
    located = _located(source)
    whole = located.path / "model.safetensors" if located.path.is_dir() else located.path
    if has_our_header(whole):  # a model that `vitrail push` sent to the hub
        return Published(whole, ())
    within = Path(_key(located), f"{_file_name(located)}.safetensors")
    for folder in places("published"):
        if (notes := _notes_of(folder / within)) is not None:
            return Published(folder / within, notes)
    return _made(place("published") / within, source, located)


def _located(source: str) -> Located:
    try:
        return locate_classifier(source)
    except WeightsUnavailableError as error:
        near = nearest(source, [entry.name for entry in known()])
        hint = f" Did you mean {near!r}, which you added?" if near else ""
        here = "There is no such path here, and " if "/" in source else ""
        raise WeightsError(f"{here}{error.trouble}{hint} {ways_out(error.ways[:-1])}") from error


def _key(located: Located) -> str:
    """Return a digest of everything that the file depends on."""
    versions = (MADE, __version__, torch.__version__, _timm_version())
    state = blake2b(repr((versions, located._replace(path=Path()))).encode(), digest_size=16)
    for part in parts_of(located.path):
        state.update(f"{part.name} {_digest(part)}".encode())
    return state.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return file_digest(handle, lambda: blake2b(digest_size=16)).hexdigest()


def _timm_version() -> str:
    from importlib.metadata import version

    return version("timm")


def _file_name(located: Located) -> str:
    """Return the name of the weights as that of a file."""
    path = located.path.resolve()
    plain = path.name if path.is_dir() else path.stem
    if not path.is_dir() and plain in ("model", "pytorch_model"):
        plain = path.parent.name
    return re.sub(r"[^\w.-]", "_", (located.name or plain).rpartition("/")[2]) or "model"


def _notes_of(path: Path) -> tuple[str, ...] | None:
    """Return the notes of a file in the cache, or None if it is missing or broken and must be made again."""
    try:
        if path.with_name(DIGEST).read_text("utf-8") != _digest(path):
            return None
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
        return tuple(json.loads(metadata[NOTES]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _made(path: Path, source: str, located: Located) -> Published:
    found = located.open()
    network, task, lines = _answering(found, located)
    steps = task.steps(_preprocess(found, is_exported(located.path)))
    proof = answer(network, task, steps)
    if not all(map(math.isfinite, proof)):
        raise WeightsError(
            f"The weights {found.name} answer with numbers that are not finite; copy them again."
        )
    header = Header(
        name=found.name,
        encoder=describe(network.encoder),
        task={
            "name": task.name,
            "labels": list(task.labels),
            "truth": task.truth.to_dict(),
            "settings": task.settings.model_dump(),
            **stored_of(task),
        },
        preprocess=steps.to_dict(),
        weights=located.row.repo if located.row else found.name,
        licence=found.licence,
        proof=proof,
    )
    notes = tuple(_notes(source, found, located, lines))
    write_model(path, network, header, {NOTES: json.dumps(notes)})
    write_text(path.with_name(DIGEST), _digest(path))
    return Published(path, notes)


def _answering(found: Pretrained, located: Located) -> Answering:
    if found.task == CLASSIFY:
        return _classifier(found, located)
    return with_text_tower(found) if reads_words(found.task) else with_own_head(found)


def _classifier(found: Pretrained, located: Located) -> Answering:
    classes = _classes(found, located)
    network, task = _network(found, classes)
    notes = (f"the weights {found.name}: {classes.assumed}",) if classes.assumed else ()
    return Answering(network, task, notes)


def _classes(found: Pretrained, located: Located) -> ClassNames:
    """Return the names of the classes. WeightsError without a classifier, or if its outputs are no classes."""
    again = command("train", "IMAGES", "--weights", located.name or located.path)
    count = len(found.head.get("linear.bias", ()))
    if not count:
        raise WeightsError(
            f"The weights {found.name} have no classifier, so they cannot answer alone. Train one on your images: "
            f"{again}"
        )
    classes = class_names(found.labels, count)
    listed = located.row is not None and located.row.classes is not None
    if listed and not found.labels and not classes.ids:
        raise WeightsError(
            f"The {count} outputs of {found.name} are no classes with names. Train a classifier on your images: {again}"
        )
    return classes._replace(assumed="") if listed else classes


def _network(found: Pretrained, classes: ClassNames) -> tuple[Network, Task[Any, Any]]:
    """Return the network with its published classifier, and the task that names its classes."""
    pool = None if "dist.weight" in found.head else found.pool
    truth = Truth("class", classes.names, ids=classes.ids)
    task = build_task("classify", truth, {"pool": pool} if pool else {})
    network = build_network(found.build(), task)
    if not take_head(network, found.head):
        parts = ", ".join(sorted({name.partition(".")[0] for name in found.head}))
        raise WeightsError(
            f"The classifier of {found.name} has other parts ({parts}) than those that are here, so it cannot answer. "
            f"Train one on your images: {command('train', 'IMAGES', '--weights', found.name)}"
        )
    return network.eval().requires_grad_(False), task


def _preprocess(found: Pretrained, ours: bool) -> Preprocess:
    """Return the published preprocessing, to whole numbers where the figures of the weights were measured so.

    Weights that vitrail itself exported (`ours`) were measured without rounding.
    """
    steps = published_preprocess(found)
    rounds = found.source in EVALUATED_IN_PILLOW and not ours
    return replace(steps, rounded=rounds and steps.scale == EIGHT_BITS and not steps.raw)


def _notes(source: str, found: Pretrained, located: Located, lines: tuple[str, ...]) -> Iterator[str]:
    if located.row is not None and source != found.name:
        yield f"{source}: the weights {found.name}, licence {found.licence or 'not stated'}"
    yield from deviations(found)
    yield from lines
