"""int8 on trained networks: how near to float32 for each share that channels hand over to their weights, and how quick.

`python -m bench.int8 RUN …`: 40 training images teach the ranges, 400 of validation and test are asked. Not among
what `python -m bench` runs by itself, for it needs runs.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from bench.pairs import in_turn, machine
from vitrail.data.batch import images_only
from vitrail.data.manifest import TEST, TRAIN, VAL
from vitrail.infer.openvino_backend import portion, settings_for, translate
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import readable, readers_of, root_of
from vitrail.infer.quantize_int8 import quantize, ranges
from vitrail.infer.runtimes import core
from vitrail.runs.run import open_run

SHARES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8)
ROUNDS = 5


def prepared(predictor: Predictor, run: str, splits: tuple[str, ...], wanted: int) -> Tensor:
    """Return images of a run as the network sees them."""
    opened = open_run(run)
    readers = readers_of(opened, root_of(opened), splits, predictor.preprocess.channels, wanted)
    return torch.stack([predictor.ready(one).pixels for one in readable(readers)])


def rows(run: str) -> list[str]:
    """Return the table's lines for one run."""
    predictor = Predictor(run, "cpu")
    taught, asked = (prepared(predictor, run, *one) for one in (((TRAIN,), 40), ((VAL, TEST), 400)))
    wanted = torch.cat([predictor.run(images_only(part))["logits"] for part in asked.split(16)])
    settings = settings_for("int8")
    shape = [portion(tuple(asked.shape)), *asked.shape[1:]]
    plain = translate(predictor.network, tuple(shape))
    plain.reshape(shape)
    found = ranges(plain, taught.numpy(), settings)
    ways = {}
    for share in (None, *SHARES):
        model = plain.clone()
        if share is not None:
            quantize(model, found, share)
        ways["bf16" if share is None else f"int8, {share}"] = core().compile_model(model, "CPU", settings)
    times = in_turn(
        {name: lambda way=way: way(asked[: shape[0]].numpy()) for name, way in ways.items()}, ROUNDS
    )
    lines = []
    for name, way in ways.items():
        parts = [part for part in asked.split(shape[0]) if len(part) == shape[0]]
        output = torch.cat([torch.from_numpy(way(part.numpy())[0].copy()) for part in parts])
        other = wanted[: len(output)]
        p, q = (predictor.task.probabilities({"logits": one}) for one in (output, other))
        same, drift = (p.argmax(-1) == q.argmax(-1)).float(), (p - q).abs().max()
        error = (output - other).pow(2).mean().sqrt() / other.std()
        speed = shape[0] / sorted(times[name])[ROUNDS // 2]
        lines.append(f"| {run} | {name} | {same.mean():.1%} | {drift:.3f} | {error:.4f} | {speed:.1f} |")
    return lines


def main() -> None:
    print(machine())
    print(
        "| run | way | same top answer | largest drift | error of the logits | pictures/s |\n|---|---|---|---|---|---|"
    )
    for run in sys.argv[1:]:
        print("\n".join(rows(run)), flush=True)


if __name__ == "__main__":
    main()
