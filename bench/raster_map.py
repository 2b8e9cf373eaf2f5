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
from itertools import islice
from pathlib import Path

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


def measure(folder: Path, form: str, side: int, part: int) -> dict[str, float]:
    """Predict one tile in `part` and return seconds, pixels a second and the largest memory in GB."""
    from vitrail.data.rasters.stack import open_stack
    from vitrail.infer.predictor import Predictor
    from vitrail.infer.rasters.make_map import MapOptions, Raster, make_map, tile_network
    from vitrail.infer.rasters.tiles import inner, tiles_of

    model(folder / "model.safetensors", form)
    predictor = Predictor(folder / "model.safetensors")
    stack = open_stack(folder, f"{side}.tif")
    start, pixels = time.perf_counter(), side * side
    if part == 1:
        make_map(predictor, Raster(stack, f"{side}.tif"), folder / "map.tif", MapOptions())
    else:
        import numpy as np

        network, pixels = tile_network(predictor, stack, lambda line: None), 0
        for core in islice(tiles_of(stack.grid, network.side), 0, None, part):
            around = network.around(core)
            values = stack.read(around, BANDS)
            wanted = ~np.isnan(values[inner(core, around)]).any(-1)
            network.predict(values, core, wanted)
            pixels += wanted.size
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": round(seconds, 1), "pixels a second": round(pixels / seconds), "GB": round(peak, 2)}


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
