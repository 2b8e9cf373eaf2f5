"""One forward, one picture and a batch: our ways beside timm, ONNX Runtime and OpenVINO with the same weights.

`python -m bench.predict [ROUNDS] [MODEL …]`; the defaults are 15 rounds of ViT-S/16 (batch 16) and ViT-B/16 (8).
"""

from __future__ import annotations

import sys

from vitrail.export.bench import Setting, bench, lines
from vitrail.infer.timing import machine

BATCHES = {"vit_s16": 16, "vit_b16": 8}
HEAD = ["model", "way", "batch", "images/s", "ms", "ms, spread", "of peak", "our quickest is quicker by"]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    names = sys.argv[2:] or list(BATCHES)
    print(machine())
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for name in names:
        for row in lines(bench(name, Setting(BATCHES.get(name, 16), rounds, peers=True))):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
