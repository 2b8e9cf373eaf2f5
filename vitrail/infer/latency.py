"""Predict within a time: the most accurate operating point that is quick enough on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from vitrail.core.errors import SettingError, VitrailError
from vitrail.core.text import command
from vitrail.data.manifest import VAL
from vitrail.infer.autotune import request_with
from vitrail.infer.inputs import Source
from vitrail.infer.operating_points import WHO_HAS_A_DIAL, good
from vitrail.infer.point_speeds import SHARE, PointSpeed, shown, speeds_here
from vitrail.infer.predict_options import read_latency
from vitrail.infer.predictor import Answer, Predictor, Request
from vitrail.infer.proof_images import Reader, readers_of, root_of, spread, usable
from vitrail.layers.elastic import read_point
from vitrail.runs.run import open_run
from vitrail.tasks.result import Number

IMAGES = 48
"""Images of which those for timing and for the check of a backend are taken."""


class InTime(NamedTuple):
    """A predictor at the chosen operating point, the request to use, and why it was chosen."""

    predictor: Predictor
    request: Request
    why: str


def within_latency(
    predictor: Predictor, model: str, sources: Sequence[Source], wanted: str, say: Callable[[str], None]
) -> InTime:
    """Return the most accurate measured operating point that keeps a latency on this machine.

    Raises:
        SettingError: no point was measured, or none is quick enough; the message names the quickest.
        DataError: there is no image to time with.
    """
    limit = read_latency(wanted)
    rows = {row["point"]: row for row in predictor.header.points}
    if not rows:
        raise SettingError(_unmeasured(predictor, model))
    readers = _readers(predictor, model, sources)
    speeds = speeds_here(predictor, readers, say)
    if min(speed.latency for speed in speeds.values()) > limit:
        # Before a refusal: the machine may have been busy when they were timed.
        speeds = speeds_here(predictor, readers, say, again=True)
    name = _chosen(rows, speeds, limit)
    point, speed = read_point(name), speeds[name]
    request = request_with(predictor, speed.backend, point, partial(shown, readers), singly=True)
    predictor.predict([readers[0]()], request)  # the first pass of a backend takes longer
    return InTime(predictor.turned(point), request, _why(rows, name, speed, predictor))


def _unmeasured(predictor: Predictor, model: str) -> str:
    if len(predictor.dial) == 1:
        return (
            f"{model} has one operating point only, {predictor.points[-1]}, so there is nothing to choose from. "
            f"{WHO_HAS_A_DIAL}"
        )
    return (
        f"The operating points of {model} were not measured yet, so their latency is unknown. Measure them once: "
        f"{command('eval', model, '--points', 'all')}; a draft or a model file needs images with labels: "
        f"{command('eval', model, 'FOLDER', '--points', 'all')}"
    )


def _chosen(rows: Mapping[str, Any], speeds: Mapping[str, PointSpeed], limit: float) -> str:
    """Return the most accurate point within the limit, the quickest of equals."""
    quick = [name for name in speeds if speeds[name].latency <= limit]
    if not quick:
        best = min(speeds, key=lambda name: speeds[name].latency)
        enough = np.ceil(10 * speeds[best].latency) / 10
        raise SettingError(
            f"No operating point answers within {limit:g} ms on this machine. The quickest, {best}, takes "
            f"{speeds[best].latency:.1f} ms for {SHARE} of 100 images: --latency {enough:g}ms"
        )
    return max(quick, key=lambda name: (good(rows[name]), -speeds[name].latency))


def _why(rows: Mapping[str, Any], name: str, speed: PointSpeed, predictor: Predictor) -> str:
    row, whole = rows[name], str(predictor.points[-1])
    score = Number.of(row["score"])
    beside = (
        f" (whole network: {Number.of(rows[whole]['score']).text()})"
        if whole in rows and whole != name
        else ""
    )
    return (
        f"Answered at {name}: {score.text()} on {row['pictures']:,} {row.get('called', 'validation images')}{beside}, "
        f"{speed.latency:.1f} ms for {SHARE} of 100 images, one at a time, in {speed.backend}."
    )


def _readers(predictor: Predictor, model: str, sources: Sequence[Source]) -> list[Reader]:
    """Return readers of validation images of the run, or of the job if there is no run with its images."""
    try:
        run = open_run(model)
        return usable(readers_of(run, root_of(run), (VAL,), predictor.preprocess, IMAGES))
    except VitrailError:
        return usable([partial(predictor.decoded, one) for one in spread(sources, IMAGES)])


class Stopwatch:
    """Passes answers on, and remembers how long each took."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    def watch(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Yield the answers."""
        began = perf_counter()
        for answer in answers:
            if not answer.error:
                self.milliseconds.append(1000 * (perf_counter() - began))
            yield answer
            began = perf_counter()

    def line(self, wanted: str) -> str:
        """Return in a sentence how long the images of this job took."""
        if not self.milliseconds:
            return "No image was answered."
        high, middle = np.percentile(self.milliseconds, [SHARE, 50])
        late = high > read_latency(wanted)
        over = f", more than {wanted}: the machine is busier than when it was timed, or the images are larger"
        if len(self.milliseconds) == 1:
            return f"The image took {high:.1f} ms{over if late else ''}."
        return (
            f"In this job {SHARE} of 100 images took at most {high:.1f} ms, half of them {middle:.1f} ms"
            f"{over if late else ''}."
        )
