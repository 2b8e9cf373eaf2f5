"""A folder of JPEG photographs to a CSV: the whole path beside its parts alone, and a transformers pipeline.

`python -m bench folder`, or `python -m bench.folder [IMAGES] [ROUNDS]`, by default 2000 and 5: every round takes the
next fifth of the folder. ViT-S/16. The bound is 1 / (1 / network + 1 / files), both alone in the same round: on a
machine whose cores do both, nothing can be hidden behind anything.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from bench import toy
from bench.pairs import in_turn, machine, ratio
from vitrail.cli.answer_table import write_csv
from vitrail.data.batch import images_only
from vitrail.export.export import export
from vitrail.infer.autotune import speed_up
from vitrail.infer.inputs import Source, expand
from vitrail.infer.predictor import BATCH, load


def pipeline(model: Path, folder: Path, sources: list[Source]):
    """Return transformers' own pipeline with the same network, as its users call it."""
    from transformers import pipeline as make

    written = export(model, "huggingface", folder / "theirs", data=sources[0].path.parent).path
    asked = make("image-classification", model=str(written))
    return lambda: list(asked([str(one.path) for one in sources], batch_size=BATCH))


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["VITRAIL_CACHE"] = str(folder / "cache")
        model, photos = toy.model(folder, "vit_s16"), toy.photographs(folder / "photos", number)
        sources = list(expand([str(photos)]))
        predictor = load(model)
        began = time.perf_counter()
        choice = speed_up(predictor, model, sources)
        request = choice.request
        print(choice.why or "float32", flush=True)
        print(f"choosing and proving it, once for a model: {time.perf_counter() - began:.1f} s", flush=True)
        pixels = images_only(torch.randn(BATCH, 3, 224, 224))
        predictor.run(pixels, request)
        size = number // rounds
        parts = iter([sources[i * size : (i + 1) * size] for i in range(rounds)])
        few = sources[: max(2 * BATCH, size // 4)]
        things = {
            "whole path": lambda: write_csv(
                str(folder / "out.csv"), list(predictor.answers(next(parts), request=request))
            ),
            "network alone": lambda: [predictor.run(pixels, request) for _ in range(4)],
            "files alone": lambda: list(predictor._read(few, BATCH, request.point)),
            "transformers pipeline": pipeline(model, folder, few),
        }
        times = in_turn(things, rounds, warmup=0)
    # Seconds an image, round by round, so that every ratio is of things that ran beside each other.
    counts = {"whole path": size, "network alone": 4 * BATCH}
    each = {what: [one / counts.get(what, len(few)) for one in found] for what, found in times.items()}
    print("| what | pictures/s |\n|---|---|")
    for what, found in each.items():
        print(f"| {what} | {1 / median(found):.1f} |")
    bound = [sum(both) for both in zip(each["network alone"], each["files alone"], strict=True)]
    print(f"share of the bound of {1 / median(bound):.1f} pictures/s: {ratio(each['whole path'], bound)}")
    print(f"quicker than the pipeline by {ratio(each['whole path'], each['transformers pipeline'])}")


if __name__ == "__main__":
    main()
