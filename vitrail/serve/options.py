"""Command-line options of a server. No heavy imports: help reads this module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a server answers, and what it takes.

    Parameters
    ----------
    latency
        the promise, such as 50ms or 0.2s: every request is answered within it at the most accurate operating point
        that the load allows, or refused at once
    point
        answer at this operating point only, 160px/merge8
    exact
        compute in float32 as in training: slower, and equal to vitrail predict of one image to the last bit
    workers
        processes that compute; with two, one goes on when the other dies
    batch
        largest number of images that are computed together
    max_mb
        largest request, in megabytes
    max_pixels
        largest image, in millions of pixels
    max_images
        largest number of images in a request
    max_seconds
        longest time for sending a request, and for answering one without a promise
    allow_urls
        hosts from which images may be fetched by URL, a.example,b.example; none by default
    token_file
        a file with the token that requests must send; otherwise the environment variable VITRAIL_TOKEN, or, for
        other machines, a new one that is printed
    device
        auto, cpu, cuda, mps
    trust
        open a .pt2, which can run any code
    """

    latency: str | None = None
    point: str | None = None
    exact: bool = False
    workers: int = 1
    batch: int = 16
    max_mb: int = 64
    max_pixels: float = 50
    max_images: int = 128
    max_seconds: float = 30
    allow_urls: str = ""
    token_file: str | None = None
    device: str = "auto"
    trust: bool = False
