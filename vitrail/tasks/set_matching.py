"""Which prediction learns which object: the assignment of least cost, for tasks that predict sets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CLASS, CORNERS, OVERLAP = 2.0, 5.0, 2.0
"""Weights of the costs of class, distance and overlap (arXiv:2005.12872, with a focal cost of the class)."""

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal cost of a class (Lin et al. 2017, arXiv:1708.02002)."""

HUGE = 1e6
"""The cost that replaces a number that is not finite."""


class Pairs(NamedTuple):
    """Matched predictions and objects by number: (m,) each."""

    predictions: Tensor
    objects: Tensor


def class_cost(logits: Tensor, kinds: Tensor) -> Tensor:
    """Return how badly predictions (…, q, k) fit objects of these classes (n,): (…, q, n)."""
    p = logits.sigmoid()
    right = ALPHA * (1 - p) ** GAMMA * -torch.nn.functional.logsigmoid(logits)
    wrong = (1 - ALPHA) * p**GAMMA * -torch.nn.functional.logsigmoid(-logits)
    return (right - wrong)[..., kinds]


def assign(cost: Tensor, groups: int) -> Pairs:
    """Return the pairs of least summed cost, of every group of predictions apart: (group·q, n).

    An object has one prediction in each group, if the group has as many predictions as there are objects.
    """
    from scipy.optimize import linear_sum_assignment

    every, objects = cost.shape
    table = torch.nan_to_num(cost.detach().float(), HUGE, HUGE, -HUGE).cpu().numpy()
    table = table.reshape(groups, every // groups, objects)
    rows, cols = [], []
    for group, one in enumerate(table):
        row, col = linear_sum_assignment(one)
        rows.append(row + group * one.shape[0])
        cols.append(col)
    return Pairs(*(torch.from_numpy(np.concatenate(part)).to(cost.device) for part in (rows, cols)))
