"""Which images the rounds of a duel test."""

from __future__ import annotations

import numpy as np

from vitrail.data.manifest import TEST, group_key
from vitrail.data.prepare import Prepared
from vitrail.studies.compare.design import (
    Rounds,
)
from vitrail.studies.compare.outcome import SharedImages


def tested_of(drawn: Rounds, prepared: Prepared) -> SharedImages:
    """Return the images that the rounds test, each once."""
    rows = [
        (number if drawn.folds else -1, row)
        for number, manifest in enumerate(drawn.manifests if drawn.folds else drawn.manifests[:1])
        for row in manifest.rows(TEST)
    ]
    return SharedImages(
        tuple(row.id for _, row in rows),
        tuple(prepared.targets.strata(row) for _, row in rows),
        tuple(group_key(row) for _, row in rows),
        np.array([number for number, _ in rows]),
        drawn.trained,
    )
