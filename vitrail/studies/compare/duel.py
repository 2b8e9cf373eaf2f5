"""Runs a duel: measures, shares the time out, trains every contestant in every round, and compares the answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.core.config import to_yaml
from vitrail.core.errors import RunError, UsageError
from vitrail.core.files import make_folder, write_json, write_text
from vitrail.core.text import clock, command
from vitrail.data.manifest import TEST, Manifest, group_key
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
    rounds,
    share_out,
)
from vitrail.studies.compare.outcome import RIGHT, SharedImages, Side, matched
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
        drawn = rounds(self.prepared, times.rounds, self.seed)
        self._write_manifests(drawn, times)
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
            else share_out(self.seconds - self._elapsed(), costs, possible)
        )
        write_json(path, asdict(times))
        each = f"{self.epochs} epochs" if self.epochs else clock(times.training)
        self.say(
            f"{times.rounds} rounds of {len(measured)} networks, {each} a training"
            + (f"; {times.said}" if times.said else "")
        )
        return times

    def _cost(self, measured: Mapping[str, Any]) -> Cost:
        """Foretell what a training costs beside its steps: the start of the process, and answering the test images."""
        total = len(self.prepared.manifest.rows())
        answers = SCORED * measured["image"] * (total - measured["images"])
        return Cost(SLACK * (measured["seconds"] + answers), measured["image"] * measured["images"])

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
        best = max(tried, key=tried.__getitem__) if tried else f"{usual:g}"
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
            whole = times.half if kind == "half" else times.training
            seconds = whole - self._overhead(name, measured[name])
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
        job = Job(kind, str(folder), recipe, str(manifest), root, seconds, self.seed + seed, lr, looked, keep)
        found = _done(folder) or _run(job)
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
        results = [_read(self.folder / "trainings" / one.name / label) for label in labels]
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
            return file["ids"].tolist(), np.asarray(file[self._name(list(file))], dtype=np.float64)

    def _name(self, names: Sequence[str] = ()) -> str:
        """Return which number of each image is compared: whether it is answered correctly, else the task's main one."""
        if not names:
            first = next((self.folder / "trainings").glob("*/round-01/answers.npz"), None)
            if first is None:
                return RIGHT
            with np.load(first, allow_pickle=False) as file:
                names = list(file)
        return RIGHT if RIGHT in names else next(name for name in names if name != "ids")

    def _manifest(self, label: str, manifest: Manifest) -> Path:
        path = self.folder / "rounds" / f"{label}.csv"
        make_folder(path.parent)
        return manifest.write(path) if not path.is_file() else path

    def _write_manifests(self, drawn: Rounds, times: Times) -> None:
        for number, manifest in enumerate(drawn.manifests, 1):
            self._manifest(f"{number:02d}", manifest)
            if number <= times.halves:
                self._manifest(
                    f"{number:02d}-half", halved(manifest, self.prepared.targets, self.seed + number)
                )

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


def tested_of(drawn: Rounds, prepared: Prepared) -> SharedImages:
    """Return the images that the rounds test, each once."""
    rows = [
        (number if drawn.folds else -1, row)
        for number, manifest in enumerate(drawn.manifests if drawn.folds else drawn.manifests[:1])
        for row in manifest.rows(TEST)
    ]
    return SharedImages(
        tuple(row.id for _, row in rows),
        tuple(prepared.targets.strata(row) for _, row in rows),
        tuple(group_key(row) for _, row in rows),
        np.array([number for number, _ in rows]),
        drawn.trained,
    )


def _done(folder: Path) -> dict[str, Any] | None:
    """Return what a job found before; nothing where it was not finished, or failed."""
    if not (folder / "result.json").is_file():
        return None
    found = _read(folder)
    return None if "failed" in found else found


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def _run(job: Job) -> dict[str, Any]:
    """Run a job to its end in a process that Ctrl-C does not reach by itself; a signal that ends it is its failure."""
    folder, path = Path(job.folder), job.write()
    (folder / "result.json").unlink(missing_ok=True)
    words = [sys.executable, "-m", "vitrail.studies.compare.worker", str(path)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if (folder / "result.json").is_file():
        return _read(folder)
    if code < 0:
        memory = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
        return {"failed": f"its process was ended by {signal.Signals(-code).name}{memory}"}
    return {"failed": f"its process ended with exit code {code}; see {folder / 'log.txt'}"}


def new_folder(wanted: Path) -> Path:
    """Make the folder of a duel: as wanted, or with -2, -3 … where that exists already."""
    for number in range(1, 10_000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        if not folder.exists():
            make_folder(folder)
            return folder
    raise UsageError(f"There are too many folders called {wanted}. Choose another name with --out.")


def go_on(folder: Path) -> str:
    """Return the command that continues an interrupted duel."""
    return command("compare", "--resume", folder)
