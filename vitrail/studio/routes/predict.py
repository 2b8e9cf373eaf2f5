"""Predict: pictures that are dropped, pasted or chosen; where the network looked; a table for a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.core.files import writing
from vitrail.core.text import command
from vitrail.data.archives import is_archive
from vitrail.data.containers import as_npy
from vitrail.data.manifest import TEST
from vitrail.data.open_image import load, read
from vitrail.studio import answers
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.background import BackgroundCommand, Wish
from vitrail.studio.commands import Command
from vitrail.studio.images import encoded, image_of_file, image_of_row, missing
from vitrail.studio.pictures import MOST_BYTES
from vitrail.studio.run_files import RunFiles
from vitrail.studio.workspace import safe_name

router = APIRouter(prefix="/runs/{name}")

MOST_PICTURES = 24
"""Pictures on one page of answers; more of them make a table."""

MOST_FILES = 20_000
"""Largest number of files of a table that are sent at once."""

MOST_TOTAL = 4 << 30
"""Largest size of the files of a table together, in bytes."""

EXAMPLES = 8
"""Test images of the run that can be tried with one click."""

RECENT = 8


@router.get("/predict")
def predict(request: Request, name: str) -> HTMLResponse:
    """Return the page to give pictures; with `?p=KEY&p=KEY`, their answers."""
    studio = studio_of(request)
    run = studio.run(name)
    keys = request.query_params.getlist("p")[:MOST_PICTURES]
    found = []
    if keys:
        pictures = [studio.pictures.picture(key) for key in keys]
        with studio.predictors.model(run.folder) as predictor:
            found = answers.answers(predictor, pictures)
    values = {
        "name": name,
        "answers": found,
        "refused": request.query_params.getlist("refused")[:5],
        "usable": run.model.is_file(),
        "examples": [] if found else examples_of(run),
        "samples": [] if found else [one.name for one in run.samples()],
        "recent": [] if found else studio.pictures.recent(RECENT),
        "tables": studio.background.of_run(name, "table"),
        "commands": [_shown(name, "photo.jpg"), _table_shown(name, "new/")],
    }
    return page(request, "predict.html", values)


@router.post("/predict")
async def give(request: Request, name: str) -> Response:
    """Keep the pictures that were given and go to their answers."""
    studio = studio_of(request)
    run = studio.run(name)
    _refuse_large(request, MOST_PICTURES * MOST_BYTES)
    async with request.form(max_files=MOST_FILES, max_fields=10) as form:
        files = [one for one in form.getlist("pictures") if isinstance(one, UploadFile) and one.filename]
        if len(files) > MOST_PICTURES:
            raise DataError(
                f"These are {len(files)} pictures; this page shows {MOST_PICTURES}. Make a table of them, below."
            )
        given = [(one.filename or "", await one.read()) for one in files]
    keys, refused = await run_in_threadpool(_keep, studio, run, given)
    if not keys and not refused:
        return RedirectResponse("predict", 303)
    if len(keys) == 1 and not refused:
        return RedirectResponse(f"predict/{keys[0]}", 303)
    query = urlencode([*(("p", key) for key in keys), *(("refused", one) for one in refused)])
    return RedirectResponse(f"predict?{query}", 303)


@router.get("/predict/of")
def predict_row(request: Request, name: str, id: str) -> Response:
    """Go to the answer for an image of the run."""
    studio = studio_of(request)
    run = studio.run(name)
    row, (channels, steps), root = run.row(id), run.bands(), run.root() or run.folder
    if not row.part and "!" not in row.path:
        data = read(root, row.path)
    elif steps is None:  # a part of a file: its pixels as an image of their own, or its values
        data = bytes(encoded(image_of_row(run, row), 4096).body)
    else:
        data = as_npy(load(root, row.path, channels, row.part, raw=True, bands=steps.band_names).image)
    picture = studio.pictures.add(f"{Path(row.path).stem}{_ending(data, row.path)}", data, run.bands())
    return RedirectResponse(picture.key, 303)


@router.get("/predict/{key}")
def picture_page(request: Request, name: str, key: str, of: str = "", test: str = "") -> HTMLResponse:
    """Return the page of one picture: the answer, the attention, heat maps; `of` is another choice to explain."""
    studio = studio_of(request)
    run, picture = studio.run(name), studio.pictures.picture(key)
    from vitrail.explainers.explanation import ImageExplainer

    choices: list[str] = []
    faithful = None
    with studio.predictors.model(run.folder) as predictor:
        [found], views = answers.answers(predictor, [picture]), answers.views_of(predictor)
        if views.methods and not found.error:
            look = ImageExplainer(predictor, picture.path)
            choices = look.choices[:MOST_PICTURES]
            if test in views.methods:
                faithful = answers.tested_map(look, test, answers.chosen(look, of)).faithful
        heading = predictor.header.name
    values = {
        "name": name,
        "model": heading,
        "answer": found,
        "views": views,
        "choices": choices,
        "of": of,
        "test": test,
        "faithful": faithful,
        "commands": [_shown(name, found.name), _explained(name, found.name)],
    }
    return page(request, "picture.html", values)


@router.get("/predict/{key}/picture")
def picture_image(request: Request, name: str, key: str, size: int = 1024) -> Response:
    """Return a kept picture, decoded and encoded again."""
    studio = studio_of(request)
    run, picture = studio.run(name), studio.pictures.picture(key)
    try:
        return encoded(image_of_file(run, picture.path), min(max(size, 32), 1600))
    except DataError:  # kept for a model with other bands
        return missing()


@router.get("/predict/{key}/drawn")
def picture_drawn(request: Request, name: str, key: str) -> Response:
    """Return a kept picture with the answer drawn on it."""
    studio = studio_of(request)
    run, picture = studio.run(name), studio.pictures.picture(key)
    with studio.predictors.model(run.folder) as predictor:
        return encoded(answers.drawing(predictor, picture.path))


@router.get("/predict/{key}/heat/{method}")
def picture_heat(request: Request, name: str, key: str, method: str, of: str = "") -> Response:
    """Return a kept picture with a heat map on it."""
    from vitrail.explainers.explanation import ImageExplainer

    studio = studio_of(request)
    run, picture = studio.run(name), studio.pictures.picture(key)
    try:
        with studio.predictors.model(run.folder) as predictor:
            if method not in answers.views_of(predictor).methods:
                return missing()
            look = ImageExplainer(predictor, picture.path)
            return encoded(answers.heat_map(look, method, answers.chosen(look, of)))
    except VitrailError:  # such as too little memory; the other maps are there
        return missing()


@router.get("/predict/{key}/attention")
def picture_attention(request: Request, name: str, key: str) -> Response:
    """Return the attention of a kept picture, in every layer and head, for the viewer."""
    from vitrail.explainers.explanation import ImageExplainer
    from vitrail.explainers.explanation_page import viewer_data

    studio = studio_of(request)
    run, picture = studio.run(name), studio.pictures.picture(key)
    with studio.predictors.model(run.folder) as predictor:
        if not answers.views_of(predictor).attention:
            raise RunError(f"{predictor.header.name} shows no attention. Look at the heat maps instead.")
        data = viewer_data(ImageExplainer(predictor, picture.path))
    return JSONResponse(data, headers={"Cache-Control": "private, max-age=86400"})


@router.post("/table")
async def table(request: Request, name: str) -> Response:
    """Start a table of answers for a folder, a zip, or a place on this machine."""
    studio = studio_of(request)
    run = studio.run(name)
    _refuse_large(request, MOST_TOTAL)
    async with request.form(max_files=MOST_FILES, max_fields=10) as form:
        place = str(form.get("place") or "").strip()
        files = [one for one in form.getlist("files") if isinstance(one, UploadFile) and one.filename]
        if not files and not place:
            raise DataError("Choose a folder or a zip file, or name a folder of this computer.")
        started = await run_in_threadpool(_start_table, studio, run, place, files)
    return RedirectResponse(f"../../background/{started.id}", 303)


def _start_table(studio: Studio, run: RunFiles, place: str, files: list[UploadFile]) -> BackgroundCommand:
    """Start the command of a table of the files that were sent, else of a place on this machine."""
    named = studio.workspace.folder / expanded(place)  # commands run in the studio's folder
    if place and not named.exists():
        raise DataError(f"{place} does not exist on this computer. Check its spelling.")
    folder = studio.background.new_folder()
    _store(folder, files)
    what = _what(folder / "in") if files else str(named)
    words = ["predict", str(run.folder), what, "--csv", str(folder / "out" / f"{run.name}.csv")]
    title = place if not files else str(files[0].filename) if len(files) == 1 else f"{len(files):,} files"
    return studio.background.start(folder, Wish(words, title, run.name, "table"))


def examples_of(run: RunFiles) -> list[str]:
    """Return the ids of some test images of a run, spread over all of them; none if they are not here."""
    root = run.root()
    if root is None or not root.exists():
        return []
    rows = [row for row in run.rows().values() if row.split in (TEST, "")]
    return [row.id for row in rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES]]


def _keep(studio: Studio, run: RunFiles, given: list[tuple[str, bytes]]) -> tuple[list[str], list[str]]:
    """Keep pictures; return their keys, and why others were refused."""
    keys, refused, bands = [], [], run.bands()
    for name, data in given:
        try:
            keys.append(studio.pictures.add(name, data, bands).key)
        except DataError as error:
            refused.append(str(error))
    return list(dict.fromkeys(keys)), refused


def _store(folder: Path, files: list[UploadFile]) -> None:
    """Write the files of a table into the folder of its command; nothing of it stays if one cannot be written."""
    try:
        with writing(folder):
            for one in files:
                _store_one(folder / "in", one)
    except VitrailError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _store_one(folder: Path, file: UploadFile) -> None:
    """Write a file with its folders, each part of its name made safe."""
    parts = (file.filename or "").replace("\\", "/").split("/")
    path = folder.joinpath(*(safe_name(part) for part in parts if part not in ("", ".", "..")))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target)


def _what(folder: Path) -> str:
    """Return what a table is about: an archive by itself, or the whole folder."""
    files = list(folder.iterdir())
    return str(files[0] if len(files) == 1 and is_archive(files[0].name) else folder)


def _refuse_large(request: Request, most: int) -> None:
    size = request.headers.get("content-length", "0")
    if size.isdecimal() and int(size) > most:
        raise DataError(
            f"This is more than {most >> 20:,} MB at once. Name the folder on this computer instead."
        )


def _ending(data: bytes, path: str) -> str:
    if data.startswith(b"\x93NUMPY"):
        return ".npy"
    known = ".png" if data.startswith(b"\x89PNG") else ".jpg" if data.startswith(b"\xff\xd8") else ""
    return known or Path(path).suffix


def _shown(name: str, file: str) -> Command:
    line = command("predict", f"runs/{name}", file)
    return Command(line, f"import vitrail\n\nvitrail.load({f'runs/{name}'!r}).predict({file!r})")


def _table_shown(name: str, folder: str) -> Command:
    line = command("predict", f"runs/{name}", folder, "--csv", "answers.csv")
    return Command(line, f"import vitrail\n\nanswers = vitrail.load({f'runs/{name}'!r}).predict({folder!r})")


def _explained(name: str, file: str) -> Command:
    line = command("explain", f"runs/{name}", file)
    return Command(line, f"import vitrail\n\nvitrail.explain({f'runs/{name}'!r}, {file!r}).save('map.png')")
