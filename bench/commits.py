"""A training step and a prediction of two commits, in turn on one machine: a change of the house is to cost nothing.

`python -m bench.commits OLD NEW [--rounds 12]`. Both commits are checked out into temporary worktrees; each works in a
process of its own (`bench/commits_side.py`) and waits while the other does. OLD trains the model that both open, one
epoch of digits at 224 px. A step is the one of that commit's own `bench/train_step.py`; predictions go through
`vitrail.load`, files to answers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench.golden import commit_of, environment, worktree
from bench.golden_data import make_data
from bench.pairs import in_turn, machine, ratio

MODEL = "vit_ti16"
TRAIN = f"train data/digits --model {MODEL} --weights none --epochs 1 --batch 32 --seed 3 --device cpu --imgsz 224"
THINGS = {
    "step, float32": f"a step of 32 images, {MODEL}, 224 px, eager",
    "step, bf16": f"a step of 32 images, {MODEL}, 224 px, eager, in bf16",
    "predict": f"240 files to answers, {MODEL}, 224 px, float32",
    "predict one": "one file to its answer, twenty times",
}


class Worker:
    """A process of one commit that does one thing whenever it is told to."""

    def __init__(self, tree: Path, folder: Path) -> None:
        script = str(Path(__file__).with_name("commits_side.py"))
        self.process = subprocess.Popen(
            [sys.executable, "-P", script, MODEL, "run", "data/digits"], cwd=folder, env=environment(tree, folder),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def do(self, thing: str) -> None:
        """Do one thing and wait until it is done."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(thing + "\n")
        self.process.stdin.flush()
        if self.process.stdout.readline().strip() != thing:
            sys.exit(f"A side could not do: {thing}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(trees: dict[str, Path], folder: Path, rounds: int) -> list[str]:
    """Return a Markdown row for each thing."""
    make_data(folder / "data")
    train = [sys.executable, "-P", "-m", "vitrail", *TRAIN.split(), "--out", "run"]
    subprocess.run(
        train, cwd=folder, env=environment(trees["old"], folder), check=True, stdout=subprocess.DEVNULL
    )
    rows = ["| what | old s | new s | new is faster by |", "|---|---|---|---|"]
    with ExitStack() as stack:
        sides = {name: Worker(tree, folder) for name, tree in trees.items()}
        for side in sides.values():
            stack.callback(side.close)
        for thing, what in THINGS.items():
            times = in_turn(
                {name: lambda side=side, thing=thing: side.do(thing) for name, side in sides.items()}, rounds
            )
            old, new = times["old"], times["new"]
            rows.append(f"| {what} | {median(old):.3f} | {median(new):.3f} | {ratio(new, old)} |")
    return rows


@contextmanager
def checked_out(old: str, new: str) -> Iterator[tuple[dict[str, Path], Path]]:
    """Check two commits out; yield their trees, `old` and `new`, and a temporary folder."""
    repository = Path(__file__).resolve().parents[1]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        trees = {}
        for name, given in (("old", old), ("new", new)):
            commit = commit_of(repository, given)
            print(f"{name}: {commit[:12]}")
            trees[name] = stack.enter_context(worktree(repository, commit, folder / name))
        yield trees, folder


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.commits")
    words.add_argument("old")
    words.add_argument("new")
    words.add_argument("--rounds", type=int, default=12)
    asked = words.parse_args()
    print(machine())
    with checked_out(asked.old, asked.new) as (trees, folder):
        print("\n".join(measure(trees, folder, asked.rounds)))


if __name__ == "__main__":
    main()
