"""The table of data sets in the database of a studio."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from threading import Lock

from vitrail.core.text import command
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.studio.database import Database


@dataclass(frozen=True)
class Dataset:
    """A data set: `source` is what a command names in the studio's folder; `uploaded` if the studio holds it."""

    name: str
    source: str
    uploaded: bool
    options: LayoutOptions = DEFAULTS
    opened: float = 0.0  # seconds since 1970

    def command(self, verb: str, *more: object) -> str:
        """Return the command for this data set, to be run in the folder of the studio."""
        return command(verb, self.source, *self.options.words(), *more)


class DatasetTable:
    """The data sets that were opened once, with how they are read."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = Lock()
        self._known: tuple[Dataset, ...] | None = None  # a wall asks for each of its thumbnails

    def rows(self) -> list[Dataset]:
        """Return the data sets that are in the table; only this process changes it."""
        with self._lock:
            if self._known is None:
                self._known = tuple(self._read())
            return list(self._known)

    def _read(self) -> list[Dataset]:
        with self.database.transaction() as connection:
            rows = connection.execute("SELECT * FROM datasets").fetchall()
        return [
            Dataset(
                row["name"],
                row["source"],
                bool(row["uploaded"]),
                LayoutOptions(**json.loads(row["options"])),
                row["opened"],
            )
            for row in rows
        ]

    def write(self, dataset: Dataset) -> Dataset:
        """Write a data set, and return it; one of the same name is replaced."""
        with self._lock, self.database.transaction() as connection:
            self._known = None
            connection.execute(
                "INSERT OR REPLACE INTO datasets (name, source, uploaded, options, opened) VALUES (?,?,?,?,?)",
                (
                    dataset.name,
                    dataset.source,
                    dataset.uploaded,
                    json.dumps(asdict(dataset.options)),
                    dataset.opened,
                ),
            )
        return dataset

    def remove(self, dataset: Dataset) -> None:
        """Take a data set out of the table."""
        with self._lock, self.database.transaction() as connection:
            self._known = None
            connection.execute("DELETE FROM datasets WHERE name = ?", (dataset.name,))
