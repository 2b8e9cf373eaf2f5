"""Read weights of timm networks: named by a user or a folder, and those of transformers that timm also has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.core.errors import WeightsError
from vitrail.models.timm_wrapper import TimmConfig
from vitrail.weights import hub_folder, rules
from vitrail.weights.conventions import HUGGINGFACE, TIMM, of_hub, of_timm_folder
from vitrail.weights.read_request import Asked, Read, alternatives, beside, shapes
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import through_timm
from vitrail.weights.tables import timm as timm_tables
from vitrail.weights.timm_folder import unknown_network


def timm_network(asked: Asked) -> Read:
    """Read weights of a timm network, named by the user or by the folder."""
    opened, config = asked.opened, _timm_config(asked)
    from timm import get_pretrained_cfg

    cfg = get_pretrained_cfg(config.name, allow_unregistered=True)
    classifier = cfg.classifier if cfg and isinstance(cfg.classifier, str) else "head"
    wanted = shapes(config)
    first = next(iter(wanted)).removeprefix("net.")
    front, tensors = next(((f, t) for f, t in alternatives(opened) if first in t), ("", opened.tensors))
    weights = rules.load(timm_tables.network(classifier), tensors, wanted)
    lines = [f"its part {front.rstrip('.')!r} is taken"] if front else []
    if asked.folder and asked.wanted is None and asked.folder.alike:
        why = asked.folder.otherwise or "its GELU is that of tanh"
        lines.append(f"read as timm's {config.name}, and not by a page of ours: {why}")
    return Read(config, weights, TIMM.name, of_timm_folder(opened.config), assumed=tuple(lines))


def _timm_config(asked: Asked) -> TimmConfig:
    """Return the settings of the timm network to read."""
    opened, wanted, folder = asked.opened, asked.wanted, asked.folder
    if folder is None and (what := hub_folder.sign(opened.tensors)):
        beside = (
            "; its config.json is missing: name its folder"
            if what.startswith("Hugging")
            else ", which is not read"
        )
        raise WeightsError(f"{opened.path} holds {what}{beside}.")
    if wanted is None and folder is None:
        first = ", ".join(list(opened.tensors)[:3])
        raise WeightsError(
            f"{opened.path} holds no layout that is known (first tensors: {first}); name its network (--model), ours "
            f"or timm's.{unknown_network(opened.config)}"
        )
    if wanted is not None and wanted.family != "timm":
        held = f", but timm's {folder.config.name}" if folder else ""
        held = f", but {hub_folder.called(opened.config)}" if hub_folder.hub_type(opened.config) else held
        raise WeightsError(
            f"{opened.path} holds no {wanted.family}{held}; name the network that it was made for."
        )
    if asked.user != Said():
        raise WeightsError(
            f"{opened.path} is read as a network of timm's, which says all itself; leave --network out."
        )
    if folder is None:
        return wanted  # type: ignore[no-any-return]
    if wanted is not None and wanted.name.split(".")[0] != folder.config.name.split(".")[0]:
        raise WeightsError(
            f"{opened.path} holds timm's {folder.config.name}, as its config.json says, and not {asked.model}: leave "
            "--model out."
        )
    return folder.config


def through_timms(asked: Asked, way: hub_folder.Way, stated: Mapping[str, Any]) -> Read:
    """Read a network of transformers as the timm network with the same tensors."""
    opened = asked.opened
    tensors = through_timm.apart(opened.tensors)
    config = way.network(stated, tensors.keys())
    other = asked.model is not None and (
        asked.wanted is None or asked.wanted.name.split(".")[0] != config.name
    )
    if other or asked.user != Said():
        raise WeightsError(
            f"{opened.path} holds {hub_folder.called(stated)}, as its config.json says; leave --model and --network "
            "out."
        )
    heads = {} if way.same_head else {n: t for n, t in tensors.items() if n.startswith("classifier.")}
    weights = rules.load(way.table, {n: t for n, t in tensors.items() if n not in heads}, shapes(config))
    lines = [f"read as timm's {config.name}, which computes the same"]
    lines += [beside(tensors) or ""]
    lines += ["its classifier reads what timm's network does not, and is left aside"] if heads else []
    assumed, steps = tuple(line for line in lines if line), of_hub(opened.preprocessing)
    return Read(config, weights, HUGGINGFACE.name, steps, assumed=assumed)
