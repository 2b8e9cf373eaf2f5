"""Check data sets in the background, and keep the last results: one for each state of the files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.core.errors import VitrailError
from vitrail.core.text import reason
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.datasets import Datasets, Signature

if TYPE_CHECKING:
    from vitrail.data.layouts import Layout
    from vitrail.data.manifest import Row
    from vitrail.data.prepare import Examined, Prepared
    from vitrail.studio.listing import Listing

KEPT_CHECKS = 4
"""Data sets of which the check stays in memory."""

_AT_ONCE = 2


class _EndedError(Exception):
    """The studio ends, or the files have changed: a check in the background stops."""


@dataclass
class Progress:
    """How far a check is; `error` is the sentence with which it ended."""

    done: int = 0
    total: int = 0
    over: bool = False
    error: str = ""


@dataclass
class _Entry:
    """What is known of one state of the files of a data set."""

    signature: Signature
    progress: Progress | None = None
    examined: Examined | None = None
    layout: Layout | None = None
    names: list[Row] = field(default_factory=list)
    problem: str = ""
    prepared: tuple[int, Prepared] | None = None  # with the number of decisions
    listing: tuple[int, bool, Listing] | None = (
        None  # with the number of decisions, and whether it was checked
    )

    @property
    def runs(self) -> bool:
        """Whether its check is on its way."""
        return self.progress is not None and not self.progress.over


class Checks:
    """The checks and the lists of the data sets of a studio."""

    def __init__(self, datasets: Datasets) -> None:
        self.datasets = datasets
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.RLock()
        self._places = threading.Semaphore(_AT_ONCE)
        self._end = threading.Event()

    def close(self) -> None:
        """Stop the checks in the background; what they decoded is cached, so the next goes on from there."""
        self._end.set()

    def progress(self, dataset: Dataset) -> Progress:
        """Return how far the check of the present files is; it is begun if there is none."""
        with self._lock:
            entry = self._entry(dataset)
            if entry.progress is None:
                entry.progress = Progress()
                threading.Thread(
                    target=self._work,
                    args=(dataset, entry),
                    name=f"vitrail-check-{dataset.name}",
                    daemon=True,
                ).start()
            return entry.progress

    def prepared(self, dataset: Dataset) -> Prepared | None:
        """Return the checked data set with the decisions up to now, or None if the check is not over.

        Raises:
            DataError: nothing can be learned from it.
        """
        with self._lock:
            entry = self._entry(dataset)
            if entry.examined is None:
                return None
            history = self.datasets.history(dataset)
            revision = len(history.decisions)
            if entry.prepared is None or entry.prepared[0] != revision:
                entry.prepared = revision, entry.examined.with_decisions(history)
            return entry.prepared[1]

    def listing(self, dataset: Dataset) -> Listing:
        """Return the list of the images: from the check if it is over, else from their names."""
        from vitrail.studio.listing import list_checked, list_files, list_names, rows_of

        with self._lock:
            entry, history = self._entry(dataset), self.datasets.history(dataset)
            known = (len(history.decisions), entry.examined is not None)
            if entry.listing is None or entry.listing[:2] != known:
                try:
                    prepared = self.prepared(dataset)
                    problem = ""
                except VitrailError as error:
                    prepared, problem = None, str(error)
                layout = prepared.layout if prepared is not None else self._layout(dataset, entry)
                if layout is not None and not entry.names:
                    entry.names = rows_of(layout)
                if prepared is not None:
                    found = list_checked(prepared, entry.names)
                elif layout is not None:
                    found = list_names(layout, entry.names, history)
                else:
                    found = list_files(self.datasets.place(dataset), entry.problem)
                entry.listing = (*known, replace(found, problem=problem or found.problem))
            return entry.listing[2]

    def row(self, dataset: Dataset, name: str) -> tuple[Listing, Row]:
        """Return an image and the last list that it is in; files are only looked at if no list has it.

        A page asks for hundreds of thumbnails, and a folder may hold a hundred thousand files.
        """
        with self._lock:
            entry = self._entries.get(dataset.name)
            known = entry.listing[2] if entry is not None and entry.listing is not None else None
        listing = known if known is not None and name in known.by_id else self.listing(dataset)
        return listing, listing.row(name)

    def again(self, dataset: Dataset) -> None:
        """Look at the files again, whatever is known of them."""
        self.datasets.changed(dataset)

    def _layout(self, dataset: Dataset, entry: _Entry) -> Layout | None:
        from vitrail.data.layouts import sniff

        if entry.layout is None and not entry.problem:
            try:
                entry.layout = sniff(self.datasets.place(dataset), dataset.options)
            except VitrailError as error:
                entry.problem = str(error)
        return entry.layout

    def _entry(self, dataset: Dataset) -> _Entry:
        """Return the entry for the present files; an older state of them is forgotten."""
        signature = self.datasets.signature(dataset)
        entry = self._entries.get(dataset.name)
        if entry is None or entry.signature != signature:
            entry = self._entries[dataset.name] = _Entry(signature)
        self._entries.move_to_end(dataset.name)
        others = [name for name, one in self._entries.items() if one is not entry and not one.runs]
        for name in others[: max(0, len(self._entries) - KEPT_CHECKS)]:
            del self._entries[name]
        return entry

    def _work(self, dataset: Dataset, entry: _Entry) -> None:
        progress = entry.progress
        assert progress is not None, "it was set before the thread began"
        try:
            with self._places:
                self._end_stale(dataset, entry)
                examined = self._examine(dataset, entry, progress)
            with self._lock:
                entry.examined = examined
                self.datasets.note(dataset, examined.report.findings)
        except VitrailError as error:
            progress.error = str(error)
        except _EndedError:
            progress.error = "The studio was closed. Open it again: the check goes on from there."
        except Exception as error:  # of a decoder: a page must say so, and the studio goes on
            progress.error = f"The check ended with an error that vitrail did not expect ({reason(error)})."
        progress.over = True

    def _end_stale(self, dataset: Dataset, entry: _Entry) -> None:
        """Raise if the studio closes, or the files have changed: then another check looks at them anew."""
        if self._end.is_set() or self._entries.get(dataset.name) is not entry:
            raise _EndedError

    def _examine(self, dataset: Dataset, entry: _Entry, progress: Progress) -> Examined:
        from vitrail.data.layouts import sniff
        from vitrail.data.prepare import examine_source

        def tell(done: int, total: int) -> None:
            progress.done, progress.total = done, total
            self._end_stale(dataset, entry)

        place: Path = self.datasets.place(dataset)
        layout = entry.layout or sniff(place, dataset.options)
        examined = examine_source(str(place), layout, progress=tell)
        return examined._replace(source=dataset.source)
