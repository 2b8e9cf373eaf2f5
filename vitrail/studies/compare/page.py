"""The page of a comparison: one HTML file with the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail.data.prepare import Prepared
from vitrail.pages import render
from vitrail.studies.compare.report import HEAD, notes_of, table_of


def page_of(report: Mapping[str, Any], prepared: Prepared | None, models: Mapping[str, Path]) -> str:
    """Return the page; `models` are kept runs, to show where each network looked."""
    values = {
        "title": "Which network is better",
        "report": report,
        "head": HEAD,
        "rows": table_of(report),
        "notes": notes_of(report),
    }
    return render("compare.html", values)
