"""How fast the doctor looks, and how much memory it takes: `python bench/doctor.py [--pictures 600] [--rows 100000]`.

Photographs: windows of 500 × 375 out of scikit-learn's two sample photographs, each under shadows of its own (else
they would all be twins), saved as JPEG; the doctor (read, hash, full check, perceptual hash, report) and a plain
Pillow decode with as many threads take turns, medians of five.
Rows: one zip of 64 × 64 images, one in a hundred of them a copy; memory is the peak above the imports.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from vitrail.data.doctor import examine, workers
from vitrail.data.duplicates import neighbours
from vitrail.data.layouts import sniff


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    print(f"{workers()} threads, Python {sys.version.split()[0]}, Pillow {Image.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        rows(Path(folder), options.rows)  # first: it tells the greatest memory held so far
        neighbourhood(options.rows)
        photographs(Path(folder), options.pictures)


def photographs(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    scenes = [Image.fromarray(image) for image in load_sample_images().images]
    for i in range(number):
        scene = scenes[i % 2]
        left, top = rng.integers(0, scene.width - 500), rng.integers(0, scene.height - 375)
        file = folder / "photos" / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        window = scene.crop((left, top, left + 500, top + 375))
        shadows = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(window.size)
        Image.blend(window, shadows, 0.4).save(file, quality=90)
    files = sorted((folder / "photos").rglob("*.jpg"))
    layout = sniff(folder / "photos")

    def plain() -> None:
        with ThreadPoolExecutor(workers()) as pool:
            list(pool.map(lambda file: Image.open(BytesIO(file.read_bytes())).load(), files))

    ours, theirs = turns(lambda: examine(layout), plain)
    print(
        f"photographs of 500 x 375: doctor {number / ours:.0f} a second, plain Pillow decode {number / theirs:.0f}"
    )


def turns(*jobs: Callable[[], object]) -> list[float]:
    """Return the median seconds of each job, run in turn five times."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for _ in range(5):
        for job, took in zip(jobs, seconds, strict=True):
            start = time.perf_counter()
            job()
            took.append(time.perf_counter() - start)
    return [statistics.median(took) for took in seconds]


def neighbourhood(number: int) -> None:
    sketches = np.random.default_rng(0).integers(0, 1 << 63, number, dtype=np.uint64)
    start = time.perf_counter()
    neighbours(sketches)
    print(f"neighbours among {number:,} sketches: {time.perf_counter() - start:.1f} s")


def rows(folder: Path, number: int) -> None:
    with ProcessPoolExecutor(1) as other:  # its memory is not ours
        other.submit(pack, folder / "many.zip", number).result()
    before = peak()
    start = time.perf_counter()
    report = examine(sniff(folder / "many.zip"), cache=folder / "many.sqlite")
    took, grown = time.perf_counter() - start, peak() - before
    copies = len(report.of("doubtful")) // 2
    print(
        f"{number:,} rows: {took:.0f} s, {grown:.0f} MB above the imports, {copies} of {number // 100} copies found"
    )
    start = time.perf_counter()
    examine(sniff(folder / "many.zip"), cache=folder / "many.sqlite")
    print(f"again, all known: {time.perf_counter() - start:.0f} s")


def pack(target: Path, number: int) -> None:
    rng, last = np.random.default_rng(1), b""
    scene = load_sample_images().images[0]
    with zipfile.ZipFile(target, "w") as archive:
        for i in range(number):
            data, copy = BytesIO(), i % 100 == 1
            if copy:  # of the image before, in another format
                Image.open(BytesIO(last)).save(data, "PNG")
            else:
                top, left = rng.integers(0, scene.shape[0] - 128), rng.integers(0, scene.shape[1] - 128)
                window = Image.fromarray(scene[top : top + 128 : 2, left : left + 128 : 2])
                shadows = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((64, 64))
                Image.blend(window, shadows, 0.5).save(data, "JPEG", quality=85)
            last = data.getvalue()
            archive.writestr(f"{i % 10}/{i:06}.{'png' if copy else 'jpg'}", last)


def peak() -> float:
    """Return the greatest memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )


if __name__ == "__main__":
    main()
