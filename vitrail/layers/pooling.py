"""Pooling: from all tokens to one vector."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.layers.block import Gelu, Mlp
from vitrail.layers.sdpa import attend
from vitrail.layers.tokens import CLASS, Features, FeatureSpec, Tokens, class_tokens
from vitrail.layers.tokens import Pool as Kind
from vitrail.layers.weight_init import xavier


def pool_in(head: nn.Module) -> str:
    """Return the kind of pooling in a head, or "" if it has none."""
    return next((part.kind for part in head.modules() if isinstance(part, Pool)), "")


WORDS: Mapping[str, str] = MappingProxyType(
    {
        "cls": "the class token",
        "mean": "the mean of the patches",
        "cls_mean": "the class token and the mean of the patches, side by side,",
        "attention": "a learned attention pooling of all tokens",
    }
)
"""Kinds of pooling, in words for users."""


class Pool(nn.Module):
    """One vector per image: Features -> (b, `width`).

    `kind` is the class token (`cls`; of several their mean), the `mean` of the patches, both side by side
    (`cls_mean`), `attention` pooling, or the network's `own` pooling; None is the default in the network's spec.
    SettingError if the network does not support it.
    """

    def __init__(self, spec: FeatureSpec, kind: Kind | None = None) -> None:
        super().__init__()
        self.kind = kind or spec.pool
        has_class = CLASS in spec.prefix
        fits = {"cls": has_class, "cls_mean": has_class, "own": spec.pooled_width > 0}
        if not fits.get(self.kind, True):
            raise SettingError(f"The network has no pooling {self.kind!r}. Use {spec.pool!r} or 'mean'.")
        self.width = {"own": spec.pooled_width, "cls_mean": 2 * spec.width}.get(self.kind, spec.width)
        places = class_tokens(spec.prefix)
        self.classes = slice(places[0], places[-1] + 1) if places else slice(0)
        self.attention = AttentionPool(spec.width) if self.kind == "attention" else None
        self.from_prefix = self.kind == "cls" or (self.kind == "own" and not spec.pooled_patches)

    @property
    def reads_prefix(self) -> bool:
        """Whether it reads the prefix tokens only (`Encoder.summarise`)."""
        return self.kind == "cls"

    @property
    def words(self) -> str:
        """The tokens that it reads, in words for users."""
        return WORDS.get(self.kind, "the tokens")

    def forward(self, features: Features) -> Tensor:
        """Features with tokens (b, n, d) -> (b, width)."""
        if self.kind == "own":
            assert features.pooled is not None, (
                "a network whose spec has pooled_width returns Features.pooled"
            )
            return features.pooled
        if self.attention is not None:
            pooled: Tensor = self.attention(features.tokens)
            return pooled
        if self.kind == "cls":
            return self._class(features)
        mean = features.tokens.patches.mean(1)
        return mean if self.kind == "mean" else torch.cat([self._class(features), mean], dim=1)

    def _class(self, features: Features) -> Tensor:
        """Return the class token, or the mean of those of all windows: (b, d)."""
        first, end = self.classes.start, self.classes.stop
        return features.tokens.x[:, first] if end - first == 1 else features.tokens.x[:, self.classes].mean(1)


def build_pool(spec: FeatureSpec, kind: str) -> Pool:
    """Return the pooling of this name for a network. UnknownNameError suggests the nearest name."""
    if kind not in get_args(Kind):
        raise UnknownNameError("pooling", kind, get_args(Kind))
    return Pool(spec, cast(Kind, kind))


class AttentionPool(nn.Module):
    """A learned query that attends to all tokens, then x + MLP(LN(x)) (Zhai et al. 2022, arXiv:2106.04560).

    Heads are 64 wide if 64 divides the width, as in every ViT of the papers; otherwise the number of heads is the
    largest divisor of the width up to width // 64.
    """

    def __init__(
        self, width: int, *, hidden: int | None = None, kind: Gelu = "exact", eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.heads = next(h for h in range(max(1, width // 64), 0, -1) if width % h == 0)
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        nn.init.xavier_uniform_(self.probe[0])
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        xavier(self.query)
        xavier(self.out)
        xavier(self.key_value, parts=2)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden or 4 * width, kind=kind)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of (b, n, d) -> (b, d)."""
        probe = self.probe.expand(tokens.x.shape[0], -1, -1)
        q = rearrange(self.query(probe), "b n (h e) -> b h n e", h=self.heads)
        k, v = rearrange(self.key_value(tokens.x), "b n (two h e) -> two b h n e", two=2, h=self.heads)
        x = self.out(rearrange(attend(q, k, v), "b h n e -> b n (h e)"))
        x = x + self.mlp(Tokens(self.norm(x)))
        return x[:, 0]  # type: ignore[no-any-return]
