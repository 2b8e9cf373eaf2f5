"""Detect the layout of weights in a file: the table that reads them, and the settings of their network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

import torch

from vitrail.core import catalog
from vitrail.core.errors import SettingError, WeightsError
from vitrail.layers.pooling import AttentionPool
from vitrail.models.factory import config_of, rebuild
from vitrail.models.names import our_name
from vitrail.weights import clip_files, detr_files, hub_folder, image_start, infer_config, mae_files, rules
from vitrail.weights.conventions import labels_of, licence_of, of_converted, of_timm_folder
from vitrail.weights.files import Opened
from vitrail.weights.layouts import Layout, inferred, layout_of, refuse_other_type
from vitrail.weights.own_files import TaskOf, read_own, task_of
from vitrail.weights.read_request import (
    CLASSIFY,
    CONVERTED,
    Asked,
    Read,
    alternatives,
    beside,
    head_shapes,
    shapes,
)
from vitrail.weights.read_timm import through_timms, timm_network
from vitrail.weights.rules import Loaded
from vitrail.weights.stated_config import Said, of_user
from vitrail.weights.timm_folder import TimmFolder, timm_folder

OWN = ("vitrail", "vitrail_encoder")
"""The keys in our safetensors headers that describe the network: of a whole model, of an encoder alone."""

WITH_CLASSIFIER = ("vit", "deit", "dinov2", "mae", "swin", "mixer", "clip", "timesformer")
"""Families whose classifiers in files of other programs have a pool that is stated beside them."""


def read(opened: Opened, model: str | None = None, network: Mapping[str, Any] = MappingProxyType({})) -> Read:
    """Return the weights of an opened file, with our tensor names and the conventions of their source.

    `model` is the network if the file does not state it, and must match the file otherwise; the name of a family
    matches all its networks. `network` states settings that do not follow from the tensors. A network for clips may
    begin as an image network (`image_start`). The WeightsError states what the file contains, and the nearest preset or
    the missing option.
    """
    if (start := image_start.wanted_of(opened, model, network)) is None:
        return _read(opened, model, network)
    others = {name: value for name, value in network.items() if name not in image_start.TIME}
    return image_start.over_time(_read(opened, None, others), start, str(opened.path))


def _read(opened: Opened, model: str | None, network: Mapping[str, Any]) -> Read:
    """Return the weights of an opened file, as those of the network that it has."""
    if header := next((opened.metadata[key] for key in OWN if key in opened.metadata), None):
        return _of_model(read_own(opened, header, of_user(network)), model, opened)
    folder, written = timm_folder(opened.config), _written(opened)
    if folder and model and model.split(".")[0] == folder.config.name:
        model = None  # the name of the folder's network, whose settings come from the folder
    wanted = config_of(model) if model and model not in catalog.ARCHITECTURES else None
    asked = Asked(opened, model, wanted, of_user(network), folder, written)
    hub = hub_folder.whole(opened.config)
    way = hub_folder.THROUGH.get(hub.get("model_type", ""))
    try:
        found = through_timms(asked, way, hub) if way else _of_layout(asked)
    except SettingError as error:  # settings that no network can have
        if network:  # stated by the user, not by the file alone
            raise
        raise WeightsError(f"{opened.path}: {error}") from error
    if asked.wanted is None and model and found.config.family != model:
        raise WeightsError(f"{opened.path} does not hold a {model}. {_hint(found.config)}")
    known = found.labels or labels_of(opened.config)
    if found.task == CLASSIFY and len(known) != len(found.weights.head.get("linear.bias", ())):
        known = ()
    licence = found.licence or licence_of(opened.config)
    return found._replace(assumed=(*opened.notes, *found.assumed), labels=known, licence=licence)


def _of_model(found: Read, model: str | None, opened: Opened) -> Read:
    """Return what a file of ours holds; raise WeightsError if it is another network of ours than the named one."""
    if model is None or found.config.family == "timm":
        return found
    family = model if model in catalog.ARCHITECTURES else catalog.family_of(our_name(model)[0])
    wanted = config_of(model) if family and family != model else None
    if family != found.config.family or (wanted and not infer_config.same_network(found.config, wanted)):
        raise WeightsError(f"{opened.path} does not hold a {model}. {_hint(found.config)}")
    return found


def _of_layout(asked: Asked) -> Read:
    """Read weights whose layout follows from their names; others are read as a network of timm by name."""
    opened, folder = asked.opened, asked.folder
    stated = hub_folder.whole(opened.config).get("model_type") or "vit"
    if asked.model is None and hub_folder.hub_type(opened.config) and stated not in hub_folder.PAGES:
        raise _at(opened, hub_folder.refusal(opened.config))
    found = next(
        ((front, kind) for front, t in alternatives(opened) if (kind := layout_of(opened, t, asked.family))),
        None,
    )
    if (
        found is None
        or asked.family == "timm"
        or (folder and (folder.otherwise or _no_such_gelu(found[1], folder)))
    ):
        return timm_network(asked)
    front, kind = found
    refuse_other_type(opened, kind)
    read = _with_page(asked, kind)
    return read if not front else read._replace(assumed=(_left(front, opened, kind), *read.assumed))


def _no_such_gelu(kind: Layout, folder: TimmFolder) -> bool:
    """Return whether timm's network has a GELU that our network with the same tensors has not."""
    any_gelu = (infer_config.vit, infer_config.mixer, clip_files.encoder)
    return folder.said.gelu not in (None, "exact") and kind.infer not in any_gelu


