"""Official networks with a head by our names (detectors, segmenters, CLIP): repository, licence and task. No torch.

The names of repositories are taken from documentation: their pages at huggingface.co, transformers' docstrings, and
EoMT's list of models (github.com/tue-mps/eomt, model_zoo/dinov2.md). Those in `BY_ANALOGY` were not seen anywhere and
follow the names of the others. The licences are those of their authors: Apache-2.0 for DETR, for RF-DETR up to L and
for all RF-DETR-Seg, MIT for EoMT and LAION's CLIP; OpenAI's repository, which its weights belong to, is MIT. No file of
theirs could be fetched where this was written.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple


class Detector(NamedTuple):
    """Published weights with a head: their name, our network, their repository, the task of the head, the licence."""

    name: str
    model: str
    repo: str
    task: str
    licence: str


def _rows(licence: str, *rows: tuple[str, str, str]) -> tuple[Detector, ...]:
    return tuple(Detector(name, name.partition(".")[0], repo, task, licence) for name, repo, task in rows)


DETECTORS: tuple[Detector, ...] = (
    *_rows(
        "apache-2.0",
        ("rf_detr_n.coco", "Roboflow/rf-detr-nano", "detect"),
        ("rf_detr_s.coco", "Roboflow/rf-detr-small", "detect"),
        ("rf_detr_m.coco", "Roboflow/rf-detr-medium", "detect"),
        ("rf_detr_b.coco", "Roboflow/rf-detr-base", "detect"),
        ("rf_detr_l.coco", "Roboflow/rf-detr-large", "detect"),
        ("rf_detr_seg_n.coco", "Roboflow/rf-detr-seg-nano", "instances"),
        ("rf_detr_seg_s.coco", "Roboflow/rf-detr-seg-small", "instances"),
        ("rf_detr_seg_m.coco", "Roboflow/rf-detr-seg-medium", "instances"),
        ("rf_detr_seg_l.coco", "Roboflow/rf-detr-seg-large", "instances"),
        ("rf_detr_seg_xl.coco", "Roboflow/rf-detr-seg-xlarge", "instances"),
        ("rf_detr_seg_2xl.coco", "Roboflow/rf-detr-seg-2xlarge", "instances"),
        ("detr_r50.coco", "facebook/detr-resnet-50", "detect"),
        ("detr_r101.coco", "facebook/detr-resnet-101", "detect"),
        ("detr_r50_dc5.coco", "facebook/detr-resnet-50-dc5", "detect"),
        ("detr_r101_dc5.coco", "facebook/detr-resnet-101-dc5", "detect"),
        ("detr_r50.coco_panoptic", "facebook/detr-resnet-50-panoptic", "panoptic"),
        ("detr_r101.coco_panoptic", "facebook/detr-resnet-101-panoptic", "panoptic"),
        ("detr_r50_dc5.coco_panoptic", "facebook/detr-resnet-50-dc5-panoptic", "panoptic"),
    ),
    *_rows(
        "mit",
        ("eomt_s.coco_panoptic_640", "tue-mps/coco_panoptic_eomt_small_640_2x", "panoptic"),
        ("eomt_b.coco_panoptic_640", "tue-mps/coco_panoptic_eomt_base_640_2x", "panoptic"),
        ("eomt_l.coco_panoptic_640", "tue-mps/coco_panoptic_eomt_large_640", "panoptic"),
        ("eomt_l.coco_panoptic_1280", "tue-mps/coco_panoptic_eomt_large_1280", "panoptic"),
        ("eomt_l.coco_instance_640", "tue-mps/coco_instance_eomt_large_640", "instances"),
        ("eomt_l.coco_instance_1280", "tue-mps/coco_instance_eomt_large_1280", "instances"),
        ("eomt_l.ade20k_semantic_512", "tue-mps/ade20k_semantic_eomt_large_512", "segment"),
        ("eomt_l.cityscapes_semantic_1024", "tue-mps/cityscapes_semantic_eomt_large_1024", "segment"),
        ("eomt_g.coco_panoptic_640", "tue-mps/coco_panoptic_eomt_giant_640", "panoptic"),
        ("eomt_g.coco_panoptic_1280", "tue-mps/coco_panoptic_eomt_giant_1280", "panoptic"),
        ("clip_b32.openai", "openai/clip-vit-base-patch32", "retrieve"),
        ("clip_b16.openai", "openai/clip-vit-base-patch16", "retrieve"),
        ("clip_l14.openai", "openai/clip-vit-large-patch14", "retrieve"),
        ("clip_l14_336.openai", "openai/clip-vit-large-patch14-336", "retrieve"),
        ("clip_b32.laion2b", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "retrieve"),
        ("clip_b16.laion2b", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "retrieve"),
        ("clip_l14.laion2b", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "retrieve"),
        ("clip_h14.laion2b", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "retrieve"),
    ),
)
"""In the order in which a network's name stands for them: the first is taken."""


BY_ANALOGY = (
    "Roboflow/rf-detr-medium",
    "Roboflow/rf-detr-seg-large",
    "Roboflow/rf-detr-seg-2xlarge",
    "facebook/detr-resnet-101-panoptic",
    "facebook/detr-resnet-50-dc5-panoptic",
)
"""Repositories whose names follow those of the others."""


def detector(name: str) -> Detector | None:
    """Return the row of a name: of weights, of a network (its first weights), or of a repository; None without one."""
    return next((row for row in DETECTORS if name in (row.name, row.model, row.repo)), None)


def detectors(model: str = "*") -> list[Detector]:
    """Return the rows of a network, or of all that match a shell pattern."""
    return [row for row in DETECTORS if fnmatchcase(row.model, model)]
