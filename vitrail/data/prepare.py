"""Prepare a data set: detect the layout, check images, apply earlier decisions, assign splits."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.cache import place, places
from vitrail.core.environment import cache_dir, expanded
from vitrail.core.errors import DataError
from vitrail.core.text import command
from vitrail.data import builtin
from vitrail.data.decisions import History, history_path
from vitrail.data.doctor import Progress, Report, examine
from vitrail.data.labels import count
from vitrail.data.layouts import Layout, sniff
from vitrail.data.manifest import KEPT, Manifest, Row
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.data.rasters.blocks import left_out
from vitrail.data.rasters.findings import of_raster
from vitrail.data.rasters.sources import words_of
from vitrail.data.split import assign
from vitrail.data.targets import Gather, Targets, targets_for

_KEPT = 100  # largest number of ids per finding that is stored with a run


class Prepared(NamedTuple):
    """A prepared source: manifest, check report, layout and decisions."""

    manifest: Manifest
    report: Report
    layout: Layout
    targets: Targets[Any]
    notes: tuple[str, ...]
    source: str = ""
    looked: float = 0.0  # time of the first access to an image, in seconds since 1970
    options: tuple[str, ...] = ()  # options of the source, as words of a command

    def lines(self) -> list[str]:
        """Return the whole report as text: source, findings, decisions."""
        return [self.about(), *self.questions(), *self.report.lines(), *self.layout.notes, *self.notes]

    def questions(self) -> list[str]:
        """Return the open question and the options that answer it."""
        found = self.layout.question
        if found is None:
            return []
        return [
            found.text,
            *(f"  to take {way.text}: --{way.option[0]} {way.option[1]}" for way in found.ways),
        ]

    def about(self) -> str:
        """Return a sentence: what the source is, why, and how much of it is used."""
        kept = self.manifest.states()["kept"]
        sizes = " to ".join(
            dict.fromkeys(f"{w} × {h}" for h, w in (self.report.sizes[0], self.report.sizes[-1]))
        )
        why = f"{self.layout.why[0].upper()}{self.layout.why[1:]}"
        return f"{why} {count(kept, self.noun)}{self.in_classes()}{self.targets.describe()}, {sizes} px."

    @property
    def noun(self) -> str:
        """What a row is called: an image, a clip, or a window of a raster."""
        if self.layout.raster is not None:
            return "window"
        return "clip" if self.manifest.holds_clips else "image"

    def command(self, verb: str, *more: object) -> str:
        """Return a command for this source with the same reading options."""
        return command(verb, *words_of(self.source), *self.options, *more)

    def in_classes(self) -> str:
        """Return the number of classes as text, printed after the number of images."""
        names = self.manifest.truth.names
        return f" in {count(len(names), 'class', 'classes')}" if names else ""

    def summary(self) -> str:
        """Return the findings in one line, for the start of a training."""
        states = self.manifest.states()
        out = states["quarantined"] + states["dropped"]
        grave = sum(finding.grave for finding in self.report.findings)
        parts = [f"{count(states['kept'], self.noun)}{self.in_classes()}"]
        parts += [f"{out:,} kept out"] if out else []
        parts += [f"{count(grave, 'finding')} to look at ({self.command('check')})"] if grave else []
        return ", ".join(parts) + "."

    def opening(self) -> list[str]:
        """Return the lines for the start of a training: source of labels, summary, conversions, decisions."""
        converted = [finding.text for finding in self.report.findings if finding.kind == "converted"]
        return [
            f"{self.layout.why[0].upper()}{self.layout.why[1:]}",
            self.summary(),
            *converted,
            *self.layout.notes,
            *self.notes,
        ]

    def found(self) -> dict[str, Any]:
        """Return findings and decisions as plain values without folder names, to be stored with a run."""
        findings = [{**one.to_dict(), "ids": list(one.ids[:_KEPT])} for one in self.report.findings]
        return {"findings": findings, "notes": list(self.notes)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "layout": self.layout.name,
            "why": self.layout.why,
            "truth": self.manifest.truth.kind,
            "classes": list(self.manifest.truth.names),
            "multi_label": self.manifest.truth.kind == "classes",
            "splits": self.manifest.counts(self.targets),
            **self.report.to_dict(),
            "undecided": self.questions(),
            "notes": [*self.layout.notes, *self.notes],
        }


def prepare(
    source: str | Path,
    read: LayoutOptions | Layout = DEFAULTS,
    *,
    seed: int = 0,
    val: float | None = None,
    test: float | None = None,
    progress: Progress | None = None,
    history: History | None = None,
    task: str | None = None,
) -> Prepared:
    """Make a manifest of a source (folder, archive, table …) or of a built-in name ("digits"), and report.

    `task` is the task that reads the truths (None: the default task for their kind). Results are cached by content in
    the cache folder. Earlier decisions are applied (`history`; None: the history beside the data). The data is not
    changed.

    `read` contains the reading options, or is a result of `sniff`, which is used even if its question is open.

    Raises:
        UndecidedError: two readings contradict each other, and no option decides between them.
        DataError: nothing can be learned from the source; the message states the reason and the remedy.
    """
    examined = examine_source(source, read, progress=progress, task=task)
    known = history if history is not None else History.read(history_path(find(source)))
    return examined.with_decisions(known, seed=seed, val=val, test=test)


def examine_source(
    source: str | Path,
    read: LayoutOptions | Layout = DEFAULTS,
    *,
    progress: Progress | None = None,
    task: str | None = None,
) -> Examined:
    """Decode every image of a source once, before any decision; arguments and errors as for `prepare`."""
    place, began = find(source), time.time()
    understood = read if isinstance(read, Layout) else decided(source, place, read, task)
    gather = targets_for(understood.truth, task, refusal=understood.refusal)
    report = examine(understood, targets=gather, cache=cache_dir() / "check.sqlite", progress=progress)
    report = _with_raster(understood, report)
    options = (*understood.asked.words(), *(("--task", task) if task else ()))
    return Examined(str(source), understood, report, gather, began, options)


def _with_raster(layout: Layout, report: Report) -> Report:
    """Return the report with findings about the raster, if the source is one."""
    if layout.raster is None:
        return report
    found = of_raster(layout.raster, report.rows, layout.root, single=layout.truth.kind == "class")
    return replace(report, general=(*report.general, *found))


class Examined(NamedTuple):
    """A source whose images were decoded; decisions are applied to it as often as they change."""

    source: str
    layout: Layout
    report: Report
    gather: Gather
    looked: float
    options: tuple[str, ...]

    def with_decisions(
        self, history: History, *, seed: int = 0, val: float | None = None, test: float | None = None
    ) -> Prepared:
        """Return the prepared source after the decisions, with its splits; DataError if it is of no use then."""
        rows, taken = history.apply(self.report.rows, self.report.again)
        kept = [row for row in rows if row.state == KEPT]
        targets = self.gather(kept)
        report = self.report.decided(rows, targets)
        _refuse_useless(self.source, targets, kept, report)
        manifest = Manifest.of(rows, self.layout.root, targets.truth)
        done = assign(manifest, targets.strata, seed=seed, val=val, test=test)
        placed, said = apart(self.layout, done.manifest, targets)
        report = replace(report, rows=tuple(placed.rows(state=None)))
        notes = (*taken, *done.notes, *said)
        return Prepared(placed, report, self.layout, targets, notes, self.source, self.looked, self.options)


def apart(layout: Layout, manifest: Manifest, targets: Targets[Any]) -> tuple[Manifest, list[str]]:
    """Return the manifest of a raster without rows that lie near those of another split, and notes."""
    if layout.raster is None:
        return manifest, []
    stated = layout.asked.buffer
    tiles = layout.truth.kind == "mask"  # they share no pixel
    buffer = stated if stated is not None else 0 if tiles else layout.raster.window
    found = left_out(manifest.rows(state=None), buffer, targets.strata)
    return manifest.replace(found.rows), found.notes


def decided(source: str | Path, place: Path, read: LayoutOptions, task: str | None = None) -> Layout:
    """Return the layout of the source at `place` for a task; raise UndecidedError if it is ambiguous."""
    understood = sniff(place, read, task=task)
    if understood.question:
        raise understood.question.error(str(source))
    return understood


def _refuse_useless(source: str | Path, targets: Targets[Any], kept: Sequence[Row], report: Report) -> None:
    """Raise DataError, with the name of the source, if the task cannot learn from the rows."""
    try:
        targets.usable(kept, report.findings)
    except DataError as error:
        raise DataError(f"{source} {error}") from error


def find(source: str | Path) -> Path:
    """Return the path of a source, of several rasters joined; a built-in set is first written to the cache."""
    if len(words_of(source)) > 1:
        return Path(source)
    path = expanded(source)
    if not os.path.exists(path) and str(source) in builtin.names():
        there = next((one for one in places("data") if os.path.isdir(one / str(source))), None)
        return builtin.materialise(str(source), there or place("data"))
    return path
