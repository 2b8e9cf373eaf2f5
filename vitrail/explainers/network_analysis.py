"""Analyse a network: first filters, position embeddings, attention distance (arXiv:2010.11929, fig. 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.explainers.streaming import Piecewise
from vitrail.layers.encoder import Encoder
from vitrail.layers.sdpa import AttentionMap, TokenIndex

COMPONENTS = 28
"""Number of principal components of the filters that are shown, as in the paper."""


class Filters(NamedTuple):
    """Principal components of the first filters, by decreasing variance; their sign is arbitrary."""

    components: Tensor  # (m, row, col, channels), unit length
    variance: Tensor  # (m,)


@dataclass(frozen=True)
class Reach:
    """Mean attention distance in one layer, in pixels of the input."""

    heads: tuple[float, ...]
    uniform: float  # with equal weight on all patches that it can attend to

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"heads": [round(one, 3) for one in self.heads], "uniform": round(self.uniform, 3)}


@dataclass(frozen=True)
class Inside:
    """Result of the analysis; None if the network has no such part, or if there were no images."""

    name: str
    filters: Filters | None
    places: Tensor | None  # (row, col, row, col) cosine of each position with all others
    reaches: tuple[Reach, ...]
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "model": self.name,
            "filter_variance": None if self.filters is None else _rounded(self.filters.variance),
            "position_similarity": None if self.places is None else _rounded(self.places),
            "attention_distance_px": [reach.to_dict() for reach in self.reaches],
            "pictures": self.pictures,
        }

    @property
    def missing(self) -> str:
        """Why there is no attention distance."""
        if self.pictures:
            return "this network does not expose it"
        return "needs images; name some: vitrail inspect MODEL IMAGES"

    def lines(self) -> list[str]:
        """Return the results as text, and what is missing."""
        filters, places = "no convolution on the pixels", "no position embeddings"
        if self.filters is not None:
            filters = f"{len(self.filters.variance)} shown"
        if self.places is not None:
            places = "{} x {} positions".format(*self.places.shape)
        lines = [f"filters: {filters}", f"positions: {places}"]
        if not self.reaches:
            return [*lines, f"attention: {self.missing}"]
        lines.append(
            f"attention over {self.pictures} images, mean distance in pixels, nearest and farthest head:"
        )
        for turn, reach in enumerate(self.reaches):
            near, far = min(reach.heads), max(reach.heads)
            lines.append(
                f"  layer {turn + 1:<3} {near:7.1f} … {far:7.1f}   uniform attention: {reach.uniform:.1f}"
            )
        return lines


def _rounded(values: Tensor) -> Any:
    return (values.double() * 1e6).round().div(1e6).tolist()


def look_inside(name: str, encoder: Encoder, batches: Iterable[Tensor]) -> Inside:
    """Analyse an encoder; `batches` are prepared images (b, channels, height, width), or empty."""
    shown = list(batches)
    reaches = attention_distance(encoder, shown) if shown and encoder.spec.shows_attention else ()
    pictures = sum(len(batch) for batch in shown)
    return Inside(name, filters(encoder), position_similarity(encoder), reaches, pictures)


def filters(encoder: Encoder, count: int = COMPONENTS) -> Filters | None:
    """Return the principal components of the first filters; None if no convolution reads the pixels.

    The filters, one per channel of the network, are centred over the channels (fig. 7 left).
    """
    channels = encoder.config.channels
    convolutions = (part for part in encoder.modules() if isinstance(part, nn.Conv2d))
    first = next(
        (one for one in convolutions if one.in_channels == channels and one.kernel_size > (1, 1)), None
    )
    if first is None:
        return None
    with torch.no_grad():
        kernels = first.weight.double().permute(0, 2, 3, 1)  # (d, row, col, channels)
        rows = kernels.flatten(1) - kernels.flatten(1).mean(0)
        _, sizes, components = torch.linalg.svd(rows, full_matrices=False)
    shape = kernels.shape[1:]
    return Filters(components[:count].reshape(-1, *shape), sizes[:count].square() / (len(rows) - 1))


def position_similarity(encoder: Encoder) -> Tensor | None:
    """Return the cosine of each position embedding with all others: (row, col, row, col); None if there are none.

    Prefix tokens are left out (fig. 7 centre).
    """
    embeddings = encoder.position_vectors()
    if embeddings is None:
        return None
    vectors, (row, col) = embeddings
    unit = F.normalize(vectors.detach().double(), dim=-1)
    return (unit @ unit.T).view(row, col, row, col)


def attention_distance(
    encoder: Encoder, batches: Iterable[Tensor], *, whole: bool = True
) -> tuple[Reach, ...]:
    """Return the attention distance of each head and layer: mean over images and patches of Σ_k a(q,k) ‖p_q - p_k‖.

    p are the centres of the patches in pixels (fig. 7 right). Prefix tokens are excluded as queries and keys;
    `whole` divides each row by the remaining sum, so that weight on the class token does not count as distance 0.
    """
    device = next(encoder.parameters()).device
    recorder = _Distances(whole)
    with torch.inference_mode():
        for images in batches:
            recorder.again(images.shape[-2:])
            encoder(images.to(device), record=recorder)
    return tuple(
        Reach(tuple((far / count).tolist()), even / count)
        for far, even, count in zip(recorder.far, recorder.even, recorder.counts, strict=True)
    )


class _Distances(Piecewise):
    """Sums up the attention distance of every head, call by call, over any number of forwards."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.far: list[Tensor] = []  # (h,) a call
        self.even: list[float] = []
        self.counts: list[int] = []
        self._size: tuple[int, ...] = ()
        self._points = torch.empty(0)

    def again(self, size: tuple[int, ...]) -> None:
        """Begin a forward with images of this size."""
        self._size, self.calls = size, 0

    def begin(self, place: TokenIndex) -> None:
        """Compute the centres of the patches of this call; NaN for prefix tokens and padding."""
        *frames, row, col = self.grid  # of a clip, the distance within a frame: 0 in attention over time
        down = (torch.arange(row) + 0.5) * self._size[0] / row
        across = (torch.arange(col) + 0.5) * self._size[1] / col
        patches = torch.stack(torch.meshgrid(down, across, indexing="ij"), -1).flatten(0, 1)
        patches = patches.repeat(prod(frames), 1)
        nowhere = patches.new_full((1, 2), torch.nan)
        points = torch.cat([nowhere.expand(self.prefix, 2), patches, nowhere])
        self._points = points.to(place.rows.device)
        if self.calls == len(self.far):
            self.far.append(torch.zeros(0))
            self.even.append(0.0)
            self.counts.append(0)

    def take(self, piece: AttentionMap) -> None:
        # (g or b·g, q, k)
        apart = torch.cdist(self._points[piece.rows], self._points[piece.cols]).flatten(0, -3)
        there = ~apart.isnan()
        asking = there.any(-1)
        apart = apart.nan_to_num(0.0)
        times = len(piece.weights) // len(apart)
        per_key = torch.stack([apart, there.to(apart)], -1).repeat(times, 1, 1, 1)  # (b·g, q, k, 2)
        # One product reads the weights once, for both the distance and the weight on patches.
        far, on = (piece.weights.transpose(1, 2) @ per_key.to(piece.weights)).unbind(-1)  # (b·g, q, h)
        if self.whole:
            far = far / on.clamp(min=torch.finfo(far.dtype).tiny)
        total = (far * asking.repeat(times, 1)[..., None]).sum((0, 1)).double().cpu()
        now = self.calls
        self.far[now] = self.far[now] + total if len(self.far[now]) else total
        self.counts[now] += int(asking.sum()) * times
        self.even[now] += float((apart.sum(-1) / there.sum(-1).clamp(min=1)).sum()) * times
