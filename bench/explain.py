"""What an explanation costs: rollout of ViT-S/16 at large sizes beside plain prediction, relevance at 224 px.

`python -m bench.explain [ROUNDS]`; each large size runs in processes of its own, whose highest resident size is
their peak. Rollout is streamed: at 1344 px the attention of all layers would be 14 GB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from statistics import median

import torch

from bench.pairs import in_turn, machine, ratio
from vitrail.explainers.relevance import Relevance
from vitrail.explainers.rollout import Rollout
from vitrail.explainers.target import Subject
from vitrail.models.factory import create_encoder
from vitrail.runs.network import build_network, build_task
from vitrail.runs.run_network import ASK

SIZES = (1344, 2048)
LABELS = [str(i) for i in range(1000)]


def subject(side: int) -> Subject:
    """Return the question for the first class of a random ViT-S/16 of this size, in float32."""
    torch.manual_seed(0)
    task = build_task("classify", LABELS, {})
    network = build_network(create_encoder("vit_s16", image=(side, side)), task).eval().requires_grad_(False)
    logits = torch.zeros(1, len(LABELS))
    logits[0, 0] = 1
    return Subject(network, task, task.decode({"logits": logits}, [None], ASK)[0], "vit_s16")


def alone(what: str, side: int, rounds: int) -> None:
    """Run one thing in this process; prints median seconds and the highest resident size in MB."""
    asked, images = subject(side), torch.randn(1, 3, side, side)
    rollout = Rollout()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        if what == "rollout":
            rollout(asked, images)
        else:
            asked.scores(images)
        times.append(time.perf_counter() - begun)
    print(median(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured(what: str, side: int, rounds: int) -> tuple[float, float]:
    """Return median seconds and peak MB of one thing in a process of its own."""
    words = [sys.executable, "-m", "bench.explain", "alone", what, str(side), str(rounds)]
    seconds, peak = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(peak)


def main() -> None:
    if sys.argv[1:2] == ["alone"]:
        alone(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(machine())
    print("| ViT-S/16, float32 | tokens | plain s | rollout s | times | plain MB | rollout MB | times |")
    print("|---|---|---|---|---|---|---|---|")
    for side in SIZES:
        plain, looked = measured("plain", side, rounds), measured("rollout", side, rounds)
        slower, larger = looked[0] / plain[0], looked[1] / plain[1]
        cells = f"{plain[0]:.2f} | {looked[0]:.2f} | {slower:.2f} | {plain[1]:.0f} | {looked[1]:.0f} | {larger:.2f}"
        print(f"| {side} px | {(side // 16) ** 2 + 1} | {cells} |", flush=True)
    asked, images = subject(224), torch.randn(1, 3, 224, 224)
    relevance, rollout = Relevance(), Rollout()
    things = {
        "a plain forward": lambda: asked.scores(images),
        "relevance": lambda: relevance(asked, images),
        "rollout": lambda: rollout(asked, images),
    }
    times = in_turn(things, 7 * rounds)
    for name in ("relevance", "rollout"):
        slower = ratio(times["a plain forward"], times[name])
        print(f"\n{name} at 224 px: {1e3 * median(times[name]):.0f} ms, a plain forward × {slower}")


if __name__ == "__main__":
    main()
