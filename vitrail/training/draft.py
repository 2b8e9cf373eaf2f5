"""The draft: a frozen pretrained network with a linear head, scored by cross-validation, in about a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from vitrail.infer.backends import Backend
from vitrail.layers.tokens import FeatureSpec
from vitrail.reports.draft_report import Outlook, write_draft_report
from vitrail.runs.device import device_for
from vitrail.runs.image_changes import look_event
from vitrail.runs.passport import hash_of
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import ReportError, Run, create_run, elsewhere
from vitrail.tasks.probe import DenseProbe, Probe, Vectors
from vitrail.training.batch_size_finder import LARGER, forecast
from vitrail.training.checkpointing import write_best
from vitrail.training.draft_abstention import Cached, fit_on_features, stored
from vitrail.training.feature_cache import Frozen
from vitrail.training.initialization import InitialState, build_from_recipe
from vitrail.training.linear_probe import fit_head, out_of_fold
from vitrail.training.loop import Event
from vitrail.training.micro_batches import smallest_piece
from vitrail.training.progress import Listener, note
from vitrail.training.resolve_recipe import Planned
from vitrail.training.session import first_batch, training_images
from vitrail.training.step_format import likely_formats

MINUTE = 30.0
"""Largest time for computing features, in seconds. On a CPU without AMX bf16 tiles the input is reduced to meet it."""

SMALLEST = 96
"""Smallest input side, in pixels, that a draft chooses."""


@dataclass(frozen=True)
class ProbeData:
    """The images of a probe: targets, the targets as an array `truth` (n, …), and group numbers (n,)."""

    rows: list[Row]
    targets: list[Any]
    truth: NDArray[np.int64]
    groups: NDArray[np.int64]
    at: tuple[Geometry, ...] = ()


def probe_data(start: InitialState, probe: Probe, rows: list[Row], manifest: Manifest) -> ProbeData:
    """Return targets and groups as numbers. An image without a group is a group by itself."""
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
    height, width = load(manifest.root, row.path, part=row.part).image.shape[:2]
    return height, width


def _frozen(start: InitialState, device: torch.device) -> Frozen:
    """Return the frozen network, pooled as its head does; with features per patch when the task's probe is dense."""
    dense, kind = isinstance(_probe_of(start), DenseProbe), start.network.head.pooling
    return Frozen(start.network.encoder, start.preprocess, device, dense, kind=kind)


def draft(planned: Planned, prepared: Prepared, out: str | None, listeners: Sequence[Listener] = ()) -> Run:
    """Make a draft run: features, head, cross-validated scores, label errors, and the cost of a full fine-tune."""
    clock, manifest = _Phases(), prepared.manifest
    recipe, start, frozen = _sized(planned, manifest, listeners)
    probe, layer = _probe_of(start), _layer_of(start)
    if probe is None or layer is None:
        raise SettingError(
            f"The task {recipe.task.name} has no draft with this head: it has no linear probe. Train the network: "
            f"{command('train', recipe.data.source, '--tune', 'full')}"
        )
    clock.end("weights and set-up")
    vectors, plan = _features(frozen, manifest, listeners)
    clock.end("features")
    data = probe_data(start, probe, manifest.rows(), manifest)
    scored = out_of_fold(probe, vectors, data.truth, data.groups)
    head = fit_head(probe, vectors, data.truth, data.groups)
    head.put_into(layer)
    clock.end("heads")
    answers = (scored.logits, scored.folds, data.truth, data.at, frozen.grid)
    answered = Answered(data.rows, data.targets, *answers)
    folded = score_by_folds(start.task, recipe.task.name, answered)
    clock.end("scores")
    fitted = fit_on_features(Cached(frozen, manifest, plan), answered, folded.task, recipe.data.source)
    clock.end("none of these")
    seconds = full_seconds(planned.full or recipe, manifest)
    clock.end("measuring the fine-tune")
    run = create_run(recipe, out, quoted(sys.argv))
    note(listeners, elsewhere(run, out))
    manifest.write(run.manifest_path)
    write_best(run, recipe, replace(start, task=folded.task))
    folded = stored(run, folded, fitted)
    run.log("checked", prepared.found())
    made = {"phases": clock.phases, "strength": head.strength, "features": str(plan)}
    run.log("drafted", {**look_event(manifest.root, prepared.looked), **made, **_weights_of(start)})
    now, half = (probe.share(logits, data.truth) for logits in (scored.logits, scored.half))
    outlook = Outlook(clock.phases, *seconds, half, gain_from_twice(now, half))
    try:
        write_draft_report(run, manifest, folded, outlook)
    except Exception as error:  # scores, drawings and pages fail in many ways
        again = f"Make the draft again from the cached features: {command('train', recipe.data.source)}"
        raise ReportError(run, error, again) from error
    return run


