"""The main job once, on real handwritten digits: check, train, compare, kill and resume, predict, look inside."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file
from torch import equal

from vitrail import plots
from vitrail.core.errors import RunError
from vitrail.core.files import write_text
from vitrail.data.builtin import Fault, materialise, plant_faults
from vitrail.data.manifest import KEPT, TEST, Manifest
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.source import load, read
from vitrail.evaluate.paired import Paired, paired
from vitrail.evaluate.report import verdict
from vitrail.evaluate.scores import Judged, Scores, score
from vitrail.explainers.explanation import Explanation, explain
from vitrail.infer.predictor import Predictor
from vitrail.models.create import count_params
from vitrail.pages import render
from vitrail.runs.folder import Run
from vitrail.runs.options import TrainOptions
from vitrail.training.fit import train
from vitrail.training.listeners import Listener, clock

VIT, CNN = "vit_digits", "resnet10t"
SEED = 0
MARK = "made-by-vitrail-demo.txt"
FINDABLE = {"truncated": "quarantined", "text": "quarantined", "empty": "quarantined"}
"""Faults that must keep a picture out; the others must be named in the report."""


@dataclass
class Story:
    """What the demo found, step by step, for its page."""

    folder: Path
    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)

    def step(self, number: int, title: str) -> None:
        """Announce a step."""
        self.say(f"\n[{number}/6] {title}   ({clock(time.monotonic() - self.began)} so far)")


def demo(
    folder: Path, minutes: float, say: Callable[[str], None], listeners: Sequence[Listener] = ()
) -> Path:
    """Run the whole story in `folder` and return its page, demo.html; each network trains for `minutes`."""
    _clear(folder)
    story = Story(folder, say)
    story.step(1, "Real scans as a folder of pictures, with faults planted, and what the check finds")
    faults, prepared = _checked(folder, say)
    story.step(2, f"A vision transformer from scratch, {clock(60 * minutes)}")
    vit = _trained(folder, VIT, minutes, listeners)
    story.step(3, f"A convolutional network beside it, as many minutes ({CNN})")
    cnn = _trained(folder, CNN, minutes, listeners)
    rivals = _compared(prepared.manifest, vit, cnn, say)
    story.step(4, "A training killed in the middle (kill -9) and resumed")
    killed = _killed_and_resumed(folder, say)
    story.step(5, "What the network says of pictures it never saw, and whose labels look wrong")
    suspects = _suspects(rivals, prepared.manifest, faults, say)
    story.step(6, "Where it looked, when right and when wrong")
    looks = _looks(rivals, prepared.manifest)
    page = folder / "demo.html"
    write_text(page, _page(story, faults, prepared, rivals, killed, suspects, looks))
    say(f"\nDone in {clock(time.monotonic() - story.began)}. Open {page} in a browser.")
    say("Next, with your own pictures (one folder a class):  vitrail train photos/ --weights none")
    return page


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left; a folder that no demo made is not touched."""
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise RunError(
            f"{folder} holds something that is not an earlier demo. Choose another place with --out."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.write_text(
        "This folder was made by `vitrail demo`, which replaces it when it runs again.\n", encoding="utf-8"
    )


@dataclass(frozen=True)
class Caught:
    """A planted fault and whether the check named it."""

    fault: Fault
    found: bool
    how: str


def _checked(folder: Path, say: Callable[[str], None]) -> tuple[list[Caught], Prepared]:
    data = folder / "data" / "digits"
    shutil.copytree(materialise("digits", folder / "data" / "original"), data)
    faults = plant_faults(data, SEED)
    prepared = prepare(data, seed=SEED)
    for line in prepared.lines():
        say(f"  {line}")
    caught = [_caught(fault, prepared) for fault in faults]
    visible = [one for one in caught if one.fault.kind != "swapped label"]
    found = sum(one.found for one in visible)
    say(f"  Planted: {len(visible)} faults that a check can see; found: {found}.")
    say("  Planted besides: 6 swapped labels, which only a trained network can suspect (step 5).")
    return caught, prepared


def _caught(fault: Fault, prepared: Prepared) -> Caught:
    """Look for a planted fault in what the check said: a quarantined row, or a finding that names the file."""
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
    scores: Scores
    parameters: int


@dataclass(frozen=True)
class Duel:
    """Both networks on the same pictures."""

    vit: Rival
    cnn: Rival
    result: Paired

    @property
    def verdict(self) -> str:
        """Who is better, in words."""
        said = self.result.verdict("the transformer", "the convolutional network")
        return said[0].upper() + said[1:]


def _compared(manifest: Manifest, vit: Run, cnn: Run, say: Callable[[str], None]) -> Duel:
    rivals = []
    for name, run in ((VIT, vit), (CNN, cnn)):
        predictor = Predictor(run.folder)
        rivals.append(
            Rival(name, predictor, score(predictor, manifest, TEST), count_params(predictor.network))
        )
    for rival in rivals:
        say(f"  {rival.name}: {verdict(rival.scores)}")
    duel = Duel(rivals[0], rivals[1], paired(rivals[0].scores, rivals[1].scores))
    say(f"  {duel.verdict}")
    return duel


@dataclass(frozen=True)
class Killed:
    """A run that was killed and resumed beside one that was left alone."""

    step: int
    tensors: int
    same: bool


def _killed_and_resumed(folder: Path, say: Callable[[str], None]) -> Killed:
    runs = folder / "runs"
    disturbed, quiet = runs / "killed", runs / "undisturbed"
    step = random.Random(time.time_ns()).randint(45, 120)
    _start_and_kill(folder, disturbed, step)
    say(f"  kill -9 at step {step}; resuming from the last saved epoch")
    _vitrail(["train", "--resume", str(disturbed)])
    say("  and the same training left alone")
    _vitrail(_short(folder, quiet))
    first, second = (load_file(run / "state" / "last.safetensors") for run in (disturbed, quiet))
    same = first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    say(
        f"  {len(first)} tensors (weights, average, optimiser): {'equal bit by bit' if same else 'NOT equal'}"
    )
    return Killed(step, len(first), same)


def _short(folder: Path, out: Path) -> list[str]:
    # What is measured at the start of a run is given here, so that both runs compute alike.
    fixed = ["--epochs", "4", "--micro", "32", "--precision", "float32", "--seed", "1"]
    return ["train", str(folder / "data" / "digits"), "--recipe", "digits_vit", *fixed, "--out", str(out)]


def _vitrail(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "vitrail.cli.main", *words], capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"`vitrail {' '.join(words)}` failed: {done.stderr.strip()}")


