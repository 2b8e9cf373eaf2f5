"""The registry: a kind and a name stand for "module:Object", which is imported on first use.

Parts outside the package are named in full, "my_module:MyTask", wherever a name is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from types import MappingProxyType
from typing import Any

from vitrail.core.errors import SettingError, UnknownNameError

ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        "vit": "vitrail.models.vit:ViT",
        "dinov2": "vitrail.models.dinov2:DinoV2",
        "deit": "vitrail.models.deit:DeiT",
        "mae": "vitrail.models.mae:MAE",
        "clip": "vitrail.models.clip:Clip",
        "swin": "vitrail.models.swin:Swin",
        "t2t": "vitrail.models.t2t:T2T",
        "supervit": "vitrail.models.supervit:SuperViT",
        "vvt": "vitrail.models.vvt:VVT",
        "wetmapformer": "vitrail.models.wetmapformer:WetMapFormer",
        "mixer": "vitrail.models.mixer:Mixer",
        "timesformer": "vitrail.models.timesformer:TimeSformer",
        "frames": "vitrail.models.frames:FrameEncoder",
        "dit": "vitrail.models.dit:DiT",
        "rf_detr": "vitrail.models.rf_detr:RfDetr",
        "detr": "vitrail.models.detr:Detr",
        "eomt": "vitrail.models.eomt:EoMT",
    }
)
"""Family → its network; the same module holds the family's `PRESETS`."""

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vit": (
            "vit_digits",
            "vit_digits_narrow",
            "vit_ti16",
            "vit_s32",
            "vit_s16",
            "vit_b32",
            "vit_b16",
            "vit_b8",
            "vit_l32",
            "vit_l16",
            "vit_h14",
            "vit_r_ti16",
            "vit_r26_s32",
            "vit_r50_b16",
            "vit_r50_l32",
        ),
        "dinov2": (
            "dinov2_s14",
            "dinov2_b14",
            "dinov2_l14",
            "dinov2_g14",
            "dinov2_s14_reg4",
            "dinov2_b14_reg4",
            "dinov2_l14_reg4",
            "dinov2_g14_reg4",
        ),
        "deit": (
            "deit_ti16",
            "deit_s16",
            "deit_b16",
            "deit_ti16_distilled",
            "deit_s16_distilled",
            "deit_b16_distilled",
            "deit3_s16",
            "deit3_m16",
            "deit3_b16",
            "deit3_l16",
            "deit3_h14",
        ),
        "mae": ("mae_digits", "mae_cifar", "mae_ti16", "mae_s16", "mae_b16", "mae_l16", "mae_h14"),
        "clip": (
            "clip_digits",
            "clip_s8",
            "clip_b32",
            "clip_b16",
            "clip_l14",
            "clip_l14_336",
            "clip_h14",
        ),
        "t2t": (
            "t2t_vit_7",
            "t2t_vit_10",
            "t2t_vit_12",
            "t2t_vit_14",
            "t2t_vit_19",
            "t2t_vit_24",
            "t2t_vit_t_14",
            "t2t_vit_t_19",
            "t2t_vit_t_24",
            "t2t_vit_14_resnext",
            "t2t_vit_14_wide",
        ),
        "swin": ("swin_t", "swin_t_c24", "swin_s", "swin_b", "swin_b_384", "swin_l", "swin_l_384"),
        "supervit": ("supervit_digits", "supervit_s", "supervit_lvvit_s"),
        "vvt": ("vvt_t", "vvt_s", "vvt_m", "vvt_l"),
        "wetmapformer": ("wetmapformer", "wetmapformer_m", "wetmapformer_l"),
        "timesformer": (
            "timesformer_digits",
            "timesformer_s",
            "timesformer_b",
            "timesformer_hr",
            "timesformer_l",
        ),
        "frames": (),
        "dit": (
            "dit_digits",
            "dit_cifar",
            "dit_s2",
            "dit_s4",
            "dit_s8",
            "dit_b2",
            "dit_b4",
            "dit_b8",
            "dit_l2",
            "dit_l4",
            "dit_l8",
            "dit_xl2",
            "dit_xl4",
            "dit_xl8",
        ),
        "mixer": ("mixer_s32", "mixer_s16", "mixer_b32", "mixer_b16", "mixer_l32", "mixer_l16", "mixer_h14"),
        "rf_detr": (
            "rf_detr_n",
            "rf_detr_s",
            "rf_detr_m",
            "rf_detr_l",
            "rf_detr_b",
            "rf_detr_seg_n",
            "rf_detr_seg_s",
            "rf_detr_seg_m",
            "rf_detr_seg_l",
            "rf_detr_seg_xl",
            "rf_detr_seg_2xl",
        ),
        "eomt": ("eomt_s", "eomt_b", "eomt_l", "eomt_g"),
        "detr": ("detr_r50", "detr_r50_dc5", "detr_r101", "detr_r101_dc5"),
    }
)
"""Family → the presets of its module, listed here so that names are known without torch (a test compares them)."""

