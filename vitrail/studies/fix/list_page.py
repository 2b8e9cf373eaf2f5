"""The list of doubted labels as sections, sentences and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vitrail.core.text import command
from vitrail.data.labels import count, natural
from vitrail.data.manifest import KEPT
from vitrail.infer.predictor import Predictor
from vitrail.metrics.intervals import wilson
from vitrail.pages import render
from vitrail.reports.run_page import lay_out
from vitrail.studies.fix.label_doubts import Doubts, Entry, Why
from vitrail.studies.fix.run_images import RunImages
from vitrail.tasks.result import Column, Gallery, Number, Result, Section, Shot, Table, TableSection

SHOWN = 48
"""Largest number of images of each kind on the page; the table holds all of them."""

KINDS: tuple[tuple[Why, str, str], ...] = (
    (
        "twins",
        "One image, several labels",
        "Copies of one image, or almost the same one, with different labels. Equal copies are in no training until "
        "it is decided which label is right.",
    ),
    ("doubted", "Probably wrong", "Labels that are more probably wrong than right, the worst first."),
    (
        "uncertain",
        "Perhaps wrong",
        "Another label fits better, but not so much better that the label is more probably wrong.",
    ),
)


def verdict(doubts: Doubts) -> str:
    """Return one sentence: how many labels are doubted."""
    doubted, twins = len(doubts.of("doubted")), len(doubts.of("twins"))
    share = wilson(doubted, doubts.images)
    text = (
        f"{count(doubted, 'label')} of {doubts.images:,} more probably wrong than right ({share})"
        if doubted
        else f"None of {doubts.images:,} labels is more probably wrong than right"
    )
    return text + (f"; {count(twins, 'copy', 'copies')} of images with several labels." if twins else ".")


def result_of_list(doubts: Doubts) -> Result:
    """Return the list as a result, which pages and programs lay out without knowing what it is."""
    doubted = len(doubts.of("doubted"))
    share = wilson(doubted, doubts.images)
    number = Number(share.value, share.low, share.high, better="lower", name="doubted", fact="labels doubted")
    sections: list[Section] = [_by_label(doubts)] if doubted else []
    for why, heading, hint in KINDS:
        if shots := tuple(_shot(one) for one in doubts.of(why)[:SHOWN]):
            more = len(doubts.of(why)) - len(shots)
            rest = f" {more:,} more are in the table." if more else ""
            sections.append(Gallery(heading, hint + rest, shots, explain=False))
    details = {"images": doubts.images, "doubted": doubted, "entries": [plain(one) for one in doubts.entries]}
    return Result("doubted", {"doubted": number}, verdict(doubts), (), tuple(sections), details)


def plain(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain data for JSON."""
    score = entry.score
    return {
        "id": entry.row.id,
        "split": entry.row.split,
        "label": score.label,
        "looks_like": score.proposal,
        "confidence": round(score.confidence, 6),
        "margin": round(score.margin, 6),
        "why": entry.why,
        **({"copies": list(entry.copies)} if entry.copies else {}),
    }


def page_of_list(
    images: RunImages, predictor: Predictor, found: tuple[Result, Sequence[str]], commands: Sequence[str]
) -> str:
    """Return the page; `found` are the result and the notes below its verdict."""
    result, notes = found
    manifest = images.now.replace([row._replace(state=KEPT) for row in images.now.rows(state=None)])
    values = {
        "name": images.run.folder.name,
        "lines": [result.verdict, *notes],
        "commands": commands,
        "sections": lay_out(manifest, predictor, result.sections),
    }
    return render("fix.html", values)


def next_commands(images: RunImages, table: str) -> list[str]:
    """Return the commands that go on from a list."""
    folder = images.run.folder
    return [
        f"{command('fix', folder, '--apply', table)}    # after filling in the column decision: keep, drop, relabel",
        f"{command('fix', folder, '--relabel', 'IMAGE=LABEL', '--drop', 'IMAGE')}    # or one by one",
    ]


def _by_label(doubts: Doubts) -> TableSection:
    """Return how many labels of each kind are doubted, and what they look like most."""
    counts = Counter(one.score.label for one in doubts.of("doubted"))
    likes: dict[str, Counter[str]] = {}
    for one in doubts.of("doubted"):
        likes.setdefault(one.score.label, Counter())[one.score.proposal] += 1
    rows = tuple(
        (label or "(none)", counts[label], likes[label].most_common(1)[0][0] or "(none)")
        for label in sorted(counts, key=lambda label: (-counts[label], natural(label)))
    )
    columns = (Column("label"), Column("doubted", right=True), Column("looks mostly like"))
    return TableSection("Doubted, label by label", Table(columns, rows), "Rows are labels of the data.")


def _shot(one: Entry) -> Shot:
    label, other = one.score.label or "(none)", one.score.proposal or "(none)"
    caption = f"labelled {label}, looks like {other}; confidence {100 * one.score.confidence:.1f} %"
    return Shot(one.row.id, label, other, None, None, caption)
