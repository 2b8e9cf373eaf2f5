"""DETR: Carion et al. 2020, "End-to-End Object Detection with Transformers", arXiv:2005.12872.

A ResNet with frozen batch norm, a projection of its last map, and the encoder of a transformer. The decoder with its
learned queries, and the head of masks, are the heads of the tasks `detect` and `instances`; a softmax with "no object"
becomes the logits of independent classes with the same probabilities (`log_odds`).

Images of different sizes are padded to one, and `valid` of a batch, bool (b, height, width), tells what is no padding;
without it all is image. Predictions of the package have one size for all images and give no `valid`. Learned positions,
which no published file has, are stored in encoder and head, and tied only by the files that are read.

Axes: b batch, n cells of the last map, d width, q queries, k classes, row col grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.detr_transformer import (
    Decoder,
    EncoderLayer,
    EncoderLayers,
    LayerShape,
    Places,
    places,
    positions,
)
from vitrail.layers.encoder import NOTHING, Encoder
from vitrail.layers.frozen_resnet import EXPANSION, FrozenResNet
from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.log_odds import log_odds, pixel_scores
from vitrail.layers.patch_embedding import Sized, check_channels
from vitrail.layers.sdpa import AttentionMap, Recorder
from vitrail.layers.tokens import Features, FeatureSpec, Tokens

VALID = "valid"
"""The input of a batch that tells padding from image: bool (b, height, width)."""


@dataclass(frozen=True, slots=True)
class DetrConfig(Sized):
    """The settings of a DETR with its heads; the defaults are those of DETR-R50.

    `layers` and `planes` are the blocks and the widths of the four stages of the ResNet, `dilated` that the last one
    keeps the stride of the third ("DC5"). `decoder` is the number of layers of the decoder.
    """

    family: ClassVar[str] = "detr"

    image: int | tuple[int, int] = (800, 1066)
    channels: int = 3
    layers: tuple[int, ...] = (3, 4, 6, 3)
    planes: tuple[int, ...] = (64, 128, 256, 512)
    dilated: bool = False
    width: int = 256
    heads: int = 8
    hidden: int = 2048
    depth: int = 6
    decoder: int = 6
    queries: int = 100
    position: Literal["sine", "learned"] = "sine"
    pre_norm: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Raise a SettingError for a width that heads and positions do not divide, and for stages that do not pair."""
        if self.width % self.heads or self.width % 4:
            raise SettingError(
                f"A width of {self.width} is no multiple of {self.heads} heads and of 4, for the sines of rows and "
                "columns. Choose one that is."
            )
        if len(self.layers) != 4 or len(self.planes) != 4:
            raise SettingError(
                f"A ResNet has four stages, not layers = {self.layers} and planes = {self.planes}."
            )

    @property
    def shape(self) -> LayerShape:
        """Sizes of the layers of encoder and decoder."""
        return LayerShape(self.width, self.heads, self.hidden, self.dropout, self.pre_norm)


class Detr(Encoder):
    """The encoder of DETR: images (b, channels, height, width) -> Features of the last map.

    The levels are the first three maps of the ResNet, its projected last one, and what the transformer made of it.
    """

    Config = DetrConfig
    takes = (VALID,)

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        c = self.config = config
        last, d = (16 if c.dilated else 32), c.width
        self.spec = FeatureSpec(
            d,
            strides=(4, 8, 16, last, last),
            attention="softmax",
            blocks=c.depth,
            pool="mean",
            sizes="every",
            widths=(*(EXPANSION * one for one in c.planes[:3]), d, d),
            channels=c.channels,
        )
        self.backbone = FrozenResNet(c.layers, c.planes, channels=c.channels, dilated=c.dilated)
        self.project = nn.Conv2d(EXPANSION * c.planes[-1], d, 1)
        self.position = positions(c.position, d)
        self.blocks = EncoderLayers(EncoderLayer(c.shape) for _ in range(c.depth))
        self.norm = nn.LayerNorm(d) if c.pre_norm else nn.Identity()

    def forward(
        self, images: Tensor, *, given: Mapping[str, Tensor] = NOTHING, record: Recorder | None = None
    ) -> Features:
        """(b, channels, height, width) -> Features with tokens (b, row·col, d) and five levels."""
        check_channels(images, self.config.channels)
        self.refuse({name: given[name] for name in given if name not in self.takes})
        return self.read(self.backbone(images), given.get(VALID), record)

    def read(self, maps: list[Tensor], valid: Tensor | None, record: Recorder | None = None) -> Features:
        """Return the features from the maps of the ResNet."""
        projected = self.project(maps[-1])
        cells = Tokens(projected.flatten(2).mT, (projected.shape[2], projected.shape[3]))
        tokens = self.blocks.placed(cells, places(self.position, cells, valid), record)
        tokens = tokens.with_x(self.norm(tokens.x))
        return Features(tokens, (*maps[:-1], projected, tokens.map()))

    def own_head(self, task: str, classes: int) -> Head | None:
        """Return the decoder of the paper for `detect`, with its head of masks for `instances` and `panoptic`."""
        if task == "detect":
            return DetrHead(self.config, classes)
        masks = task in ("instances", "panoptic")
        return DetrMaskHead(self.config, classes, areas=task == "panoptic") if masks else None


