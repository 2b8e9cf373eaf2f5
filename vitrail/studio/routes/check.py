"""The page of a check: what was found, as cards with one decision each, and how images are read."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from vitrail.core.errors import VitrailError
from vitrail.data.options import LayoutOptions
from vitrail.studio.app_parts import Root, Studio, page, studio_of
from vitrail.studio.commands import Command
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.routes.decisions import Numbers, answer, told

router = APIRouter()


class Reading(NamedTuple):
    """An option of how images are read: its name, its value, and its help."""

    name: str
    value: str
    help: str


@router.get("/data/{name}/check")
def check(request: Request, name: str, done: Numbers = None) -> HTMLResponse:
    """Return what the check found, or how far it is."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    values = {
        "dataset": dataset,
        "progress": studio.images.checks.progress(dataset),
        "listing": studio.images.checks.listing(dataset),
        "readings": readings(dataset),
        "commands": [Command(dataset.command("check", "--html", "check.html"), python_of(dataset))],
        **_result(studio, dataset),
        **told(studio, dataset, done or []),
    }
    return page(request, "check.html", values)


@router.get("/data/{name}/check/progress")
def progress(request: Request, name: str, root: Root = "../../") -> HTMLResponse:
    """Return one line for the wall: how far the check is, or what it found."""
    studio = studio_of(request)
    dataset = studio.images.datasets.get(name)
    values = {
        "dataset": dataset,
        "progress": studio.images.checks.progress(dataset),
        "root": root,
        **_result(studio, dataset),
    }
    return page(request, "partials/check_line.html", values)


@router.post("/data/{name}/answer")
def settle(
    request: Request,
    name: str,
    card: Annotated[str, Form()],
    choice: Annotated[int, Form(ge=0)],
) -> Response:
    """Write the decisions of a button on a card."""
    from vitrail.studio.finding_cards import steps_of, title_of_key

    studio = studio_of(request)
    datasets = studio.images.datasets
    dataset = datasets.get(name)
    prepared = studio.images.checks.prepared(dataset)
    if prepared is None:
        return RedirectResponse("check", 303)
    why = title_of_key(prepared, card)
    steps = steps_of(prepared, card, choice)
    numbers = [datasets.decide(dataset, step.what, step.ids, step.value, why) for step in steps]
    return answer(request, name, f"check?#card-{card}", numbers)


@router.post("/data/{name}/reading")
async def read_as(request: Request, name: str) -> Response:
    """Change how the images of a data set are read: the answer to a question, or an option."""
    datasets = studio_of(request).images.datasets
    async with request.form() as form:
        values = {key: str(value) for key, value in form.items()}
    await run_in_threadpool(lambda: datasets.read_as(datasets.get(name), values))
    return RedirectResponse("check", 303)


@router.post("/data/{name}/again")
def again(request: Request, name: str) -> Response:
    """Look at the files again."""
    studio = studio_of(request)
    studio.images.checks.again(studio.images.datasets.get(name))
    return RedirectResponse(f"../{quote(name, safe='')}", 303)


def readings(dataset: Dataset) -> list[Reading]:
    """Return the options of how images are read, with the help that the command line prints."""
    helps = _helps(LayoutOptions.__doc__ or "")
    return [
        Reading(one.name, getattr(dataset.options, one.name), helps.get(one.name, ""))
        for one in fields(LayoutOptions)
    ]


def python_of(dataset: Dataset) -> str:
    """Return the lines of Python that check a data set."""
    given = [(one.name, getattr(dataset.options, one.name), one.default) for one in fields(LayoutOptions)]
    words = ", ".join(f"{name}={value!r}" for name, value, default in given if value != default)
    options = f", LayoutOptions({words})" if words else ""
    more = "from vitrail.data.options import LayoutOptions\n" if words else ""
    return (
        f"from vitrail.data.prepare import prepare\n{more}"
        f"prepared = prepare({dataset.source!r}{options})\nprint(*prepared.lines(), sep='\\n')"
    )


def _result(studio: Studio, dataset: Dataset) -> dict[str, Any]:
    """Return the cards of a check that is over; `trouble` if nothing can be learned from the images."""
    from vitrail.reports.check_summary import usable
    from vitrail.studio.finding_cards import cards

    none: dict[str, Any] = {"cards": [], "verdict": "", "about": "", "notes": [], "trouble": "", "todo": 0}
    try:
        prepared = studio.images.checks.prepared(dataset)
    except VitrailError as error:
        return none | {"trouble": str(error)}
    if prepared is None:
        return none
    history = studio.images.datasets.history(dataset)
    found = cards(prepared, history)
    return none | {
        "cards": found,
        "verdict": usable(prepared),
        "about": prepared.about(),
        "notes": [*prepared.layout.notes, *prepared.notes],
        "todo": sum(1 for card in found if card.finding.grave and not card.decided),
    }


def _helps(text: str) -> dict[str, str]:
    """Return the help of each parameter of a docstring."""
    lines = text.partition("----------")[2].splitlines()
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        words = line.strip()
        if line.startswith("    ") and not line.startswith("     ") and words.isidentifier():
            name, found[words] = words, []
        elif name and words:
            found[name].append(words)
    return {key: " ".join(words) for key, words in found.items()}
