"""EoMT: Kerssies et al. 2025, "Your ViT is Secretly an Image Segmentation Model", arXiv:2503.19108.

A DINOv2 (see `dinov2.py`) without a decoder: learned queries join its tokens before the last L_2 blocks (§3.2), which
compute patches and queries together. From the last tokens x_q of the queries and x_p of the patches, after the norm,

    classes = W x_q,  masks = MLP(x_q) · up(x_p),

where `up` doubles rows and columns until a cell spans four pixels (§3.1), and one of the classes is "no object". The
same network answers as a segmentation of areas, of objects, or of both (`MaskHead`).

The authors train with attention within the masks, which is annealed away block by block (§3.3), so that the trained
network needs none. That training is not here: a head for areas is trained without masks, one for objects only answers.

Axes: b batch, n tokens (class, registers, queries, then patches in raster order), d width, q queries, k classes, row
col grid of patches or of masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.layers.boxes import boxes_of_masks
from vitrail.layers.encoder import Column
from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.log_odds import log_odds, pixel_scores
from vitrail.layers.patch_embedding import Sized
from vitrail.layers.tokens import Features, Tokens
from vitrail.models.dinov2 import DinoV2, DinoV2Config

AREAS, OBJECTS = "segment", ("instances", "panoptic")
"""Tasks that it has a head for."""


@dataclass(frozen=True, slots=True)
class EoMTConfig(Sized):
    """The settings of an EoMT; the defaults are those of EoMT-S.

    `queries` join before the last `query_blocks` blocks. The head doubles rows and columns `upscales` times. The other
    settings are those of DINOv2; prefix tokens have no positions.
    """

    family: ClassVar[str] = "eomt"

    image: int | tuple[int, int] = 640
    patch: int = 16
    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int | None = None  # of the MLP; None: 4 · width
    mlp: Literal["gelu", "swiglu"] = "gelu"
    registers: int = 4
    queries: int = 200
    query_blocks: int = 3
    upscales: int = 2
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Raise a SettingError for an image that the patches do not tile, and for blocks that are not there."""
        self.column()
        if not 1 <= self.query_blocks <= self.depth:
            raise SettingError(
                f"The queries cannot join before the last {self.query_blocks} of {self.depth} blocks. "
                f"Use 1 to {self.depth}."
            )

    def column(self) -> DinoV2Config:
        """Return the settings of the DINOv2 that the queries join."""
        return DinoV2Config(
            image=self.image,
            patch=self.patch,
            channels=self.channels,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            hidden=self.hidden,
            mlp=self.mlp,
            registers=self.registers,
            position="1d_patches",
            resize="bicubic_antialias",
            norm_eps=self.norm_eps,
            drop_path=self.drop_path,
        )


class EoMT(DinoV2):
    """The encoder of EoMT: images (b, channels, height, width) -> Features of one column, with the queries' tokens."""

    Config: ClassVar[type[Any]] = EoMTConfig

    def __init__(self, config: EoMTConfig) -> None:
        super().__init__(config.column())
        c = self.config = config
        self.spec = replace(self.spec, prefix=(*self.spec.prefix, *["query"] * c.queries))
        self.blocks = QueryColumn(self.blocks, c.depth - c.query_blocks, c.queries, c.width)

    @property
    def plain_column(self) -> bool:
        """No: queries join within the column."""
        return False

    def own_head(self, task: str, classes: int) -> Head | None:
        """Return the head of the paper for `segment`, `instances` and `panoptic`."""
        return MaskHead(self.config, task, classes) if task in (AREAS, *OBJECTS) else None

    @staticmethod
    def why_not_trained(task: str) -> str:
        """Return why heads for objects are not trained here."""
        if task not in OBJECTS:
            return ""
        return (
            f"The head of EoMT for {task} answers, but is not trained here: its authors train it with attention within "
            "masks. Train --task segment with it, or objects with another network, such as --model dinov2_s14."
        )


