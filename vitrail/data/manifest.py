"""The manifest: one row a sample, the only list that training reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import polars as pl

from vitrail.core.errors import DataError
from vitrail.core.files import replace
from vitrail.data.names import natural, split_labels

KEPT, QUARANTINED, DROPPED = "kept", "quarantined", "dropped"
STATES = (KEPT, QUARANTINED, DROPPED)
TRAIN, VAL, TEST = "train", "val", "test"


class Row(NamedTuple):
    """One sample: where it is, what it shows, where it belongs, and whether and why it is kept.

    `id` and `path` are posix paths relative to the manifest's root (`archive.zip!member` inside an archive);
    `label` holds several labels joined by `|` in a multi-label set; `split` is train, val, test or empty;
    rows of one non-empty `group` never lie in two splits; `state` is kept, quarantined or dropped.
    """

    id: str
    path: str
    label: str
    split: str = ""
    group: str = ""
    hash: str = ""
    state: str = KEPT
    reason: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the row; none, one or several."""
        return split_labels(self.label)


COLUMNS = Row._fields
_WAY_OUT = "Put back a copy of it, or train again to have a new one."
_SCHEMA = dict.fromkeys(COLUMNS, pl.String)


@dataclass(frozen=True)
class Manifest:
    """A table of samples under one root; `frame` has exactly the columns of `Row`, all text."""

    frame: pl.DataFrame
    root: Path

    @classmethod
    def of(cls, rows: Iterable[Row], root: Path) -> Manifest:
        """Build a manifest from rows, in natural order of their ids."""
        ordered = sorted(rows, key=lambda row: natural(row.id))
        return cls(pl.DataFrame(ordered, schema=_SCHEMA, orient="row"), root)

    @classmethod
    def read(cls, path: str | Path, root: str | Path) -> Manifest:
        """Read a manifest written by `write`.

        Raises:
            DataError: the file is missing, is no CSV, or lacks a column.
        """
        try:
            frame = pl.read_csv(path, infer_schema=False).fill_null("")
        except (OSError, pl.exceptions.PolarsError) as error:
            gone = isinstance(error, FileNotFoundError)
            why = "it does not exist" if gone else str(error).splitlines()[0].rstrip(".")
            raise DataError(f"The manifest {path} cannot be read: {why}. {_WAY_OUT}") from error
        if tuple(frame.columns) != COLUMNS:
            raise DataError(
                f"The manifest {path} has the columns {frame.columns}, not {list(COLUMNS)}. {_WAY_OUT}"
            )
        return cls(frame, Path(root))

    def write(self, path: str | Path) -> Path:
        """Write the manifest as CSV; a crash in the middle leaves what stood there before."""
        replace(Path(path), self.frame.write_csv)
        return Path(path)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels of the kept rows in natural order, 2 before 10: the order of a network's outputs."""
        cells = self.frame.filter(pl.col("state") == KEPT)["label"].unique().to_list()
        return tuple(sorted({one for cell in cells for one in split_labels(cell)}, key=natural))

    @cached_property
    def multi(self) -> bool:
        """Whether a kept row has no label or several: then every label is a question of its own."""
        cells = self.frame.filter(pl.col("state") == KEPT)["label"].unique().to_list()
        return any(len(split_labels(cell)) != 1 for cell in cells)

    def rows(self, split: str | None = None, state: str | None = KEPT) -> list[Row]:
        """Return the rows of one split (None: all) in one state (None: any), in the manifest's order."""
        frame = self.frame if state is None else self.frame.filter(pl.col("state") == state)
        frame = frame if split is None else frame.filter(pl.col("split") == split)
        return [Row(*cells) for cells in frame.iter_rows()]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return split → class → number of kept rows, every class named in every split."""
        counters: dict[str, Counter[str]] = {}
        for row in self.rows():
            counters.setdefault(row.split, Counter()).update(row.labels)
        return {
            split: {name: counters[split][name] for name in self.classes}
            for split in sorted(counters, key=lambda s: [TRAIN, VAL, TEST, ""].index(s))
        }

    def states(self) -> dict[str, int]:
        """Return state → number of rows."""
        found = Counter(self.frame["state"].to_list())
        return {state: found[state] for state in STATES}

    def replace(self, rows: Sequence[Row]) -> Manifest:
        """Return a manifest of the same root with other rows."""
        return Manifest.of(rows, self.root)


def group_key(row: Row) -> str:
    """Return what stands or falls together: the group of a row, or the row itself."""
    return f"g:{row.group}" if row.group else f"r:{row.id}"
