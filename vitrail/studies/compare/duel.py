"""Runs a duel: measures, shares the time out, trains every contestant in every round, and compares the answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.core.config import to_yaml
from vitrail.core.errors import RunError
from vitrail.core.files import make_folder, write_json, write_text
from vitrail.core.text import clock
from vitrail.data.manifest import Manifest
from vitrail.data.prepare import Prepared
from vitrail.studies.compare.contestants import Contestant
from vitrail.studies.compare.design import (
    FACTORS,
    HALVES,
    Cost,
    Rounds,
    Times,
    choices,
    halved,
    is_given,
    rounds,
    share_out,
)
from vitrail.studies.compare.jobs import done_before, read_result, result_of_file, run_job
from vitrail.studies.compare.outcome import SharedImages, Side, matched
from vitrail.studies.compare.places import tested_of
from vitrail.studies.compare.worker import KINDS, Job

SCORED = 1 / 3
"""What answering an image costs of training on it, until it was measured."""

SLACK = 1.15
"""How much longer than measured the parts of a training that are no training are taken to be."""


@dataclass
class Duel:
    """A duel under way: where it writes, who takes part, on what, and for how long."""

    folder: Path
    prepared: Prepared
    contestants: Sequence[Contestant]
    seconds: float
    seed: int
    say: Callable[[str], None]
    epochs: int | None = None  # of every training, in place of a time
    most_rounds: int | None = None
    resumed: bool = False
    began: float = field(default_factory=time.monotonic)
    failed: dict[str, str] = field(default_factory=dict)
    overheads: dict[str, float] = field(default_factory=dict)

    def run(self) -> Outcome:
        """Do all trainings that are not done yet, and return what they found."""
        measured = self._measure()
        alive = {name: one for name, one in measured.items() if name not in self.failed}
        if not alive:
            raise RunError(f"No contestant can be trained. {' '.join(self.failed.values())}")
        times = self._times(alive)
        drawn = self._drawn(times)
        rates = {name: self._search(name, times, alive[name]) for name in alive if name not in self.failed}
        self._train(times, rates, alive)
        return self._outcome(times, drawn, rates, measured)

    def _measure(self) -> dict[str, dict[str, Any]]:
        """Measure a step of every contestant, in a process of its own; one that fails is out."""
        first = self._manifest("first", self.prepared.manifest)
        found = {}
        for one in self.contestants:
            write_text(self._recipe(one.name), to_yaml(one.recipe, f"{one.name} in a comparison"))
            done = self._job(one.name, "measure", "measure", first, 0.0)
            if "failed" in done:
                continue
            found[one.name] = done
            epoch = clock(done["image"] * done["images"])
            self.say(f"{one.name}: {done['parameters']:,} parameters, an epoch takes {epoch}")
        return found

    def _times(self, measured: Mapping[str, dict[str, Any]]) -> Times:
        """Share out what measuring left of the time; what was decided before an interruption stays."""
        path = self.folder / "times.json"
        if path.is_file():
            return Times(**json.loads(path.read_text(encoding="utf-8")))
        possible = choices(self.prepared, self.most_rounds)
        costs = [self._cost(one) for one in measured.values()]
        times = (
            Times(possible[0], min(HALVES, possible[0]), 0.0, 0.0)
            if self.epochs
            else share_out(self.seconds, costs, possible, self._elapsed())
        )
        write_json(path, asdict(times))
        each = f"{self.epochs} epochs" if self.epochs else clock(times.training)
        self.say(
            f"{times.rounds} rounds of {len(measured)} networks, {each} a training"
            + (f"; {times.said}" if times.said else "")
        )
        return times

    def _cost(self, measured: Mapping[str, Any]) -> Cost:
        """Foretell what a training costs beside its steps: starting, a first head, and answering the test images."""
        total = len(self.prepared.manifest.rows())
        answers = SCORED * measured["image"] * (total - measured["images"])
        beside = measured["seconds"] + measured["head"] + answers
        return Cost(SLACK * beside, measured["image"] * measured["images"])

    def _search(self, name: str, times: Times, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the learning rate by validation score from three, on the first round's training images."""
        usual = next(one for one in self.contestants if one.name == name).recipe.training.lr
        if not times.search:
            return {"lr": usual, "tried": {}}
        manifest = self.folder / "rounds" / "01.csv"
        tried: dict[str, float] = {}
        for factor in FACTORS:
            lr = float(f"{usual * factor:.2g}")
            seconds = times.search - self._overhead(name, measured)
            done = self._job(name, f"search-{lr:g}", "search", manifest, seconds, lr=lr)
            if "failed" not in done and done["score"] is not None:
                tried[f"{lr:g}"] = done["score"]
        usual_first = sorted(tried, key=lambda lr: lr != f"{usual:g}")  # of equal ones the recipe's
        best = max(usual_first, key=tried.__getitem__) if tried else f"{usual:g}"
        self.failed.pop(name, None)  # a rate at which it diverges is no crash of the network
        self.say(f"{name}: learning rate {best} of {', '.join(tried) or 'none that trained'}")
        return {"lr": float(best), "tried": tried}

    def _train(self, times: Times, rates: Mapping[str, Any], measured: Mapping[str, dict[str, Any]]) -> None:
        """Train all contestants round by round, so that a machine whose speed drifts is fair to all."""
        plan = list(_order(times, list(rates)))
        total = len(plan)
        for done, (kind, number, name) in enumerate(plan, 1):
            if name in self.failed:
                continue
            seconds = self._left(times, plan[done - 1 :]).of(kind, self._overhead(name, measured[name]))
            manifest = self.folder / "rounds" / f"{number:02d}{'-half' if kind == 'half' else ''}.csv"
            label = f"{kind}-{number:02d}"
            lr, keep = rates[name]["lr"], kind == "round" and number == 1
            found = self._job(name, label, "train", manifest, seconds, lr=lr, keep=keep, seed=number)
            if "failed" in found:
                continue
            self._learn_overhead(name, found)
            mean = self._answers(name, label)[1].mean()
            self.say(
                f"[{done}/{total}] {name} {label}: {100 * mean:.1f} %, {found['epochs']:g} epochs in "
                f"{clock(found['seconds'])}"
            )

    def _left(self, times: Times, plan: Sequence[tuple[str, int, str]]) -> Times:
        """Return the times with a shorter training where those so far took longer than planned."""
        if self.resumed or self.epochs:
            return times
        weights = sum(0.5 if kind == "half" else 1.0 for kind, _, name in plan if name not in self.failed)
        left = (self.seconds - self._elapsed()) / weights
        return replace(times, training=min(times.training, left))

    def _overhead(self, name: str, measured: Mapping[str, Any]) -> float:
        """Return the seconds of a training that are no training: as the last one had, else as foretold."""
        return self.overheads.get(name, self._cost(measured).overhead)

    def _learn_overhead(self, name: str, found: Mapping[str, Any]) -> None:
        self.overheads[name] = found["seconds"] - found["trained_seconds"]

    def _job(
        self,
        name: str,
        label: str,
        kind: KINDS,
        manifest: Path,
        seconds: float,
        *,
        lr: float | None = None,
        keep: bool = False,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Do one job in a process of its own, unless it was done before; a failure is written down and said."""
        folder = self.folder / "trainings" / name / label
        root, looked = str(self.prepared.manifest.root), self.prepared.looked
        recipe = str(self._recipe(name))
        job = Job(
            kind, str(folder), recipe, str(manifest), root, seconds, self.seed + seed, lr, looked, keep, self.epochs
        )  # fmt: skip
        found = done_before(folder) or run_job(job)
        if "failed" in found:
            self.failed[name] = found["failed"]
            self.say(f"{name} failed: {found['failed']}")
        return found

    def model(self, name: str) -> Path:
        """Return the run of a contestant's first round, which is kept."""
        return self.folder / "trainings" / name / "round-01" / "run"

    def _outcome(
        self,
        times: Times,
        drawn: Rounds,
        rates: Mapping[str, Any],
        measured: Mapping[str, dict[str, Any]],
    ) -> Outcome:
        tested = tested_of(drawn, self.prepared)
        sides = [
            self._side(one, times, drawn, tested, {**measured.get(one.name, {}), **rates.get(one.name, {})})
            for one in self.contestants
        ]
        return Outcome(times, drawn, tested, sides, self._name())

    def _side(
        self, one: Contestant, times: Times, drawn: Rounds, tested: SharedImages, facts: dict[str, Any]
    ) -> Side:
        if one.name in self.failed:
            return Side(one.name, None, facts, self.failed[one.name])
        labels = [f"round-{number:02d}" for number in range(1, times.rounds + 1)]
        results = [read_result(self.folder / "trainings" / one.name / label) for label in labels]
        answers = [dict(zip(*self._answers(one.name, label), strict=True)) for label in labels]
        if drawn.folds:
            every = {id: score for part in answers for id, score in part.items()}
            scores = matched(tested.ids, every, one.name)[None]
        else:
            scores = np.stack([matched(tested.ids, part, one.name) for part in answers])
        halves = [self._half(one.name, number) for number in range(1, times.halves + 1)]
        return Side(one.name, scores, {**facts, "results": results, "halves": halves})

    def _half(self, name: str, number: int) -> dict[str, float]:
        """Return the mean score of a round's test images after training on half of its images, and on all of them."""
        half, whole = (self._answers(name, f"{kind}-{number:02d}")[1] for kind in ("half", "round"))
        return {"half": float(half.mean()), "whole": float(whole.mean())}

    def _answers(self, name: str, label: str) -> tuple[list[str], np.ndarray]:
        with np.load(self.folder / "trainings" / name / label / "answers.npz", allow_pickle=False) as file:
            return file["ids"].tolist(), np.asarray(file["scores"], dtype=np.float64)

    def _name(self) -> str:
        """Return what the compared number of an image is called."""
        done = (self.folder / "trainings").glob("*/round-*/result.json")
        return next((found["score"] for found in map(result_of_file, done) if "score" in found), "accuracy")

    def _manifest(self, label: str, manifest: Manifest) -> Path:
        path = self.folder / "rounds" / f"{label}.csv"
        make_folder(path.parent)
        return manifest.write(path) if not path.is_file() else path

    def _drawn(self, times: Times) -> Rounds:
        """Draw the rounds and write them down; those of a comparison that goes on are read."""
        folder = self.folder / "rounds"
        if (folder / f"{times.rounds:02d}.csv").is_file():
            root, numbers = self.prepared.manifest.root, range(1, times.rounds + 1)
            read = tuple(Manifest.read(folder / f"{number:02d}.csv", root) for number in numbers)
            return Rounds(not is_given(self.prepared), read)
        drawn = rounds(self.prepared, times.rounds, self.seed)
        for number, manifest in enumerate(drawn.manifests, 1):
            if number <= times.halves:
                half = halved(manifest, self.prepared.targets, self.seed + number)
                self._manifest(f"{number:02d}-half", half)
            self._manifest(f"{number:02d}", manifest)
        return drawn

    def _recipe(self, name: str) -> Path:
        make_folder(self.folder / "recipes")
        return self.folder / "recipes" / f"{name}.yaml"

    def _elapsed(self) -> float:
        return time.monotonic() - self.began


@dataclass(frozen=True)
class Outcome:
    """Everything that a duel found, before it is laid out."""

    times: Times
    drawn: Rounds
    tested: SharedImages
    sides: Sequence[Side]
    score: str


def _order(times: Times, names: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Yield the trainings: round by round, the contestants in turn, each round from another one on."""
    for number in range(1, times.rounds + 1):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            yield "round", number, name
            if number <= times.halves:
                yield "half", number, name