class QueryColumn(Column):
    """A column in which learned queries (1, q, d) join the prefix, as its last tokens, after the block `after`."""

    def __init__(self, blocks: Iterable[nn.Module], after: int, queries: int, width: int) -> None:
        super().__init__(blocks)
        self.after = after
        # Unlike other tokens they must differ from the start: equal ones would stay equal.
        self.queries = nn.Parameter(torch.randn(1, queries, width))

    def joined(self, turn: int, tokens: Tokens) -> Tokens:
        """Add the queries to the input of their first block: (b, n, d) -> (b, n + q, d)."""
        if turn != self.after:
            return tokens
        x, count = tokens.x, tokens.prefix
        queries = self.queries.to(x.dtype).expand(x.shape[0], -1, -1)
        return tokens._replace(
            x=torch.cat([x[:, :count], queries, x[:, count:]], 1), prefix=count + queries.shape[1]
        )


class Doubling(nn.Module):
    """The ScaleBlock of the paper: (b, d, row, col) -> (b, d, 2·row, 2·col).

    The transposed convolution, whose stride is its kernel, is computed as a matrix product (see `PatchEmbed`).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(b, d, row, col) -> (b, d, 2·row, 2·col)."""
        bias = self.expand.bias
        assert bias is not None
        weight = rearrange(self.expand.weight, "d e p q -> (p q e) d")
        x = F.linear(x.permute(0, 2, 3, 1), weight)
        x = rearrange(x, "b row col (p q e) -> b (row p) (col q) e", p=2, q=2) + bias
        x = self.mix(F.gelu(x).permute(0, 3, 1, 2))
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class MaskHead(Head):
    """A class and a mask of every query, as the outputs of a task.

    - `segment`: `map` (b, k, row, col), the logarithm of Σ_q p(class | q) · p(pixel | q), at the size of the input
      (§3.1, as Mask2Former's semantic inference, arXiv:2112.01527). Its softmax are shares of these sums.
    - `instances`: `masks` (b, q, row, col), logits, and `boxes` (b, q, 4) around them, centre and sides in shares of
      the input; `logits` (b, q, k), whose sigmoid is the probability of the softmax; `proposals` (b, q), the largest.
    - `panoptic`: the same for classes of things and of stuff, and `areas` (b, k, row, col), which is `map` at the size
      of the masks.
    """

    words = "the queries and every patch"

    def __init__(self, config: EoMTConfig, task: str, classes: int) -> None:
        super().__init__()
        d = config.width
        self.task, self.queries = task, config.queries
        self.classes = nn.Linear(d, classes + 1)  # the last is "no object"
        self.mask = nn.ModuleList(nn.Linear(d, d) for _ in range(3))
        self.upscale = nn.Sequential(*(Doubling(d) for _ in range(config.upscales)))

    @property
    def from_prefix(self) -> bool:
        """Whether what is explained is the class of a query, which no patch of the last map changes."""
        return self.task != AREAS

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Return the outputs of the task. SettingError for objects in training."""
        if self.training and (reason := EoMT.why_not_trained(self.task)):
            raise SettingError(reason)
        scores, masks = self.found(features)
        if self.task == AREAS:
            size = inputs["images"].shape[-2:] if "images" in inputs else masks.shape[-2:]
            return {"map": pixel_scores(scores, F.interpolate(masks, size, mode="bilinear"))}
        logits = log_odds(scores)[..., :-1]
        output = {
            "boxes": boxes_of_masks(masks > 0),
            "logits": logits,
            "proposals": logits.amax(-1),
            "masks": masks,
        }
        return output if self.task == "instances" else {**output, "areas": pixel_scores(scores, masks)}

    def found(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return the logits of classes and "no object" (b, q, k + 1), and of masks (b, q, row, col)."""
        tokens = features.tokens
        x = tokens.x[:, tokens.prefix - self.queries : tokens.prefix]
        scores = self.classes(x).float()
        for turn, layer in enumerate(self.mask):
            x = layer(F.gelu(x) if turn else x)
        cells = self.upscale(tokens.map())
        masks = torch.matmul(x, cells.flatten(2)).view(len(x), -1, *cells.shape[-2:])
        return scores, masks.float()


PRESETS: Mapping[str, EoMTConfig] = MappingProxyType(
    {
        "eomt_s": EoMTConfig(),
        "eomt_b": EoMTConfig(width=768, heads=12),
        "eomt_l": EoMTConfig(width=1024, depth=24, heads=16, query_blocks=4),
        "eomt_g": EoMTConfig(width=1536, depth=40, heads=24, hidden=4096, mlp="swiglu", query_blocks=5),
    }
)