TASKS: Mapping[str, str] = MappingProxyType(
    {
        "classify": "vitrail.tasks.classify.task:Classify",
        "multilabel": "vitrail.tasks.multilabel.task:MultiLabel",
        "segment": "vitrail.tasks.segment.task:Segment",
        "detect": "vitrail.tasks.detect.task:Detect",
        "instances": "vitrail.tasks.instances.task:SegmentInstances",
        "panoptic": "vitrail.tasks.panoptic.task:Panoptic",
        "pretrain": "vitrail.tasks.pretrain.task:Pretrain",
        "generate": "vitrail.tasks.generate.task:Generate",
        "retrieve": "vitrail.tasks.retrieve.task:Retrieve",
        "elastic": "vitrail.tasks.wrappers.elastic:Elastic",
        "elastic_multilabel": "vitrail.tasks.wrappers.elastic:ElasticMultiLabel",
        "distill": "vitrail.tasks.wrappers.distill:Distill",
    }
)

OLD_TASKS: Mapping[str, str] = MappingProxyType(
    {"classify_multi": "multilabel", "elastic_multi": "elastic_multilabel"}
)
"""Old names of tasks → present names, for recipes, model files and commands of earlier versions."""

TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "classify": "vitrail.tasks.classify.targets:ClassTargets",
        "multilabel": "vitrail.tasks.multilabel.targets:LabelTargets",
        "segment": "vitrail.tasks.segment.targets:SegmentTargets",
        "detect": "vitrail.tasks.detect.targets:DetectTargets",
        "instances": "vitrail.tasks.instances.targets:InstanceTargets",
        "panoptic": "vitrail.tasks.panoptic.targets:PanopticTargets",
        "pretrain": "vitrail.tasks.pretrain.targets:PretrainTargets",
        "generate": "vitrail.tasks.generate.targets:GenerateTargets",
        "retrieve": "vitrail.tasks.retrieve.targets:CaptionTargets",
        "elastic": "vitrail.tasks.classify.targets:ClassTargets",
        "elastic_multilabel": "vitrail.tasks.multilabel.targets:LabelTargets",
    }
)
"""Task → its targets class without torch, for checking a data set."""

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "classify": "vitrail.tasks.classify.settings:ClassifySettings",
        "multilabel": "vitrail.tasks.multilabel.settings:MultiLabelSettings",
        "segment": "vitrail.tasks.segment.settings:SegmentSettings",
        "detect": "vitrail.tasks.detect.settings:DetectSettings",
        "instances": "vitrail.tasks.instances.settings:InstanceSettings",
        "panoptic": "vitrail.tasks.panoptic.settings:PanopticSettings",
        "pretrain": "vitrail.tasks.pretrain.settings:PretrainSettings",
        "generate": "vitrail.tasks.generate.settings:GenerateSettings",
        "retrieve": "vitrail.tasks.retrieve.settings:RetrieveSettings",
        "elastic": "vitrail.tasks.wrappers.settings:ElasticSettings",
        "elastic_multilabel": "vitrail.tasks.wrappers.settings:ElasticSettings",
        "distill": "vitrail.tasks.wrappers.settings:DistillSettings",
    }
)
"""Task → the class of its settings, in a module without torch."""

DEFAULT_TASKS: Mapping[str, str] = MappingProxyType(
    {
        "class": "classify",
        "classes": "multilabel",
        "mask": "segment",
        "boxes": "detect",
        "instances": "instances",
        "panoptic": "panoptic",
        "none": "pretrain",
        "caption": "retrieve",
    }
)
"""Kind of labels → the default task."""

DRAFTS = frozenset(("classify", "multilabel", "segment"))
"""The default tasks with a draft: a head that is fitted on features of a frozen network."""

