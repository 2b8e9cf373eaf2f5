"""The draft: a frozen pretrained network and a head, with an honest score, in about a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.core.errors import DataError, SettingError
from vitrail.core.text import command, quoted
from vitrail.data.batch import Geometry
from vitrail.data.manifest import Manifest, Row
from vitrail.data.open_image import load
from vitrail.data.prepare import Prepared
from vitrail.evaluate.cross_validation import Answered, gain_from_twice, score_by_folds
from vitrail.layers.tokens import FeatureSpec
from vitrail.reports.draft_report import Outlook, write_draft_report
from vitrail.runs.device import device_for, fast_bf16
from vitrail.runs.image_changes import look_event
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import ReportError, Run, create_run, elsewhere
from vitrail.tasks.probe import DenseProbe, Probe
from vitrail.training.batch_size_finder import LARGER, forecast
from vitrail.training.checkpointing import write_best
from vitrail.training.feature_cache import Frozen
from vitrail.training.initialization import InitialState, build_from_recipe
from vitrail.training.linear_probe import fit_head, out_of_fold
from vitrail.training.loop import Event
from vitrail.training.micro_batches import smallest_piece
from vitrail.training.progress import Listener, note
from vitrail.training.resolve_recipe import Planned
from vitrail.training.session import first_batch, training_images

MINUTE = 30.0
"""Seconds that computing features may take before a smaller input is chosen on a machine without fast bf16 tiles."""

SMALLEST = 96
"""Pixels below which a draft does not shrink its input."""


@dataclass(frozen=True)
class ProbeData:
    """The images of a probe: targets, the same as an array (n, …), and what must stay together as numbers (n,)."""

    rows: list[Row]
    targets: list[Any]
    truth: NDArray[np.int64]
    groups: NDArray[np.int64]
    at: tuple[Geometry, ...] = ()


def probe_data(start: InitialState, probe: Probe, rows: list[Row], manifest: Manifest) -> ProbeData:
    """Return truth and groups as numbers; an image of no group is a group of its own."""
    names = [row.group or f"\0{row.id}" for row in rows]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    targets = [start.task.read(row, manifest.root) for row in rows]
    at: tuple[Geometry, ...] = ()
    if isinstance(probe, DenseProbe):
        at = tuple(start.preprocess.geometry(*_size(manifest, row)) for row in rows)
        truth = probe.cells(targets, at, _frozen(start, torch.device("cpu")).grid)
    else:
        truth = probe.truths(targets)
    return ProbeData(rows, targets, truth, np.array([number[name] for name in names]), at)


def _size(manifest: Manifest, row: Row) -> tuple[int, int]:
    """Return the height and width of an image."""
    height, width = load(manifest.root, row.path, part=row.part).image.shape[:2]
    return height, width


def _frozen(start: InitialState, device: torch.device) -> Frozen:
    """Return the frozen network as the task's probe reads it."""
    dense = isinstance(_probe_of(start), DenseProbe)
    return Frozen(start.network.encoder, start.preprocess, device, dense)


def draft(planned: Planned, prepared: Prepared, out: str | None, listeners: Sequence[Listener] = ()) -> Run:
    """Make a draft run: features, head, score by grouped folds, doubts, and what a full fine-tune would cost."""
    clock, manifest = _Phases(), prepared.manifest
    recipe, start, frozen = _sized(planned, manifest, listeners)
    probe, layer = _probe_of(start), _layer_of(start)
    if probe is None or layer is None:
        raise SettingError(
            f"Nothing can be drafted of the task {recipe.task.name} with this head: it has no linear probe. Train "
            f"the network: {command('train', recipe.data.source, '--tune', 'full')}"
        )
    rows = manifest.rows()
    clock.end("weights and set-up")
    vectors = frozen.vectors(manifest, rows, lambda done, total: _looked(listeners, done, total))
    clock.end("features")
    found = probe_data(start, probe, rows, manifest)
    scored = out_of_fold(probe, vectors, found.truth, found.groups)
    head = fit_head(probe, vectors, found.truth, found.groups)
    head.put_into(layer)
    clock.end("heads")
    answered = Answered(rows, found.targets, scored.logits, scored.folds, found.truth, found.at, frozen.grid)
    folded = score_by_folds(start.task, recipe.task.name, answered)
    start = replace(start, task=folded.task)
    now, half = (probe.share(logits, found.truth) for logits in (scored.logits, scored.half))
    clock.end("scores")
    seconds = full_seconds(planned.full or recipe, manifest)
    clock.end("measuring the fine-tune")
    run = create_run(recipe, out, quoted(sys.argv))
    note(listeners, elsewhere(run, out))
    manifest.write(run.manifest_path)
    write_best(run, recipe, start)
    run.log("checked", prepared.found())
    look = look_event(manifest.root, prepared.looked)
    run.log("drafted", {**look, "phases": clock.phases, "strength": head.strength})
    outlook = Outlook(clock.phases, *seconds, half, gain_from_twice(now, half))
    try:
        write_draft_report(run, manifest, folded, outlook)
    except Exception as error:  # scores, drawings and pages fail in many ways
        again = f"Draft again, from the features that are kept: {command('train', recipe.data.source)}"
        raise ReportError(run, error, again) from error
    return run


