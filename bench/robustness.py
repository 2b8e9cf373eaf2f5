"""A ViT and a CNN trained alike on CIFAR-10, under corruptions, missing and shuffled patches, FGSM and PGD.

`python -m bench.robustness [--minutes 15] [--images 300] [--out FOLDER] [--figure PATH]`. Wants ../shared beside the
repository. Alike: equal minutes, one recipe (`scratch_small`: the same augmentation, regularisation and schedule), 32
px, one split, one seed. Without equal augmentation such a comparison measures recipes (Bai et al. 2021,
arXiv:2111.05464). Runs that are finished are not trained again. It prints what may be said of both, the numbers as
tables, and draws them over strength.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.pairs import machine
from vitrail.evaluate.new_data import own_tests
from vitrail.infer.predictor import Predictor
from vitrail.metrics.paired_difference import REGION
from vitrail.models.factory import count_params
from vitrail.robustness.measurement import FGSM, SALIENT
from vitrail.robustness.options import RobustnessOptions
from vitrail.runs.run import Run, open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.compare.robustness import Robustness, compared
from vitrail.tasks.result import Curve, Number, Table
from vitrail.training.fit import train

CIFAR = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10-10k.zip"
MODELS = {"ViT": "vit_digits", "CNN": "resnet10t"}
DASHED = (SALIENT, FGSM)
EPSILONS = "0.25,0.5,1,2,4,8"


def trained(model: str, minutes: float, folder: Path) -> Run:
    """Train one of the two, or open it if it is finished."""
    if (folder / "report.json").is_file():
        return open_run(folder)
    options = TrainOptions(
        model=model, weights="none", imgsz="32", time=f"{60 * minutes:.0f}s", seed=0, out=str(folder),
        recipe="scratch_small",
    )  # fmt: skip
    return train(str(CIFAR), options)


def cell(one: object) -> str:
    return f"{one.text()} ({one.span()})" if isinstance(one, Number) else str(one)


def markdown(table: Table) -> str:
    rows = [[column.name for column in table.columns], ["---"] * len(table.columns)]
    rows += [[cell(one) for one in row] for row in table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def figure(found: Robustness, path: Path) -> None:
    """Draw the four curves: accuracy over strength, a colour a model, a stroke a kind; bands are 95 % intervals."""
    from matplotlib.figure import Figure

    from vitrail.plots.colours import SERIES

    curves = [one for one in found.result.sections if isinstance(one, Curve)]
    drawn = Figure(figsize=(10, 7), layout="constrained")
    for axes, curve in zip(drawn.subplots(2, 2).flat, curves, strict=True):
        for name, points in curve.series.items():
            model, _, kind = name.partition(", ")
            colour = SERIES[list(MODELS).index(model)]
            xs, ys = zip(*points, strict=True)
            low, high = zip(*curve.bands[name], strict=True)
            stroke = "--" if kind in DASHED else "-"
            axes.plot(xs, ys, stroke, color=colour, marker="o", markersize=3, linewidth=2, label=name)
            axes.fill_between(xs, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.set(xlabel=curve.x, ylabel=curve.y, ylim=(0, None), title=curve.heading)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    drawn.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-robustness"))
    parser.add_argument("--figure", type=Path, default=Path("robustness.png"))
    options = parser.parse_args()
    if not CIFAR.exists():
        print("skipped: ../shared/data is not here")
        return
    print(machine())
    folder = options.out / f"{options.minutes:g}-minutes"
    runs = {name: trained(model, options.minutes, folder / model) for name, model in MODELS.items()}
    predictors = {name: Predictor(run) for name, run in runs.items()}
    for name, run in runs.items():
        steps = [event for event in run.effective_history() if event["event"] == "step"]
        size = count_params(predictors[name].network)
        print(f"{name}: {MODELS[name]}, {size:,} parameters, {steps[-1]['epoch']:.1f} epochs", flush=True)
    wanted = RobustnessOptions(
        robustness=True, sample=options.images, attacked=options.images, epsilons=EPSILONS
    )
    found = compared(predictors, own_tests(runs["ViT"]).scored, wanted, REGION, print)
    print("\n".join(["", found.result.verdict, "", *(f"- {line}" for line in found.sentences)]))
    for table in found.result.tables:
        print(f"\n{markdown(table)}")
    figure(found, options.figure)
    print(f"\nfigure: {options.figure}")


if __name__ == "__main__":
    main()