def _start_and_kill(folder: Path, out: Path, step: int) -> None:
    words = [sys.executable, "-m", "vitrail.cli.main", *_short(folder, out)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = out / "history.jsonl"
    while process.poll() is None:
        if history.exists() and f'"step": {step},' in history.read_text(encoding="utf-8"):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.02)
    raise RunError(
        f"The training in {out} ended by itself before step {step}. Look at it: vitrail train --resume {out}"
    )


@dataclass(frozen=True)
class Suspects:
    """Pictures whose label the network doubts most, and how many swapped labels are among them."""

    rows: tuple[Judged, ...]
    swapped: frozenset[str]
    looked_at: int

    @property
    def hits(self) -> int:
        """Swapped labels among the suspects."""
        return sum(one.row.id in self.swapped for one in self.rows)


def _suspects(duel: Duel, manifest: Manifest, caught: list[Caught], say: Callable[[str], None]) -> Suspects:
    """Rank all kept pictures by how little the network believes their label."""
    judged = [one for split in manifest.counts() for one in score(duel.vit.predictor, manifest, split).judged]
    judged.sort(key=lambda one: dict(one.prediction.top(99))[one.row.label])
    swapped = frozenset(one.fault.path for one in caught if one.fault.kind == "swapped label")
    found = Suspects(tuple(judged[:12]), swapped, len(judged))
    say(
        f"  Of {len(swapped)} swapped labels, {found.hits} are among the 12 pictures whose label it believes least."
    )
    return found


@dataclass(frozen=True)
class Look:
    """A test picture, its truth, and where the network looked."""

    truth: str
    explanation: Explanation
    right: bool


def _looks(duel: Duel, manifest: Manifest) -> list[Look]:
    """Explain four right answers of different classes and the surest wrong ones."""
    judged = sorted(duel.vit.scores.judged, key=lambda one: -one.prediction.probability)
    surest = {one.row.label: one for one in reversed(judged) if one.right}  # the last one written wins
    right = sorted(surest.values(), key=lambda one: one.row.label)[:4]
    wrong = [one for one in judged if not one.right][:4]
    looks = []
    for one in (*right, *wrong):
        found = explain(duel.vit.predictor, read(manifest.root, one.row.path))
        looks.append(Look(one.row.label, found, one.right))
    return looks


def _page(
    story: Story,
    caught: list[Caught],
    prepared: Prepared,
    duel: Duel,
    killed: Killed,
    suspects: Suspects,
    looks: list[Look],
) -> str:
    values: dict[str, Any] = {
        "caught": caught,
        "lines": prepared.lines(),
        "duel": duel,
        "verdicts": [(rival, verdict(rival.scores)) for rival in (duel.vit, duel.cnn)],
        "curves": plots.data_uri(_learning(story.folder)),
        "killed": killed,
        "suspects": [
            (one, _picture(prepared.manifest, one), one.row.id in suspects.swapped) for one in suspects.rows
        ],
        "hits": suspects.hits,
        "looks": [(look, plots.data_uri(look.explanation.figure())) for look in looks],
        "took": clock(time.monotonic() - story.began),
    }
    return render("demo.html", values)


def _learning(folder: Path) -> Figure:
    series = {}
    for name in (VIT, CNN):
        events = Run(folder / "runs" / name).history()
        series[name] = [(e["seconds"], 100 * e["accuracy"]) for e in events if e["event"] == "score"]
    return plots.curves(series, "seconds", "% right on validation")


def _picture(manifest: Manifest, one: Judged) -> str:
    return plots.data_uri(plots.shown(Image.fromarray(load(manifest.root, one.row.path).image), 96))
