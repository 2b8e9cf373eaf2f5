"""DiT: Peebles and Xie 2023, "Scalable Diffusion Models with Transformers", arXiv:2212.09748.

A ViT (see `vit.py`) that sees a noisy image x_t and tells the noise in it. It knows how noisy the image is, the time t
(0: least, 999: most), and of which class y it is to be; both become one vector, which sets the norms of all blocks
(`layers/adaptive_norm.py`):

    c = MLP([cos(t f), sin(t f)]) + table[y],  f_i = 10000^(-i/128), i = 0 … 127
    z = patches of x_t + sines of column and row;  z ← block(z, c), `depth` times;  ε, v = final layer(LN(z), c)

One more row of the table, the last, stands for "no class": without it there is no guidance (Ho and Salimans 2022,
arXiv:2207.12598). An image without time and label has t = 0 and no class, so that DiT is an encoder like the others.
Images are pixels, or the latents of an autoencoder (4 channels, an eighth of each side) as in the paper.

Initial values are those of the official code: Xavier-uniform matrices, biases 0, labels and time N(0, 0.02), all
modulations and the final layer 0. Axes: b batch, n tokens, d width, row col patch grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.adaptive_norm import AdaptiveBlock, Modulation, NoiseHead, plain_norm
from vitrail.layers.encoder import NOTHING, Column, ColumnEncoder
from vitrail.layers.heads import Head
from vitrail.layers.patch_embedding import PatchEmbed, Sized, check_tiles, tiled
from vitrail.layers.position import GridSines
from vitrail.layers.tokens import FeatureSpec, Tokens
from vitrail.layers.weight_init import as_in_mae

TASK = "generate"
"""The task that it has a head for."""

TIME, LABEL = "time", "label"
"""Its inputs besides the images: the time (b,), and the class (b,), int64, whose number `classes` is no class."""

FREQUENCIES = 256
"""How many sines and cosines of the time there are."""


@dataclass(frozen=True, slots=True)
class DiTConfig(Sized):
    """The settings of a DiT; the defaults are DiT-S/2 for 64 pixels.

    `image` is the size of the position table, one number or (height, width); for other sizes the table is resized.
    `classes` are the classes that it can be asked for; one more row of the table stands for none of them.
    """

    family: ClassVar[str] = "dit"

    image: int | tuple[int, int] = 64
    patch: int = 2
    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int | None = None  # of the MLP; None: 4 · width
    classes: int = 1000
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile."""
        check_tiles(self.size, self.patch, self.patch)


class DiT(ColumnEncoder):
    """The encoder of DiT: images (b, channels, height, width), time and label -> Features of one column.

    The tokens are normalised, and carry the vector of time and label as their condition, which the head reads.
    """

    Config = DiTConfig
    takes = (TIME, LABEL)

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spec = FeatureSpec(
            c.width,
            strides=(c.patch,),
            attention="softmax",
            blocks=c.depth,
            depth=c.depth,
            sizes="any",
            channels=c.channels,
        )
        self.embed = PatchEmbed(c.width, c.patch, c.channels)
        self.position = GridSines(c.width, tiled(c.size, c.patch, c.patch))
        self.time = TimeEmbedding(c.width)
        self.label = nn.Embedding(c.classes + 1, c.width)
        hidden = c.hidden or 4 * c.width
        self.blocks = Column(AdaptiveBlock(c.width, c.heads, hidden, eps=c.norm_eps) for _ in range(c.depth))
        self.norm = plain_norm(c.width, c.norm_eps)
        self._fill()

    @torch.no_grad()
    def _fill(self) -> None:
        """Set the initial values."""
        as_in_mae(self)
        nn.init.xavier_uniform_(self.embed.project.weight.flatten(1))
        for weight in (self.label.weight, self.time.rise.weight, self.time.fall.weight):
            nn.init.normal_(weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Modulation):
                module.linear.weight.zero_()

    def begin(self, images: Tensor, given: Mapping[str, Tensor] = NOTHING) -> Tokens:
        """Return the input tokens of the first block, with the vector of time and label as their condition.

        Raises:
            SettingError: another input than time and label is given.
        """
        self.refuse({name: given[name] for name in given if name not in self.takes})
        count = images.shape[0]
        time, label = given.get(TIME), given.get(LABEL)
        if time is None:
            time = torch.zeros(count, device=images.device)
        if label is None:
            label = torch.full((count,), self.config.classes, device=images.device)
        return self.start(images)._replace(condition=self.time(time) + self.label(label))

    def start(self, images: Tensor) -> Tokens:
        """(b, channels, height, width) -> Tokens of (b, row·col, d), without a condition."""
        out: Tokens = self.position(self.embed(images))
        return out

    def own_head(self, task: str, classes: int) -> Head | None:
        """Return the final layer of the paper for `generate`."""
        return NoiseHead(self.spec, self.config.channels) if task == TASK else None


class TimeEmbedding(nn.Module):
    """A vector of the time, from its sines by two layers: (b,) -> (b, d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rise, self.fall = nn.Linear(FREQUENCIES, width), nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """(b,) -> (b, d)."""
        sines = time_sines(time, FREQUENCIES).to(self.rise.weight.dtype)
        out: Tensor = self.fall(F.silu(self.rise(sines)))
        return out


def time_sines(time: Tensor, count: int) -> Tensor:  # (b,) -> (b, count)
    """Return cosines, then sines, of the time at `count` / 2 frequencies, in float32; times may be fractions."""
    half = count // 2
    pace = torch.exp(-log(10000) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angle = time[:, None].float() * pace
    return torch.cat([angle.cos(), angle.sin()], 1)


PRESETS: Mapping[str, DiTConfig] = MappingProxyType(
    {
        "dit_digits": DiTConfig(
            image=8, width=128, depth=6, heads=4, classes=10
        ),  # not of the paper, like the next
        "dit_cifar": DiTConfig(image=32, patch=4, width=256, depth=8, heads=4, classes=10),
        "dit_s2": DiTConfig(),  # S, B, L and XL: table 1, here for small images in pixels
        "dit_s4": DiTConfig(patch=4),
        "dit_s8": DiTConfig(patch=8),
        "dit_b2": DiTConfig(width=768, heads=12),
        "dit_b4": DiTConfig(patch=4, width=768, heads=12),
        "dit_b8": DiTConfig(patch=8, width=768, heads=12),
        "dit_l2": DiTConfig(width=1024, depth=24, heads=16),
        "dit_l4": DiTConfig(patch=4, width=1024, depth=24, heads=16),
        "dit_l8": DiTConfig(patch=8, width=1024, depth=24, heads=16),
        "dit_xl2": DiTConfig(width=1152, depth=28, heads=16),
        "dit_xl4": DiTConfig(patch=4, width=1152, depth=28, heads=16),
        "dit_xl8": DiTConfig(patch=8, width=1152, depth=28, heads=16),
    }
)
