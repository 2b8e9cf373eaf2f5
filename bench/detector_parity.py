"""The largest differences of the published detectors from their authors' outputs and from transformers.

`python -m bench.detector_parity` runs the networks of the parity tests, with random weights through the shipped tables,
and prints a table: boxes in shares of the input, classes as probabilities, masks relative to the largest logit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

from vitrail.runs.published_head import with_own_head
from vitrail.weights.pretrained import from_path

SIDE = 96


class Case(NamedTuple):
    """A network of transformers, and how its classes become probabilities."""

    name: str
    make: Callable[[], nn.Module]
    probabilities: Callable[[Tensor], Tensor]


def main() -> None:
    """Print the table."""
    print("| network | boxes | probabilities | masks |")
    print("| --- | --- | --- | --- |")
    for case in cases():
        print(f"| {case.name} | {' | '.join(differences(case))} |")


def cases() -> Iterator[Case]:
    """Yield small networks of every kind."""
    softmax: Callable[[Tensor], Tensor] = lambda x: x.softmax(-1)[..., :-1]  # noqa: E731
    for kind, masks in (("ObjectDetection", False), ("InstanceSegmentation", True)):
        theirs = getattr(transformers, f"RfDetrFor{kind}")
        yield Case(f"RF-DETR{'-Seg' * masks}", lambda theirs=theirs: theirs(_rf_detr()), torch.sigmoid)
    for kind, masks in (("ObjectDetection", False), ("Segmentation", True)):
        theirs = getattr(transformers, f"DetrFor{kind}")
        yield Case(
            f"DETR{' with masks' * masks}", lambda theirs=theirs, masks=masks: theirs(_detr(masks)), softmax
        )
    yield Case("EoMT", lambda: transformers.EomtForUniversalSegmentation(_eomt()), softmax)


@torch.no_grad()
def differences(case: Case) -> list[str]:
    """Return the largest differences of boxes, probabilities and masks, as text; "" where there are none."""
    torch.manual_seed(0)
    theirs = _shaken(case.make()).eval()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "coco_instance_small"  # what a file of EoMT answers stands in its name
        theirs.save_pretrained(place)
        found = from_path(place)
    network = with_own_head(found).network
    images = torch.randn(2, 3, SIDE, SIDE)
    wanted, output = theirs(pixel_values=images), network({"images": images})
    boxes = getattr(wanted, "pred_boxes", None)
    logits = getattr(wanted, "logits", getattr(wanted, "class_queries_logits", None))
    masks = getattr(wanted, "pred_masks", getattr(wanted, "masks_queries_logits", None))
    parts = [
        None if boxes is None else (output["boxes"] - boxes).abs().max(),
        (output["logits"].sigmoid() - case.probabilities(logits)).abs().max(),
        None if masks is None else (output["masks"] - masks).abs().max() / masks.abs().max(),
    ]
    return ["" if one is None else f"{float(one):.1e}" for one in parts]


@torch.no_grad()
def _shaken(network: nn.Module) -> nn.Module:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape)
            flat = ("weight" in name or "lambda" in name) + 0.3 * noise
            tensor.copy_(noise / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else flat)
            if "running_var" in name:
                tensor.copy_(1 + 0.3 * noise.abs())
    return network


def _rf_detr() -> Any:
    backbone = {
        "model_type": "rf_detr_dinov2", "hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 3,
        "patch_size": 12, "image_size": SIDE, "num_windows": 2, "out_features": ["stage1", "stage3", "stage4"],
    }  # fmt: skip
    return transformers.RfDetrConfig(
        backbone_config=backbone, d_model=64, decoder_layers=2, decoder_ffn_dim=40, decoder_n_points=2,
        num_queries=7, group_detr=3, decoder_self_attention_heads=2, decoder_cross_attention_heads=4,
        intermediate_size=256, layer_norm_eps=1e-6, num_labels=5,
    )  # fmt: skip


def _detr(masks: bool) -> Any:
    backbone = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[32, 64, 128, 256], depths=[1, 2, 1, 1], layer_type="bottleneck",
        out_features=[f"stage{n}" for n in (1, 2, 3, 4)] if masks else ["stage4"],
    )  # fmt: skip
    return transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=backbone, d_model=128,
        encoder_layers=2, decoder_layers=2, encoder_ffn_dim=96, decoder_ffn_dim=96, num_queries=9, num_labels=5,
    )  # fmt: skip


def _eomt() -> Any:
    return transformers.EomtConfig(
        hidden_size=48, num_hidden_layers=5, num_attention_heads=3, image_size=SIDE, patch_size=16, num_blocks=2,
        num_queries=7, num_upscale_blocks=2, num_register_tokens=4, num_labels=5,
    )  # fmt: skip


if __name__ == "__main__":
    main()
