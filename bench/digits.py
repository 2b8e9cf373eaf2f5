"""The digits' vision transformer, from scratch by its recipe, over three seeds: share right on its test split."""

from __future__ import annotations

import json
import tempfile
import time

from bench.pairs import machine
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train


def main() -> None:
    print(machine())
    print("| seed | right on the test split | 95 % interval | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(3):
            began = time.perf_counter()
            run = train("digits", TrainOptions(seed=seed, out=f"{folder}/{seed}"))
            found = json.loads(run.report_path.read_text())["test"]["accuracy"]
            took = time.perf_counter() - began
            print(
                f"| {seed} | {found['value']:.1%} | {found['low']:.1%} to {found['high']:.1%} | {took:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
