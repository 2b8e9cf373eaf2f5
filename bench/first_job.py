"""The first job of a model, with an empty cache: a folder to a CSV by the whole command, two commits in turn.

`python -m bench.first_job OLD NEW [--images 30 300 1000] [--rounds 3]`. Both commits are checked out into temporary
worktrees. ViT-S/16 at 224 px with a head that tells photographs apart. It prints the seconds until the table is
written, and with which backend.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from bench import toy
from bench.commits import checked_out
from bench.golden import environment
from bench.pairs import in_turn, machine, ratio


def job(tree: Path, folder: Path, model: Path, photos: Path, told: list[str]) -> None:
    """Predict the photographs with an empty cache and note what the command says of the backend."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        words = [
            sys.executable,
            "-P",
            "-m",
            "vitrail",
            "predict",
            str(model),
            str(photos),
            "--csv",
            f"{cache}/out.csv",
        ]
        where = {**environment(tree, folder), "VITRAIL_CACHE": cache}
        done = subprocess.run(words, cwd=folder, env=where, check=True, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("Answered in")]
    told.append(lines[0].partition(":")[0].removeprefix("Answered in ") if lines else "float32")


def measure(trees: dict[str, Path], folder: Path, counts: list[int], rounds: int) -> list[str]:
    """Return a Markdown row for each number of photographs."""
    model = toy.model(folder, "vit_s16")
    rows = ["| photographs | old s | with | new s | with | new is faster by |", "|---|---|---|---|---|---|"]
    for count in counts:
        photos = toy.photographs(folder / f"photos{count}", count)
        told: dict[str, list[str]] = {name: [] for name in trees}
        times = in_turn(
            {name: partial(job, tree, folder, model, photos, told[name]) for name, tree in trees.items()},
            rounds,
            0,
        )
        old, new = times["old"], times["new"]
        ways = {name: ", ".join(dict.fromkeys(lines)) for name, lines in told.items()}
        rows.append(
            f"| {count:,} | {median(old):.1f} | {ways['old']} | {median(new):.1f} | {ways['new']} | {ratio(new, old)} |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--images", type=int, nargs="+", default=[30, 300, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine())
    with checked_out(given.old, given.new) as (trees, folder):
        print("\n".join(measure(trees, folder, given.images, given.rounds)))


if __name__ == "__main__":
    main()
