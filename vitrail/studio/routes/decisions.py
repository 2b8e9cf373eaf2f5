"""Decisions about images: written at once, each undone by its number."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from vitrail.core.errors import DataError
from vitrail.studio.app_parts import Studio, studio_of
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.routes.runs import lines_of

router = APIRouter()

HISTORY = 50
"""Decisions that are listed."""

Numbers = Annotated[list[int] | None, Query()]
"""The numbers of decisions that were just made, in the address of a page."""


@router.post("/data/{name}/decide")
def decide(
    request: Request,
    name: str,
    what: Annotated[Literal["drop", "keep", "relabel"], Form()],
    id: Annotated[list[str], Form(min_length=1)],
    value: Annotated[list[str] | None, Form()] = None,
    back: Annotated[str, Form()] = "",
) -> Response:
    """Write one decision about images. A script gets its number, a form the page that it came from."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    number = write_decision(studio, dataset, what, id, value or [])
    return answer(request, name, back, [number])


@router.post("/data/{name}/undo")
def undo(
    request: Request,
    name: str,
    number: Annotated[list[int], Form(min_length=1)],
    back: Annotated[str, Form()] = "",
) -> Response:
    """Undo decisions; an undo can be undone too."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    return answer(request, name, back, studio.images.datasets.undo(dataset, number))


@router.post("/data/{name}/rename-class")
def rename_class(
    request: Request, name: str, old: Annotated[str, Form()], new: Annotated[str, Form()]
) -> Response:
    """Give all images of a class another label; one decision for each set of other classes that they have."""
    from vitrail.data.labels import join_labels

    studio = studio_of(request)
    dataset, wanted = studio.images.datasets.get(name), new.strip()
    found = studio.images.checks.listing(dataset).with_class(old)
    if not found:
        raise DataError(f"There is no class {old!r} here that a word could rename. Change the files.")
    if not wanted or wanted == old:
        raise DataError("A new name is missing. Write what the class is to be called.")
    decide = studio.images.datasets.decide
    numbers = [
        decide(dataset, "relabel", ids, join_labels([wanted, *others]), f"{old} renamed")
        for others, ids in found.items()
    ]
    return answer(request, name, f"wall?{urlencode({'group': wanted})}", numbers)


def write_decision(
    studio: Studio,
    dataset: Dataset,
    what: Literal["drop", "keep", "relabel"],
    ids: list[str],
    value: list[str],
) -> int:
    """Check a decision about images, write it, and return its number.

    Raises:
        DataError: an image is not there, or its truth cannot be changed by a word.
    """
    from vitrail.data.labels import join_labels

    listing = studio.images.checks.listing(dataset)
    for one in ids:
        listing.row(one)
    words = [one.strip() for one in value if one.strip()]
    if what == "relabel" and not listing.named:
        raise DataError(
            "These labels are no names of classes, so they cannot be changed here. Change the files."
        )
    if what == "relabel" and not words:
        raise DataError("A new label is missing. Choose a class, or write one.")
    return studio.images.datasets.decide(dataset, what, ids, join_labels(words) if what == "relabel" else "")


def answer(request: Request, name: str, back: str, numbers: list[int]) -> Response:
    """Return the numbers of what was decided to a script, or lead a form back to a page of the data set.

    `back` is a page below the data set with its query, such as "check" or "image?id=1.jpg"; other addresses are not
    followed.
    """
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"numbers": numbers})
    target, _, rest = back.partition("?")
    query, mark, fragment = rest.partition("#")
    pairs = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != "done"]
    pairs += [("done", str(number)) for number in numbers]
    there = target if target in {"check", "image"} else f"../{quote(name, safe='')}"
    return RedirectResponse(f"{there}?{urlencode(pairs)}{mark}{quote(fragment)}", 303)


def told(studio: Studio, dataset: Dataset, done: list[int]) -> dict[str, Any]:
    """Return what a page says of the decisions that were just made, the last fifty, and the models from the images."""
    history = studio.images.datasets.history(dataset)
    return {
        "done": [one for one in history.decisions if one.number in done],
        "history": history.decisions[: -HISTORY - 1 : -1],
        "undone": history.undone(),
        "revision": len(history.decisions),
        "models": lines_of(studio, dataset),
    }
