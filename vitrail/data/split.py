"""Split samples into train, val (choice of the best epoch) and test: stratified, grouped, seeded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from vitrail.core.errors import DataError, SettingError
from vitrail.data.findings import Strata
from vitrail.data.labels import count, natural, shorten
from vitrail.data.manifest import KEPT, TEST, TRAIN, VAL, Manifest, Row, group_key


class Assigned(NamedTuple):
    """A manifest in which all kept rows have a split, and notes on the split."""

    manifest: Manifest
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """Rows that must stay together: a group, or one row without a group."""

    key: str
    rows: tuple[Row, ...]
    strata: Counter[str]


SHARE = 0.15
"""Default share of the images for val, and for test."""


def assign(
    manifest: Manifest, strata: Strata, *, seed: int, val: float | None = None, test: float | None = None
) -> Assigned:
    """Assign a split to every kept row without one; the result depends only on ids, strata, groups and `seed`.

    Given splits are not changed. A missing `test` or `val` is drawn from the rows given for training. If only train and
    val are given, the given val becomes the test split (comparable with published scores on it), and a new val for the
    choice of the best epoch is drawn from train.

    Raises:
        SettingError: shares outside 0..1, or nothing left to train on.
        DataError: splits are given, but no train split.
    """
    shares = {VAL: SHARE if val is None else val, TEST: SHARE if test is None else test}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise SettingError(
            f"Shares of {shares[VAL]} for val and {shares[TEST]} for test leave nothing to train on. "
            f"Try {SHARE} each."
        )
    rows = manifest.rows()
    given = {row.split for row in rows} - {""}
    notes = []
    drawn_val = given == {TRAIN, VAL}
    if drawn_val:
        rows = [row._replace(split=TEST) if row.split == VAL else row for row in rows]
        given = {TRAIN, TEST}
        notes.append(
            "No test split was given: the given val scores (as test), "
            "and a val to choose the best epoch is drawn from train."
        )
    pool = [row for row in rows if row.split in ("", TRAIN)]
    if not pool:
        raise DataError(
            f"Only {shorten(sorted(given))} was given and nothing to train on. Add a train split."
        )
    notes += _idle(given, {VAL: val, TEST: test})
    wanted = {split: share for split, share in shares.items() if split not in given and share > 0}
    chosen, few = _draw(_units(pool, strata), wanted, seed)
    if given and wanted and not drawn_val:
        notes.append(f"The splits given stay; {' and '.join(wanted)} drawn from train.")
    if few:
        notes.append(f"Too few images to stand in every split: {shorten(few)}.")
    others = [row for row in manifest.rows(state=None) if row.state != KEPT]
    placed = [row._replace(split=chosen[row.id]) if row.id in chosen else row for row in rows]
    return Assigned(manifest.replace([*placed, *others]), tuple(notes))


def _idle(given: set[str], asked: Mapping[str, float | None]) -> list[str]:
    """Return notes on shares that have no effect because the images of that split are given."""
    return [
        f"--{split} {share:g} changes nothing: the {split} images are given."
        for split, share in asked.items()
        if share is not None and split in given
    ]


def can_be_trained(manifest: Manifest, strata: Strata) -> None:
    """Raise DataError, with the number of missing images, if none are left for training or validation."""
    counts = {split: len(manifest.rows(split)) for split in (TRAIN, VAL, TEST)}
    if counts[TRAIN] and counts[VAL]:
        return
    units = _units(manifest.rows(), strata)
    sizes = Counter(one for unit in units for one in unit.strata if one)
    largest, most = max(sizes.items(), key=lambda pair: pair[1], default=("", len(units)))
    has = ", ".join(f"{number:,} {split}" for split, number in counts.items())
    what = f"It takes 3 images to stand in all of them, and there are {most}"
    rows = Counter(one for row in manifest.rows() for one in strata(row) or ("",))
    tied = max(rows.values(), default=0) >= 3 > most and any(
        row.group and not row.group.startswith("twins:") for row in manifest.rows()
    )
    if tied:
        raise DataError(
            f"Groups tie the images together so that no split can be made: the largest class has "
            f"{max(rows.values())} images in {count(most, 'group')}, and 3 are needed. Leave the groups out: "
            "--groups none"
        )
    if largest:
        what = f"A class needs 3 images to stand in all of them, and the largest, {largest!r}, has {most}"
    lacking = (
        f"{what}: "
        f"add {3 - most} at least, 10 or more{' of each class' * bool(largest)} for a score that means something."
        if most < 3
        else "Leave out --val 0, or put images into the folder of that split."
    )
    none = "train on" if not counts[TRAIN] else "choose the best epoch by"
    raise DataError(f"There is no image to {none}: the split is {has}. {lacking}")


def leaks(manifest: Manifest) -> list[str]:
    """Return the ids of the val and test rows that have a duplicate or a group member among the training rows.

    Only given splits can leak; the score is reported with and without these rows.
    """
    trained = {row.group for row in manifest.rows(TRAIN)} - {""}
    return [row.id for row in manifest.rows() if row.split != TRAIN and row.group in trained]


def _units(rows: Iterable[Row], strata: Strata) -> list[_Unit]:
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[group_key(row)].append(row)
    units = []
    for members in grouped.values():
        within = Counter(one for row in members for one in strata(row) or ("",))
        units.append(_Unit(min(row.id for row in members), tuple(members), within))
    return units


def _draw(units: list[_Unit], wanted: dict[str, float], seed: int) -> tuple[dict[str, str], list[str]]:
    """Assign whole units, those of the rarest label first, each to the split that needs it most.

    This is the iterative stratification of Sechidis et al. 2011 (doi:10.1007/978-3-642-23808-6_10). With one label per
    row it is ordinary stratification.
    """
    tally = Counter(one for unit in units for one in unit.strata)  # units, not rows: duplicates count once
    need = {one: _quota(number, wanted) for one, number in tally.items()}
    few = [one for one in sorted(tally, key=natural) if one and tally[one] <= len(wanted)]
    ordered = sorted(units, key=lambda unit: _dice(seed, unit.key))
    ordered.sort(key=lambda unit: (min((tally[one], one) for one in unit.strata), -len(unit.rows)))
    chosen: dict[str, str] = {}
    for unit in ordered:
        rarest = min(unit.strata, key=lambda one: (tally[one], one))
        split = max(need[rarest], key=lambda s: (need[rarest][s], sum(need[one][s] for one in unit.strata)))
        for one in unit.strata:
            need[one][split] -= 1
        chosen.update((row.id, split) for row in unit.rows)
    return chosen, few


def _quota(number: int, wanted: dict[str, float]) -> dict[str, int]:
    """Return the number of a label's units for each split: at least one, first for train, then test, then val."""
    left, quota = number - 1, {TRAIN: 1}
    for split in (TEST, VAL):
        if split in wanted:
            quota[split] = min(left, max(1, round(number * wanted[split])))
            left -= quota[split]
    quota[TRAIN] += left
    return quota


def _dice(seed: int, key: str) -> bytes:
    return blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()
