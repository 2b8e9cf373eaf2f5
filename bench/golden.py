"""Golden numbers: two commits train, predict and explain the same things on one machine, and all is compared.

`python -m bench.golden OLD NEW [--runs vit cnn …] [--keep DIR]` checks both commits out into temporary worktrees of
this repository and runs them side by side with this interpreter's environment, each by its command line and its public
Python API (`bench/golden_side.py`). Weights, average, optimiser state, logits in eager float32 and heat maps must be
equal to the bit; scores, reports and predictions to 1e-12. The exit code is 1 where anything differs that ALLOWED does
not name. Hashes are facts of one machine: nothing is stored.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.golden_compare import (
    Difference,
    Renames,
    Things,
    collected,
    differences,
    failures,
    how,
    translated,
)
from bench.golden_data import make_data

RENAMES: Renames = {
    "parameters": {},  # prefixes of parameters: {"encoder.blocks.": "backbone.blocks."}
    "groups": {},  # parts of the saved state: {"average": "ema"}
    "keys": {},  # of report.json, history.jsonl, eval --json, predictions, headers: {"test.map": "test.mean_ap"}
    "columns": {"label": "target"},  # of manifest.csv and doubts.csv
    "options": {},  # of the command line, as the runs below write them: {"--imgsz": "--image-size"}
    "tasks": {
        "classify_multi": "multilabel",
        "elastic_multi": "elastic_multilabel",
    },  # in reports and headers
}
"""OLD's name → NEW's, for what is only called otherwise; a name that NEW still knows is left as it is."""

ALLOWED: Mapping[tuple[str, str], str] = {
    (
        "unlabelled",
        "*",
    ): "a row without a label is kept out of a set of classes, which it made one of several labels",
    ("*", "header/task.truth*"): "new: the header of the truths",
    ("*", "*/verdict"): "a sentence: its words changed, its numbers stand beside it",
    ("*", "*/reproduce"): "a sentence: the word that stands for the images",
    ("*", "*.why"): "a sentence: why there is no number",
    ("*", "*/notes*"): "sentences",
    ("draft", "*/full_seconds*"): "a time",
    ("*", "header/preprocess.interpolation"): "new: said where it went without saying",
    ("*", "header/preprocess.scale"): "new: said where it went without saying",
    ("*", "history/*parts*"): "new: a loss of several parts is logged part by part",
    ("*", "header/task.abstention*"): "new: none of these, and label sets",
    ("*", "header/proof.10"): "new: the novelty score is part of the proof",
    ("*", "weights/reader.*"): "new: the Gaussians of the novelty score",
    ("*", "logits/novelty"): "new: the novelty score itself",
    ("*", "*/abstention*"): "new: what is noticed, and what label sets promise",
    ("*", "predictions/*none_of_these"): "new: whether an image is of none of the classes",
    ("*", "predictions/*unlike"): "new: the number for it",
    ("*", "*kappa*"): "new: Cohen's kappa",
    ("*", "*balanced_accuracy*"): "new in segmentation: the mean over classes",
    ("*", "*/passport*"): "new: everything a rerun needs",
    ("*", "manifest/*part"): "new: the part of a file that holds several samples",
    (
        "elastic",
        "header/task.settings*",
    ): "a wrapper holds the settings of the task that it wraps in one place",
}
"""(run, kind/name) → why it may differ, both as shell patterns: {("unlabelled", "report/task"): "unlabelled rows"}."""

GROUPS = ("network", "average", "optimiser")
"""The parts of a saved state."""

PINNED = "--epochs 2 --batch 16 --micro 8 --precision float32 --no-compile --workers 0"
DEVICE = "--seed 3 --device cpu"
TINY = "--network patch=8,width=48,depth=2,heads=3 --imgsz 32"
OWN = "--weights runs/vit/model.safetensors --imgsz 32"

STOP_AT = 11
"""The step of twenty after which the run that is resumed is stopped: within its second epoch."""

SHOWN = 5
"""Differences that are printed of one row of the table; the others are counted."""


@dataclass(frozen=True)
class Trained:
    """One training: its data, its options, what it needs before it, and what is asked of its model."""

    data: str
    options: str
    needs: str = ""
    maps: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    state: bool = True  # a draft is made in one go and keeps none

    @property
    def kinds(self) -> list[str]:
        """What must be there to be compared."""
        kinds = ["weights", "header", "parameters"]
        kinds += [*GROUPS, "history"] if self.state else ["doubts"]
        kinds += ["manifest", "report", "eval", "predictions", "logits"]
        return kinds + [f"logits {one}" for one in self.points] + [f"map {one}" for one in self.maps]


RUNS: Mapping[str, Trained] = {
    "vit": Trained("digits", f"--model vit_digits --weights none {PINNED}", maps=("rollout", "relevance")),
    "cnn": Trained("digits", f"--model resnet10t --weights none {PINNED}", maps=("gradcam",)),
    "labels": Trained("pairs/labels.csv", f"--model vit_digits --weights none {PINNED}", maps=("rollout",)),
    "distilled": Trained(
        "digits",
        f"--model deit_ti16_distilled {TINY} --weights none --teacher runs/vit {PINNED}",
        needs="vit",
        maps=("rollout",),
    ),
    "elastic": Trained(
        "digits",
        f"--model supervit_digits --weights none {PINNED}",
        maps=("rollout",),
        points=("20px/0.5",),
    ),
    "resume": Trained("digits", f"--model vit_digits --weights none {PINNED}", needs="vit"),
    "draft": Trained("digits", OWN, needs="vit", maps=("rollout",), state=False),
    "tune": Trained("digits", f"{OWN} --tune full {PINNED}", needs="vit"),
    "unlabelled": Trained("unlabelled.csv", f"--model vit_digits --weights none {PINNED}"),
}


class Side(NamedTuple):
    """One commit at work: what the table calls it, its tree, and its folder of runs and answers."""

    name: str
    tree: Path
    folder: Path

    def run(self, names: list[str], threads: int) -> None:
        """Train, score and ask everything, in a process that takes this commit's code."""
        for part in ("runs", "eval", "probe", "logs"):
            (self.folder / part).mkdir(parents=True)
        plan = {"name": self.name, "tree": str(self.tree), "options": RENAMES["options"]}
        plan["runs"] = {name: self._asked(name) for name in names}
        (self.folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        script = str(Path(__file__).with_name("golden_side.py"))
        command = [sys.executable, "-P", script, "plan.json"]
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        subprocess.run(
            command, cwd=self.folder, env={**environment(self.tree, self.folder), **counts}, check=False
        )

    def _asked(self, name: str) -> dict[str, Any]:
        run, out = RUNS[name], f"runs/{name}"
        return {
            "run": out,
            "train": f"train ../data/{run.data} {run.options} {DEVICE} --out {out}".split(),
            "resume": f"train --resume {out}".split(),
            "stop": STOP_AT if name == "resume" else None,
            "eval": f"eval {out} --device cpu --json".split(),
            "scores": f"eval/{name}.json",
            "log": f"logs/{name}.txt",
            "pictures": _pictures(name),
            "maps": run.maps,
            "points": run.points,
        }


def environment(tree: Path, folder: Path) -> dict[str, str]:
    """Return the environment of a process that takes a tree's code and keeps its cache in a folder."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("VITRAIL_")},
        "PYTHONPATH": str(tree),
        "VITRAIL_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _pictures(name: str) -> list[str]:
    """Return some images of a run's data, as both sides name them."""
    if name == "labels":
        return [f"../data/pairs/pictures/{number}.png" for number in range(0, 120, 20)]
    few = (0, 11, 22, 3, 14, 25)
    return [f"../data/digits/{int(str(number)[-1])}/{number:04}.png" for number in few]


class Row(NamedTuple):
    """One line of the table: a kind of things of one run, and what differs."""

    run: str
    kind: str
    count: int
    how: str
    wrong: list[Difference]
    allowed: list[tuple[Difference, str]]

    def verdict(self) -> str:
        """Say equal, or how much differs and by how much at most."""
        if not self.wrong and not self.allowed:
            return "equal"
        parts = []
        if self.wrong:
            apart = max((one.apart for one in self.wrong if one.apart is not None), default=None)
            largest = "" if apart is None else f", largest difference {apart:.3g}"
            parts.append(f"{len(self.wrong)} DIFFERENT{largest}")
        if self.allowed:
            parts.append(f"{len(self.allowed)} differ as allowed")
        return "; ".join(parts)


def compared(name: str, old: Side, new: Side) -> Iterator[Row]:
    """Yield the rows of one run: what a side could not do, then what both hold."""
    found = {side.name: failures(side.folder, name) for side in (old, new)}
    for side, errors in found.items():
        if errors:
            told = [Difference(what, "asked", error) for what, error in errors.items()]
            yield Row(name, f"{side} failed", len(told), "", told, [])
    if any("command" in errors for errors in found.values()):
        return
    before, after = (collected(side.folder, name) for side in (old, new))
    called = {kind: kind if kind in after else RENAMES["groups"].get(kind, kind) for kind in before}
    before = {called[kind]: things for kind, things in before.items()}
    kinds = [called.get(kind, kind) for kind in RUNS[name].kinds]
    for kind in dict.fromkeys([*kinds, *before, *after]):
        yield _row(name, kind, before.get(kind, {}), after.get(kind, {}))
    if name == "resume":
        yield from _resumed(old.name, before, collected(old.folder, "vit"))
        yield from _resumed(new.name, after, collected(new.folder, "vit"))


def _resumed(side: str, stopped: dict[str, Things], whole: dict[str, Things]) -> Iterator[Row]:
    """Yield the rows that say whether a run that was stopped ends as the one that was not."""
    stopped, whole = (
        {RENAMES["groups"].get(kind, kind): things for kind, things in one.items()}
        for one in (stopped, whole)
    )
    for kind in ("weights", *(RENAMES["groups"].get(group, group) for group in GROUPS)):
        wrong = differences(whole.get(kind, {}), stopped.get(kind, {}))
        yield Row("resume", f"{kind} = vit's, {side}", len(whole.get(kind, {})), "to the bit", wrong, [])


def _row(run: str, kind: str, old: Things, new: Things) -> Row:
    found = differences(translated(kind, old, new, RENAMES), new)
    if not old and not new:
        found = [Difference(kind, "not there", "not there")]
    wrong, allowed = [], []
    for one in found:
        reasons = [
            why
            for (some_run, key), why in ALLOWED.items()
            if fnmatchcase(run, some_run) and fnmatchcase(f"{kind}/{one.name}", key)
        ]
        if reasons:
            allowed.append((one, reasons[0]))
        else:
            wrong.append(one)
    return Row(run, kind, max(len(old), len(new)), how(kind, new or old), wrong, allowed)


def show(rows: list[Row]) -> bool:
    """Print the table and every difference; tell whether all is equal or allowed."""
    print("| run | what | things | compared | |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.run} | {row.kind} | {row.count} | {row.how} | {row.verdict()} |")
    for row in rows:
        for one, why in row.allowed:
            print(f"allowed    {row.run}, {row.kind}/{one} – {why}")
    for row in rows:
        for one in row.wrong[:SHOWN]:
            print(f"DIFFERENT  {row.run}, {row.kind}/{one}")
        if len(row.wrong) > SHOWN:
            print(f"DIFFERENT  {row.run}, {row.kind}: {len(row.wrong) - SHOWN} more")
    return not any(row.wrong for row in rows)


@contextmanager
def worktree(repository: Path, commit: str, tree: Path) -> Iterator[Path]:
    """Check a commit out into a folder, and take the folder away again."""
    git = ["git", "-C", str(repository), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=False)


def commit_of(repository: Path, name: str) -> str:
    """Return the hash of a commit, or leave with a message where there is none."""
    words = ["git", "-C", str(repository), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    found = subprocess.run(words, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"There is no commit {name!r} in {repository}.")
    return found.stdout.strip()


def _with_needs(wanted: list[str]) -> list[str]:
    needed = {*wanted, *(RUNS[name].needs for name in wanted)}
    return [name for name in RUNS if name in needed]


def measure(commits: tuple[str, str], names: list[str], place: Path, threads: int) -> list[Row]:
    """Run both commits side by side and return the rows of the table."""
    repository = Path(__file__).resolve().parents[1]
    make_data(place / "data")
    with (
        tempfile.TemporaryDirectory() as trees,
        worktree(repository, commits[0], Path(trees).resolve() / "old") as first,
        worktree(repository, commits[1], Path(trees).resolve() / "new") as second,
    ):
        old = Side("old", first, place / "old")
        new = Side("new", second, place / "new")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda side: side.run(names, threads), (old, new)))
    return [row for name in names for row in compared(name, old, new)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument(
        "--keep", type=Path, help="keep data, runs and answers of both sides in this new folder"
    )
    parser.add_argument("--threads", type=int, default=1, help="of every process")
    asked = parser.parse_args()
    repository = Path(__file__).resolve().parents[1]
    commits = (commit_of(repository, asked.old), commit_of(repository, asked.new))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        place = (asked.keep or Path(temporary) / "golden").resolve()
        if place.exists() and any(place.iterdir()):
            sys.exit(f"{place} is not empty. Name another folder for --keep.")
        print(
            f"{asked.old} {commits[0][:12]} (old), {asked.new} {commits[1][:12]} (new); torch {torch.__version__}, "
            f"Python {platform.python_version()}, {torch.backends.cpu.get_cpu_capability()}, "
            f"{asked.threads} thread(s)\n"
        )
        rows = measure(commits, _with_needs(asked.runs), place, asked.threads)
        equal = show(rows)
    print(f"\n{'equal' if equal else 'DIFFERENT'}, {time.monotonic() - began:.0f} s")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
