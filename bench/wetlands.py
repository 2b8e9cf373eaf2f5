"""WetMapFormer, ViT, Swin, a dense network and random forests on the simulated scene: scores beside cost.

`python -m bench.wetlands [--minutes 10] [--out wetlands-run] [--only vit] [--train-args "--device cpu"] [--dry]`

Makes the scene (`bench.simulated_scene`), trains each network through the command line for the same number of minutes,
with the labels and splits of training.gpkg, maps the whole scene with `vitrail predict --out map.tif`, and scores each
map on the same pixels: those of the test blocks with a polygon, against the truth without noise. Five trainings of ten
minutes take less than an hour. The classes follow a rule, so the figures compare networks and tell nothing of wetlands.
`--dry` does everything without the trainings, `--only` the methods with this word in their name.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import rasterio
import torch
from rasterio.windows import Window
from torch.utils.flop_counter import FlopCounterMode

from bench.scene_methods import FILES, WINDOW, Scores, Task, Values, forest, read, score, windowed
from bench.simulated_scene import MADE, make
from vitrail.infer.predictor import load
from vitrail.infer.timing import machine

NETWORKS = {
    "WetMapFormer, as intended": "--model wetmapformer",
    "WetMapFormer, as published": "--model wetmapformer --network as_published=true",
    "ViT, patches of 2": "--model vit_ti16 --network patch=2,depth=4 --imgsz 8",
    "Swin, windows of 4": "--model swin_t --network patch=1,depths=[2,2],heads=[3,6],window=4 --imgsz 8",
    "WetMapFormer, dense": "--model wetmapformer --task segment --window 64",
}
"""Name → words of the command: from 0.7 million parameters (as published) to 1.8 million (ViT)."""

PART = 80
"""Pixels of the side of the corner that is mapped, too: what both take longer than pixels is start-up."""


class Cost(NamedTuple):
    """Parameters, multiply-adds of one prediction (None: none), its pixels, seconds of training, pixels a second."""

    parameters: int
    macs: int | None
    pixels: int
    training: float
    speed: float


class Line(NamedTuple):
    """A row of the table."""

    name: str
    scores: Scores
    cost: Cost


def main() -> None:
    """Make the scene, train, map, score, and print the table after every method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", default="wetlands-run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--train-args", default="", help="further words for every `vitrail train`")
    parser.add_argument("--dry", action="store_true", help="no trainings")
    asked = parser.parse_args()
    out = Path(asked.out)
    scene = out / "scene"
    make(scene, asked.seed)
    _corner(scene, out / "corner")
    task = read(scene)
    more = shlex.split(asked.train_args)
    time = f"{60 * asked.minutes:g}s"
    methods: dict[str, Callable[[str], Line]] = {
        "random forest, pixels": lambda name: _of_forest(name, task, lambda: task.values),
        "random forest, 8 x 8 windows": lambda name: _of_forest(name, task, lambda: windowed(task.values)),
    }
    if not asked.dry:
        for name, words in NETWORKS.items():
            given = [*words.split(), "--time", time, *more]
            methods[name] = lambda name, given=given: _of_network(name, task, out, given)
    lines, lost = [], []
    for name, run in methods.items():
        if asked.only.casefold() in name.casefold():
            try:
                lines.append(run(name))
            except subprocess.CalledProcessError as error:  # the others are still worth their minutes
                lost.append(f"{name}: exit code {error.returncode} of {shlex.join(map(str, error.cmd))}")
            (out / "wetlands.md").write_text(_table(lines, lost, task, asked.minutes), encoding="utf-8")
    print((out / "wetlands.md").read_text(encoding="utf-8"))
    sys.exit(1 if lost else 0)


