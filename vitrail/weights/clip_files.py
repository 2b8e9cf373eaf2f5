"""Files of CLIP: which layout they have, the settings of both towers, and what no tensor tells."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.layers.contrastive_head import ContrastiveHead
from vitrail.layers.text_tower import TextTower
from vitrail.layers.tokens import CLASS, FeatureSpec
from vitrail.models.clip import PRESETS, ClipConfig
from vitrail.weights import hub_folder, infer_config, rules
from vitrail.weights.conventions import Conventions, Preprocessing, of_hub
from vitrail.weights.files import Opened
from vitrail.weights.infer_config import Peek
from vitrail.weights.read_request import CONVERTED
from vitrail.weights.rules import Shapes, Table
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import clip

WORDS = 49408
"""Tokens of CLIP's vocabulary."""

RETRIEVE = "retrieve"
"""The task of both towers together."""

HUB_TYPES = ("clip", "clip_vision_model")
"""transformers' types of these networks."""

HEAD_WIDTH = 64
"""Numbers of a head in the networks of CLIP's authors."""

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the images that the authors' networks were trained on."""

FITS: Mapping[str, Any] = MappingProxyType({"shortest": "crop", "longest": "pad", "squash": "squash"})
"""open_clip's names of ways to resize → ours."""

TEXT: Mapping[str, Any] = MappingProxyType(
    {"num_attention_heads": 8, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0}
)
"""transformers' defaults of the text tower."""


class Text(NamedTuple):
    """What no tensor tells of a text tower, or None; `other` says how it computes otherwise than ours."""

    heads: int | None = None
    gelu: str | None = None
    other: str = ""


class Found(NamedTuple):
    """A file of CLIP: its table and tensors, what it states of the image tower and the text tower, its preprocessing.

    With a text tower that is like ours, `settings` are those of the task of both towers, and `head` are the shapes of
    its tensors. `notes` are sentences on what was left aside.
    """

    table: Table
    tensors: Mapping[str, Tensor]
    said: Said
    text: Text
    preprocessing: Preprocessing | None
    settings: Mapping[str, Any] = MappingProxyType({})
    head: Shapes | None = None
    notes: tuple[str, ...] = ()


def look(opened: Opened, tensors: Mapping[str, Tensor]) -> Found | None:
    """Return what a file of CLIP holds, or None for another file.

    Raises:
        WeightsError: the image tower is a ResNet, or a tensor of the text tower is missing.
    """
    named = rules.rename_keys(tensors, clip.SPELLINGS)
    if "visual.attnpool.positional_embedding" in named:
        raise WeightsError(
            f"{opened.path} is a CLIP whose image tower is a ResNet with attention pooling (RN50, RN101, RN50x4 …), "
            "which is not here. Take one with a ViT, such as ViT-B/32: openai/clip-vit-base-patch32. timm has these "
            "ResNets without the text tower: --model resnet50_clip.openai"
        )
    if {"class_embedding", "ln_pre.weight"} <= named.keys():
        named = {f"visual.{name}": tensor for name, tensor in named.items()}
    if {"visual.class_embedding", "visual.ln_pre.weight"} <= named.keys():
        return _with_text(_official(opened, named), opened)
    described = hub_folder.hub_type(opened.config) in HUB_TYPES or CONVERTED in opened.metadata
    if "vision_model.pre_layrnorm.weight" in named and described:
        return _with_text(_hub(opened, named), opened)
    return None


def encoder(peek: Peek, conventions: Conventions, said: Said) -> ClipConfig:
    """Return the settings of the image tower."""
    column = infer_config.vit(peek, conventions, said)
    assert isinstance(column.patch, int)
    return ClipConfig(
        image=column.image,
        patch=column.patch,
        channels=column.channels,
        width=column.width,
        depth=column.depth,
        heads=column.heads,
        hidden=column.hidden,
        gelu=said.gelu or "exact",
        resize=conventions.resize,
    )


def gelu_line(config: Any, said: Said) -> str | None:
    """Return a note if nobody states the GELU."""
    if config.family != ClipConfig.family or said.gelu is not None:
        return None
    return (
        "its GELU is taken for the exact one, as in most trainings: the file does not say, and OpenAI's own have "
        "another (else: --network gelu=quick)"
    )


