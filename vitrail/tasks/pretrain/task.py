"""Masked autoencoders: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", arXiv:2111.06377.

Most patches of an image are hidden. The encoder gets the others only, which makes it three to four times cheaper,
and a small decoder predicts the pixels of the hidden ones. No labels are needed; afterwards the encoder is fine-tuned
on few labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import gcd, isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.truth import Truth
from vitrail.layers.encoder import KEPT, Encoder
from vitrail.layers.heads import Head, Output
from vitrail.layers.masked_decoder import MaskedDecoder, patchify, unpatchify
from vitrail.layers.position import RelativeVectors
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, Task, within
from vitrail.tasks.pretrain import masks
from vitrail.tasks.pretrain.evaluation import PretrainEvaluation
from vitrail.tasks.pretrain.loss import (
    ERROR,
    HIDDEN,
    PATCHES,
    PIXELS,
    SPREAD,
    spans,
    squared_error,
    variance,
    wanted,
)
from vitrail.tasks.pretrain.reconstruction import Reconstruction, triptych
from vitrail.tasks.pretrain.settings import PretrainSettings
from vitrail.tasks.pretrain.targets import NONE, PretrainTargets

if TYPE_CHECKING:
    from PIL.Image import Image

DECODER = ("width", "depth", "heads")
"""The settings of the decoder."""

STEP, LEAST, MOST = 64, 64, 512
"""The width of a decoder is two thirds of the encoder's, in such steps and between these widths."""

SHALLOW, DEEP = 4, 8
"""Blocks of a decoder, and of one that has the largest width."""

HEAD = 32
"""Width of an attention head of a decoder."""

SAME = 0.02
"""Mean difference of two predictions of a patch, in units of its spread, up to which they agree."""

TINY = 1e-12

WIDE, NARROW = 224, 96
"""Pixels of the short side of an image on a page, and in the sheet shown while a training runs."""

GLANCE = 640
"""Pixels of the three panels of that sheet at most."""


