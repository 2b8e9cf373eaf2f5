"""The demo on real handwritten digits: check, train, compare, kill and resume, predict, explain."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from vitrail import plots
from vitrail.core.errors import RunError
from vitrail.core.files import make_folder, write_text, writing
from vitrail.core.text import clock, command
from vitrail.data.builtin import Fault, materialise, plant_faults
from vitrail.data.decode import decode
from vitrail.data.manifest import KEPT, TEST, Manifest, Row
from vitrail.data.open_image import load, read
from vitrail.data.own_outputs import DEMO
from vitrail.data.prepare import Prepared, prepare
from vitrail.evaluate.collect_answers import evaluate, rows_of, scope_of
from vitrail.explainers.explanation import Explanation, explain
from vitrail.infer.predictor import Predictor
from vitrail.metrics.mcnemar import Paired, paired
from vitrail.models.factory import count_params
from vitrail.pages import render
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.held_out import Fresh, hold_back, predicted
from vitrail.studies.kill_and_resume import Killed, killed_and_resumed
from vitrail.tasks.classify.evaluation import ClassEvaluation, ClassScores, surest_first
from vitrail.tasks.result import NEVER_SEEN, Shot
from vitrail.training.fit import train
from vitrail.training.progress import Listener

VIT, CNN = "vit_digits", "resnet10t"
SEED = 0
FINDABLE = {"truncated": "quarantined", "text": "quarantined", "empty": "quarantined"}
"""Faults for which the check must exclude an image; the others must be named in the report."""


@dataclass
class Story:
    """The folder of the demo, its output and its start time."""

    folder: Path
    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)

    def step(self, number: int, title: str) -> None:
        """Print the title of a step."""
        self.say(f"\n[{number}/7] {title}   ({clock(time.monotonic() - self.began)} so far)")


def demo(
    folder: Path, minutes: float, say: Callable[[str], None], listeners: Sequence[Listener] = ()
) -> Path:
    """Run all steps in `folder` and return the page demo.html; each network trains for `minutes`."""
    _clear(folder)
    story = Story(folder, say)
    story.step(1, "Real scans as a folder of images, with planted faults, and the findings of the check")
    faults, prepared = _checked(folder, say)
    story.step(2, f"A vision transformer from scratch, {clock(60 * minutes)}")
    vit = _trained(folder, VIT, minutes, listeners)
    story.step(3, f"A convolutional network for comparison, with the same time ({CNN})")
    cnn = _trained(folder, CNN, minutes, listeners)
    rivals = _compared(prepared.manifest, vit, cnn, say)
    story.step(4, "A training killed in the middle (kill -9) and resumed")
    killed = killed_and_resumed(folder, say)
    story.step(5, f"Ten new images: {command('predict', vit.folder, folder / 'new')}")
    fresh = predicted(vit.folder, folder / "new")
    for image in fresh:
        say(f"  {image.line()}")
    story.step(6, "Labels that look wrong to the network")
    suspects = _suspects(rivals, prepared.manifest, faults, say)
    story.step(7, "Where it looked, in right and in wrong predictions")
    looks = _looks(rivals, prepared.manifest)
    page = folder / "demo.html"
    write_text(page, _page(story, faults, prepared, rivals, killed, fresh, suspects, looks))
    say(f"\nDone in {clock(time.monotonic() - story.began)}. Open {page} in a browser.")
    say("Next, with your own images (one folder per class):  vitrail train photos/ --weights none")
    return page


def _clear(folder: Path) -> None:
    """Remove the files of an earlier demo. RunError for a folder that no demo made."""
    mark = folder / DEMO
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file. Choose another place with --out.")
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise RunError(f"{folder} holds other files than an earlier demo. Choose another place with --out.")
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    write_text(mark, "This folder was made by `vitrail demo`, which replaces it when it runs again.\n")


@dataclass(frozen=True)
class Caught:
    """A planted fault, and whether the check found it."""

    fault: Fault
    found: bool
    how: str


def _checked(folder: Path, say: Callable[[str], None]) -> tuple[list[Caught], Prepared]:
    data = folder / "data" / "digits"
    with writing(data):
        shutil.copytree(materialise("digits", folder / "data" / "original"), data)
        hold_back(data, folder / "new")
        faults = plant_faults(data, SEED)
    prepared = prepare(data, seed=SEED)
    for line in prepared.lines():
        say(f"  {line}")
    caught = [_caught(fault, prepared) for fault in faults]
    visible = [one for one in caught if one.fault.kind != "swapped label"]
    found = sum(one.found for one in visible)
    say(f"  Planted: {len(visible)} faults that a check can find; found: {found}.")
    say("  Also planted: 6 swapped labels, which only a trained network can find (step 6).")
    return caught, prepared


def _caught(fault: Fault, prepared: Prepared) -> Caught:
    """Search the check's report for a planted fault: a quarantined row, or a finding that names the file."""
    row = next((r for r in prepared.report.rows if r.id == fault.path), None)
    if row is not None and row.state != KEPT:
        return Caught(fault, True, "kept out")
    named = next((f for f in prepared.report.findings if fault.path in f.ids), None)
    must_go = fault.kind in FINDABLE
    return Caught(fault, named is not None and not must_go, named.kind if named else "not seen")


def _trained(folder: Path, model: str, minutes: float, listeners: Sequence[Listener]) -> Run:
    options = TrainOptions(
        model=model,
        weights="none",
        recipe="digits_cnn" if model == CNN else "digits_vit",
        time=f"{60 * minutes:.0f}s",
        seed=SEED,
        out=str(folder / "runs" / model),
    )
    return train(folder / "data" / "digits", options, listeners=listeners)


