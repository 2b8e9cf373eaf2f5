"""The same ViT for patches of another size: Beyer et al. 2023, "FlexiViT: One Model for All Patch Sizes",
arXiv:2212.08013, §3.3.

With B the matrix that resizes a patch of p² pixels to one of q², weights ŵ of the new patch answer to resized patches
as w does to the old ones where ŵ minimises the mean of (⟨x, w⟩ - ⟨Bx, ŵ⟩)² over patches x of independent pixels:

    ŵ = (Bᵀ)⁺ w

For larger patches both products are equal; for smaller ones they are as near as can be. The position table is resized
to the grid of the new patches. All other weights are shared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.layers.encoder import KEPT, ColumnEncoder, Encoder
from vitrail.layers.patch_embedding import PatchEmbed
from vitrail.layers.position import LearnedPosition
from vitrail.layers.tokens import class_tokens


def can_resize_patches(encoder: Encoder) -> bool:
    """Tell whether an encoder can have other patches: a column of square ones, side by side, with a position table."""
    embed, position = (getattr(encoder, name, None) for name in ("embed", "position"))
    return (
        isinstance(encoder, ColumnEncoder)
        and isinstance(embed, PatchEmbed)
        and embed.step == embed.patch == encoder.spec.strides[0]
        and isinstance(position, LearnedPosition)
        and not encoder.spec.frames
        and set(encoder.takes) <= {KEPT}  # what a DiT tells lies on its patches
        and len(class_tokens(encoder.spec.prefix)) <= 1  # windows must tile the grid
    )


def with_patch(encoder: Encoder, size: tuple[int, int], patch: int) -> Encoder:
    """Return the encoder for images of `size` (height, width) in patches with this side in pixels.

    Raises:
        SettingError: the encoder cannot have other patches, or they do not tile the images.
    """
    if not can_resize_patches(encoder):
        raise SettingError(
            "The patches of this network cannot be resized. ViT, DeiT and DINOv2 can, with a learned position table "
            "and patches side by side. Choose an operating point without patch."
        )
    old: Any = encoder
    with torch.device("meta"):
        made = type(old)(replace(old.config, image=size, patch=patch))
    state = dict(old.state_dict())
    state["embed.project.weight"] = resize_patches(old.embed.project.weight.detach(), patch)
    state["position.table"] = old.position.fitted(made.position.grid).detach()
    made.load_state_dict(state, assign=True)
    return cast(Encoder, made.train(old.training).requires_grad_(False))


def resize_patches(weight: Tensor, patch: int) -> Tensor:  # (d, c, p, p) -> (d, c, patch, patch)
    """Return the weights of a patch embedding for patches with another side, by the pseudo-inverse of the resize."""
    old = weight.shape[-1]
    if old == patch:
        return weight
    inverse = torch.linalg.pinv(_resize_matrix(old, patch).T).to(weight)  # (patch², p²)
    resized: Tensor = weight.flatten(2) @ inverse.T
    return resized.view(*weight.shape[:2], patch, patch)


def _resize_matrix(old: int, new: int) -> Tensor:
    """Return the matrix that resizes a patch, bilinear with antialiasing, in float64: (new², old²)."""
    pixels = torch.eye(old * old, dtype=torch.float64).view(old * old, 1, old, old)
    resized = F.interpolate(pixels, (new, new), mode="bilinear", align_corners=False, antialias=True)
    return resized.flatten(1).T
