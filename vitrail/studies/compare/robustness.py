"""Compares how trained models hold under corruptions, missing patches and attacks, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from vitrail.data.manifest import TEST, Manifest
from vitrail.infer.predictor import Predictor
from vitrail.metrics.paired_difference import Difference, holm, over_seeds, verdict
from vitrail.reports.robustness import sample_called, settings_of
from vitrail.robustness.cost import cost_of
from vitrail.robustness.measurement import Measured, grid_of, measure, refuse_unfit, sample_of
from vitrail.robustness.options import RobustnessOptions
from vitrail.robustness.sections import result_of, shares, summary
from vitrail.studies.compare.outcome import said
from vitrail.tasks.result import Result

Say = Callable[[str], None]


class Robustness(NamedTuple):
    """What several models keep of their scores, with a sentence for every two of them under each disturbance."""

    result: Result
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers and sentences as plain data."""
        head = {"verdict": self.result.verdict, "sentences": list(self.sentences)}
        return {**head, **self.result.details["robustness"]}


def compared(
    predictors: Mapping[str, Predictor],
    manifest: Manifest,
    wanted: RobustnessOptions,
    region: float,
    say: Say,
) -> Robustness:
    """Measure models on one sample of the test images of a manifest: the same noise and the same missing patches."""
    wanted.refuse_idle()
    for predictor in predictors.values():
        refuse_unfit(predictor)
    tests = manifest.rows(TEST)
    how = replace(settings_of(wanted), grid=grid_of(list(predictors.values())))
    rows, measured = sample_of(tests, wanted.sample, how.seed), {}
    for name, predictor in predictors.items():
        say(f"{name}: {cost_of(predictor, rows, manifest.root, how)}")
        measured[name] = measure(predictor, rows, manifest.root, how, say)
    result = result_of(measured, sample_called(len(rows), len(tests), "test images"))
    return Robustness(result, tuple(sentences(measured, region)))


def sentences(models: Mapping[str, Measured], region: float) -> Iterator[str]:
    """Yield what may be said of every two models under each disturbance; Holm's correction over all of them."""
    found = list(_differences(models))
    levels = holm([difference.p for _, _, difference in found])
    for (what, (first, second), difference), level in zip(found, levels, strict=True):
        sentence = said(verdict(difference, region, level), first, second)
        yield f"{what[0].upper()}{what[1:]}: {sentence}"


def _differences(models: Mapping[str, Measured]) -> Iterator[tuple[str, tuple[str, str], Difference]]:
    """Yield for each disturbance and every two models the difference of the shares of images that are right."""
    kinds = {name: summary(one) for name, one in models.items()}
    for what in next(iter(kinds.values())):
        for first, second in combinations([name for name in models if what in kinds[name]], 2):
            one, other = (shares(models[name], kinds[name][what]) for name in (first, second))
            yield (
                what,
                (first, second),
                over_seeds((one - other)[None], _units(models[first].groups[: len(one)])),
            )


def _units(groups: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return groups as numbers: (n,)."""
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]] = np.unique(groups, return_inverse=True)[1]
    return numbers