class DetrHead(Head):
    """Features -> `boxes` (b, q, 4), centre and sides in shares of the input, `logits` (b, q, k), `proposals` (b, q).

    The sigmoid of a logit is its probability in the softmax of all classes and "no object"; `proposals` are the largest
    logits of the queries. In training also what every layer answers: `train.boxes` (b, layer, q, 4), `train.logits`.
    """

    words = "every cell of the map, through the queries"

    def __init__(self, config: DetrConfig, classes: int) -> None:
        super().__init__()
        d = config.width
        self.position = positions(config.position, d)
        self.decoder = Decoder(config.shape, config.decoder, config.queries)
        self.classes = nn.Linear(d, classes + 1)  # the last is "no object"
        self.change = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 4))

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return boxes, logits and proposals."""
        return self.output(self.decoder(features.tokens.x, self.places(features, inputs)))

    def places(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Places:
        """Return the positions of the cells, and a bias that hides padding."""
        return places(self.position, features.tokens, inputs.get(VALID))

    def output(self, vectors: list[Tensor]) -> Output:
        """Return boxes, logits and proposals from the vectors of the queries after each layer."""
        every = torch.stack(vectors if self.training else vectors[-1:], 1)
        boxes, logits = self.change(every).sigmoid(), log_odds(self.classes(every))[..., :-1]
        output = {"boxes": boxes[:, -1], "logits": logits[:, -1], "proposals": logits[:, -1].amax(-1)}
        return {**output, "train.boxes": boxes, "train.logits": logits} if self.training else output

    def attention(self, features: Features) -> list[AttentionMap]:
        """Return where each query looked, layer by layer: weights (b, h, q, row·col)."""
        recorder = Recorder()
        self.decoder(features.tokens.x, self.places(features), recorder)
        return recorder.maps


class DetrMaskHead(DetrHead):
    """Features -> the outputs of `DetrHead`, and `masks` (b, q, row, col), logits at stride 4 (§4.4).

    With `areas` also `areas` (b, k, row, col), the logarithm of Σ_q p(class | q) · p(pixel | q).

    Each query's attention to the map, head by head, is refined by convolutions with the maps of the ResNet. In training
    the masks are those of the last layer.
    """

    reads = "levels"

    def __init__(self, config: DetrConfig, classes: int, *, areas: bool = False) -> None:
        super().__init__(config, classes)
        self.areas = areas
        finer = (EXPANSION * config.planes[2], EXPANSION * config.planes[1], EXPANSION * config.planes[0])
        self.looks = AttentionShares(config.width, config.heads)
        self.masks = FineMasks(config.width + config.heads, finer, config.width)

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return boxes, logits, proposals and masks."""
        where = self.places(features, inputs)
        vectors = self.decoder(features.tokens.x, where)
        fine, middle, coarse, projected = features.levels[:4]
        looks = self.looks(vectors[-1], features.tokens, where.bias)
        output = {**self.output(vectors), "masks": self.masks(projected, looks, (coarse, middle, fine))}
        if self.areas:
            output["areas"] = pixel_scores(self.classes(vectors[-1]), output["masks"])
        return output


class AttentionShares(nn.Module):
    """How each query's attention is shared among heads and cells: (b, q, d), Tokens -> (b, q, h, row, col)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.query, self.key):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, vectors: Tensor, tokens: Tokens, bias: Tensor | None = None) -> Tensor:
        """Return shares that sum to one over heads and cells together."""
        q, k = self.query(vectors), self.key(tokens.x)
        q, k = (rearrange(x, "b n (h e) -> b h n e", h=self.heads) for x in (q, k))
        scores = (q * q.shape[-1] ** -0.5) @ k.mT  # (b, h, q, n)
        scores = (scores if bias is None else scores + bias).transpose(1, 2)
        shares: Tensor = scores.flatten(2).softmax(-1)
        return shares.view(*scores.shape[:3], *tokens.grid)


class FineMasks(nn.Module):
    """Convolutions from shares of attention to masks: maps (b, d, row, col), (b, q, h, row, col) -> (b, q, row', col').

    `finer` are the widths of the finer maps, coarse first; `context` is the width that the steps divide.
    """

    GROUPS = 8

    def __init__(self, width: int, finer: tuple[int, int, int], context: int) -> None:
        super().__init__()
        if width % self.GROUPS or context % 16:
            raise SettingError(
                f"The head of masks needs a width of a multiple of 16 whose sum with the heads, {width}, is one of 8."
            )
        widths = (width, width, *(context // part for part in (2, 4, 8, 16)))
        pairs = tuple(pairwise(widths))
        self.steps = nn.ModuleList(nn.Conv2d(given, made, 3, padding=1) for given, made in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(min(self.GROUPS, made), made) for _, made in pairs)
        self.adapters = nn.ModuleList(
            nn.Conv2d(given, made, 1) for given, made in zip(finer, widths[2:5], strict=True)
        )
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                nn.init.kaiming_uniform_(part.weight, a=1)
                nn.init.zeros_(part.bias)

    def forward(self, cells: Tensor, looks: Tensor, finer: tuple[Tensor, ...]) -> Tensor:
        """Return the logits of the masks at the size of the finest map."""
        b, q = looks.shape[:2]
        x = torch.cat([cells[:, None].expand(-1, q, -1, -1, -1), looks], 2).flatten(0, 1)
        for turn, (step, norm) in enumerate(zip(self.steps, self.norms, strict=True)):
            if turn > 1:
                level = self.adapters[turn - 2](finer[turn - 2])
                wide = F.interpolate(x, level.shape[-2:], mode="nearest")
                x = (level[:, None] + wide.view(b, q, *wide.shape[1:])).flatten(0, 1)
            x = F.relu(norm(step(x)))
        masks: Tensor = self.last(x)
        return masks.view(b, q, *masks.shape[-2:])


_R101 = DetrConfig(layers=(3, 4, 23, 3))

PRESETS: Mapping[str, DetrConfig] = MappingProxyType(
    {
        "detr_r50": DetrConfig(),
        "detr_r50_dc5": DetrConfig(dilated=True),
        "detr_r101": _R101,
        "detr_r101_dc5": replace(_R101, dilated=True),
    }
)
