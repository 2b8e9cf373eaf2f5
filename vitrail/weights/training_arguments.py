"""What the checkpoints of training programs state of their network beside its weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

BY_ARGUMENTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "rfdetr": frozenset({"out_feature_indexes", "num_windows"}),
        "detr": frozenset({"enc_layers", "nheads", "dilation"}),
    }
)
"""Programs whose checkpoints are known by names among their arguments."""


def trained(content: Any) -> dict[str, Any]:
    """Return the network in a training checkpoint of timm or torchvision, in the form of timm's config.json.

    The arguments of one of `BY_ARGUMENTS` are returned under its name.
    """
    if not isinstance(content, Mapping):
        return {}
    name, said = content.get("arch"), content.get("args")
    values = vars(said) if isinstance(said, argparse.Namespace) else said if isinstance(said, dict) else {}
    if other := next((one for one, names in BY_ARGUMENTS.items() if names <= values.keys()), None):
        return {other: values}
    if not isinstance(name, str):
        return {}
    arguments = dict(values.get("model_kwargs") or {})
    if size := values.get("img_size"):
        arguments["img_size"] = size
    return {"architecture": name, "model_args": arguments}
