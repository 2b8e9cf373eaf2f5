"""The losses of pairs: CLIP's softmax over the batch, and SigLIP's sigmoid of each pair; over all processes.

Radford et al. 2021, arXiv:2103.00020, figure 3; Zhai et al. 2023, arXiv:2303.15343, algorithm 1. The rows of a batch
lie on several processes: each computes the losses of its own images and captions against those of all. The mean of
these losses over the processes, weighted by their images, is the loss of the whole batch, and so are its gradients.

A caption that also belongs to another image of the batch is no negative of that image: such pairs are left out. Without
them both are the published losses.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.gather import gather_rows
from vitrail.layers.heads import Output


class Pairs(NamedTuple):
    """Which caption each image of a batch has: keys of captions, equal only for equal tokens.

    `drawn` is the key of the caption that stands beside the image (b,), `own` those of all its captions (b, c), filled
    with `drawn`.
    """

    drawn: Tensor
    own: Tensor


class _Sides(NamedTuple):
    """Cosines of the own images with all captions, and of the own captions with all images, (b, n); what is left out.

    `start` is the place of the first own pair among all.
    """

    images: Tensor
    captions: Tensor
    images_left_out: Tensor
    captions_left_out: Tensor
    start: int

    @property
    def right(self) -> Tensor:
        """The place of the right one among all, for each own pair: (b,)."""
        return torch.arange(len(self.images), device=self.images.device) + self.start


def _sides(output: Output, pairs: Pairs) -> _Sides:
    image, text = output["image"].float(), output["text"].float()
    images, captions = gather_rows(image), gather_rows(text)
    keys, start = gather_rows(pairs.drawn).rows, images.start
    also = (pairs.own[:, :, None] == keys).any(1)  # (b, n): the caption of pair j is one of image i's
    rows = torch.arange(len(image), device=image.device)
    also[rows, rows + start] = False
    every = gather_rows(also.to(torch.uint8)).rows[:, start : start + len(image)].bool()
    return _Sides(image @ captions.rows.T, text @ images.rows.T, also, every.T, start)


def softmax_loss(output: Output, pairs: Pairs) -> Tensor:
    """Return the mean cross entropy of the right caption among all and of the right image among all: ()."""
    with torch.autocast(output["image"].device.type, enabled=False):
        sides, factor = _sides(output, pairs), output["factor"].float()[:, None]
        losses = [
            F.cross_entropy((factor * cosines).masked_fill(left_out, -torch.inf), sides.right)
            for cosines, left_out in (
                (sides.images, sides.images_left_out),
                (sides.captions, sides.captions_left_out),
            )
        ]
        return (losses[0] + losses[1]) / 2


def sigmoid_loss(output: Output, pairs: Pairs) -> Tensor:
    """Return the binary cross entropy of every pair, is it right or not, summed over captions; mean of images: ()."""
    with torch.autocast(output["image"].device.type, enabled=False):
        sides, factor, bias = _sides(output, pairs), output["factor"].float(), output["bias"].float()
        logits = factor[:, None] * sides.images + bias[:, None]
        sign = 2 * F.one_hot(sides.right, logits.shape[1]) - 1
        losses = -F.logsigmoid(sign * logits).masked_fill(sides.images_left_out, 0.0)
        return losses.sum(1).mean()
