"""Command-line options of searches. No heavy imports: help reads this module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What similar images are compared with, the network, and how many images are listed.

    Parameters
    ----------
    like
        an image: list those similar to it; with texts, each text is averaged with it. May be given several times
    model
        a run, a model file, weights or a name: for words one that has learnt from captions (default clip_b32), else any
        network (default dinov2_s14)
    top
        how many images are listed for each query
    """

    like: tuple[str, ...] = ()
    model: str | None = None
    top: int = 10