def _with_page(asked: Asked, kind: Layout) -> Read:
    """Read weights of one of our networks; its settings follow from the tensors and from stated settings."""
    opened, wanted = asked.opened, asked.wanted
    stated = asked.user.over(_stated(asked, kind))
    said = stated.over(_of_preset(kind, wanted, stated)) if wanted else stated
    config = inferred(opened, kind, said)
    config, line, unsaid = infer_config.with_heads(config, said, str(opened.path))
    if wanted is not None and not infer_config.same_network(config, wanted):
        raise WeightsError(f"{opened.path} does not hold {asked.model}. {_hint(config)}")
    config = _with_conventions(config, stated, opened)
    if asked.written is not None and shapes(asked.written) == shapes(config):
        config = asked.written  # includes settings that neither the tensors nor the other layout contain
    strict = kind.classes or kind.own_head
    head = head_shapes(config, kind.task, kind.settings, kind.classes) if strict else kind.head
    weights = rules.load(
        kind.table, kind.tensors, shapes(config), lambda: _way_out(config, opened, kind), head
    )
    if unsaid:  # last, because missing tensors are the better reason
        raise unsaid
    pool = dropped = None
    if kind.task == CLASSIFY:
        weights, pool, dropped = _classifier(weights, config, asked)
    aside = None if kind.head or kind.own_head else beside(kind.tensors)
    lines = [line, _size_line(config, said), dropped, aside, *kind.notes]
    lines += [detr_files.stride_line(config, said), mae_files.heads_line(config, kind.task, said)]
    lines += [clip_files.gelu_line(config, said)]
    header = _converted(opened)
    preprocessing = of_timm_folder(opened.config) or kind.conventions.preprocessing
    if steps := header.get("preprocessing"):
        size = preprocessing.image if preprocessing else None
        preprocessing = of_converted(steps)
        preprocessing = preprocessing if preprocessing.image else replace(preprocessing, image=size)
    assumed = tuple(one for one in lines if one)
    pool = pool or header.get("pool")
    own = task_of(header.get("task") or {})
    own = own if own.task == kind.task else TaskOf(kind.task)
    settings = {**clip_files.with_gelu(kind.settings, config), **own.settings}
    labels = own.labels or kind.labels
    source, licence = kind.conventions.name, header.get("licence")
    named = (labels, own.task, settings, own.things)
    return Read(config, weights, source, preprocessing, licence, pool, assumed, *named)


def _stated(asked: Asked, kind: Layout) -> Said:
    """Return the settings stated by the file and its folder."""
    folder = asked.folder.said if asked.folder else Said()
    return kind.said.over(_of_header(asked.written)).over(folder)


def _converted(opened: Opened) -> Mapping[str, Any]:
    """Return the header of a file that vitrail wrote in another layout; empty for other files."""
    try:
        header: Mapping[str, Any] = json.loads(opened.metadata.get(CONVERTED, "{}"))
    except ValueError as error:
        raise WeightsError(f"{opened.path} has a broken header; copy it again.") from error
    return header


def _written(opened: Opened) -> Any:
    """Return the settings of the network in the header, or None."""
    header = _converted(opened)
    if "encoder" not in header:
        return None
    with torch.device("meta"):
        return rebuild(header["encoder"]).config