@dataclass(frozen=True)
class Rival:
    """One of the two networks with its scores."""

    name: str
    predictor: Predictor
    evaluation: ClassEvaluation
    verdict: str
    parameters: int

    def right(self) -> dict[str, bool]:
        """Return whether the prediction of each image is correct, by id."""
        ids = (row.id for row in self.evaluation.rows)
        return dict(zip(ids, self.evaluation.right().tolist(), strict=True))


@dataclass(frozen=True)
class Duel:
    """The comparison of both networks on the same images."""

    vit: Rival
    cnn: Rival
    result: Paired

    @property
    def verdict(self) -> str:
        """The better network, in words."""
        text = self.result.verdict("the transformer", "the convolutional network")
        return text[0].upper() + text[1:]


def _compared(manifest: Manifest, vit: Run, cnn: Run, say: Callable[[str], None]) -> Duel:
    rivals = []
    for name, run in ((VIT, vit), (CNN, cnn)):
        predictor = Predictor(run.folder)
        evaluation: Any = evaluate(predictor, rows_of(manifest, TEST), manifest.root)
        verdict = ClassScores(evaluation, scope_of(manifest, TEST).leaked).verdict(None, NEVER_SEEN)
        rivals.append(Rival(name, predictor, evaluation, verdict, count_params(predictor.network)))
    for rival in rivals:
        say(f"  {rival.name}: {rival.verdict}")
    duel = Duel(
        rivals[0],
        rivals[1],
        paired(rivals[0].right(), rivals[1].right()),
    )
    say(f"  {duel.verdict}")
    return duel


@dataclass(frozen=True)
class Suspects:
    """Images whose labels get the lowest probability, and the swapped labels among them."""

    rows: tuple[tuple[Row, Shot], ...]
    swapped: frozenset[str]
    looked_at: int

    @property
    def hits(self) -> int:
        """Swapped labels among the suspects."""
        return sum(row.id in self.swapped for row, _ in self.rows)


def _suspects(duel: Duel, manifest: Manifest, caught: list[Caught], say: Callable[[str], None]) -> Suspects:
    """Rank all kept images by the probability that the network gives their label, the lowest first."""
    ranked: list[tuple[float, Row, Shot]] = []
    for split in manifest.counts(duel.vit.predictor.task):
        result: Any = evaluate(duel.vit.predictor, rows_of(manifest, split), manifest.root)
        ranked += zip(result.per_image()["probability"].tolist(), result.rows, result.shots(), strict=True)
    ranked.sort(key=lambda entry: entry[0])
    swapped = frozenset(one.fault.path for one in caught if one.fault.kind == "swapped label")
    suspects = Suspects(tuple((row, shot) for _, row, shot in ranked[:12]), swapped, len(ranked))
    say(
        f"  Of {len(swapped)} swapped labels, {suspects.hits} are among the 12 images with the least probable labels."
    )
    return suspects


@dataclass(frozen=True)
class Look:
    """The explanation of a test image, with its label."""

    truth: str
    explanation: Explanation
    right: bool


def _looks(duel: Duel, manifest: Manifest) -> list[Look]:
    """Explain four correct predictions of different classes, and the four most confident wrong ones."""
    paths = {row.id: row.path for row in duel.vit.evaluation.rows}
    shots = surest_first(duel.vit.evaluation.shots())
    best = {
        shot.truth: shot for shot in reversed(shots) if shot.right
    }  # later, more confident ones overwrite
    right = sorted(best.values(), key=lambda shot: shot.truth)[:4]
    wrong = [shot for shot in shots if not shot.right][:4]
    looks = []
    for shot in (*right, *wrong):
        explanation = explain(duel.vit.predictor, read(manifest.root, paths[shot.id]))
        looks.append(Look(shot.truth, explanation, bool(shot.right)))
    return looks


def _page(
    story: Story,
    caught: list[Caught],
    prepared: Prepared,
    duel: Duel,
    killed: Killed,
    fresh: list[Fresh],
    suspects: Suspects,
    looks: list[Look],
) -> str:
    values: dict[str, Any] = {
        "caught": caught,
        "lines": prepared.lines(),
        "duel": duel,
        "verdicts": [(rival, rival.verdict) for rival in (duel.vit, duel.cnn)],
        "curves": plots.data_uri(_learning(story.folder)),
        "killed": killed,
        "fresh": [(one, plots.data_uri(_shown(decode(one.path).image))) for one in fresh],
        "suspects": [
            (shot, _picture(prepared.manifest, row), row.id in suspects.swapped)
            for row, shot in suspects.rows
        ],
        "hits": suspects.hits,
        "looks": [(look, plots.data_uri(look.explanation.figure())) for look in looks],
        "took": clock(time.monotonic() - story.began),
    }
    return render("demo.html", values)


def _learning(folder: Path) -> Figure:
    series = {}
    for name in (VIT, CNN):
        events = Run(folder / "runs" / name).effective_history()
        series[name] = [(e["seconds"], 100 * e["accuracy"]) for e in events if e["event"] == "score"]
    return plots.curves(series, "seconds", "% right on validation")


def _picture(manifest: Manifest, row: Row) -> str:
    return plots.data_uri(_shown(load(manifest.root, row.path, part=row.part).image))


def _shown(pixels: NDArray[np.uint8]) -> Image.Image:
    return plots.shown(Image.fromarray(pixels), 96)
