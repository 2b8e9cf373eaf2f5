"""A duel of frozen pretrained networks: features are computed once, and only heads are trained, in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vitrail.core.errors import SettingError, UsageError
from vitrail.data.manifest import TEST
from vitrail.data.prepare import Prepared
from vitrail.evaluate.cross_validation import Answered, score_by_folds
from vitrail.models.factory import count_macs, count_params
from vitrail.runs.device import device_for
from vitrail.studies.compare.contestants import Contestant
from vitrail.studies.compare.design import Rounds
from vitrail.studies.compare.outcome import Side, score_of
from vitrail.tasks.probe import DenseProbe
from vitrail.training.draft import probe_data
from vitrail.training.feature_cache import Frozen
from vitrail.training.initialization import build_from_recipe
from vitrail.training.linear_probe import fit_head

NOTE = (
    "Only linear heads on frozen, cached features were trained: this compares what the networks bring along, not what "
    "they become when they are trained on these images."
)


def frozen_side(
    one: Contestant, prepared: Prepared, drawn: Rounds, say: Callable[[str], None]
) -> tuple[Side, str]:
    """Return what heads on the frozen features of a contestant reach in each fold, and the name of the score.

    Raises:
        UsageError: it starts from no weights.
        SettingError: the task has no linear probe of whole images.
    """
    if one.recipe.model.weights == "none":
        raise UsageError(
            f"{one.name} has no pretrained weights: there is nothing frozen to compare. Leave --tune out."
        )
    start = build_from_recipe(one.recipe, prepared.manifest.truth)
    probe = start.task.probe
    if probe is None or isinstance(probe, DenseProbe):
        raise SettingError(
            f"The task {one.recipe.task.name} has no linear probe of whole images. Leave --tune out."
        )
    rows = prepared.manifest.rows()
    frozen = Frozen(start.network.encoder, start.preprocess, device_for(one.recipe.training.device))
    vectors = frozen.vectors(prepared.manifest, rows)
    found = probe_data(start, probe, rows, prepared.manifest)
    at = {row.id: i for i, row in enumerate(rows)}
    logits: Any = None
    folds = np.zeros(len(rows), dtype=np.int64)
    for number, manifest in enumerate(drawn.manifests):
        held = np.array([at[row.id] for row in manifest.rows(TEST)])
        learned = np.setdiff1d(np.arange(len(rows)), held)
        head = fit_head(probe, vectors[learned], found.truth[learned], found.groups[learned])
        answers = head.logits(vectors[held])
        logits = np.zeros((len(rows), answers.shape[1]), dtype=answers.dtype) if logits is None else logits
        logits[held], folds[held] = answers, number
    folded = score_by_folds(start.task, one.recipe.task.name, Answered(rows, found.targets, logits, folds))
    score = score_of(folded.evaluation)
    say(f"{one.name}: {100 * float(score.values.mean()):.1f} %")
    return Side(one.name, score.values[None], _facts(start, one)), score.name


def _facts(start: Any, one: Contestant) -> Mapping[str, Any]:
    return {
        "parameters": count_params(start.network),
        "macs": count_macs(start.network.encoder, one.recipe.model.imgsz),
        "origin": start.origin,
    }


def refuse_given_split(drawn: Rounds) -> None:
    """Refuse (UsageError) seeds on a given split: heads on frozen features do not depend on a seed."""
    if not drawn.folds:
        raise UsageError(
            "A split that was given is tested once by a frozen network. Draw folds: --splits none"
        )


def ordered(sides: Sequence[Side], ids: Sequence[str], rows: Sequence[str]) -> list[Side]:
    """Return the sides with their scores, which stand in the order of `rows`, in that of `ids`."""
    at = {id: i for i, id in enumerate(rows)}
    order = [at[id] for id in ids]
    return [Side(one.name, None if one.scores is None else one.scores[:, order], one.facts) for one in sides]
