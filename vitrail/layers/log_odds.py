"""From a softmax over exclusive classes to independent logits with the same probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def log_odds(logits: Tensor) -> Tensor:
    """Return logits (…, k) whose sigmoid is the softmax of the given ones: logit_c - logsumexp of all others, float32.

    So scores of networks with a class for "no object" are read, thresholded and calibrated like those of others.
    """
    logits = logits.float()
    best = logits.argmax(-1, keepdim=True)
    top = logits.gather(-1, best)
    others = logits.scatter(-1, best, -torch.inf).logsumexp(-1, keepdim=True)
    # All but the best are at most one half: 1 minus their share loses no digits.
    share = (logits - logits.logsumexp(-1, keepdim=True)).clamp(max=-0.5)
    less = share - torch.log1p(-share.exp())
    return less.scatter(-1, best, top - others)


def pixel_scores(scores: Tensor, masks: Tensor) -> Tensor:
    """Return log Σ_q p(class | q) · p(pixel | q), from logits (b, q, k + 1) and (b, q, row, col): (b, k, row, col)."""
    classes = scores.softmax(-1)[..., :-1]
    sums = torch.matmul(classes.transpose(1, 2), masks.sigmoid().flatten(2))
    logs: Tensor = sums.clamp(min=torch.finfo(sums.dtype).tiny).log()
    return logs.view(len(logs), -1, *masks.shape[-2:])
