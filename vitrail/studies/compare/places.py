"""Where a duel lies, and which images its rounds test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitrail.core.errors import UsageError
from vitrail.core.files import make_folder
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


def new_folder(wanted: Path) -> Path:
    """Make the folder of a duel: as wanted, or with -2, -3 … where that exists already."""
    for number in range(1, 10_000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        if not folder.exists():
            make_folder(folder)
            return folder
    raise UsageError(f"There are too many folders called {wanted}. Choose another name with --out.")
