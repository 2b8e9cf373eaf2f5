"""Images that wait in the queue of a server, their answers, and why they are refused. No torch here."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vitrail.serve.messages import Options, Picture, Told
from vitrail.serve.speeds import BASE_PIXELS


class Refused(Exception):
    """Images that cannot be answered in time, with a sentence, the reason in a word, and when to try again (seconds).

    Without `again` trying does not help: even a free server is too slow for them.
    """

    def __init__(self, sentence: str, why: str, again: float | None = None) -> None:
        super().__init__(sentence)
        self.why, self.again = why, again


class Sent(NamedTuple):
    """An image of a request: its file, and what its head says of it: format, pixels, and inputs of the network."""

    picture: Picture
    kind: str
    pixels: int
    work: float = 1.0


class Wanted(NamedTuple):
    """What a request wants: options of the task, an operating point, and its own time limit in seconds."""

    options: Options = Options()
    point: str = ""
    seconds: float | None = None


class Answered(NamedTuple):
    """The answer for an image, and how it came about: point, size of the batch, seconds waited, decoded, computed."""

    told: Told
    point: str
    batch: int
    queue: float
    decode: float
    network: float


@dataclass(eq=False, slots=True)
class Waiting:
    """An image that waits for its batch."""

    sent: Sent
    wanted: Wanted
    arrived: float
    deadline: float
    decode: float
    answer: asyncio.Future[Answered]
    tries: int = 0

    @property
    def work(self) -> float:
        """Inputs of the network."""
        return self.sent.work

    @property
    def point(self) -> str:
        """The operating point that the request names."""
        return self.wanted.point

    @property
    def group(self) -> Hashable:
        """What the images of a batch have in common; one whose worker ended is alone."""
        return (self.wanted.point, self.wanted.options, id(self) if self.tries else 0)


def refuse(images: Sequence[Waiting], why: Refused) -> None:
    """Answer images with a refusal."""
    for one in images:
        if not one.answer.done():
            one.answer.set_exception(why)


def pixels_of(images: Sequence[Waiting]) -> Mapping[str, int]:
    """Return the pixels of images by format, with what each costs besides."""
    counts: Counter[str] = Counter()
    for one in images:
        counts[one.sent.kind] += one.sent.pixels + BASE_PIXELS
    return counts


def too_slow(new: Sequence[Waiting], best: float, limit: float) -> str:
    """Return a sentence about images that even a free server could not answer in time."""
    took = f"about {1000 * best:.0f} ms even on a free server, and {1000 * limit:g} ms are allowed"
    way = f"allow more time with the header X-Deadline-Ms: {math.ceil(1000 * best * 1.5)}"
    if len(new) > 1:
        return f"{len(new)} images take {took}. Send fewer at once, or {way}."
    return f"An image of {new[0].sent.pixels:,} pixels takes {took}. Send it smaller, or {way}."