def _probe_of(start: InitialState) -> Probe | None:
    probe: Probe | None = getattr(start.task, "probe", None)
    return probe


def _layer_of(start: InitialState) -> nn.Linear | None:
    """Return the layer of a network that a probe's weights go into, where the task and its head have one."""
    probe = _probe_of(start)
    return probe.layer(start.network.head) if probe else None


class _Phases:
    """Tells how long each part of a draft took."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.last = time.monotonic()

    def end(self, name: str) -> None:
        """Close a phase."""
        now = time.monotonic()
        self.phases[name], self.last = now - self.last, now


def _looked(listeners: Sequence[Listener], done: int, total: int) -> None:
    for listener in listeners:
        listener(Event("features", 0, {"done": done, "total": total}))


def _sized(
    planned: Planned, manifest: Manifest, listeners: Sequence[Listener]
) -> tuple[Recipe, InitialState, Frozen]:
    """Open the network; where nothing here computes bf16 in tiles, shrink the input until a minute is enough."""
    recipe = planned.recipe
    device = device_for(recipe.training.device)
    opened = _opened(recipe, manifest, device)
    missing = opened[2].missing(manifest.rows())
    if not planned.shrink or not missing or _is_fast(device):
        return opened
    cost = opened[2].seconds_per_image(manifest, manifest.rows()) * missing
    smaller = smaller_size(recipe.model.imgsz, opened[1].network.spec, cost)
    if smaller is None:
        return opened
    line = (
        f"input {smaller[0]} px in place of {recipe.model.imgsz[0]} px: the features of {missing:,} images "
        f"would take about {cost:.0f} s here (--imgsz {recipe.model.imgsz[0]} keeps the size)"
    )
    note(listeners, [line])
    model = recipe.model.model_copy(update={"imgsz": smaller})
    return _opened(recipe.model_copy(update={"model": model}), manifest, device)


def _opened(recipe: Recipe, manifest: Manifest, device: torch.device) -> tuple[Recipe, InitialState, Frozen]:
    start = build_from_recipe(recipe, manifest.truth)
    return recipe, start, _frozen(start, device)


def _is_fast(device: torch.device) -> bool:
    return device.type != "cpu" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


def smaller_size(size: tuple[int, int], spec: FeatureSpec, cost: float) -> tuple[int, int] | None:
    """Return the largest size that keeps the minute (cost falls with the number of patches), or None."""
    if cost <= MINUTE:
        return None
    scale = (MINUTE / cost) ** 0.5
    stride, rest = spec.strides[-1], int(2 * spec.overlap_margin)
    least = -(-SMALLEST // stride) * stride + rest
    shrunk = tuple(
        min(side, max(least, (int(side * scale) - rest) // stride * stride + rest)) for side in size
    )
    return (shrunk[0], shrunk[1]) if shrunk < size else None


def full_seconds(full: Recipe, manifest: Manifest) -> tuple[float, float]:
    """Foretell what a full fine-tune would take, at least and as steps usually take here, from a few on a copy."""
    start = build_from_recipe(full, manifest.truth)
    pictures = training_images(full, manifest, start.task, start.preprocess)
    device = device_for(full.training.device)
    precision = "bf16" if fast_bf16(device) else "float32"
    few = full.model_copy(update={"training": full.training.model_copy(update={"batch": LARGER})})
    smallest = smallest_piece(start.network, start.task, full.model)
    found = forecast(start.network, start.task, first_batch(few, pictures), device, precision, smallest)
    seen = len(pictures) * full.training.epochs
    return found.quickest * seen, found.usual * seen


def init_head_from_probe(start: InitialState, manifest: Manifest, split: str) -> None:
    """Give a network the head of a draft that saw one split alone, to fine-tune from without a leak.

    A task without a probe, or a head that takes none (two on tokens of their own), starts fresh.
    """
    probe, layer = _probe_of(start), _layer_of(start)
    if probe is None or layer is None:
        return
    rows = manifest.rows(split)
    if not rows:
        raise DataError(f"The split {split!r} holds no images. Look at: vitrail check.")
    device = next(start.network.parameters()).device
    frozen = _frozen(start, device)
    found = probe_data(start, probe, rows, manifest)
    vectors = frozen.vectors(manifest, rows)
    fit_head(probe, vectors, found.truth, found.groups).put_into(layer)
    start.network.requires_grad_(True)
