"""Each architecture, tiny and with all its mechanisms, learns the digits at 32 px: 95 % right on the test split.

`python -m bench.learn` runs all rows for the recipe's 40 epochs, `python -m bench.learn --only swin t2t --epochs 24`
some rows for fewer. Exits with 1 where a row falls short.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time

from bench.pairs import machine
from vitrail.models.factory import count_params, create_encoder
from vitrail.runs.train_options import TrainOptions, network_settings
from vitrail.training.fit import train

WANTED = 0.95
MOST = 1_000_000
"""Parameters that a tiny preset may have."""

COLUMN = "patch=4,width=64,depth=4,heads=4"
ROWS = {
    "vit": ("vit_digits", ""),
    "vit, 2-D positions": ("vit_digits", "position=2d"),
    "vit, relative positions": ("vit_digits", "position=relative"),
    "vit, mean and no class token": ("vit_digits", "prefix=[]"),
    "hybrid": ("vit_r26_s32", "patch=1,width=64,depth=3,heads=4,stem=[32,1,1]"),
    "dinov2": ("dinov2_s14_reg4", f"{COLUMN},mlp=swiglu,hidden=128"),
    "deit": ("deit_ti16", COLUMN),
    "deit, distilled": ("deit_ti16_distilled", COLUMN),
    "deit3": ("deit3_s16", COLUMN),
    "swin": ("swin_t", "patch=2,width=32,depths=[2,2],heads=[2,4],window=4,position=absolute"),
    "t2t": ("t2t_vit_7", "token_width=32,width=64,depth=3,heads=4"),
    "t2t, transformer splits": ("t2t_vit_t_14", "token_width=32,width=64,depth=3,heads=4"),
    "mixer": ("mixer_s16", "patch=4,width=64,depth=4,places=64,hidden=256"),
}
TAUGHT = "deit, distilled"
"""The row that learns from the first row's run, too."""


def learnt(
    model: str, network: str, out: str, teacher: str | None, epochs: int | None
) -> tuple[dict[str, float], int]:
    """Train one row; return its score on the test split and the parameters of its encoder."""
    encoder = create_encoder(model, image=(32, 32), settings=network_settings(network or None))
    options = TrainOptions(
        model=model,
        network=network or None,
        imgsz="32",
        weights="none",
        out=out,
        teacher=teacher,
        epochs=epochs,
        seed=0,
    )
    run = train("digits", options)
    return json.loads(run.report_path.read_text())["test"]["accuracy"], count_params(encoder)


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.learn")
    words.add_argument("--only", nargs="*", default=[])
    words.add_argument("--epochs", type=int)
    asked = words.parse_args()
    wanted = [name for name in ROWS if not asked.only or {name, name.partition(",")[0]} & set(asked.only)]
    print(machine())
    print("| architecture | parameters | right on the test split | 95 % interval | seconds | |")
    print("|---|---|---|---|---|---|", flush=True)
    short = []
    with tempfile.TemporaryDirectory() as folder:
        if TAUGHT in wanted and "vit" not in wanted:
            wanted.insert(0, "vit")
        for number, name in enumerate(wanted):
            began = time.perf_counter()
            teacher = f"{folder}/{wanted.index('vit')}" if name == TAUGHT else None
            found, parameters = learnt(*ROWS[name], f"{folder}/{number}", teacher, asked.epochs)
            enough = found["value"] >= WANTED and parameters <= MOST
            short += [] if enough else [name]
            print(
                f"| {name} | {parameters:,} | {found['value']:.1%} | {found['low']:.1%} to {found['high']:.1%} | "
                f"{time.perf_counter() - began:.0f} | {'' if enough else 'falls short'} |",
                flush=True,
            )
    if short:
        sys.exit(f"Short of {WANTED:.0%}: {', '.join(short)}")


if __name__ == "__main__":
    main()
