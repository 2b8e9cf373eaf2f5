"""The database of a studio: the queue of jobs and the data sets that were opened. SQLite, write-ahead log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage

from vitrail.core.errors import RunError

SCHEMA = """
CREATE TABLE IF NOT EXISTS datasets (
    name TEXT PRIMARY KEY,
    source TEXT NOT NULL,          -- a path on this machine, or a built-in set
    uploaded INTEGER NOT NULL,     -- 1 if the studio holds the images
    options TEXT NOT NULL,         -- how it is read: JSON of LayoutOptions that were given
    opened REAL NOT NULL           -- seconds since 1970
);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    dataset TEXT NOT NULL,
    words TEXT NOT NULL,           -- JSON: the words after `vitrail`
    title TEXT NOT NULL,
    run TEXT NOT NULL,             -- name of the run folder that it writes or continues
    revision INTEGER NOT NULL,     -- the number of decisions about the data when it was queued
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'stopped')),
    queued REAL NOT NULL,
    pid INTEGER,
    started REAL,                  -- start time of the process, as the system tells it
    ended REAL,
    error TEXT NOT NULL DEFAULT '',
    after INTEGER                  -- the job that has to be done before
);
CREATE TABLE IF NOT EXISTS summaries (
    run TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,           -- different after each change of the run's files
    summary TEXT NOT NULL          -- JSON
);
"""

VERSION = 1

SPACE = 1 << 18
"""Bytes that the files of SQLite need beside the database for a change."""


class Database:
    """A connection for each transaction: SQLite connections belong to one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.transaction() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise RunError(
                    f"{path} was written by a newer vitrail. Update vitrail, or move the file away."
                )
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes are written together at the end, or not at all."""
        try:
            connection = sqlite3.connect(self.path, timeout=10)
        except sqlite3.Error as error:
            raise RunError(f"{self.path} cannot be opened: {error}.") from error
        connection.row_factory = sqlite3.Row
        try:
            with connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise RunError(f"{self.path} cannot be used: {error}. {self._way_out()}") from error
        finally:
            connection.close()

    def _way_out(self) -> str:
        """Return what to do about a database that cannot be used."""
        with suppress(OSError):
            if disk_usage(self.path.parent).free < SPACE:
                return "The disk is full. Free some disk space, then do it again."
        return "Move it away; runs and images are not in it, but the names and places of data sets are."
