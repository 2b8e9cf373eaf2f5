"""The HTML page of `vitrail check`: the data set and its findings with images, in one self-contained file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from posixpath import commonpath, dirname
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.decisions import History
from vitrail.data.findings import Finding
from vitrail.data.manifest import Row
from vitrail.data.open_image import is_clip, load, load_clip
from vitrail.data.prepare import Prepared
from vitrail.pages import render
from vitrail.plots import data_uri, photo_uri
from vitrail.reports.check_summary import TITLES, verdict

_THUMB = 144
_FRAMES, _STRIP = 4, 288  # frames shown of a clip, and the width of all of them
_IMAGES = 8  # images shown per finding
_DRAWN, _DRAWN_THUMB = 6, 208  # the same if labels are drawn on the images, which needs more space
_FINDINGS = 40
_CLASSES = 12
_ALL = "all images"


def data_page(name: str, prepared: Prepared, history: History) -> str:
    """Return the page as HTML; images are shown small and upright, as they are read for a network."""
    rows = {row.id: row for row in prepared.manifest.rows(state=None)}
    prefix = commonpath([dirname(name) for name in rows]) if rows else ""
    findings = prepared.report.findings
    values = {
        "name": name,
        "train": prepared.command("train"),
        "check": prepared.command("check"),
        "verdict": verdict(prepared),
        "about": prepared.about(),
        "notes": [*prepared.layout.notes, *prepared.notes],
        "findings": [_shown(one, rows, prepared) for one in findings[:_FINDINGS]],
        "areas": next(
            ([dict(row) for row in one.table] for one in findings if one.kind == "class areas"), []
        ),
        "legend": _legend(prepared),
        "shared": f"{prefix}/" if prefix else "",
        "more": max(0, len(findings) - _FINDINGS),
        "classes": list(_classes(prepared)),
        "splits": list(prepared.manifest.counts(prepared.targets)),
        "samples": list(_samples(prepared)),
        "texts": prepared.targets.texts,
        "unshown": max(0, len(prepared.manifest.truth.names) - _CLASSES),
        "history": [one.text() for one in history.decisions],
        "undone": history.undone(),
    }
    return render("check.html", values)


def _shown(finding: Finding, rows: dict[str, Row], prepared: Prepared) -> dict[str, Any]:
    named = [rows[one] for one in finding.ids if one in rows]
    unreadable = finding.kind in {"unreadable", "no data"}
    most = _most(prepared)
    return {
        "title": TITLES.get(finding.kind, finding.kind.capitalize()),
        "grave": finding.grave,
        "text": finding.text,
        "pictures": [] if unreadable else [_picture(row, prepared) for row in named[:most]],
        "reasons": [row.reason for row in named[:100]] if unreadable else [],
        "more": max(0, len(named) - (100 if unreadable else most)),
        "table": [dict(row) for row in finding.table] if finding.kind != "class areas" else [],
    }


def _legend(prepared: Prepared) -> dict[str, str]:
    """Return the colour of each class, by name; empty if labels are not drawn in colours."""
    colours = {name: prepared.targets.colour(name) for name in prepared.manifest.truth.names}
    return {name: colour for name, colour in colours.items() if colour}


def _most(prepared: Prepared) -> int:
    return _DRAWN if _legend(prepared) else _IMAGES


def _picture(row: Row, prepared: Prepared, about: str = "") -> dict[str, str]:
    words = prepared.targets.words(row)
    clip = is_clip(row.path, row.part)
    try:
        if clip:
            image = _strip(load_clip(prepared.manifest.root, row.path, row.part, _FRAMES).frames)
        else:
            array = load(prepared.manifest.root, row.path, part=row.part).image
            image = prepared.targets.draw(Image.fromarray(array), row, prepared.manifest.root, about)
    except DataError:  # deleted since the check
        return {"image": "", "id": row.id, "label": words, "split": row.split}
    drawn = bool(_legend(prepared))
    side = _DRAWN_THUMB if drawn else _STRIP if clip else _THUMB
    small = image.width < side and image.height < side
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    thumb = image.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC)
    uri = photo_uri(thumb, 88) if drawn else data_uri(thumb)
    kind = "clip" if clip else ""
    return {"image": uri, "id": row.id, "label": "" if drawn else words, "split": row.split, "kind": kind}


def _strip(frames: NDArray[np.uint8]) -> Image.Image:
    """Return frames (t, height, width, 3) side by side, with white between them."""
    gap = max(1, frames.shape[2] // 24)
    apart = np.pad(frames, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return Image.fromarray(np.concatenate(list(apart), 1)[:, :-gap])


def _classes(prepared: Prepared) -> Iterator[dict[str, Any]]:
    counts = prepared.manifest.counts(prepared.targets)
    totals = {
        name: sum(found[name] for found in counts.values()) for found in counts.values() for name in found
    }
    most = max(totals.values(), default=0)
    for name, total in totals.items():
        numbers = [found[name] for found in counts.values()]
        yield {"name": name or _ALL, "numbers": numbers, "total": total, "share": total / max(1, most)}


def _samples(prepared: Prepared) -> Iterator[tuple[str, Sequence[dict[str, str]]]]:
    """Yield the first classes with evenly sampled images: a wrong folder is visible at once."""
    counts = prepared.manifest.counts(prepared.targets)
    names = list(dict.fromkeys(name for found in counts.values() for name in found))
    by_class: dict[str, list[Row]] = {name: [] for name in names[:_CLASSES]}
    for row in prepared.manifest.rows():
        for stratum in prepared.targets.strata(row) or ("",):
            if stratum in by_class:
                by_class[stratum].append(row)
    if _legend(prepared):
        every = prepared.manifest.rows()
        step = max(1, len(every) // _DRAWN)
        yield _ALL, [_picture(row, prepared) for row in every[::step][:_DRAWN]]
    for name, rows in by_class.items():
        most = _most(prepared)
        step = max(1, len(rows) // most)
        about = name if prepared.targets.colour(name) else ""
        yield name or _ALL, [_picture(row, prepared, about) for row in rows[::step][:most]]
