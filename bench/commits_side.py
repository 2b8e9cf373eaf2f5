"""One side of `bench/commits.py`: does what it is told, by the code on its path; both commits' Python API fits.

`commits_side.py MODEL RUN FOLDER` reads the name of a thing from each line of standard input and repeats it when done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import vitrail
from bench.train_step import ours
from vitrail.infer.inputs import expand


def main() -> None:
    model, run, folder = sys.argv[1:]
    predictor = vitrail.load(run, device="cpu")
    sources = list(expand([folder]))
    things: dict[str, Callable[[], object]] = {
        "step, float32": ours(model, 32, "cpu", "float32", False),
        "step, bf16": ours(model, 32, "cpu", "bf16", False),
        "predict": lambda: list(predictor.answers(sources)),
        "predict one": lambda: [list(predictor.answers([source])) for source in sources[:20]],
    }
    for line in sys.stdin:
        things[line.strip()]()
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main()
