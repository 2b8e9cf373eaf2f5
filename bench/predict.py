"""One forward, one image and a batch: our ways beside timm, transformers, ONNX Runtime and OpenVINO.

`python -m bench predict`, or `python -m bench.predict [ROUNDS] [MODEL …]`: by default 7 rounds of ViT-S/16 (batch 16)
and ViT-B/16 (batch 8), all with the same weights; int8 is compared apart, since no peer was asked to round. The last
lines are what was aimed at: not slower than the best peer, the one of the lowest median, and four times transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vitrail.benchmark.speed import HEAD, OURS, Row, Setting, bench, lines
from vitrail.infer.timing import machine

BATCHES = {"vit_s16": 16, "vit_b16": 8}


def verdict(rows: Sequence[Row]) -> list[str]:
    """Return for each number of images how we stand beside the best peer and beside transformers."""
    said = []
    for batch in sorted({row.batch for row in rows}):
        peers = [row for row in rows if row.batch == batch and not row.way.startswith(OURS)]
        best = min(peers, key=lambda row: row.seconds)
        for peer in (best, *(row for row in peers if row.way == "transformers")):
            said.append(
                f"{peer.model}, {batch} at once: quicker than {peer.way} by {peer.ahead}; in int8 by {peer.in_int8}"
            )
    return said


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    names = sys.argv[2:] or list(BATCHES)
    print(machine())
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    rows: list[Row] = []
    for name in names:
        found = bench(name, Setting(BATCHES.get(name, 16), rounds, peers=True))
        for line in lines(found):
            print("| " + " | ".join(line) + " |", flush=True)
        rows += found
    print()
    for name in names:
        print("\n".join(verdict([row for row in rows if row.model == name])))


if __name__ == "__main__":
    main()
