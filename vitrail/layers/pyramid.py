"""Columns of growing width on shrinking grids, as in Swin and VVT."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vitrail.layers.encoder import Column
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Tokens


class Pyramid(nn.Module):
    """Columns with growing widths and shrinking grids; `merges` are the layers between them, one fewer."""

    def __init__(self, stages: Sequence[Column], merges: Sequence[nn.Module]) -> None:
        super().__init__()
        assert len(merges) == len(stages) - 1, "there must be one merge between every two stages"
        self.stages, self.merges = nn.ModuleList(stages), nn.ModuleList(merges)

    def forward(self, tokens: Tokens, record: Recorder | None = None) -> list[Tokens]:
        """Tokens of the finest grid -> the output tokens of each stage, coarse last."""
        levels: list[Tokens] = []
        for turn, stage in enumerate(self.stages):
            tokens = stage(self.merges[turn - 1](tokens) if turn else tokens, record)
            levels.append(tokens)
        return levels
