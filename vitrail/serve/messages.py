"""What the front of a server and its workers tell each other; plain data, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vitrail.data.rasters.bands import Band
from vitrail.serve.speeds import Line

UNEXPLAINED = "This model cannot be explained: it is an exported graph, or looks through windows."


@dataclass(frozen=True, slots=True)
class Model:
    """What a worker opens: a model, and how it answers.

    `in_time`: at any measured point, for a promise; `point`: at this one; `exact`: in float32 as in training;
    `threads`: cores of one worker; `backends`: those that the first worker chose, by point, so that all are alike.
    """

    path: str
    device: str = "auto"
    in_time: bool = False
    point: str | None = None
    exact: bool = False
    trust: bool = False
    threads: int = 1
    backends: Mapping[str, Mapping[str, Any]] | None = None


class Options(NamedTuple):
    """The options of the task that a request states, as in `vitrail.tasks.base.Ask`, and whether it wants files."""

    threshold: float | None = None
    sets: float | None = None
    each_class: bool = False
    files: bool = False


class Picture(NamedTuple):
    """An image as it came: its name in messages, and the bytes of its file."""

    name: str
    data: bytes


class Batch(NamedTuple):
    """Images that are computed together at one operating point."""

    point: str
    options: Options
    pictures: tuple[Picture, ...]


class Question(NamedTuple):
    """An image to explain: by which method, for which class (None: the predicted one), and whether it is tested."""

    picture: Picture
    method: str
    of: str | None = None
    point: str = ""
    test: bool = False


class Told(NamedTuple):
    """The answer for one image: plain data of the prediction, or a sentence why it cannot be read."""

    plain: Mapping[str, Any] = {}
    error: str = ""


class Done(NamedTuple):
    """The answers of a batch, with the seconds of decoding and of the network; or a sentence why it was refused."""

    answers: tuple[Told, ...] = ()
    decode: float = 0.0
    network: float = 0.0
    refused: str = ""


class Shown(NamedTuple):
    """An explanation: plain data, and the figure as PNG; or a sentence why there is none."""

    plain: Mapping[str, Any] = {}
    png: bytes = b""
    refused: str = ""


class Answering(NamedTuple):
    """An operating point of a server: its name, its score, its backend in words and as data, and its line of speed."""

    name: str
    backend: str
    plan: Mapping[str, Any]
    line: Line
    score: Mapping[str, Any] | None = None
    good: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What the front knows of a model; a worker tells it when it is ready.

    `served`: the name of the model in addresses; `points`: the most accurate first; `sizes`: the batch sizes of which
    their lines were measured; `decoding`: seconds of a core a pixel; `notes`: sentences for whoever started the server.
    """

    name: str
    served: str
    task: str
    labels: tuple[str, ...]
    sha256: str
    size: tuple[int, int]
    channels: int
    raw: bool
    zoom: float | None
    points: tuple[Answering, ...]
    sizes: tuple[int, ...]
    decoding: float
    takes_threshold: bool = False
    has_sets: bool = False
    methods: tuple[str, ...] = ()
    card: str = ""
    weights: str = ""
    licence: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
    bands: tuple[Band, ...] = ()


class Ready(NamedTuple):
    """A worker has opened its model; with the facts, if it was asked to measure them."""

    facts: Facts | None = None


class Failed(NamedTuple):
    """Why a worker could not open its model, in a sentence."""

    why: str
