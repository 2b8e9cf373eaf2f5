"""Scores of masked images in bf16, where that is fast and, for these very images, faithful; else in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.data.batch import Batch, images_only
from vitrail.explainers.masked_images import MaskedImages
from vitrail.layers.heads import Output
from vitrail.layers.tokens import Features
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import Network
from vitrail.runs.run_network import ASK, run_network
from vitrail.tasks.base import Task

BATCH = 16
"""Images in a forward pass."""

PROBES = 6
"""Masked images, evenly spaced, that are scored in both precisions."""

LIMIT = 0.15
"""Largest allowed error of bf16, relative to the spread of the scores. Cells are ranked by scores,
and curves are compared by their means: at this error the rank correlation with float32 is about 0.99. A trained
ViT-S/14 has 0.02 to 0.08."""

HOPELESS = 1.0
"""Error, relative to the spread of the probes alone, above which the other images are not scored in bf16: networks
with shuffled weights have more, as their scores hardly depend on the image. Six probes may miss the object, and a
faithful network was at 0.4: to refuse it costs far more time than to score in bf16 in vain."""

HELD = 1 << 26
"""Largest size, in bytes, of the outputs for one image that are kept for other targets."""


class Precision(NamedTuple):
    """How masked images were scored: what the scores are for, bf16 or float32, and why."""

    purpose: str
    name: str
    why: str
    off: float = 0.0  # error of bf16, relative to the spread of the scores


def precision_line(precisions: Sequence[Precision]) -> str:
    """Return one line that says how all masked images were scored; empty if there were none."""
    if not precisions:
        return ""
    if len({(one.name, one.why) for one in precisions}) == 1:
        return f"Masked images were scored in {precisions[0].name}: {precisions[0].why}."
    worst = {(one.purpose, one.name): one for one in sorted(precisions, key=lambda one: one.off)}
    parts = [
        f"{purpose} in {name}: {worst[purpose, name].why}"
        for purpose, name in dict.fromkeys((one.purpose, one.name) for one in precisions)
    ]
    return f"How masked images were scored: {'; '.join(parts)}."


class Bf16Copy(nn.Module):
    """A copy of a network whose encoder computes in bf16. The head stays in float32: bf16 would round its outputs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        last = network.spec.attention == "none"  # convolutions are faster in channels-last layout
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.network = deepcopy(network)
        self.network.encoder.to(memory_format=self.layout).to(torch.bfloat16)

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Return the outputs of the head: images by name -> outputs by name, in float32."""
        images = inputs["images"].to(torch.bfloat16)
        if images.ndim == 4:  # no other format exists for clips
            images = images.contiguous(memory_format=self.layout)
        return self.network.head(_in_float32(self.network.encode({"images": images})), inputs)


def _in_float32(features: Features) -> Features:
    pooled = None if features.pooled is None else features.pooled.float()
    levels = tuple(level.float() for level in features.levels)
    return Features(features.tokens.with_x(features.tokens.x.float()), levels, pooled)


class ScoringNetwork:
    """A network, and its copy in bf16, made when it is first needed and used for any number of images."""

    def __init__(self, network: Network, task: Task[Any, Any], name: str = "") -> None:
        self.network, self.task, self.name = network, task, name
        self.device = next(network.parameters()).device

    @cached_property
    def obstacle(self) -> str:
        """Why there is no bf16 copy; empty if there is one."""
        if self.task.inputs != ("images",):
            return "the network reads more than images"
        return "" if fast_bf16(self.device) else "this device has no fast bf16"

    @cached_property
    def copy(self) -> Bf16Copy:
        """The copy in bf16."""
        return Bf16Copy(self.network).eval()


class Compared(NamedTuple):
    """Scores, the error of bf16 relative to their spread, and whether they are in bf16, as it is faithful."""

    scores: Tensor
    off: float
    faithful: bool


class FastScores:
    """Scores of one image with masked cells by one network. Outputs are kept: another target needs no forward pass.

    `precisions` collects how everything was scored, and why.
    """

    def __init__(self, scoring: ScoringNetwork) -> None:
        self.scoring = scoring
        self.precisions: list[Precision] = []
        self._decided: list[tuple[str, Any, Precision]] = []
        self._kept: dict[tuple[bytes, str], list[Output]] = {}
        self._held = 0

    def scores(self, images: MaskedImages, prediction: Any) -> Tensor:
        """Return the score of `prediction` for each image: (m,), on the CPU.

        Images for one purpose and prediction are all scored in the precision of the first ones.
        """
        for purpose, known, precision in self._decided:
            if purpose == images.purpose and known is prediction:
                return self._scores(images, prediction, precision.name)
        scores, precision = self._first(images, prediction)
        self._decided.append((images.purpose, prediction, precision))
        self.precisions.append(precision)
        return scores

    def _first(self, images: MaskedImages, prediction: Any) -> tuple[Tensor, Precision]:
        """Return the scores and their precision: bf16 if the probes agree with float32."""
        purpose = " of ".join(filter(None, (images.purpose, self.scoring.name)))
        why = self.scoring.obstacle or self._too_few(images)
        if not why:
            try:
                scores, off, faithful = self._compared(images, prediction)
            except RuntimeError as error:  # an operation that has no bf16 kernel
                why = f"bf16 is not possible: {str(error).splitlines()[0]}"
            else:
                name = "bf16" if faithful else "float32"
                return scores, Precision(purpose, name, f"bf16 differs by {_percent(off)}", off)
        return self._scores(images, prediction, "float32"), Precision(purpose, "float32", why)

    @staticmethod
    def _too_few(images: MaskedImages) -> str:
        return "a few images only" if len(images) <= 2 * PROBES else ""

    def _compared(self, images: MaskedImages, prediction: Any) -> Compared:
        """Score the probes in both precisions, and the other images in bf16 unless that is hopeless."""
        places = torch.linspace(0, len(images) - 1, PROBES).round().long()
        probes, others = images.some(places), images.others(places)
        exact = self._scores(probes, prediction, "float32")
        fast = self._scores(probes, prediction, "bf16")
        off = relative_error(fast, exact, exact)
        if off <= HOPELESS:
            rest = self._scores(images.some(others), prediction, "bf16")
            scores = torch.empty(len(images)).scatter(0, places, fast).scatter(0, others, rest)
            off = relative_error(fast, exact, scores)
            if off <= LIMIT:
                return Compared(scores, off, True)
        rest = self._scores(images.some(others), prediction, "float32")
        return Compared(
            torch.empty(len(images)).scatter(0, places, exact).scatter(0, others, rest), off, False
        )

    def _scores(self, images: MaskedImages, prediction: Any, precision: str) -> Tensor:
        outputs = self._outputs(images, precision)
        return torch.cat([self.scoring.task.score(output, prediction) for output in outputs])

    def _outputs(self, images: MaskedImages, precision: str) -> Iterator[Output]:
        """Yield the outputs batch by batch: those kept, or new ones, which are kept if they are small enough."""
        key = (images.key(), precision)
        if key in self._kept:
            yield from self._kept[key]
            return
        network = self.scoring.copy if precision == "bf16" else self.scoring.network
        outputs: list[Output] = []
        size = self._held

        def compute(batch: Batch[Any]) -> Output:
            return self.scoring.task.answer(network, batch, ASK)

        batches = map(images_only, images.batches(BATCH))
        for _, output in run_network(compute, batches, self.scoring.device):
            size += sum(tensor.nbytes for tensor in output.values())
            outputs = [*outputs, output] if size <= HELD else []
            yield output
        if outputs:
            self._kept[key], self._held = outputs, size


def relative_error(found: Tensor, exact: Tensor, scores: Tensor) -> float:
    """Return the deviation of errors, relative to the deviation of `scores`; a common offset changes nothing.

    Infinite if the scores are all equal, unless they are exact, or not finite.
    """
    error, spread = float((found - exact).double().std()), float(scores.double().std())
    if error == 0:
        return 0.0
    ratio = error / spread if spread > 0 else inf
    return ratio if ratio == ratio else inf


def _percent(off: float) -> str:
    return f"{off:.0%} of their spread" if off < 10 else "more than ten times their spread"
