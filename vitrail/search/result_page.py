"""The page of a search: the images found, with their scores. One file, which needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail.core.files import make_folder, write_text
from vitrail.pages import render
from vitrail.reports.thumbnails import Album
from vitrail.search.folder_search import Result
from vitrail.search.ranking import Found

NAME = "search.html"

SIDE = 256
"""Longest side of an image on the page, in pixels."""

BUDGET = 12_000_000
"""Bytes of images on a page."""


def write_page(folder: Path, source: str, result: Result) -> Path:
    """Write the page into a folder, which is made if it is missing, and return its path."""
    make_folder(folder)
    path = folder / NAME
    write_text(path, page_of(source, result))
    return path


def page_of(source: str, result: Result) -> str:
    """Return the page as HTML."""
    album = Album(result.searched.root, BUDGET, SIDE)
    queries = [_query(one, result, album) for one in result.found]
    values = {
        "source": source,
        "model": result.model,
        "images": len(result.searched.rows),
        "queries": queries,
        "missing": album.missing,
        "broken": result.broken,
        "notes": result.notes,
    }
    return render("search.html", values)


def _query(found: Found, result: Result, album: Album) -> Mapping[str, Any]:
    rows = result.searched.rows
    own = next((row for row in rows if row.hash in found.query.hashes), None)
    asked = album.thumb(own) if own is not None else None
    matches = [(one, album.thumb(rows[one.row])) for one in found.matches]
    return {"name": found.query.name, "asked": asked, "same": found.same, "matches": matches}
