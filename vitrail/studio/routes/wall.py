"""The images of a data set: the wall, its thumbnails, and one image alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vitrail.core.errors import DataError, VitrailError
from vitrail.data.captions import split_captions
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.listing import PAGE, Listing, Selection, Wanted
from vitrail.studio.routes.decisions import Numbers, told
from vitrail.studio.routes.runs import lines_of
from vitrail.studio.run_files import RunFiles
from vitrail.studio.search import Found, found_by, found_like, name_in
from vitrail.studio.workspace import inside

if TYPE_CHECKING:
    from vitrail.data.manifest import Row
    from vitrail.data.prepare import Prepared

router = APIRouter()

COLUMN = 24
"""Images at the head of a column."""

FOREVER = "private, max-age=31536000, immutable"
GONE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" fill="#8883"/>
<path d="M14 46l12-14 8 9 6-7 10 12zM18 18l28 28M46 18L18 46" fill="none" stroke="#888" stroke-width="3"/></svg>"""
"""Shown in the place of an image that cannot be read."""


class Filter:
    """The filter of a wall, as its address states it (a FastAPI dependency)."""

    def __init__(
        self, group: str | None = None, out: bool = False, finding: str = "", q: str = "", like: str = ""
    ) -> None:
        self.group, self.out, self.finding, self.text, self.like = group, out, finding, q.strip(), like

    def found(self, studio: Studio, dataset: Dataset, listing: Listing) -> Found | None:
        """Return what a search found that is not about names; None for any other filter."""
        if self.like:
            return found_like(self.like, listing)
        return found_by(self.text.casefold(), lambda: _runs(studio, dataset)) if self.text else None

    def wanted(self, studio: Studio, dataset: Dataset, found: Found | None) -> Wanted:
        """Return the filter for a list."""
        ids = _ids_of_finding(studio, dataset, self.finding) if self.finding else None
        text = name_in(self.text.casefold()) if found is None or self.like else ""
        return Wanted(self.group, self.out, ids, text, None if found is None else found.ids)

    def chosen(self, studio: Studio, dataset: Dataset, listing: Listing) -> Selection:
        """Return the images that the filter lets through."""
        return listing.chosen(self.wanted(studio, dataset, self.found(studio, dataset, listing)))

    @property
    def query(self) -> dict[str, str]:
        """The filter as the query of an address."""
        values = {"finding": self.finding, "q": self.text, "like": self.like, "out": "1" if self.out else ""}
        group = {} if self.group is None else {"group": self.group}
        return {**{key: value for key, value in values.items() if value}, **group}


Filtered = Annotated[Filter, Depends(Filter)]


@router.get("/data/{name}")
def wall(
    request: Request,
    name: str,
    filtered: Filtered,
    view: Literal["groups", "columns"] = "groups",
    after: str = "",
    done: Numbers = None,
) -> HTMLResponse:
    """Return the wall of a data set: its images in groups, or its classes as columns."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    listing = studio.images.checks.listing(dataset)
    found = filtered.found(studio, dataset, listing)
    chosen = listing.chosen(filtered.wanted(studio, dataset, found))
    rows = chosen.after(after) if view == "groups" else []
    more = bool(rows) and rows[-1].id != chosen.rows[-1].id
    values = {
        "dataset": dataset,
        "listing": listing,
        "filtered": filtered,
        "found": found,
        "view": view,
        "count": len(chosen.rows),
        "rows": [tile(listing, row) for row in rows],
        "next": rows[-1].id if more else "",
        "columns": _columns(listing) if view == "columns" else [],
        "link": lambda **more: "?" + urlencode({**filtered.query, **more}),
        **told(studio, dataset, done or []),
    }
    return page(request, "wall.html", values)


@router.get("/data/{name}/wall.json")
def plan(request: Request, name: str, filtered: Filtered) -> JSONResponse:
    """Return what the wall must know before it shows anything: groups, their sizes, and where each page begins."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    listing = studio.images.checks.listing(dataset)
    found = filtered.found(studio, dataset, listing)
    chosen = listing.chosen(filtered.wanted(studio, dataset, found))
    groups: dict[str, int] = {}
    for row in chosen.rows:
        group = listing.group[row.id] if found is None else ""
        groups[group] = groups.get(group, 0) + 1
    values = {
        "total": len(chosen.rows),
        "page": PAGE,
        "groups": list(groups.items()),
        "anchors": chosen.anchors(),
        "classes": listing.classes,
        "revision": studio.images.datasets.revision(dataset),
    }
    return JSONResponse(values, headers={"Cache-Control": "no-store"})


@router.get("/data/{name}/tiles")
def tiles(request: Request, name: str, filtered: Filtered, after: str = "") -> JSONResponse:
    """Return one page of tiles, behind an id."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    listing = studio.images.checks.listing(dataset)
    rows = filtered.chosen(studio, dataset, listing).after(after)
    return JSONResponse([tile(listing, row) for row in rows], headers={"Cache-Control": "no-store"})


@router.get("/data/{name}/ids")
def ids(request: Request, name: str, filtered: Filtered, first: str = "", last: str = "") -> JSONResponse:
    """Return the ids from one image of the wall to another, or all of them."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    chosen = filtered.chosen(studio, dataset, studio.images.checks.listing(dataset))
    return JSONResponse(chosen.ids_between(first, last), headers={"Cache-Control": "no-store"})