def _of_header(config: Any) -> Said:
    """Return the settings in a header that do not follow from tensors."""
    if config is None:
        return Said()
    heads = config.heads if config.family in infer_config.OF_HEADS else None
    gelu, eps, dilated = (getattr(config, name, None) for name in ("gelu", "norm_eps", "dilated"))
    decoder = getattr(config, "decoder", None) if config.family == "mae" else None
    others = {"gelu": gelu, "norm_eps": eps, "dilated": dilated, "decoder_heads": decoder and decoder[2]}
    return Said("its header", heads, sizes=(config.size,), **others)


def _of_preset(kind: Layout, wanted: Any, stated: Said) -> Said:
    """Return the settings of the network that the user names, for weights of the same width."""
    norm = rules.peek(kind.table, kind.tensors, "norm.weight")
    widths = getattr(wanted, "widths", None) or (getattr(wanted, "width", None),)
    agrees = norm is None or len(norm) in widths
    # If the file states a number, a difference is reported later, with the nearest preset.
    open_ = stated.heads is None and agrees and wanted.family in infer_config.OF_HEADS
    dilated = getattr(wanted, "dilated", None) if stated.dilated is None else None
    gelu = wanted.gelu if wanted.family == "clip" and stated.gelu is None else None
    return Said("--model", wanted.heads if open_ else None, sizes=(wanted.size,), gelu=gelu, dilated=dilated)


def _with_conventions(config: Any, said: Said, opened: Opened) -> Any:
    """Return the settings with the stated epsilon and GELU; raise WeightsError if the network lacks them."""
    names = {field.name for field in fields(config)}
    if (
        said.gelu
        and said.gelu != getattr(config, "gelu", "exact")
        and getattr(config, "mlp", "gelu") == "gelu"
    ):
        raise WeightsError(
            f"{opened.path} is a {config.family} with the {said.gelu} GELU, as {said.by} says; that of ours has the "
            "exact one, and would answer otherwise."
        )
    return (
        config
        if said.norm_eps is None or "norm_eps" not in names
        else replace(config, norm_eps=said.norm_eps)
    )


def _classifier(weights: Loaded, config: Any, asked: Asked) -> tuple[Loaded, str | None, str | None]:
    """Return the weights, the pool of their classifier, and a note if the classifier is not used."""
    head = weights.head
    if not head or config.family not in WITH_CLASSIFIER:
        return weights, None, None
    if config.family == "mae" and not asked.folder:
        return weights, mae_files.pool_of(config, head, asked.written is not None), None
    if asked.folder:
        pool = asked.folder.pool
        if pool is None:
            return (
                Loaded(weights.encoder, {}),
                None,
                "its classifier reads what none of ours does, and is left aside",
            )
        return weights, pool, None
    if any(name.startswith("pool.attention.") for name in head):
        with torch.device("meta"):
            ours = AttentionPool(config.width).heads
        if config.heads != ours:
            line = f"its pool has {config.heads} heads and ours {ours}; pool and classifier are left aside"
            return Loaded(weights.encoder, {}), None, line
        return weights, "attention", None
    return weights, hub_folder.POOLS.get(hub_folder.hub_type(asked.opened.config) or ""), None


def _size_line(config: Any, said: Said) -> str | None:
    """Return a note if the image size was assumed."""
    if (
        config.family in ("vvt", "wetmapformer")
        or config.size in (said.image, *said.sizes)
        or getattr(config, "position", "") == "relative"
        or getattr(config, "table", None) is not None
    ):
        return None
    height, width = config.size
    none = "the file states no size" if not said.sizes else "no size that is stated has as many places"
    return (
        f"made for {height} x {width} px, as a square has it: {none} (else: --network image=[HEIGHT,WIDTH])"
    )


def _left(front: str, opened: Opened, kind: Layout) -> str:
    rest = len(opened.tensors) - len(kind.tensors)
    others = f", {rest} other tensors are left aside" if rest else ""
    return f"its part {front.rstrip('.')!r} is taken{others}"


def _at(opened: Opened, error: WeightsError) -> WeightsError:
    return WeightsError(f"{opened.path}: {error}")


def _way_out(config: Any, opened: Opened, kind: Layout) -> str:
    """Return how to go on with tensors that do not fit the settings that were found."""
    if kind.detector and not opened.config:
        return "There is no config.json beside them, which states what no tensor tells: put it there."
    return _hint(config)


def _hint(config: Any) -> str:
    exact = infer_config.preset_of(config)
    if exact:
        return f"Its tensors have the shapes of {exact}: pass --model {exact}."
    return f"The nearest preset is {infer_config.nearest_preset(config)}."
