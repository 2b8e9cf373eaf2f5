"""One call from a source to a manifest: sniff, examine, recall decisions, assign."""

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
from vitrail.data.split import assign
from vitrail.data.targets import Targets, targets_for

_KEPT = 100  # ids of one finding that are kept with a run


class Prepared(NamedTuple):
    """A source made ready: what training reads, what was found, what the source is, what was decided."""

    manifest: Manifest
    report: Report
    layout: Layout
    targets: Targets[Any]
    notes: tuple[str, ...]
    source: str = ""
    looked: float = 0.0  # when the first image was looked at, in seconds since 1970
    options: tuple[str, ...] = ()  # what was said of the source beside its name, as words of a command

    def lines(self) -> list[str]:
        """Return everything that is to be said, in plain words: what it is, what is wrong, what was decided."""
        return [self.about(), *self.questions(), *self.report.lines(), *self.layout.notes, *self.notes]

    def questions(self) -> list[str]:
        """Return what somebody has to decide, and the options that do."""
        found = self.layout.question
        if found is None:
            return []
        return [
            found.text,
            *(f"  to take {way.text}: --{way.option[0]} {way.option[1]}" for way in found.ways),
        ]

    def about(self) -> str:
        """Return what the source is, and why, and how much of it is used."""
        kept = self.manifest.states()["kept"]
        sizes = " to ".join(
            dict.fromkeys(f"{w} × {h}" for h, w in (self.report.sizes[0], self.report.sizes[-1]))
        )
        why = f"{self.layout.why[0].upper()}{self.layout.why[1:]}"
        return f"{why} {count(kept, 'image')}{self.in_classes()}{self.targets.describe()}, {sizes} px."

    def command(self, verb: str, *more: object) -> str:
        """Return a command on this source, read as it was read here."""
        return command(verb, self.source, *self.options, *more)

    def in_classes(self) -> str:
        """Return into how many classes the images fall, to be said behind their number."""
        names = self.manifest.truth.names
        return f" in {count(len(names), 'class', 'classes')}" if names else ""

    def summary(self) -> str:
        """Return in one line what was found, for the head of a training."""
        states = self.manifest.states()
        out = states["quarantined"] + states["dropped"]
        grave = sum(finding.grave for finding in self.report.findings)
        parts = [f"{count(states['kept'], 'image')}{self.in_classes()}"]
        parts += [f"{out:,} kept out"] if out else []
        parts += [f"{count(grave, 'finding')} to look at ({self.command('check')})"] if grave else []
        return ", ".join(parts) + "."

    def opening(self) -> list[str]:
        """Return what the head of a training says: where labels come from, the summary, conversions, decisions."""
        converted = [finding.text for finding in self.report.findings if finding.kind == "converted"]
        return [
            f"{self.layout.why[0].upper()}{self.layout.why[1:]}",
            self.summary(),
            *converted,
            *self.layout.notes,
            *self.notes,
        ]

    def found(self) -> dict[str, Any]:
        """Return what was found and decided as plain values that name no folder, to be kept with a run."""
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

    `task` names the task that is to read the truths (None: the usual one for their kind). What was seen is
    remembered by content in the cache folder; what was decided before is respected (`history`; None: what stands
    beside the data). Nothing of the data is changed.

    `read` says how the source is to be read, or is what `sniff` made of it, to be taken even where that is undecided.

    Raises:
        UndecidedError: there are two readings that contradict each other, and nobody said which is meant.
        DataError: nothing there that could be learned from; the message says why and what to do.
    """
    place, began = find(source), time.time()
    understood = read if isinstance(read, Layout) else decided(source, place, read, task)
    gather = targets_for(understood.truth, task, refusal=understood.refusal)
    report = examine(understood, targets=gather, cache=cache_dir() / "check.sqlite", progress=progress)
    known = history if history is not None else History.read(history_path(place))
    rows, taken = known.apply(report.rows, report.again)
    kept = [row for row in rows if row.state == KEPT]
    targets = gather(kept)
    report = report.decided(rows, targets)
    _refuse_useless(source, targets, kept, report)
    manifest = Manifest.of(rows, understood.root, targets.truth)
    done = assign(manifest, targets.strata, seed=seed, val=val, test=test)
    report = replace(report, rows=tuple(done.manifest.rows(state=None)))
    notes = (*taken, *done.notes)
    options = (*understood.asked.words(), *(("--task", task) if task else ()))
    return Prepared(done.manifest, report, understood, targets, notes, str(source), began, options)


def decided(source: str | Path, place: Path, read: LayoutOptions, task: str | None = None) -> Layout:
    """Return what a source that lies at `place` is to a task; UndecidedError where that is a question."""
    understood = sniff(place, read, task=task)
    if understood.question:
        raise understood.question.error(str(source))
    return understood


def _refuse_useless(source: str | Path, targets: Targets[Any], kept: Sequence[Row], report: Report) -> None:
    """Refuse rows from which the task could learn nothing, by the name of their source."""
    try:
        targets.usable(kept, report.findings)
    except DataError as error:
        raise DataError(f"{source} {error}") from error


def find(source: str | Path) -> Path:
    """Return where a source lies; a built-in set is written to the cache first."""
    path = expanded(source)
    if not os.path.exists(path) and str(source) in builtin.names():
        there = next((one for one in places("data") if os.path.isdir(one / str(source))), None)
        return builtin.materialise(str(source), there or place("data"))
    return path
