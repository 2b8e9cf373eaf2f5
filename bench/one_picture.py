"""One photograph to its answer, the whole command: ours beside timm's own script, a ViT-S/14 at 224 px, in turn.

`python -m bench.one_picture [--before COMMIT] [--rounds 5]`; `--before` runs an earlier commit too. Wants ../shared
(weights and photographs) beside the repository. Files are read from the cache of the operating system.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import timm
from safetensors.torch import save_file

from bench.draft import SHARED, photographs
from bench.golden import commit_of, environment, worktree
from bench.pairs import in_turn, machine, table

TIMM = "vit_small_patch14_dinov2"
CLASSES = 10
SCRIPT = f"""
import sys
import timm, torch
from PIL import Image
from safetensors.torch import load_file
model = timm.create_model({TIMM!r}, img_size=224, num_classes={CLASSES}).eval()
model.load_state_dict(load_file(sys.argv[1]))
steps = timm.data.create_transform(**timm.data.resolve_data_config({{"input_size": (3, 224, 224)}}, model=model))
with torch.inference_mode():
    answer = model(steps(Image.open(sys.argv[2]).convert("RGB"))[None]).softmax(1)
print(answer.max(1))
"""


def command(words: list[str], tree: Path, folder: Path) -> None:
    """Run one Python command to its end."""
    subprocess.run(
        [sys.executable, "-P", *words],
        check=True,
        cwd=folder,
        env=environment(tree, folder),
        capture_output=True,
    )


def ways(trees: dict[str, Path], folder: Path) -> dict[str, Callable[[], None]]:
    """Train a draft, write timm's weights, and return what answers a photograph, by name."""
    photographs(folder / "photos")
    for window in (folder / "photos").rglob("*-[1-9].jpg"):
        window.unlink()  # a hundred photographs are enough for a head
    picture = str(next((folder / "photos").rglob("*.jpg")))
    here, oldest = trees["ours"], [*trees.values()][-1]  # an older version reads no newer recipe
    weights = str(SHARED / "weights" / "dinov2-small-saliency")
    command(
        ["-m", "vitrail", "train", "photos", "--weights", weights, "--imgsz", "224", "--out", "run"],
        oldest,
        folder,
    )
    save_file(
        timm.create_model(TIMM, img_size=224, num_classes=CLASSES).state_dict(), folder / "timm.safetensors"
    )
    named = {
        name: partial(command, ["-m", "vitrail", "predict", "run", picture], tree, folder)
        for name, tree in trees.items()
    }
    peer = partial(command, ["-c", SCRIPT, "timm.safetensors", picture], here, folder)
    alone = partial(command, ["-c", "import torch"], here, folder)
    return {**named, "timm, the same in a script": peer, "import torch": alone}


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.one_picture")
    words.add_argument("--before")
    words.add_argument("--rounds", type=int, default=5)
    asked = words.parse_args()
    if not (SHARED / "weights" / "dinov2-small-saliency").exists():
        print("skipped: ../shared/weights is not here")
        return
    print(machine())
    repository = Path(__file__).resolve().parents[1]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        trees = {"ours": repository}
        if asked.before:
            commit = commit_of(repository, asked.before)
            trees[f"ours, {commit[:12]}"] = stack.enter_context(
                worktree(repository, commit, folder / "before")
            )
        print(table(in_turn(ways(trees, folder), asked.rounds), "ours", "images", 1), flush=True)


if __name__ == "__main__":
    main()
