"""vitrail convert."""

from __future__ import annotations

import sys


def convert(
    checkpoint: str,
    /,
    *,
    out: str,
    model: str | None = None,
    network: str | None = None,
    to: str = "vitrail",
    json: bool = False,
) -> int:
    """Convert a checkpoint from one layout to another; the values do not change, bit by bit.

        vitrail convert checkpoint.npz --model vit_b16 --out model.safetensors
        vitrail convert model.safetensors --to timm --out for-timm.safetensors

    Parameters
    ----------
    checkpoint
        Google's .npz, Keras' .h5 (WetMapFormer), .safetensors, .pth, or a folder of timm or Hugging Face
    out
        the file to write
    model
        the network, if the file does not say
    network
        settings that cannot be read from tensors, such as heads=3,image=[64,96]
    to
        vitrail, google, timm, huggingface, official or keras
    json
        print one JSON value, for programs
    """
    from pathlib import Path

    from vitrail.cli.output import print_json, say
    from vitrail.runs.train_options import network_settings
    from vitrail.weights.convert import convert as bring
    from vitrail.weights.infer_config import preset_of

    found = bring(Path(checkpoint), Path(out), to=to, model=model, network=network_settings(network))
    for line in found.assumed:
        say(f"{found.name}: {line}")
    name = preset_of(found.config) or str(found.config.family)
    if getattr(found.config, "as_published", False):  # another network than the preset of this name
        name = f"{name} (as_published=true)"
    count = sum(tensor.numel() for tensor in (*found.encoder.values(), *found.head.values()))
    if json:
        print_json({"network": name, "from": found.source, "to": to, "numbers": count, "out": out})
    else:
        sys.stdout.write(f"{name}: {count:,} numbers from the layout of {found.source} to {to}, in {out}\n")
    return 0
