"""Blocks of a raster, which go to one split as a whole, and the strip around them that trains nothing.

Pixels near each other look alike, so a random split of pixels asks for what was learned (Ploton et al. 2020,
doi:10.1038/s41467-020-18321-y; Roberts et al. 2017, doi:10.1111/ecog.02881).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.findings import Strata
from vitrail.data.labels import count, natural, shorten
from vitrail.data.manifest import KEPT, QUARANTINED, TEST, TRAIN, VAL, Row
from vitrail.data.parts import is_raster, raster_window

LEAST_BLOCKS = 40
"""Least number of labelled blocks, if a block is to be at least `WINDOWS` windows wide."""

WINDOWS = 4
"""Least side of a block in windows, unless it is stated."""


def block_side(classes: NDArray[Any], window: int, least: int = WINDOWS) -> int:
    """Return the side in pixels of the largest blocks, whole windows wide, of which at least 40 hold labels."""
    rows, cols = _cells(classes, window)
    side = least
    while _blocks(rows, cols, side + 1) >= LEAST_BLOCKS:
        side += 1
    return side * window


def _cells(classes: NDArray[Any], window: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (row, column) of the cells of one window that hold labels."""
    found = []
    for top in range(0, classes.shape[0], window):
        labelled = np.flatnonzero((classes[top : top + window] > 0).any(0))
        found.append(np.unique(labelled // window))
    rows = np.repeat(np.arange(len(found)), [len(one) for one in found])
    return rows, np.concatenate(found) if found else np.zeros(0, np.intp)


def _blocks(rows: NDArray[np.intp], cols: NDArray[np.intp], side: int) -> int:
    width = int(cols.max(initial=0)) // side + 1
    return len(np.unique(rows // side * width + cols // side))


_NEAR = " px from labels of another split"


class Apart(NamedTuple):
    """Rows after those near other splits are left out, and notes."""

    rows: list[Row]
    notes: list[str]


def left_out(rows: Sequence[Row], buffer: int, strata: Strata) -> Apart:
    """Return the rows without those of val near test, and those of train near either, and say how many.

    Near are windows whose middles are fewer than `buffer` pixels apart, in rows and in columns; with the side of a
    window as buffer, no pixel is seen by two splits. Rows that are left out keep their split and state the reason.
    """
    own = [i for i, row in enumerate(rows) if row.state == KEPT and is_raster(row.part)]
    middles = np.array([_middle(rows[i]) for i in own], np.float64).reshape(-1, 2)
    splits = np.array([rows[i].split for i in own])
    near = np.zeros(len(own), bool)
    for split, others in ((VAL, (TEST,)), (TRAIN, (TEST, VAL))):
        mine = np.flatnonzero(splits == split)
        theirs = np.flatnonzero(np.isin(splits, others) & ~near)
        near[mine] = _near(middles[mine], middles[theirs], buffer)
    reason = f"fewer than {buffer}{_NEAR}"
    done = list(rows)
    for at in np.flatnonzero(near).tolist():
        i = own[at]
        done[i] = rows[i]._replace(state=QUARANTINED, reason=reason)
    return Apart(done, _notes(rows, done, int(near.sum()), buffer, strata))


def restored(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with those that `left_out` left out, for another split."""
    return [
        row._replace(state=KEPT, reason="") if is_raster(row.part) and row.reason.endswith(_NEAR) else row
        for row in rows
    ]


def _middle(row: Row) -> tuple[int, int]:
    left, top, right, bottom = raster_window(row.part, row.path)
    return (left + right) // 2, (top + bottom) // 2


def _near(some: NDArray[np.float64], others: NDArray[np.float64], buffer: int) -> NDArray[np.bool_]:
    """Return which points are fewer than `buffer` from one of the others in both directions."""
    if not len(some) or not len(others) or buffer < 1:
        return np.zeros(len(some), bool)
    from scipy.spatial import cKDTree  # slow to import

    distance, _ = cKDTree(others).query(some, p=np.inf, distance_upper_bound=buffer - 0.5)
    near: NDArray[np.bool_] = np.isfinite(distance)
    return near


def _notes(before: Sequence[Row], after: Sequence[Row], near: int, buffer: int, strata: Strata) -> list[str]:
    kept = sum(row.state == KEPT for row in before)
    notes = []
    if near:
        notes.append(
            f"{near:,} of {count(kept, 'labelled place')} lie fewer than {buffer} px from labels of another split and "
            "are left out, so that no split sees pixels of another: --buffer, --block"
        )
    tally = {split: _classes(after, split, strata) for split in (TRAIN, VAL, TEST)}
    every = sorted({one for row in before if row.state == KEPT for one in strata(row)}, key=natural)
    for split, found in tally.items():
        lacking = [name for name in every if not found[name]]
        if lacking and found:
            notes.append(f"No block of {split} holds {shorten(lacking)}: try smaller ones, --block")
    return notes


def _classes(rows: Iterable[Row], split: str, strata: Strata) -> Counter[str]:
    return Counter(one for row in rows if row.state == KEPT and row.split == split for one in strata(row))
