"""How long a map takes, pixels a second, and the largest memory: python -m bench.raster_map [--side 2000] [--large].

A raster of random numbers in 12 bands, and models with random weights: WetMapFormer, a tiny ViT on windows of 8 pixels,
the same on windows that are resized to 32, and segmentation. Each runs in a process of its own, whose memory is told.
With --large the raster has 10,000 x 10,000 pixels, and a tenth of its tiles is predicted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMS = ("wetmapformer", "vit", "vit resized", "segment")
BANDS = tuple(f"B{i:02d}" for i in range(1, 13))


def raster(path: Path, side: int) -> None:
    import numpy as np
    import rasterio

    draw = np.random.default_rng(0)
    profile = {"dtype": "float32", "count": 12, "height": side, "width": side, "crs": "EPSG:32633"}
    place = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", transform=place, tiled=True, blockxsize=256, blockysize=256, bigtiff="yes", **profile
    ) as made:  # fmt: skip
        block = draw.normal(0.3, 0.1, (12, 256, 256)).astype("float32")
        for _, view in made.block_windows(1):
            made.write(block[:, : view.height, : view.width], window=view)
        made.descriptions = BANDS


def model(path: Path, form: str) -> None:
    import torch

    from vitrail.data.preprocess import Preprocess
    from vitrail.data.rasters.bands import Band
    from vitrail.models.factory import create_encoder, describe
    from vitrail.models.vit import ViT, ViTConfig
    from vitrail.runs.model_file import Header, write_model
    from vitrail.runs.network import build_network, build_task
    from vitrail.runs.proof import answer

    size, window, patch = {"vit resized": (32, 8, 4), "segment": (64, 64, 8)}.get(form, (8, 8, 4))
    bands = tuple(Band(name, "reflectance", 0.05, 0.55) for name in BANDS)
    steps = Preprocess(
        (size, size), "squash", 1.0, (0.3,) * 12, (0.1,) * 12, 12, scale=1.0, bands=bands, window=window
    )
    torch.manual_seed(0)
    if form == "wetmapformer":
        encoder = create_encoder("wetmapformer", image=(8, 8), channels=12)
    else:
        encoder = ViT(ViTConfig(image=size, patch=patch, width=64, depth=4, heads=4, channels=12))
    name, settings = ("segment", {"head": "linear"}) if form == "segment" else ("classify", {})
    task = build_task(name, [f"class {i}" for i in range(7)], settings)
    network = build_network(encoder, task).eval()
    described = {"name": task.name, "labels": list(task.labels), "settings": task.settings.model_dump()}
    proof = answer(network, task, steps)
    header = Header(
        name=form, encoder=describe(encoder), task=described, preprocess=steps.to_dict(), proof=proof
    )
    write_model(path, network, header)


class Tenth:
    """A raster with data in one of ten squares of a tile; the others are read as no data, and cost nothing."""

    def __init__(self, stack: Any, side: int) -> None:
        self.stack, self.side = stack, side
        self.grid, self.bands, self.names, self.notes = stack.grid, stack.bands, stack.names, stack.notes

    def read(self, window: tuple[int, int, int, int], names: Sequence[str] = ()) -> Any:
        import numpy as np

        left, top, right, bottom = window
        row, col = (top + bottom) // 2 // self.side, (left + right) // 2 // self.side
        if (row + 3 * col) % 10 == 0:
            return self.stack.read(window, names)
        return np.full((bottom - top, right - left, len(names or self.names)), np.nan, np.float32)


def measure(folder: Path, form: str, side: int, part: int) -> dict[str, float]:
    """Make a map, of one tile in `part`; return seconds, predicted pixels a second and the largest memory in GB."""
    from vitrail.data.rasters.stack import open_stack
    from vitrail.infer.predictor import Predictor
    from vitrail.infer.rasters.make_map import MapOptions, Raster, make_map, tile_network

    model(folder / "model.safetensors", form)
    predictor = Predictor(folder / "model.safetensors")
    stack: Any = open_stack(folder, f"{side}.tif")
    if part > 1:
        stack = Tenth(stack, tile_network(predictor, stack, lambda line: None).side)
    start = time.perf_counter()
    table = make_map(predictor, Raster(stack, f"{side}.tif"), folder / "map.tif", MapOptions())
    seconds = time.perf_counter() - start
    pixels = sum(table.pixels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "pixels": pixels,
        "seconds": round(seconds, 1),
        "pixels a second": round(pixels / seconds),
        "GB": round(peak, 2),
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--side", type=int, default=2000)
    words.add_argument("--large", action="store_true")
    words.add_argument("--forms", nargs="*", default=FORMS)
    words.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = words.parse_args()
    side, part = (10_000, 10) if given.large else (given.side, 1)
    if given.one:
        print(json.dumps(measure(Path(given.one[0]), given.one[1], side, part)))
        return
    with tempfile.TemporaryDirectory() as folder:
        raster(Path(folder, f"{side}.tif"), side)
        for form in given.forms:
            size = ["--large"] if given.large else ["--side", str(side)]
            command = [sys.executable, "-m", "bench.raster_map", *size, "--one", folder, form]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{form:>14}", side, "x", side, done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