def _features(frozen: Frozen, manifest: Manifest, listeners: Sequence[Listener]) -> tuple[Vectors, Backend]:
    """Return the features of all rows, and the backend that gave them, which is reported."""
    rows = manifest.rows()
    plan = frozen.backend(manifest, rows)
    note(listeners, [f"features in {plan}"])
    progress = partial(_report_progress, listeners)
    return frozen.vectors(manifest, rows, progress, plan), plan


def _weights_of(start: InitialState) -> dict[str, str]:
    return {"weights": hash_of(start.network.encoder.state_dict())}


def _probe_of(start: InitialState) -> Probe | None:
    probe: Probe | None = getattr(start.task, "probe", None)
    return probe


def _layer_of(start: InitialState) -> nn.Linear | None:
    """Return the layer that takes the probe's weights, or None when the task or its head has none."""
    probe, head = _probe_of(start), start.network.head
    if head.pooling == "attention":
        return None  # what it reads is not yet learnt
    return probe.layer(start.network.head) if probe else None


class _Phases:
    """A stopwatch: seconds of each phase of a draft, by name."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.last = time.monotonic()

    def end(self, name: str) -> None:
        """End the present phase and give it a name."""
        now = time.monotonic()
        self.phases[name], self.last = now - self.last, now


def _report_progress(listeners: Sequence[Listener], done: int, total: int) -> None:
    for listener in listeners:
        listener(Event("features", 0, {"done": done, "total": total}))


def _sized(
    planned: Planned, manifest: Manifest, listeners: Sequence[Listener]
) -> tuple[Recipe, InitialState, Frozen]:
    """Open the network. On a CPU without AMX bf16 tiles, reduce the input size to keep within `MINUTE`."""
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
        f"input {smaller[0]} px instead of {recipe.model.imgsz[0]} px: the features of {missing:,} images "
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
    """Return the largest size within `MINUTE` (the cost is proportional to the number of patches), or None."""
    if cost <= MINUTE:
        return None
    scale = (MINUTE / cost) ** 0.5
    stride, rest = spec.unit, int(2 * spec.overlap_margin)
    least = -(-SMALLEST // stride) * stride + rest
    shrunk = tuple(
        min(side, max(least, (int(side * scale) - rest) // stride * stride + rest)) for side in size
    )
    return (shrunk[0], shrunk[1]) if shrunk < size else None


def full_seconds(full: Recipe, manifest: Manifest) -> tuple[float, float]:
    """Estimate the seconds of a full fine-tune from some steps on a copy: by the fastest and by the median step."""
    start = build_from_recipe(full, manifest.truth)
    images = training_images(full, manifest, start.task, start.preprocess)
    device = device_for(full.training.device)
    few = full.model_copy(update={"training": full.training.model_copy(update={"batch": LARGER})})
    smallest = smallest_piece(start.network, start.task, full.model)
    batch = first_batch(few, images)
    times = [
        forecast(start.network, start.task, batch, device, form, smallest)
        for form in likely_formats(full, start.network, device)
    ]
    count = len(images) * full.training.epochs
    best = min(times, key=lambda one: one.usual)
    return best.quickest * count, best.usual * count


def init_head_from_probe(start: InitialState, manifest: Manifest, split: str) -> None:
    """Initialise the head of a network from a probe fitted on one split only, so that no other split leaks.

    Without a probe, or with a head that takes none (two heads, each on its own token), the head stays random.
    """
    probe, layer = _probe_of(start), _layer_of(start)
    if probe is None or layer is None:
        return
    rows = manifest.rows(split)
    if not rows:
        raise DataError(f"The split {split!r} holds no images. See: vitrail check.")
    device = next(start.network.parameters()).device
    frozen = _frozen(start, device)
    data = probe_data(start, probe, rows, manifest)
    vectors = frozen.vectors(manifest, rows, plan=frozen.usual)  # the same seed gives the same run
    fit_head(probe, vectors, data.truth, data.groups).put_into(layer)
    start.network.requires_grad_(True)
