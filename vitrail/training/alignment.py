"""Align a frozen vision model with words: its features are computed once, and only what reads them is trained.

Locked-image tuning (LiT, Zhai et al. 2022, arXiv:2111.07991). Features are cached like those of a draft, so an epoch
costs no forward pass of the vision model.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.core.seeds import derive, of_64_bits
from vitrail.core.text import command, quoted
from vitrail.data.manifest import TRAIN, VAL, Manifest, Row
from vitrail.data.prepare import Prepared
from vitrail.data.split import can_be_trained
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.layers.heads import Output
from vitrail.layers.tokens import CLASS
from vitrail.reports.run_report import write_report
from vitrail.runs.device import device_for
from vitrail.runs.image_changes import look_event
from vitrail.runs.passport import hash_of
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import ReportError, Run, create_run, elsewhere
from vitrail.tasks.result import kept_by
from vitrail.tasks.retrieve.loss import Pairs
from vitrail.tasks.retrieve.task import Retrieve
from vitrail.training.checkpointing import write_best
from vitrail.training.feature_cache import Frozen
from vitrail.training.initialization import InitialState, build_from_recipe
from vitrail.training.loop import DivergedError, Event
from vitrail.training.optim import Schedule, adamw
from vitrail.training.progress import Listener, note

TEXTS = 256
"""Captions that a frozen text tower encodes at a time."""

SCORINGS = 20
"""Largest number of validations in an alignment: an epoch may take less time than its validation."""

TIMED = 5
"""Steps whose duration decides how many fit into `--time`."""

POOLS = ("cls", "mean", "cls_mean", "own", None)
"""Poolings that features are cached of; a learned one needs all tokens of every step."""

LIT = "hundreds of millions (arXiv:2111.07991, figure 1)"


def can_align(recipe: Recipe) -> bool:
    """Tell whether a recipe trains only what reads the vision model, on images that never change."""
    settings = recipe.task.settings
    frozen = recipe.training.tune == "head" and recipe.training.augment == "none"
    return frozen and recipe.task.name == Retrieve.name and settings.get("pool") in POOLS


def align(recipe: Recipe, prepared: Prepared, out: str | None, listeners: Sequence[Listener] = ()) -> Run:
    """Make a run: features once, then steps of the head on them; scored like every run.

    Raises:
        ReportError: the run is trained and kept (`error.run`), but its report could not be made.
    """
    can_be_trained(prepared.manifest, prepared.targets.strata)
    manifest, began = prepared.manifest, time.monotonic()
    device = device_for(recipe.training.device)
    torch.manual_seed(of_64_bits(recipe.training.seed))
    start = build_from_recipe(recipe, manifest.truth, manifest.rows(TRAIN))
    run = create_run(recipe, out, quoted(sys.argv))
    note(listeners, elsewhere(run, out))
    manifest.write(run.manifest_path)
    run.log("checked", prepared.found())
    look = look_event(manifest.root, prepared.looked)
    run.log("started", {"time": time.time(), "weights": hash_of(start.network.encoder.state_dict()), **look})
    train, val = _coupled(start, manifest, device, listeners)
    note(listeners, [_honest(len(train.captions))])
    alignment = _Alignment(run, recipe, start, listeners)
    alignment.fit(train, val)
    run.log("finished", {"time": time.time(), "step": alignment.step, "total": alignment.step})
    write_best(run, recipe, start)
    try:
        write_report(run, manifest, seconds=time.monotonic() - began, finished=True)
    except Exception as error:  # scores, drawings and pages fail in many ways
        raise ReportError(run, error, f"Only the scores: {command('eval', run.folder)}") from error
    return run


def _honest(pairs: int) -> str:
    return (
        f"{pairs:,} images with captions teach the words of these captions and little else: LiT, which froze its "
        f"vision model in the same way, saw {LIT}."
    )


class Coupled(NamedTuple):
    """Images and captions of a split: pooled features (n, d), and of each different caption the row in `texts`.

    `texts` are the vectors of a frozen text tower (m, width), or tokens, int64 (m, context), for one that learns.
    """

    rows: list[Row]
    features: Tensor
    captions: list[tuple[str, ...]]
    numbers: list[list[int]]
    texts: Tensor


def _coupled(
    start: InitialState, manifest: Manifest, device: torch.device, listeners: Sequence[Listener]
) -> tuple[Coupled, Coupled]:
    """Return the training and the validation pairs, on the device."""
    task, head = _parts(start)
    frozen = Frozen(start.network.encoder, start.preprocess, device)
    head.to(device)
    rows = {split: manifest.rows(split) for split in (TRAIN, VAL)}
    whole = [row for split in rows.values() for row in split]
    progress = partial(_report_progress, listeners)
    plan = frozen.backend(manifest, whole)
    note(listeners, [f"features in {plan}; no augmentation, since they are computed once"])
    vectors = frozen.vectors(manifest, whole, progress, plan)
    features = torch.from_numpy(_of_pool(vectors, frozen.kind, head.pool.kind)).float().to(device)
    count = len(rows[TRAIN])
    parts = ((rows[TRAIN], features[:count]), (rows[VAL], features[count:]))
    train, val = (_captioned(task, head, manifest, split, of_split) for split, of_split in parts)
    return train, val


def _captioned(
    task: Retrieve, head: ContrastiveHead, manifest: Manifest, rows: list[Row], features: Tensor
) -> Coupled:
    captions = [task.read(row, manifest.root) for row in rows]
    number = {text: i for i, text in enumerate(dict.fromkeys(text for own in captions for text in own))}
    tokens = torch.from_numpy(task.token_rows(list(number))).to(features.device)
    texts = tokens
    if not _learns(head):
        with torch.inference_mode():
            texts = _encoded(head, tokens).clone()
    return Coupled(rows, features, captions, [[number[text] for text in own] for own in captions], texts)


def _encoded(head: ContrastiveHead, tokens: Tensor) -> Tensor:
    """Return what the text tower makes of texts, (n, width), `TEXTS` at a time."""
    return torch.cat([head.tower(part) for part in torch.split(tokens, TEXTS)])


def _learns(head: ContrastiveHead) -> bool:
    return any(parameter.requires_grad for parameter in head.tower.parameters())


def _of_pool(vectors: NDArray[np.float32], kind: str, wanted: str) -> NDArray[np.float32]:
    """Return the part of pooled features that the head reads: (n, d)."""
    if kind == wanted:
        return vectors
    half = vectors.shape[1] // 2
    if kind != "cls_mean" or wanted not in (CLASS, "mean"):
        raise SettingError(f"--pool {wanted} cannot be read from features of {kind}. Leave it out.")
    return vectors[:, :half] if wanted == CLASS else vectors[:, half:]


def _report_progress(listeners: Sequence[Listener], done: int, total: int) -> None:
    for listener in listeners:
        listener(Event("features", 0, {"done": done, "total": total}))


def _parts(start: InitialState) -> tuple[Retrieve, ContrastiveHead]:
    return cast(Retrieve, start.task), cast(ContrastiveHead, start.network.head)


class _Alignment:
    """Steps of the head on cached features; the weights with the best validation score stay."""

    def __init__(self, run: Run, recipe: Recipe, start: InitialState, listeners: Sequence[Listener]) -> None:
        self.run, self.settings, self.listeners = run, recipe.training, listeners
        self.start, (self.task, self.head) = start, _parts(start)
        self.step, self.began = 0, time.monotonic()
        self.best, self.score = self._learnt(), -float("inf")

    def fit(self, train: Coupled, val: Coupled) -> None:
        """Train to the end of the schedule, or of the time; load the best weights."""
        own, count = self.settings, len(train.rows)
        batch = min(own.batch, count)
        epoch = count // batch
        optimiser = adamw(self.start.network, own.lr, own.weight_decay, beta2=own.beta2, eps=own.eps)
        schedule = Schedule(own.lr, round(own.warmup * epoch), own.epochs * epoch)
        self._publish(Event("begun", 0, {"total": schedule.total, "seconds": own.seconds}))
        for images in _batches(count, batch, own.seed):
            if own.seconds and self.step == TIMED:
                schedule = self._within(schedule, epoch)
            loss = self._step(optimiser, schedule(self.step), train, images)
            values = {"loss": loss, "lr": schedule(self.step - 1), "epoch": self.step / epoch}
            self._publish(Event("step", self.step, {**values, "seconds": 0.0}))
            done = self.step >= schedule.total
            if done or self.step % max(epoch, schedule.total // SCORINGS // epoch * epoch) == 0:
                self._validate(val, self.step / epoch)
            if done:
                break
        self.head.load_state_dict(self.best, strict=False)
        self.head.eval()

    def _learnt(self) -> dict[str, Tensor]:
        """Return copies of the weights that learn."""
        named = self.head.named_parameters()
        return {name: one.detach().clone() for name, one in named if one.requires_grad}

    def _within(self, schedule: Schedule, epoch: int) -> Schedule:
        """Return the schedule whose steps fit into the time, by those that were measured."""
        assert self.settings.seconds is not None, "only a training for a time is cut to it"
        spent = time.monotonic() - self.began
        total = max(TIMED + 1, int(self.settings.seconds / spent * TIMED))
        self._publish(Event("planned", self.step, {"total": total, "epochs": total / epoch}))
        return Schedule(schedule.peak, schedule.warmup, total)

    def _step(
        self, optimiser: torch.optim.Optimizer, rate: float, train: Coupled, images: NDArray[np.int64]
    ) -> float:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.head.train()
        loss = self.task.loss(*self._pairs(train, images)).total
        if not torch.isfinite(loss):
            raise DivergedError(f"The loss became {loss.item()} at step {self.step + 1}", "Try a lower --lr.")
        torch.autograd.backward(loss)
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.settings.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    def _pairs(self, train: Coupled, images: NDArray[np.int64]) -> tuple[Output, Pairs]:
        """Return the outputs for some images with one drawn caption each, and which captions are right."""
        places = torch.from_numpy(images)
        rng = np.random.default_rng(derive(self.settings.seed, "captions", self.step))
        own = [train.numbers[image] for image in images.tolist()]
        drawn = torch.tensor([numbers[int(rng.integers(len(numbers)))] for numbers in own])
        every = drawn[:, None].repeat(1, max(map(len, own)))
        for place, numbers in enumerate(own):
            every[place, : len(numbers)] = torch.tensor(numbers)
        device = train.features.device
        texts = train.texts[drawn.to(device)]
        text = self.head.tower(texts) if _learns(self.head) else texts
        pairs = Pairs(drawn.to(device), every.to(device))
        return self.head.pairs(train.features[places.to(device)], text), pairs

    def _validate(self, val: Coupled, epoch: float) -> None:
        """Score the validation images, and keep the weights if they are the best so far."""
        self.head.eval()
        evaluation = self.task.evaluation()
        evaluation.update(val.rows, self._answers(val), val.captions, [])
        scores, main = evaluation.scores(), kept_by(evaluation)
        better = main.sign * scores[main.name] > self.score
        if better:
            self.best, self.score = self._learnt(), main.sign * scores[main.name]
        values = {**scores, "epoch": epoch, "main": main.name, "best": main.sign * self.score}
        more = {"better": better, "seconds": round(time.monotonic() - self.began, 2), "unit": main.unit}
        self._publish(Event("score", self.step, {**values, **more}))

    @torch.inference_mode()
    def _answers(self, val: Coupled) -> Mapping[str, Tensor]:
        encoded = _encoded(self.head, val.texts) if _learns(self.head) else val.texts
        most = max(map(len, val.numbers))
        filled = torch.tensor([numbers + numbers[:1] * (most - len(numbers)) for numbers in val.numbers])
        texts = encoded[filled.flatten().to(encoded.device)]
        image, factor = self.head.image_vectors(val.features), self.head.factor()
        text = self.head.text_vectors(texts).view(len(val.rows), most, -1)
        return {"image": image.cpu(), "text": text.cpu(), "factor": factor.expand(len(val.rows)).cpu()}

    def _publish(self, event: Event) -> None:
        self.run.log(event.kind, {"step": event.step, **event.values})
        for listener in self.listeners:
            listener(event)


def _batches(count: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the images of each step without end: every epoch is another order of all images, without the rest."""
    epoch = 0
    while True:
        order = np.random.default_rng(derive(seed, "order", epoch)).permutation(count)
        yield from (order[at : at + batch] for at in range(0, count - batch + 1, batch))
        epoch += 1
