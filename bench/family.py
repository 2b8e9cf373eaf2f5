"""All architectures and CNNs on CIFAR-10 from scratch: same split, equal minutes, each by its own recipe, at 64 px.

`python -m bench.family --minutes 20` runs every row in a process of its own and keeps what is done in a JSON file, so
that it can be stopped and called again; `--only swin resnet18` takes some rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from bench.kept import CIFAR, Kept, percent
from bench.pairs import machine

SMALL = "patch=8,width=128,depth=6,heads=4"
ROWS = {
    "vit": ("vit_ti16", SMALL, 64),
    "hybrid": ("vit_r26_s32", "patch=1,width=128,depth=6,heads=4,stem=[32,2,2]", 64),
    "deit": ("deit_ti16", SMALL, 64),
    "deit3": ("deit3_s16", SMALL, 64),
    "dinov2": ("dinov2_s14", SMALL, 64),
    "t2t": ("t2t_vit_7", "width=128,depth=7,heads=4", 64),
    "t2t, transformer splits": ("t2t_vit_t_14", "width=128,depth=7,heads=4", 64),
    "swin": ("swin_t", "width=48,heads=[2,4,8,16],window=4", 64),
    "mixer": ("mixer_s16", "patch=8,width=128,depth=8,places=64,hidden=512", 64),
    "resnet18": ("resnet18", "", 64),
    "bit_r50x1": ("bit_r50x1", "", 64),
    "efficientnet_b0": ("efficientnet_b0", "", 64),
    "efficientnetv2_b0": ("tf_efficientnetv2_b0", "", 64),
    "vgg11_bn": ("vgg11_bn", "", 64),
    "densenet121": ("densenet121", "", 64),
    "inception_v3": ("inception_v3", "", 96),  # its stem needs 75 pixels
    "xception": ("xception", "", 64),
    "convnext_atto": ("convnext_atto", "", 64),
}


def one(name: str, minutes: float, out: Path) -> None:
    """Train one row and print what it cost and scored, as JSON."""
    from vitrail.infer.predictor import Predictor
    from vitrail.models.factory import count_params
    from vitrail.runs.train_options import TrainOptions
    from vitrail.training.fit import train

    model, network, side = ROWS[name]
    options = TrainOptions(
        model=model,
        network=network or None,
        weights="none",
        imgsz=str(side),
        time=f"{minutes}m",
        out=str(out / name),
    )
    run = train(CIFAR, options)
    recipe, history = run.recipe(), run.history()
    seconds = [event["seconds"] for event in history if event["event"] == "step"]
    report = json.loads(run.report_path.read_text())
    row = {
        "model": recipe.model.name,
        "recipe": recipe.recipe,
        "pixels": side,
        "parameters": count_params(Predictor(run.folder, "cpu").network),
        "accuracy": report["test"]["accuracy"],
        "epochs": report["cost"]["epochs"],
        "images_a_second": recipe.training.batch * len(seconds) / sum(seconds),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(row))


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.family")
    words.add_argument("--minutes", type=float, default=20.0)
    words.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    words.add_argument("--out", type=Path, default=Path("runs/family"))
    words.add_argument(
        "--one", choices=ROWS, help="train one row in this process (what the others are run by)"
    )
    asked = words.parse_args()
    if not CIFAR.exists():
        print("skipped: ../shared/data/cifar10-10k.zip is not here")
        return
    if asked.one:
        one(asked.one, asked.minutes, asked.out)
        return
    kept = Kept(asked.out / "results.json", {"minutes": asked.minutes})
    for name in asked.only:
        if name in kept.rows:
            continue
        command = [sys.executable, "-m", "bench.family", "--one", name, "--minutes", str(asked.minutes)]
        done = subprocess.run(
            [*command, "--out", str(asked.out)], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            print(f"{name} failed with exit code {done.returncode}", file=sys.stderr)
            continue
        kept.add(name, json.loads(done.stdout.splitlines()[-1]))
    table(kept, asked.minutes)


def table(kept: Kept, minutes: float) -> None:
    """Print a row for each network that is done, the best first."""
    print(machine())
    print(
        f"| {minutes:g} minutes each | M parameters | recipe | right on the test split | epochs | images/s | memory |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, row in sorted(kept.rows.items(), key=lambda item: -item[1]["accuracy"]["value"]):
        print(
            f"| {name} | {row['parameters'] / 1e6:.1f} | {row['recipe']} | {percent(row['accuracy'])} | "
            f"{row['epochs']:.1f} | {row['images_a_second']:.0f} | {row['peak_memory'] / 1e9:.1f} GB |"
        )


if __name__ == "__main__":
    main()