@router.get("/data/{name}/thumb")
def thumb(request: Request, name: str, id: str, v: str = "") -> Response:
    """Return the thumbnail of an image as WebP; with its stamp it never changes."""
    from vitrail.studio.thumbnails import stamp_of

    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    listing, row = studio.images.checks.row(dataset, id)
    refuse_outside(studio, dataset, row)
    stamp = stamp_of(listing.root, row)
    try:
        image = studio.images.thumbnails.thumbnail(listing.root, row, stamp)
    except DataError:
        return Response(GONE, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})
    return Response(
        image, media_type="image/webp", headers={"Cache-Control": FOREVER if v == stamp else "no-cache"}
    )


@router.get("/data/{name}/view")
def view_image(request: Request, name: str, id: str, truth: bool = False) -> Response:
    """Return an image as large as a screen shows it, as WebP; with its truth drawn on it if `truth`."""
    from PIL import Image

    from vitrail.studio.thumbnails import LARGE, bytes_of, encode, glanced, reduced

    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    listing, row = studio.images.checks.row(dataset, id)
    refuse_outside(studio, dataset, row)
    prepared = _prepared(studio, dataset) if truth else None
    try:
        with studio.images.thumbnails.turns.turn():
            data = bytes_of(listing.root, row)
            pixels = glanced(listing.root, data, row, LARGE if prepared is None else 1 << 20).image
            shown = Image.fromarray(pixels)
            if prepared is not None:
                shown = prepared.targets.draw(shown, row, listing.root)
            encoded = encode(reduced(shown, LARGE))
    except DataError:
        return Response(GONE, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})
    return Response(encoded, media_type="image/webp", headers={"Cache-Control": "no-cache"})


@router.get("/data/{name}/image")
def image(
    request: Request,
    name: str,
    id: str,
    filtered: Filtered,
    done: Numbers = None,
) -> HTMLResponse:
    """Return the page of one image: large, with what is known of it and what can be decided."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    listing = studio.images.checks.listing(dataset)
    row = listing.row(id)
    before, behind = filtered.chosen(studio, dataset, listing).beside(id)
    prepared = _prepared(studio, dataset)
    drawn = prepared is not None and any(
        prepared.targets.colour(one) for one in prepared.manifest.truth.names
    )
    values = {
        "dataset": dataset,
        "listing": listing,
        "row": row,
        "words": listing.words[row.id],
        "texts": split_captions(row.target) if listing.texts else (),
        "group": listing.group[row.id],
        "before": before,
        "behind": behind,
        "drawn": drawn,
        "findings": _findings_about(prepared, row.id),
        "link": lambda **more: "?" + urlencode({**filtered.query, **more}),
        "wall": "?" + urlencode(filtered.query) if filtered.query else "",
        **told(studio, dataset, done or []),
    }
    return page(request, "image.html", values)


def tile(listing: Listing, row: Row) -> dict[str, str]:
    """Return what the wall shows of a row."""
    from vitrail.studio.thumbnails import stamp_of

    return {
        "id": row.id,
        "v": stamp_of(listing.root, row),
        "label": listing.words[row.id],
        "group": listing.group[row.id],
        "state": row.state,
        "reason": row.reason,
    }


def refuse_outside(studio: Studio, dataset: Dataset, row: Row) -> None:
    """Refuse an image of an uploaded set that leads out of the workspace through a link."""
    from vitrail.data.open_image import place

    if dataset.uploaded:
        folder = studio.images.datasets.place(dataset)
        root = folder if folder.is_dir() else folder.parent
        if not inside(place(root, row.path).file, studio.workspace.data):
            raise DataError(f"{row.id} leads out of the studio's folder through a link, and is not shown.")


def _runs(studio: Studio, dataset: Dataset) -> list[RunFiles]:
    """Return the runs on a data set, the newest first."""
    return [studio.run(line.run.name) for line in lines_of(studio, dataset)]


def _columns(listing: Listing) -> list[dict[str, Any]]:
    """Return the head of each group as a column."""
    heads: dict[str, list[dict[str, str]]] = {name: [] for name in listing.groups}
    for row in listing.rows:
        head = heads[listing.group[row.id]]
        if len(head) < COLUMN:
            head.append(tile(listing, row))
    return [{"name": name, "count": listing.groups[name], "rows": head} for name, head in heads.items()]


def _ids_of_finding(studio: Studio, dataset: Dataset, key: str) -> frozenset[str]:
    from vitrail.studio.finding_cards import key_of

    prepared = _prepared(studio, dataset)
    found = prepared.report.findings if prepared is not None else ()
    return next((frozenset(one.ids) for one in found if key_of(one) == key), frozenset())


def _findings_about(prepared: Prepared | None, name: str) -> list[tuple[str, str]]:
    """Return the key and the title of the findings about an image."""
    from vitrail.studio.finding_cards import key_of, title_of

    found = prepared.report.findings if prepared is not None else ()
    return [(key_of(one), title_of(one)) for one in found if name in one.ids]


def _prepared(studio: Studio, dataset: Dataset) -> Prepared | None:
    """Return the check of a data set if there is one from which something can be learned."""
    try:
        return studio.images.checks.prepared(dataset)
    except VitrailError:
        return None
