"""Write what the gallery of the studio shows of networks: a table of ours and of timm's, and the steps of ours.

`python -m bench.model_index`. Every network is built without memory for its weights; its parameters are counted, the
kind of timm's is told from their layers, and an image is passed through ours to see the shape after each step. Run
again when a network of ours or timm's pin changes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

import timm
import torch
from torch import nn

from vitrail.layers.tokens import Tokens
from vitrail.models.factory import build, config_of, count_params, list_models
from vitrail.studio.gallery import COLUMNS, STEPS, TABLE
from vitrail.weights.checkpoints import permissive

FEW = 3
"""Convolutions that a transformer has to make its patches."""


def kind_of(network: nn.Module) -> str:
    """Return transformer, convolutional, hybrid or mixer, by what the layers of a network are."""
    names = [type(one).__name__.lower() for one in network.modules()]
    attending = any("attention" in name or "attn" in name for name in names)
    wide = [one for one in network.modules() if isinstance(one, nn.Conv2d) and one.kernel_size != (1, 1)]
    if attending:
        return "transformer" if len(wide) <= FEW else "hybrid"
    return "convolutional" if len(wide) > FEW else "mixer"


def ours() -> Iterator[tuple[object, ...]]:
    for row in list_models():
        published = permissive(row.name)
        tags = sorted(one.name.partition(".")[2] for one in published)
        licence = published[0].licence if published else ""
        kind = "mixer" if row.family == "mixer" else "transformer"
        yield row.name, row.family, kind, row.params, max(row.image), licence, " ".join(tags)


def theirs(name: str) -> tuple[object, ...]:
    config = timm.get_pretrained_cfg(name)
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False)
    tags = sorted(one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*"))
    side, licence = config.input_size[-1], config.license or ""
    return name, "", kind_of(network), count_params(network), side, licence, " ".join(tags)


def steps_of(name: str) -> list[dict[str, Any]]:
    """Return the steps of a network of ours: the class of the module, the grid, the other tokens, numbers a token."""
    config = config_of(name)
    with torch.device("meta"):
        encoder = build(config).eval()
    steps: list[dict[str, Any]] = []

    def note(module: nn.Module, given: Any, output: Any) -> None:
        for one in output if isinstance(output, list) else [output]:
            if isinstance(one, Tokens) and (one.grid or type(module).__name__ == "Prefix"):
                steps.append(
                    {
                        "what": type(module).__name__,
                        "grid": one.grid,
                        "prefix": one.prefix,
                        "width": one.x.shape[-1],
                        "times": 1,
                    }
                )

    for child in encoder.children():
        for part in child if isinstance(child, nn.ModuleList) else [child]:
            part.register_forward_hook(note)
    with torch.inference_mode():
        encoder(torch.empty(1, *encoder.spec.shape(config.size), device="meta"))
    return joined(steps)


def joined(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return steps with equal ones that follow each other as one, counted."""
    found: list[dict[str, Any]] = []
    for one in steps:
        if found and {**found[-1], "times": 1} == one and one["what"] != "Prefix":
            found[-1]["times"] += 1
        elif one["grid"]:
            found.append(dict(one))
    return found


def main() -> None:
    names = sorted({one.partition(".")[0] for one in timm.list_pretrained()})
    steps = {row.name: steps_of(row.name) for row in list_models()}
    STEPS.write_text(json.dumps(steps, separators=(",", ":")) + "\n", encoding="utf-8")
    with TABLE.open("w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(ours())
        for name in names:
            try:
                table.writerow(theirs(name))
            except (RuntimeError, NotImplementedError, ImportError, ValueError) as error:
                print(f"{name} is left out: {error}")
    print(f"{TABLE}: {len(names):,} networks of timm {timm.__version__}; {STEPS}: {len(steps)} of ours")


if __name__ == "__main__":
    main()
