"""How well exports agree: every format, 200 images from 17 x 23 to 3000 x 4000.

`python -m bench.export [MODEL …]`, by default a CNN of timm and one network of most of our families.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from bench import toy
from bench.pairs import machine
from vitrail.core.errors import VitrailError
from vitrail.export.export import export
from vitrail.export.formats import SUFFIXES

MODELS = (
    "vit_ti16",
    "vit_ti16+several",
    "resnet10t",
    "swin_t",
    "deit_ti16",
    "deit_ti16_distilled",
    "deit3_s16",
    "vit_r26_s32",
    "dinov2_s14_reg4",
    "mixer_s32",
    "t2t_vit_7",
    "supervit_s",
    "vvt_t",
)
"""`+several`: each label a yes or a no."""


def main() -> None:
    print(machine())
    print("| model | format | same top answer | ties | largest drift | s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = toy.photographs(folder / "photos", 100)
        for model in sys.argv[1:] or MODELS:
            name, _, several = model.partition("+")
            path = toy.model(folder, name, task_name="multilabel" if several else "classify")
            for format, suffix in SUFFIXES.items():
                began = time.perf_counter()
                try:
                    found = export(path, format, folder / f"{model}{suffix}", data=photos).agreement
                    said = f"{found.same_top} of {found.pictures} | {found.ties} | {found.drift:.1e}"
                except VitrailError as error:
                    said = f"refused: {error} | |"
                print(f"| {model} | {format} | {said} | {time.perf_counter() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
