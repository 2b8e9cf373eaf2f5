"""The form of a training: one click, and every setting below it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from vitrail.core.catalog import DEFAULT_TASKS
from vitrail.core.config import read_mapping
from vitrail.core.environment import hub_endpoint
from vitrail.core.errors import SettingError, VitrailError
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.commands import Command, training
from vitrail.studio.projects import Project, project
from vitrail.studio.routes.runs import lines_of
from vitrail.studio.run_list import RunList
from vitrail.studio.task_choice import asked_task, tasks_of, with_only_task
from vitrail.studio.train_form import groups, options_of
from vitrail.studio.trainings import Trainings

router = APIRouter()


@router.get("/data/{name}/train")
def form(request: Request, name: str) -> HTMLResponse:
    """Return the form, filled with the values of the address."""
    return _form(request, name, dict(request.query_params))


@router.get("/data/{name}/train/command")
def commands(request: Request, name: str) -> HTMLResponse:
    """Return the commands that do the same as the form."""
    studio = studio_of(request)
    try:
        found = _planned(studio, project(studio.images.datasets, name), dict(request.query_params))
    except SettingError as error:
        return page(request, "partials/sentence.html", {"sentence": str(error)})
    return page(request, "partials/command.html", {"commands": found, "open": True})


@router.get("/data/{name}/train/weights")
def weights(request: Request, name: str) -> HTMLResponse:
    """Return what a training with the values of the form would download first; empty if it downloads nothing."""
    # Slow to import: the page is there first, and asks for this part.
    from vitrail.training.network_choice import weights_to_download

    studio = studio_of(request)
    trained = project(studio.images.datasets, name)
    with suppress(VitrailError):  # the form says what is wrong with its values
        options = options_of(dict(request.query_params), trained.options)
        repo = None if trained.builtin else weights_to_download(options)
        return page(request, "partials/download.html", {"repo": repo, "hub": hub_endpoint()})
    return HTMLResponse("")


@router.post("/data/{name}/train")
async def train(request: Request, name: str) -> Response:
    """Queue what the form asks for, and lead to the page of its first run."""
    sent = await request.form()
    values = {key: value for key, value in sent.items() if isinstance(value, str)}
    return await run_in_threadpool(_queued, request, name, values)


def _queued(request: Request, name: str, values: dict[str, str]) -> Response:
    studio = studio_of(request)
    trained = project(studio.images.datasets, name)
    try:
        task = asked_task(studio.images.checks.listing(trained.dataset), values)
        run = Trainings(studio.images.datasets, studio.queue).start(trained, values, task)
    except SettingError as error:
        return _form(request, name, values, str(error))
    return RedirectResponse(f"../../runs/{quote(run)}", 303)


def _form(request: Request, name: str, values: dict[str, str], sentence: str = "") -> HTMLResponse:
    studio = studio_of(request)
    runs = RunList(studio.workspace, studio.database).all()
    trained = project(studio.images.datasets, name, runs)
    listing = studio.images.checks.listing(trained.dataset)
    values = with_only_task(listing, values)
    task = values.get("task") or _task(studio, trained)
    try:
        planned = _planned(studio, trained, values)
    except SettingError as error:
        planned, sentence = [], sentence or str(error)
    shown: dict[str, Any] = {
        "project": trained,
        "groups": groups(values, task),
        "values": values,
        "task": task,
        "tasks": tuple(DEFAULT_TASKS.values()),
        "ways": tasks_of(listing),
        "chosen": asked_task(listing, values),
        "commands": planned,
        "sentence": sentence,
        "busy": studio.queue.active(),
        "dataset": trained.dataset,
        "models": lines_of(studio, trained.dataset),
        "revision": studio.images.datasets.revision(trained.dataset),
    }
    return page(request, "train.html", shown, 422 if sentence else 200)


def _planned(studio: Studio, trained: Project, values: dict[str, str]) -> list[Command]:
    task = asked_task(studio.images.checks.listing(trained.dataset), values)
    planned = Trainings(studio.images.datasets, studio.queue).planned(trained, values, task)
    return [training(words) for words, _ in planned]


def _task(studio: Studio, trained: Project) -> str:
    """Return the task of the newest run on these images; empty if there is none yet, or it is no registered one."""
    for run in trained.runs:
        try:
            recipe = read_mapping(studio.workspace.run(run.name) / "recipe.yaml")
        except SettingError:
            continue
        task = recipe.get("task", {}).get("name", "")
        return task if task in DEFAULT_TASKS.values() else ""
    return ""
