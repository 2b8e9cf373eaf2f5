"""One call from a source to a manifest: sniff, examine, recall decisions, assign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.errors import DataError
from vitrail.core.paths import cache_dir
from vitrail.data import builtin
from vitrail.data.doctor import Progress, Report, examine
from vitrail.data.findings import as_decided
from vitrail.data.history import History, history_path
from vitrail.data.layouts import Layout, sniff
from vitrail.data.manifest import Manifest
from vitrail.data.names import count, some
from vitrail.data.split import assign

_ENOUGH, _SHARED = 20, 0.8
_KEPT = 100  # ids of one finding that are kept with a run


class Prepared(NamedTuple):
    """A source made ready: what training reads, what was found, what the source is, what was decided."""

    manifest: Manifest
    report: Report
    layout: Layout
    notes: tuple[str, ...]
    source: str = ""

    def lines(self) -> list[str]:
        """Return everything that is to be said, in plain words: what it is, what is wrong, what was decided."""
        return [self.about(), *self.report.lines(), *self.layout.notes, *self.notes]

    def about(self) -> str:
        """Return what the source is, and why, and how much of it is used."""
        kept = self.manifest.states()["kept"]
        sizes = " to ".join(
            dict.fromkeys(f"{w} × {h}" for h, w in (self.report.sizes[0], self.report.sizes[-1]))
        )
        classes = count(len(self.manifest.classes), "class", "classes")
        many = ", any number of labels a picture" if self.manifest.multi else ""
        why = f"{self.layout.why[0].upper()}{self.layout.why[1:]}"
        return f"{why} {count(kept, 'picture')} in {classes}{many}, {sizes} px."

    def summary(self) -> str:
        """Return in one line what was found, for the head of a training."""
        states = self.manifest.states()
        out = states["quarantined"] + states["dropped"]
        grave = sum(finding.grave for finding in self.report.findings)
        parts = [
            f"{count(states['kept'], 'picture')} in {count(len(self.manifest.classes), 'class', 'classes')}"
        ]
        parts += [f"{out:,} kept out"] if out else []
        parts += [f"{count(grave, 'finding')} to look at (vitrail check {self.source})"] if grave else []
        return ", ".join(parts) + "."

    def opening(self) -> list[str]:
        """Return what the head of a training says: the summary, what is converted, what was decided."""
        converted = [finding.text for finding in self.report.findings if finding.kind == "converted"]
        return [self.summary(), *converted, *self.layout.notes, *self.notes]

    def found(self) -> dict[str, Any]:
        """Return what was found and decided as plain values that name no folder, to be kept with a run."""
        findings = [{**one.to_dict(), "ids": list(one.ids[:_KEPT])} for one in self.report.findings]
        return {"findings": findings, "notes": list(self.notes)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "layout": self.layout.name,
            "why": self.layout.why,
            "classes": list(self.manifest.classes),
            "multi_label": self.manifest.multi,
            "splits": self.manifest.counts(),
            **self.report.to_dict(),
            "notes": [*self.layout.notes, *self.notes],
        }


def prepare(
    source: str | Path,
    *,
    seed: int = 0,
    layout: str = "auto",
    val: float | None = None,
    test: float | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    history: History | None = None,
) -> Prepared:
    """Make a manifest of a source (folder, archive, table …) or of a built-in name ("digits"), and report.

    `cache` remembers by content what was seen (None: a file in the cache folder). What was decided before is
    respected (`history`; None: what stands beside the data). Nothing of the data is changed.

    Raises:
        DataError: nothing there that could be learnt from; the message says why and what to do.
    """
    place = find(source)
    understood = sniff(place, layout)
    memory = cache if cache is not None else cache_dir() / "check.sqlite"
    report = examine(understood, cache=memory, progress=progress)
    known = history if history is not None else History.read(history_path(place))
    rows, decided = known.apply(report.rows)
    report = replace(report, findings=tuple(as_decided(report.findings, report.rows, rows)))
    manifest = Manifest.of(rows, understood.root)
    _refuse_numbers(source, manifest)
    if len(manifest.classes) < 2:
        usable = some(manifest.classes) or "none"
        first = report.findings[0].text if report.findings else "Add pictures of another class."
        raise DataError(f"{source} has usable pictures of fewer than two classes ({usable}). {first}")
    done = assign(manifest, seed=seed, val=val, test=test)
    report = replace(report, rows=tuple(done.manifest.rows(state=None)))
    return Prepared(done.manifest, report, understood, (*decided, *done.notes), str(source))


def _refuse_numbers(source: str | Path, manifest: Manifest) -> None:
    """Refuse labels that hardly two pictures share: they are measurements or names, not classes."""
    kept, labels = manifest.states()["kept"], len(manifest.classes)
    if kept >= _ENOUGH and labels > _SHARED * kept:
        raise DataError(
            f"{source} has {labels:,} labels for {kept:,} pictures: hardly two share one, so they are no classes. "
            "Give a column of classes, and call it label."
        )


def find(source: str | Path) -> Path:
    """Return where a source lies; a built-in set is written to the cache first."""
    path = Path(source).expanduser()
    if not path.exists() and str(source) in builtin.names():
        return builtin.materialise(str(source), cache_dir() / "data")
    return path
