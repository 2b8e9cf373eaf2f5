"""Detect the layout of tensors by their names: the table that reads them, and the conventions of the layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from vitrail.core.errors import WeightsError
from vitrail.weights import (
    clip_files,
    detr_files,
    dit_files,
    eomt_files,
    hub_folder,
    infer_config,
    keras_files,
    mae_files,
    rf_detr_files,
    rules,
    timesformer_files,
)
from vitrail.weights.conventions import (
    DETR,
    GOOGLE,
    HUGGINGFACE,
    OFFICIAL,
    RF_DETR,
    TIMM,
    Conventions,
    of_hub,
)
from vitrail.weights.files import Opened
from vitrail.weights.read_request import CLASSIFY
from vitrail.weights.rules import Table
from vitrail.weights.stated_config import Said
from vitrail.weights.tables import clip, google, huggingface, keras, official, rf_detr
from vitrail.weights.tables import timm as timm_tables


class Layout(NamedTuple):
    """A detected layout: its table, the function from shapes to settings, its tensors and conventions.

    The head is that of `task` with these `settings`, and `labels` are its classes, if stated. With `classes`, their
    number, it is loaded as strictly as the encoder. `notes` are sentences about assumptions.
    """

    table: Table
    infer: Callable[[infer_config.Peek, Conventions, Said], Any]
    tensors: Mapping[str, Tensor]
    conventions: Conventions
    said: Said = Said()
    task: str = CLASSIFY
    settings: Mapping[str, Any] = MappingProxyType({})
    labels: tuple[str, ...] = ()
    classes: int = 0
    notes: tuple[str, ...] = ()
    detector: str = ""  # transformers' `model_type` of a network with a head of boxes or masks
    own_head: bool = False  # the head is the network's own, without classes, and loaded as strictly
    head: rules.Shapes | None = None  # of all tensors of the head, if they are known without its classes


def layout_of(opened: Opened, tensors: Mapping[str, Tensor], family: str | None) -> Layout | None:
    """Return the layout of the tensors of a file; `family` is that of the network named by the user, if any."""
    names = tensors.keys()
    if opened.metadata == keras_files.FORMAT:
        return _keras(opened, tensors)
    if (detector := rf_detr_files.canonical(tensors)) is not None:
        return _rf_detr(opened, detector)
    if found := eomt_files.look(opened, tensors):
        return _eomt(opened, found)
    if (found_detr := detr_files.look(tensors)) is not None:
        return _detr(opened, found_detr)
    if found_clips := timesformer_files.look(opened, tensors):
        return Layout(**found_clips._asdict())
    if found_own := dit_files.look(opened, tensors) or mae_files.look(opened, tensors, family):
        return Layout(**found_own._asdict())
    if (found_clip := clip_files.look(opened, tensors)) is not None:
        return _clip(found_clip)
    if any(name.endswith("embedding/kernel") for name in names):
        renamed = google.renamed(tensors)
        query = next((t for n, t in renamed.items() if n.endswith("query/kernel")), None)
        said = Said("the file", None if query is None else query.shape[1])
        return Layout(google.vit(), infer_config.vit, renamed, GOOGLE, said)
    if "MixerBlock_0/token_mixing/Dense_0/kernel" in names:
        return Layout(google.MIXER, infer_config.mixer, tensors, GOOGLE)
    if "blocks.0.mlp_tokens.fc1.weight" in names and "stem.proj.weight" in names:
        return Layout(timm_tables.MIXER, infer_config.mixer, tensors, TIMM)
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in names):
        return _hub(opened, tensors)
    if {"patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"} <= names:
        return _timm(tensors, family)
    if "layers.0.blocks.0.attn.relative_position_bias_table" in names:
        table = official.SWIN if "layers.0.downsample.norm.weight" in names else official.SWIN_TIMM
        return Layout(table, infer_config.swin, tensors, OFFICIAL)
    if "pos_embed_list.0" in names:
        return Layout(official.SUPERVIT, infer_config.supervit, tensors, OFFICIAL)
    if "patch_embed1.proj.weight" in names and "block1.0.attn.q_proj.weight" in names:
        return Layout(official.VVT, infer_config.vvt, tensors, OFFICIAL)
    if "tokens_to_token.project.weight" in names:
        performer = "tokens_to_token.attention1.w" in names
        table = official.T2T_PERFORMER if performer else official.T2T_TRANSFORMER
        return Layout(table, infer_config.t2t, tensors, OFFICIAL)
    return None


def refuse_other_type(opened: Opened, kind: Layout) -> None:
    """Raise WeightsError if config.json names another network than the tensors have, where one is a detector."""
    stated = hub_folder.hub_type(opened.config)
    if stated not in hub_folder.PAGES or stated == kind.detector:
        return
    if stated in hub_folder.DETECTORS or kind.detector:
        tensors = f"those of {kind.detector!r}" if kind.detector else f"named as in {kind.table.name}"
        raise WeightsError(
            f"{opened.path}: config.json says model_type {stated!r}, and the tensors are {tensors}. Copy both files "
            "from one repository."
        )


def inferred(opened: Opened, kind: Layout, said: Said) -> Any:
    """Return the settings of the network; a WeightsError names the file, and a missing tensor as the file would."""
    try:
        return kind.infer(partial(rules.peek, kind.table, kind.tensors), kind.conventions, said)
    except rules.LacksError as error:
        missing = ", ".join(rules.sources_of(kind.table, error.name))
        raise WeightsError(
            f"{opened.path} lacks {missing}: it is incomplete, or another network than a {kind.table.name} one. "
            "Copy it again."
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{opened.path}: {error}") from error


def _keras(opened: Opened, tensors: Mapping[str, Tensor]) -> Layout:
    try:
        found = keras_files.look(tensors)
    except WeightsError as error:
        raise WeightsError(f"{opened.path}: {error}") from error
    conventions = replace(OFFICIAL, name="keras", preprocessing=found.preprocessing)
    return Layout(
        keras.table(found.config), lambda *_: found.config, found.tensors, conventions, notes=found.notes
    )


def _rf_detr(opened: Opened, tensors: Mapping[str, Tensor]) -> Layout:
    stated = rf_detr_files.stated_by(opened.config)
    task, settings, classes = rf_detr_files.settings(tensors, stated)
    hub = hub_folder.hub_type(opened.config) is not None
    sizes = ((stated.image, stated.image),) if stated.image else ()
    said = hub_folder.said_of(hub_folder.whole(opened.config)) if hub else Said(stated.by, sizes=sizes)
    conventions = replace(HUGGINGFACE, preprocessing=of_hub(opened.preprocessing)) if hub else RF_DETR
    table = rf_detr.table(apart=rf_detr_files.is_apart(tensors))
    infer = partial(rf_detr_files.encoder, stated=stated)
    labels = stated.classes if len(stated.classes) == classes else ()
    notes = rf_detr_files.notes(stated, classes)
    return Layout(table, infer, tensors, conventions, said, task, settings, labels, classes, notes, "rf_detr")


def _detr(opened: Opened, found: detr_files.Found) -> Layout:
    """Return the layout of a file of DETR, of transformers or of its authors."""
    stated = hub_folder.whole(opened.config) if hub_folder.hub_type(opened.config) else {}
    base = HUGGINGFACE if found.hub else OFFICIAL
    conventions = replace(base, preprocessing=of_hub(opened.preprocessing) if stated else DETR.preprocessing)
    infer = partial(detr_files.encoder, found=found, stated=stated)
    tensors, task, settings = found.tensors, found.task, found.settings
    said = Said("config.json" if stated else "its name", dilated=detr_files.dilated(opened.path, stated))
    return Layout(
        found.table, infer, tensors, conventions, said, task, settings, (), found.classes, detector="detr"
    )


def _clip(found: clip_files.Found) -> Layout:
    """Return the layout of a file of CLIP, of transformers or of OpenAI and open_clip."""
    base = HUGGINGFACE if found.table is clip.HUB else OFFICIAL
    conventions = replace(base, preprocessing=found.preprocessing)
    task = clip_files.RETRIEVE if found.head else CLASSIFY
    return Layout(
        found.table, clip_files.encoder, found.tensors, conventions, found.said, task, found.settings,
        notes=found.notes, head=found.head,
    )  # fmt: skip


def _hub(opened: Opened, tensors: Mapping[str, Tensor]) -> Layout | None:
    if hub_folder.sign(tensors):
        return None
    stated = hub_folder.whole(opened.config)
    said = hub_folder.said_of(stated) if opened.config else Said()
    conventions = replace(HUGGINGFACE, preprocessing=of_hub(opened.preprocessing))
    if any("relative_position_bias_table" in name for name in tensors):
        swin = rules.rename_keys(tensors, huggingface.SWIN_SPELLINGS)
        return Layout(huggingface.SWIN, infer_config.swin, swin, conventions, said)
    renamed = rules.rename_keys(tensors, huggingface.SPELLINGS)
    if "embeddings.patch_embeddings.projection.weight" not in renamed:
        return None
    if "embeddings.distillation_token" in renamed:
        both = "cls_classifier.weight" in renamed
        table = huggingface.DEIT_TEACHER if both else huggingface.DEIT
        return Layout(table, infer_config.deit, renamed, conventions, said)
    if "encoder.layer.0.layer_scale1.lambda1" not in renamed:
        return Layout(huggingface.VIT, infer_config.vit, renamed, conventions, said)
    gated = "encoder.layer.0.mlp.weights_in.weight" in renamed
    table = huggingface.DINOV2_SWIGLU if gated else huggingface.DINOV2
    return Layout(table, infer_config.dinov2, renamed, conventions, said)


def _eomt(opened: Opened, found: eomt_files.Found) -> Layout:
    """Return the layout of a file of EoMT, of transformers or of its authors."""
    stated = hub_folder.whole(opened.config)
    said = hub_folder.said_of(stated) if stated.get("model_type") == "eomt" else Said()
    base = OFFICIAL if found.official else HUGGINGFACE
    conventions = replace(base, preprocessing=of_hub(found.processor))
    answers = {"threshold": 0.8, "overlap": 0.2, "least_area": 0, "merge": "queries"}
    settings: dict[str, Mapping[str, Any]] = {
        "panoptic": answers, "instances": {"threshold": 0.8, "sure_masks": True, "reach": None}
    }  # fmt: skip
    return Layout(
        found.table, found.infer, found.tensors, conventions, said, found.task, settings.get(found.task, {}),
        notes=found.assumed, detector="eomt",
    )  # fmt: skip


def _timm(tensors: Mapping[str, Tensor], family: str | None) -> Layout:
    if "dist_token" in tensors:
        return Layout(timm_tables.DEIT_DISTILLED, infer_config.deit, tensors, TIMM)
    if "norm_pre.weight" in tensors and "patch_embed.proj.bias" not in tensors:
        return Layout(clip.TIMM, clip_files.encoder, tensors, TIMM)
    renamed = rules.rename_keys(tensors, timm_tables.OFFICIAL_SPELLINGS)
    if "blocks.0.ls1.gamma" in renamed:
        return Layout(timm_tables.DINOV2, infer_config.layer_scaled, renamed, TIMM)
    if family == "deit":  # without distillation its files are a ViT's
        return Layout(timm_tables.DEIT, infer_config.deit, tensors, TIMM)
    table = timm_tables.VIT
    for hybrid, root in ((timm_tables.HYBRID, "stem."), (timm_tables.HYBRID_ROOT, "")):
        if f"patch_embed.backbone.{root}conv.weight" in tensors:
            table = hybrid
    return Layout(table, infer_config.vit, tensors, TIMM)
