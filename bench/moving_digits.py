"""Moving digits: a class is a direction of motion, so no single frame tells it. Who learns it?

`python -m bench.moving_digits [--epochs 20] [--seeds 0] [--only NAME …] [--json FILE]` trains on the built-in set
`moving_digits` for equally many epochs, and prints the accuracy on clips of digits that training never saw, with its
interval, and the seconds:

- TimeSformer with divided, joint and space-only attention (the last sees no order);
- a ViT with the same patches over frames, joined by their mean (the baseline: it sees no order) and by attention over
  their times.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.pairs import machine
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

NETWORKS = {
    "timesformer": TrainOptions(model="timesformer_digits"),
    "joint": TrainOptions(model="timesformer_digits", network="attention=joint"),
    "space": TrainOptions(model="timesformer_digits", network="attention=space"),
    "frames_mean": TrainOptions(model="vit_digits", network="patch=8"),
    "frames_attention": TrainOptions(model="vit_digits", network="patch=8", over_time="attention"),
}


def measured(name: str, epochs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train one network and return its scores on the test clips."""
    options = replace(
        NETWORKS[name],
        epochs=epochs,
        weights="none",
        workers=0,
        seed=seed,
        out=str(folder / f"{name}-{seed}"),
    )
    return {"network": name, "seed": seed, "epochs": epochs, **_scores(train("moving_digits", options))}


def _scores(run: Run) -> dict[str, Any]:
    report = json.loads(run.report_path.read_text(encoding="utf-8"))
    return {"test": report["test"], "seconds": report["seconds"], "parameters": report["parameters"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=Path("runs/moving_digits"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = [measured(name, given.epochs, seed, given.out) for seed in given.seeds for name in given.only]
    for one in found:
        print(json.dumps(one))
    print(machine())
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "runs": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