RETRIEVE = "retrieve"
"""The task whose head reads words."""

PRETRAIN = "pretrain"
"""The task whose weights are a start for the others: of its networks only the encoder is taken."""

ELASTIC, DISTILL = "elastic", "distill"
"""The tasks that wrap another one: for several costs at once, and for distillation."""

WRAPPERS: Mapping[str, str | None] = MappingProxyType(
    {ELASTIC: None, "elastic_multilabel": "multilabel", DISTILL: None}
)
"""All tasks that wrap another one → the wrapped task, if the name implies it (in recipes of earlier versions)."""

EXPLAINERS: Mapping[str, str] = MappingProxyType(
    {
        "rollout": "vitrail.explainers.rollout:Rollout",
        "relevance": "vitrail.explainers.relevance:Relevance",
        "gradcam": "vitrail.explainers.gradcam:GradCam",
        "occlusion": "vitrail.explainers.occlusion:Occlusion",
        "attention": "vitrail.explainers.attention_maps:Attention",
    }
)
"""Explanation methods; each tells from a network's spec whether it is applicable."""

LAYOUTS: Mapping[str, str] = MappingProxyType(
    {
        "huggingface": "vitrail.data.layouts.huggingface:look",
        "raster": "vitrail.data.layouts.raster:look",
        "webdataset": "vitrail.data.layouts.webdataset:look",
        "boxes": "vitrail.data.layouts.boxes:look",
        "panoptic": "vitrail.data.layouts.panoptic:look",
        "masks": "vitrail.data.layouts.masks:look",
        "clips": "vitrail.data.layouts.clips:look",
        "captions": "vitrail.data.layouts.captions:look",
        "table": "vitrail.data.layouts.table:look",
        "annotations": "vitrail.data.layouts.annotations:look",
        "npz": "vitrail.data.layouts.npz:look",
        "volumes": "vitrail.data.layouts.nifti:look",
        "folders": "vitrail.data.layouts.folders:look",
        "filenames": "vitrail.data.layouts.filenames:look",
    }
)
"""The layouts of a data source; if several explain the same number of images, the first is chosen."""

ASKED_LAYOUTS: Mapping[str, str] = MappingProxyType(
    {"crops": "vitrail.data.layouts.boxes:crops", "images": "vitrail.data.layouts.decide:images"}
)
"""Layouts that are never detected; the user has to name them."""

KINDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "architecture": ARCHITECTURES,
        "task": TASKS,
        "targets": TARGETS,
        "task settings": SETTINGS,
        "explainer": EXPLAINERS,
        "layout": {**LAYOUTS, **ASKED_LAYOUTS},
    }
)


def with_task_name(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `task` of a recipe or a model file, with old names of it and its wrapped task replaced."""
    task = dict(stated)
    if "name" in task:
        task["name"] = OLD_TASKS.get(task["name"], task["name"])
    settings = task.get("settings")
    if isinstance(settings, Mapping) and settings.get("task") in OLD_TASKS:
        task["settings"] = {**settings, "task": OLD_TASKS[settings["task"]]}
    return task


def load(kind: str, name: str) -> Any:
    """Import the object that is registered under `name`, or the one that "module:Object" names in full."""
    table = KINDS[kind]
    name = OLD_TASKS.get(name, name) if kind in {"task", "targets", "task settings"} else name
    if name not in table and ":" not in name:
        raise UnknownNameError(kind, name, table, f"There are: {', '.join(table)}.")
    module, _, attribute = table.get(name, name).partition(":")
    try:
        home = import_module(module)
    except (ImportError, ValueError) as error:
        own = "" if name in table else " Python must be able to find your module: PYTHONPATH=folder"
        raise SettingError(f"The {kind} {name!r} cannot be imported: {error}.{own}") from error
    if not hasattr(home, attribute):
        near = get_close_matches(attribute, dir(home), 1)
        raise SettingError(
            f"The module {module!r} has no {attribute!r}." + (f" Did you mean {near[0]!r}?" if near else "")
        )
    return getattr(home, attribute)


def family_of(preset: str) -> str | None:
    """Return the family that has this preset, or None."""
    return next((family for family, names in PRESETS.items() if preset in names), None)


def presets(pattern: str = "*") -> list[str]:
    """Return the names of our presets that match a shell pattern, in catalog order."""
    return [name for names in PRESETS.values() for name in names if fnmatchcase(name, pattern)]
