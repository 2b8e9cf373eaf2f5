"""vitrail bench."""

from __future__ import annotations

import sys


def bench(
    models: tuple[str, ...],
    /,
    *,
    peers: bool = False,
    batch: int = 16,
    rounds: int = 7,
    compile: bool = True,
    device: str = "auto",
    json: bool = False,
) -> int:
    """Measure how fast networks run on this machine, one image at a time and in batches.

    After a warm-up, everything runs in turn, round by round. The table shows medians with their spread, the memory
    added by setup and one run, and the share of this machine's measured matmul peak. With --peers, the last columns
    show how many times faster our fastest backend is, with the 95 % interval of the paired rounds; int8 backends are
    compared separately.

        vitrail bench vit_s16 resnet50
        vitrail bench runs/photos --peers

    Parameters
    ----------
    models
        names of networks, with random weights; run folders, model files, and published weights: a timm name with its
        tag (resnet18.a1_in1k), org/repo, a folder
    peers
        also measure timm, transformers, ONNX Runtime and OpenVINO, if installed, with the same weights
    batch
        batch size
    rounds
        number of measurements of each backend
    compile
        also measure compiled backends
    device
        auto, cpu, cuda, mps
    json
        print one JSON value, for programs
    """
    from vitrail.benchmark.speed import HEAD, Setting, lines, refuse_unknown
    from vitrail.benchmark.speed import bench as measure
    from vitrail.cli.output import print_json, say, table
    from vitrail.core.errors import SettingError
    from vitrail.infer.timing import machine

    if not models:
        raise SettingError("Name networks to measure: vitrail bench vit_s16")
    setting = Setting(batch, rounds, device, peers, compile)
    for name in models:
        refuse_unknown(name)
    rows = []
    for name in models:
        say(f"Measuring {name} …")
        rows += measure(name, setting)
    if json:
        print_json({"machine": machine(), "rows": [row.to_dict() for row in rows]})
        return 0
    sys.stdout.write(table(HEAD, lines(rows), right=(2, 3, 4, 6, 7)) + "\n")
    say(machine())
    return 0