def _corner(scene: Path, folder: Path) -> None:
    """Write the corner of the files of a scene."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        with rasterio.open(scene / name) as source:
            side = PART * 10 // round(source.res[0])
            profile = source.profile | {"height": side, "width": side}
            with rasterio.open(folder / name, "w", **profile) as made:
                made.write(source.read(window=Window(0, 0, side, side)))
                made.descriptions, made.units = source.descriptions, source.units
                made.scales, made.offsets = source.scales, source.offsets


def _of_forest(name: str, task: Task, features: Callable[[], Values]) -> Line:
    """Train a forest and map the scene; computing the features counts in both times."""
    begun = perf_counter()
    values = features()
    before = perf_counter() - begun
    made = forest(task, values)
    speed = task.truth.size / (before + made.prediction)
    return Line(name, score(made.classes, task), Cost(made.nodes, None, 1, before + made.training, speed))


def _of_network(name: str, task: Task, out: Path, words: list[str]) -> Line:
    """Train a network by the command line, and map the scene."""
    run = out / "".join(letter if letter.isalnum() else "-" for letter in name.casefold())
    scene, corner = ([folder / one for one in FILES] for folder in (out / "scene", out / "corner"))
    labels = out / "scene" / "training.gpkg"
    if not (run / "report.json").is_file():
        _vitrail("train", *scene, "--labels", labels, "--weights", "none", *words, "--out", run)
    facts = json.loads((run / "report.json").read_text(encoding="utf-8"))
    _mapped(run, corner, out / "corner" / "map.tif")  # measures and stores the fastest backend
    few = _mapped(run, corner, out / "corner" / "map.tif")
    many = _mapped(run, scene, run / "map.tif")
    with rasterio.open(run / "map.tif") as made:
        classes = made.read(1)
    speed = (task.truth.size - PART * PART) / max(many - few, 1e-9)
    macs, pixels = _macs(run)
    cost = Cost(facts["parameters"], macs, pixels, facts["seconds"], speed)
    return Line(name, score(classes, task), cost)


def _mapped(run: Path, files: list[Path], out: Path) -> float:
    """Write the map of a raster; return the seconds of the whole command."""
    begun = perf_counter()
    _vitrail("predict", run, *files, "--out", out)
    return perf_counter() - begun


def _macs(run: Path) -> tuple[int, int]:
    """Return the multiply-adds of one prediction, head included, and how many pixels it predicts."""
    predictor = load(run, "cpu")
    network, size = predictor.network, predictor.preprocess.size
    height, width = size
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network({"images": torch.zeros(1, network.encoder.config.channels, height, width)})
    window = (height, width) == (WINDOW, WINDOW)
    return int(counter.get_total_flops()) // 2, 1 if window else height * width


def _table(lines: list[Line], lost: list[str], task: Task, minutes: float) -> str:
    """Return the scores and the cost as Markdown, each table called a simulation."""
    rows = [
        f"# Simulation: wetland classes by a rule; {minutes:g} minutes for each network",
        f"{MADE}\n",
        f"{machine()}; {task.train.sum():,} labelled pixels of training blocks, 5 % of their labels wrong; "
        f"{task.test.sum():,} pixels of test blocks are scored against the truth without noise. Intervals: 95 %, "
        "resampled blocks of 32 x 32 pixels of the one test split; they do not contain the chance of a training.\n",
        "## Simulation: scores\n",
        "| method (simulation) | overall accuracy | average accuracy | kappa | macro F1 |",
        "|---|---|---|---|---|",
    ]
    for name, found, _ in lines:
        rows.append(
            f"| {name} | {found.overall:.1f} % ({found.low:.1f} – {found.high:.1f}) | {found.average:.1f} % | "
            f"{found.kappa:.1f} | {found.macro_f1:.1f} % |"
        )
    rows += [
        "\n## Simulation: cost\n",
        "| method (simulation) | parameters | million multiply-adds of one prediction | the same for a pixel | "
        "s to train | pixels/s of the map |",
        "|---|---|---|---|---|---|",
    ]
    rows += [f"| {name} | {_cost(cost)} |" for name, _, cost in lines]
    rows.append(
        "\nParameters of a forest are its nodes. Pixels a second of networks are without the start.\n"
    )
    return "\n".join([*rows, *(f"Failed: {one}" for one in lost)]) + "\n"


def _cost(cost: Cost) -> str:
    macs = each = "–"
    if cost.macs is not None:
        macs = f"{cost.macs / 1e6:.2f}" + (f" ({cost.pixels:,} pixels)" if cost.pixels > 1 else "")
        each = f"{cost.macs / cost.pixels / 1e6:.4g}"
    return f"{cost.parameters:,} | {macs} | {each} | {cost.training:.0f} | {cost.speed:,.0f}"


def _vitrail(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "vitrail", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