def with_gelu(settings: Mapping[str, Any], config: Any) -> Mapping[str, Any]:
    """Return the settings of the task, where nobody states the text tower's GELU with that of the image tower."""
    return {**settings, "gelu": config.gelu} if settings.get("gelu", "") is None else settings


def _official(opened: Opened, tensors: Mapping[str, Tensor]) -> Found:
    """Return a file of OpenAI or of open_clip."""
    stated = opened.config.get("open_clip") or {}
    if network := stated.get("model_cfg"):
        said, text = _of_open_clip(network, tensors), _text_of_open_clip(network)
    elif CONVERTED in opened.metadata:  # which states all
        said, text = Said(), Text()
    else:
        said, text = _of_form(tensors), Text()
    steps = stated.get("preprocess_cfg") or {}
    prepared = Preprocessing(
        tuple(steps.get("mean") or MEAN),
        tuple(steps.get("std") or STD),
        image=said.sizes[0] if said.sizes else None,
        fit=FITS.get(steps.get("resize_mode", "shortest"), "crop"),
        crop_fraction=1.0,
        interpolation=steps.get("interpolation") or "bicubic",
    )
    return Found(clip.OFFICIAL, tensors, said, text, prepared)


def _of_form(tensors: Mapping[str, Tensor]) -> Said:
    """Return what the form of a file tells: those of OpenAI state the size, and have heads of 64 and the quick GELU."""
    patches = tensors.get("visual.conv1.weight")
    if patches is None or patches.ndim != 4:
        return Said()
    width = len(patches)
    if clip.SCALARS[0] in tensors:
        side = int(tensors[clip.SCALARS[0]])
        return Said("its form", max(1, width // HEAD_WIDTH), sizes=((side, side),), gelu="quick")
    known = any((one.width, one.patch) == (width, patches.shape[-1]) for one in PRESETS.values())
    return Said("its width", None if known or width % HEAD_WIDTH else width // HEAD_WIDTH)


def _of_open_clip(stated: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Said:
    """Return the settings of the image tower in an open_clip_config.json."""
    vision = stated.get("vision_cfg") or {}
    size = vision.get("image_size", 224)
    side = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    heads = len(tensors["visual.class_embedding"]) // int(vision.get("head_width", HEAD_WIDTH))
    tanh = (vision.get("act_kwargs") or {}).get("approximate") == "tanh"
    return Said(
        "open_clip_config.json",
        heads,
        sizes=(side,),
        gelu="quick" if stated.get("quick_gelu") else "tanh" if tanh else "exact",
        norm_eps=(vision.get("norm_kwargs") or {}).get("eps"),
    )


def _text_of_open_clip(stated: Mapping[str, Any]) -> Text:
    """Return what an open_clip_config.json states of the text tower."""
    vision, text = stated.get("vision_cfg") or {}, stated.get("text_cfg") or {}
    usual: Mapping[str, Any] = {
        "hf_model_name": None, "pool_type": "argmax", "mlp_ratio": 4.0, "no_causal_mask": False, "embed_cls": False,
        "proj_bias": False, "ls_init_value": None,
    }  # fmt: skip
    others = [f"{name} = {text[name]}" for name, one in usual.items() if text.get(name, one) != one]
    if vision.get("pool_type", "tok") != "tok" or vision.get("attentional_pool"):
        others.append("a pool of another kind")
    heads = text.get("heads", 8)
    return Text(heads if isinstance(heads, int) else None, None, ", ".join(others))


def _hub(opened: Opened, tensors: Mapping[str, Tensor]) -> Found:
    """Return a file of transformers."""
    answers = any(name.startswith("classifier.") for name in tensors)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    # CLIPForImageClassification reads the mean of the patches before the last norm.
    notes = ("its classifier reads what no head of ours does, and is left aside",) if answers else ()
    if not opened.config:  # a file of ours, which states all
        return Found(clip.HUB, kept, Said(), Text(), None, notes=notes)
    said = hub_folder.said_of(hub_folder.whole(opened.config))
    stated = {**TEXT, **(opened.config.get("text_config") or {})}
    gelu, eps = hub_folder.GELUS.get(stated["hidden_act"]), stated["layer_norm_eps"]
    other = "" if gelu in ("exact", "quick") else f"hidden_act = {stated['hidden_act']}"
    other = other or ("" if eps == TEXT["layer_norm_eps"] else f"layer_norm_eps = {eps}")
    text = Text(stated["num_attention_heads"], gelu, other)
    prepared = of_hub(opened.preprocessing)
    if prepared is None:
        prepared = Preprocessing(MEAN, STD, None, "crop", 1.0, "bicubic")
        notes = (
            *notes,
            "its images are prepared as CLIP's authors do: no preprocessor_config.json says otherwise",
        )
    return Found(clip.HUB, kept, said, text, prepared, notes=notes)


def _with_text(found: Found, opened: Opened) -> Found:
    """Return the file with its text tower, or the image tower alone if there is none, or if it computes otherwise."""
    of_head = Table(found.table.name, found.table.head)
    rise = rules.peek(of_head, found.tensors, "tower.blocks.0.mlp.rise.weight")
    embedding = rules.peek(of_head, found.tensors, "tower.embed.weight")
    other = found.text.other
    if rise is not None and len(rise) != 4 * rise.shape[1]:
        other = f"an MLP of {len(rise)} numbers for a width of {rise.shape[1]}"
    if embedding is None or other:
        return _image_alone(found, other)
    project, table = (
        _wanted(of_head, found.tensors, name, opened) for name in ("project.weight", "tower.table")
    )
    tensors = dict(found.tensors)
    tensors.setdefault(clip.BIAS, torch.zeros(()))
    block = rules.sources_of(of_head, "tower.blocks.0.norm1.weight")[0]
    numbered = (block.replace(".0.", f".{number}.") for number in range(len(tensors)))
    settings = {
        "pool": CLASS,
        "embed": len(project),
        "text_width": embedding.shape[1],
        "text_depth": sum(1 for _ in takewhile(tensors.__contains__, numbered)),
        "text_heads": found.text.heads or max(1, embedding.shape[1] // HEAD_WIDTH),
        "context": len(table),
        "vocabulary": _vocabulary(opened.path, len(embedding)),
        "vocabulary_size": len(embedding),
        "gelu": found.text.gelu,
        "loss": "sigmoid" if tensors[clip.BIAS].any() else "softmax",
    }
    return found._replace(tensors=tensors, settings=settings, head=_shapes(settings, project.shape[1]))


def _vocabulary(path: Path, size: int) -> str:
    """Return the vocabulary of the text tower: that of CLIP, or the tokenizer.json beside a tower of another size."""
    folder = path if path.is_dir() else path.parent
    beside = folder / "tokenizer.json"
    return str(beside) if size != WORDS and beside.is_file() else "clip"


def _wanted(table: Table, tensors: Mapping[str, Tensor], name: str, opened: Opened) -> Tensor:
    tensor = rules.peek(table, tensors, name)
    if tensor is None:
        missing = rules.sources_of(table, name)[0]
        raise WeightsError(f"{opened.path} lacks {missing} of CLIP: it is incomplete. Copy it again.")
    return tensor


def _image_alone(found: Found, other: str) -> Found:
    """Return the file without a text tower, and what was left aside."""
    kept = {name: t for name, t in found.tensors.items() if name.startswith(("visual.", "vision_model."))}
    kept.pop("visual.proj", None)
    aside = {name.partition(".")[0] for name in found.tensors.keys() - kept.keys() - {*clip.SCALARS}}
    why = f" ({other})" if other else ""
    notes = (f"left aside: {', '.join(sorted(aside))}{why}",) if aside else ()
    return found._replace(tensors=kept, notes=(*found.notes, *notes))


def _shapes(settings: Mapping[str, Any], width: int) -> Shapes:
    """Return the shapes of the tensors of a head with these settings, on an image tower of this width."""
    names = ("text_width", "text_depth", "text_heads", "context", "vocabulary_size")
    with torch.device("meta"):
        tower = TextTower(*(settings[name] for name in names))
        head = ContrastiveHead(FeatureSpec(width, (1,), (CLASS,)), settings["embed"], tower, pool=CLASS)
    return {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