class Pretrain(Task[None, Reconstruction], PretrainTargets):
    """Squared error of the hidden patches. Masks are drawn anew in every step, and fixed by the id in evaluations."""

    name = "pretrain"
    kind = "none"
    Settings = PretrainSettings
    outputs: Mapping[str, tuple[str, ...]] = {PATCHES: ("patch", "pixel")}
    inputs = ("images", KEPT)
    answers = False
    fresh = True
    begins_from = ("pretrain",)
    head_settings = DECODER
    agreement = "reconstructions are the same"

    def __init__(
        self, truth: Truth | Sequence[str] = NONE, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(truth, settings)

    # Network

    def refuse_network(self, encoder: Encoder) -> None:
        """Raise a SettingError for a network whose patches cannot be left out, or that has a decoder of its own."""
        if not encoder.plain_column or any(isinstance(part, RelativeVectors) for part in encoder.modules()):
            raise SettingError(
                "Masked pretraining leaves most patches out, which only a plain column of blocks allows: ViT, DeiT, "
                "MAE, or DINOv2 without registers, with patches side by side and positions that are added (not "
                "--network position=relative, and no --stride). Choose one: --model vit_s16"
            )
        stated = [name for name in DECODER if getattr(self.settings, name) is not None]
        if stated and encoder.own_head(self.name, 0) is not None:
            raise SettingError(
                f"This network has the decoder of its paper. Leave out --set {stated[0]}, and change that decoder: "
                "--network decoder=[512,8,16]"
            )

    def head(self, spec: FeatureSpec) -> Head:
        """Return the decoder."""
        own = self.settings
        width = own.width or min(MOST, max(LEAST, spec.width * 2 // 3 // STEP * STEP))
        depth = own.depth or (DEEP if width >= MOST else SHALLOW)
        heads = own.heads or gcd(max(1, width // HEAD), width)
        return MaskedDecoder(spec, spec.strides[-1], spec.channels, width, depth, heads)

    def hide(self, batch: Batch[Any], kept: Tensor) -> Batch[Any]:
        """Return the batch with the patches that the encoder is to see: int64 (b, seen)."""
        return replace(batch, inputs={**batch.inputs, KEPT: kept.to(batch.images.device)})

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the loss under masks that are drawn from `rng`."""
        patches = _count(batch.images, _side(network, batch.images))
        kept = masks.drawn(len(batch), patches, masks.count_seen(patches, self.settings.mask), rng)
        return self.loss(self.answer(network, self.hide(batch, kept), Ask()), batch.targets)

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        """Return predicted and true patches, which are hidden, and the squared error and variance of each image.

        If the batch does not say which patches are seen, this follows from the ids of the images.
        """
        side = _side(network, batch.images)
        patches = _count(batch.images, side)
        if KEPT not in batch.inputs:
            kept = masks.fixed(batch.ids, patches, masks.count_seen(patches, self.settings.mask))
            batch = self.hide(batch, kept)
        predicted: Tensor = network(batch.inputs)[PATCHES]
        hidden = masks.hidden_of(batch.inputs[KEPT], patches)
        pixels = patchify(batch.images, side).float()
        true = wanted(pixels, self.settings.normalise)
        return {
            PATCHES: predicted,
            PIXELS: pixels,
            HIDDEN: hidden,
            ERROR: squared_error(predicted, true, hidden),
            SPREAD: variance(true, hidden, self.settings.normalise),
        }

    def loss(self, output: Output, targets: Any) -> Losses:
        """Return the mean squared error of the hidden patches; every image has the same number of them."""
        return Losses({"pixels": output[ERROR].mean()})

    # Answer

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Reconstruction]:
        """Return what was guessed of each input, for drawings."""
        guessed = output[PATCHES].float()
        if self.settings.normalise:
            mean, deviation = spans(output[PIXELS])
            guessed = guessed * deviation + mean
        hidden = output[HIDDEN][..., None]
        guessed = guessed * hidden + output[PIXELS] * (1 - hidden)
        explained = 1 - output[ERROR] / output[SPREAD].clamp_min(TINY)
        parts = zip(output[PIXELS], guessed, output[HIDDEN], explained.tolist(), at, strict=True)
        return [_reconstruction(*part) for part in parts]

    def score(self, output: Output, prediction: Reconstruction) -> Tensor:
        """Return the negative squared error of each image: (b,)."""
        return -output[ERROR]

    def render(self, image: Image, prediction: Reconstruction) -> Image:
        """Return what the network saw, its guess, and the image."""
        return triptych(image, prediction, WIDE)

    def compare(self, image: Image, prediction: Reconstruction, truth: None) -> Image:
        """Return the same: the truth is the image."""
        return self.render(image, prediction)

    def glance(self, image: Image, output: Output, geometry: Geometry, truth: None) -> Image:
        """Return the three panels in a small size."""
        small = triptych(image, self.decode(output, [geometry], Ask())[0], NARROW, gap=2, title=False)
        small.thumbnail((GLANCE, GLANCE))
        return small

    # Proof

    def fingerprint(self, output: Output) -> Tensor:
        """Return the predicted pixels, squeezed into 0 … 1, as means over equal spans: (b, m)."""
        squeezed = output[PATCHES].float().sigmoid().flatten(1)
        sums = within(squeezed)
        return sums / -(-squeezed.shape[1] // sums.shape[1])

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return for which images every patch is predicted alike, up to `SAME` on average over its pixels."""
        apart = (one[PATCHES].float() - other[PATCHES].float()).abs().mean(-1)
        return apart.amax(1) <= SAME + tolerance

    # Evaluation

    def evaluation(self) -> PretrainEvaluation:
        return PretrainEvaluation(self.settings.mask, self.settings.normalise)


def _side(network: nn.Module, images: Tensor) -> int:
    """Return the pixels on a side of a patch, as the decoder predicts them; the network may be wrapped."""
    decoder = next(part for part in network.modules() if isinstance(part, MaskedDecoder))
    return isqrt(decoder.predict.out_features // images.shape[1])


def _count(images: Tensor, side: int) -> int:
    """Return the number of patches in each image."""
    height, width = images.shape[-2:]
    return (height // side) * (width // side)


def _reconstruction(
    pixels: Tensor, guessed: Tensor, hidden: Tensor, explained: float, at: Geometry
) -> Reconstruction:
    """Return the input and its guess as images: patches (n, v), (n, v) and hidden (n,)."""
    height, width = at.size
    side = isqrt(height * width // len(hidden))
    grid, channels = (height // side, width // side), pixels.shape[-1] // side**2
    both = unpatchify(torch.stack([pixels, guessed]), grid, channels).permute(0, 2, 3, 1).numpy()
    where = hidden.view(grid).bool().repeat_interleave(side, 0).repeat_interleave(side, 1).numpy()
    return Reconstruction(both[0], both[1], where, explained, at)
