"""Settings of masked pretraining. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from vitrail.core.config import Settings


class PretrainSettings(Settings):
    """`mask` is the share of the patches that are hidden.

    `width`, `depth` and `heads` are those of the decoder; None: those of the paper of the network, or such as suit its
    width. With `normalise`, the pixels of each patch are predicted relative to the mean and the spread of that patch.
    """

    mask: Annotated[float, Field(gt=0, lt=1)] = 0.75
    normalise: bool = True
    width: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
