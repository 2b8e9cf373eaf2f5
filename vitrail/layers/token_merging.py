"""Token merging (ToMe): Bolya et al. 2023, "Token Merging: Your ViT But Faster", arXiv:2210.09461.

Between attention and MLP of a block, the patches of an image are dealt into two halves by turns; each patch of the
first half is compared with those of the second by the cosine of their keys (the mean over heads), and the `count`
pairs that are most alike become one token each: the mean of the patches that it stands for. A token that stands for s
patches counts s times as a key (proportional attention, eq. 1 of the paper):

    softmax(q kᵀ / √e + log s) v

Prefix tokens never merge. Axes: b batch, n tokens, m patches, e width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.tokens import Merged, Tokens, rows_at


def merge(tokens: Tokens, keys: Tensor, count: int) -> Tokens:
    """Merge `count` pairs of patches, at most half of all patches.

    Args:
        tokens: the tokens, (b, n, d).
        keys: what they are compared by, (b, n, e).
        count: how many pairs become one token each.
    """
    patches = tokens.x.shape[1] - tokens.prefix
    count = min(count, patches // 2)
    if count < 1:
        return tokens
    first, second = _halves(patches, tokens.prefix, tokens.x.device)
    best, partner = _most_alike(F.normalize(keys[:, tokens.prefix :].float(), dim=-1), first, second)
    order = best.argsort(dim=1, descending=True, stable=True)
    gone, left = order[:, :count], order[:, count:].sort(dim=1).values
    b = order.shape[0]
    stay = torch.cat(
        [first[left], second.expand(b, -1)], 1
    )  # (b, m - count) patches that go on, in this order
    into = partner.gather(1, gone) + left.shape[1]  # (b, count) their places in `stay`
    return _joined(tokens, stay, first[gone], into)


def _halves(patches: int, prefix: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the patches of both halves: those with an even number among all tokens, and the others."""
    index = torch.arange(patches, device=device)
    return index[prefix % 2 :: 2], index[(prefix + 1) % 2 :: 2]


def _most_alike(keys: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each patch of the first half its largest similarity, and with which of the second: (b, m / 2) each."""
    similar = keys[:, first] @ keys[:, second].transpose(1, 2)
    found = similar.max(dim=2)
    return found.values, found.indices


def _joined(tokens: Tokens, stay: Tensor, gone: Tensor, into: Tensor) -> Tokens:
    """Return the tokens at `stay`, (b, s), to whose places `into` the ones at `gone`, (b, g), are added."""
    places = torch.arange(stay.shape[1], device=stay.device)
    adding = (into[:, None] == places[None, :, None]).to(tokens.x.dtype)  # (b, s, g) 1 where a token goes
    patches = tokens.patches
    old = tokens.merged
    if old is None:
        counts = patches.new_ones(stay.shape)
        added = patches.new_ones(gone.shape)
    else:
        counts, added = old.counts.gather(1, stay), old.counts.gather(1, gone)
    total = counts + (adding @ added[..., None])[..., 0]
    sums = rows_at(patches, stay) * counts[..., None] + adding @ (rows_at(patches, gone) * added[..., None])
    x = torch.cat([tokens.x[:, : tokens.prefix], sums / total[..., None]], 1)
    # Where each token of before is now.
    now = torch.zeros(stay.shape[0], patches.shape[1], dtype=torch.long, device=stay.device)
    now = now.scatter(1, stay, places.expand(stay.shape)).scatter(1, gone, into)
    source = now if old is None else now.gather(1, old.source)
    return Tokens(x, tokens.grid, tokens.prefix, merged=Merged(source, total))


def proportional(tokens: Tokens) -> Tensor | None:
    """Return what proportional attention adds to the scores of each key, (b, 1, 1, n); None before any merging."""
    if tokens.merged is None:
        return None
    return F.pad(tokens.merged.counts.log(), (tokens.prefix, 0))[:, None, None]
