"""One call from a source to a manifest: sniff, examine, assign. What `train` and `check` stand on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vitrail.core.errors import DataError
from vitrail.core.paths import cache_dir
from vitrail.data import builtin
from vitrail.data.doctor import Progress, Report, examine
from vitrail.data.layouts import Layout, sniff
from vitrail.data.manifest import Manifest
from vitrail.data.split import assign


class Prepared(NamedTuple):
    """A source made ready: what training reads, what was found, what the source is, what was decided."""

    manifest: Manifest
    report: Report
    layout: Layout
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return everything that is to be said, in plain words."""
        said = [f"{self.layout.root.name}: {self.layout.why}"]
        return [*said, *self.layout.notes, *self.report.lines(), *self.notes]


def prepare(
    source: str | Path,
    *,
    seed: int = 0,
    layout: str = "auto",
    val: float = 0.15,
    test: float = 0.15,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make a manifest of a folder or of a built-in name ("digits"), with the report of what was found.

    Raises:
        DataError: nothing there that could be learnt from; the message says why and what to do.
    """
    understood = sniff(find(source), layout)
    report = examine(understood, cache=cache, progress=progress)
    manifest = Manifest.of(report.rows, understood.root)
    if len(manifest.classes) < 2:
        raise DataError(
            f"{understood.root} has usable pictures of fewer than two classes. "
            + (report.lines() or ["Add pictures of another class."])[0]
        )
    done = assign(manifest, seed=seed, val=val, test=test)
    return Prepared(done.manifest, report, understood, done.notes)


def find(source: str | Path) -> Path:
    """Return where a source lies; a built-in set is written to the cache first."""
    path = Path(source).expanduser()
    if not path.exists() and str(source) in builtin.names():
        return builtin.materialise(str(source), cache_dir() / "data")
    return path
