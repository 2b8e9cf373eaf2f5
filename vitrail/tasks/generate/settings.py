"""Settings of generation. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from vitrail.core.config import Settings

STEPS = 1000
"""Noise levels of the diffusion, from 0, almost the image, to the last, almost noise alone."""

Sampler = Literal["ddpm", "ddim"]
"""How an image is made: with new noise in every step (ddpm), or none after the first (ddim)."""


class GenerateSettings(Settings):
    """`drop` is the share of images that are shown without their class in training, for guidance.

    `steps`, `sampler` and `guidance` are those of images that are made unless others are asked for: how many of the
    noise levels are computed, how, and how strongly a class is followed (1: as learnt). `vae` is the folder of an
    autoencoder in whose latents the network works; empty: in pixels.
    """

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.1
    steps: Annotated[int, Field(ge=2, le=STEPS)] = 250
    sampler: Sampler = "ddpm"
    guidance: NonNegativeFloat = 1.5
    vae: str = ""
