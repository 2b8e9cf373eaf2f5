"""Settings that do not follow from tensors: stated by the user, a config.json, or the name of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal, get_args

from vitrail.core.errors import SettingError, WeightsError
from vitrail.layers.block import Gelu
from vitrail.layers.patch_embedding import sides

STATABLE = ("heads", "image", "gelu", "norm_eps", "dilated", "decoder_heads")
"""Settings that do not follow from tensors, and that a user can state with weights (`--network heads=3`)."""

SIZE_WAY_OUT = "state the size: --network image=[HEIGHT,WIDTH] (vitrail train, convert and weights add)"

MOST_OBLONG = 8
"""Largest aspect ratio of a grid that is considered."""


@dataclass(frozen=True, slots=True)
class Said:
    """Settings stated by one source, or by several with the most reliable first; None and () if not stated.

    `image` is the required size of the positions, (height, width) in pixels; `sizes` are other possible sizes, such as
    that of a config.json, which may be outdated, or that of a preset.
    """

    by: str = ""
    heads: int | tuple[int, ...] | None = None
    image: tuple[int, int] | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    gelu: Gelu | None = None
    norm_eps: float | None = None
    dilated: bool | None = None
    decoder_heads: int | None = None

    def over(self, other: Said) -> Said:
        """Return both, this one first; raise WeightsError if they contradict each other."""
        for name in ("heads", "gelu", "norm_eps", "dilated", "decoder_heads"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if None not in (mine, theirs) and mine != theirs:
                raise WeightsError(
                    f"{self.by} says {name} = {mine}, {other.by} {theirs}; leave the wrong one out."
                )
        return Said(
            self.by or other.by,
            other.heads if self.heads is None else self.heads,
            other.image if self.image is None else self.image,
            self.sizes + other.sizes,
            self.gelu or other.gelu,
            other.norm_eps if self.norm_eps is None else self.norm_eps,
            other.dilated if self.dilated is None else self.dilated,
            other.decoder_heads if self.decoder_heads is None else self.decoder_heads,
        )


def of_user(network: Mapping[str, Any]) -> Said:
    """Return the settings that a user states with weights.

    Raise SettingError for a setting that follows from the weights, and for a value of the wrong type.
    """
    for name in network:
        if name not in STATABLE:
            raise SettingError(
                f"Published weights fit the network as it is; {name!r} goes with --weights none. What no tensor tells "
                f"may be stated beside weights: {', '.join(STATABLE)}."
            )
    heads, image, eps = (network.get(name) for name in ("heads", "image", "norm_eps"))
    if heads is not None and not all(
        _whole(one) for one in (heads if isinstance(heads, list | tuple) else [heads])
    ):
        raise _wrong("heads", heads, "a whole number")
    if image is not None and not (_whole(image) or (isinstance(image, list | tuple) and len(image) == 2)):
        raise _wrong("image", image, "a side in pixels or [height, width]")
    if network.get("gelu") not in (None, *get_args(Gelu)):
        raise _wrong("gelu", network["gelu"], "exact, tanh or quick")
    if eps is not None and not (isinstance(eps, int | float) and eps > 0):
        raise _wrong("norm_eps", eps, "a small positive number such as 1.0e-6")
    if not _whole(network.get("decoder_heads", 1)):
        raise _wrong("decoder_heads", network["decoder_heads"], "a whole number")
    if not isinstance(network.get("dilated", False), bool):
        raise _wrong("dilated", network["dilated"], "true or false")
    return Said(
        "--network" if network else "",
        tuple(heads) if isinstance(heads, list) else heads,
        None if image is None else sides(tuple(image) if isinstance(image, list) else image),
        gelu=network.get("gelu"),
        norm_eps=eps,
        dilated=network.get("dilated"),
        decoder_heads=network.get("decoder_heads"),
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _wrong(name: str, value: Any, wanted: str) -> SettingError:
    return SettingError(f"--network {name}={value} cannot be read: {name} is {wanted}.")


Place = tuple[int | tuple[int, int], Literal["1d", "1d_patches"]]
"""The image size in pixels of a position table, and whether it has rows for the prefix tokens."""


def places(rows: int, prefix: int, span: int, said: Said, *, apart: bool = False) -> Place:
    """Return the image size of a position table with this number of rows, from stated sizes; by default a square.

    `prefix` is the number of prefix tokens that may have a row, `span` the distance of patches in pixels; `apart` means
    that prefix tokens have no row in this kind of network. Raise WeightsError if the table has another size than the
    user states, or if several sizes are possible.
    """
    for size in (said.image,) if said.image else said.sizes:
        grid = (size[0] // span) * (size[1] // span)
        if size[0] % span == size[1] % span == 0 and rows in (grid + prefix, grid):
            return _plain(size), "1d" if rows == grid + prefix else "1d_patches"
    if said.image:
        height, width = said.image
        raise WeightsError(
            f"{said.by} says {height} x {width} px, which patches of {span} px tile in {height / span:g} x "
            f"{width / span:g}; the weights have places for {rows}{' with the tokens in front' if prefix else ''}."
        )
    with_rows, without = isqrt(rows - prefix), isqrt(rows)
    if with_rows**2 == rows - prefix:
        return with_rows * span, "1d"
    if without**2 != rows:
        raise WeightsError(
            f"The weights have places for {rows}, and no square grid has as many; {SIZE_WAY_OUT}."
        )
    if (oblong := _oblong(rows - prefix)) and not apart:
        raise WeightsError(
            f"The weights have places for {rows}: a grid of {without} x {without} whose class token has none, or of "
            f"{oblong[0]} x {oblong[1]} with one; {SIZE_WAY_OUT}."
        )
    return without * span, "1d_patches"


def _plain(size: tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if size[0] == size[1] else size


def _oblong(count: int) -> tuple[int, int] | None:
    """Return the grid with this number of patches that is nearest to a square, if it is not too elongated."""
    row = next((side for side in range(isqrt(count), 0, -1) if count % side == 0), 1)
    return (row, count // row) if row > 1 and count // row <= MOST_OBLONG * row else None
