"""The result of a run: the report's sections, with images that can be opened, corrected and trained on again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from vitrail.core.errors import DataError, RunError
from vitrail.core.text import command
from vitrail.data.decisions import History
from vitrail.studio.app_parts import Studio, page, studio_of
from vitrail.studio.commands import Command
from vitrail.studio.corrections import Correction, holding
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.images import encoded, missing, small_image_of_row
from vitrail.studio.result_view import PAGE, ResultView
from vitrail.studio.run_files import ONE_NAME, RunFiles

router = APIRouter(prefix="/runs/{name}")

SEALED = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
    )
}
"""Headers of a finished page, which may come from elsewhere: it runs nothing and reaches nothing."""


@router.get("/result")
def result(request: Request, name: str, cell: str = "", look: int = -1, errors: int = PAGE) -> HTMLResponse:
    """Return the page of a result; `cell` is the open cell, `look` the section with heat maps."""
    studio = studio_of(request)
    run = studio.run(name)
    if not run.finished:
        return page(request, "result_waiting.html", {"name": name})
    found = run.result()
    shared = {
        "name": name,
        "report": run.report(),
        "commands": [_shown(name)],
        "has_page": run.page.is_file(),
    }
    if found is None:
        return page(request, "result_page_only.html", shared)
    view = ResultView(run, found, holding(_history(studio, run)))
    doubtful = run.label_errors()
    values: dict[str, Any] = {
        **shared,
        "view": view,
        "sections": list(view.sections()),
        "open": view.cell(cell),
        "cell": cell,
        "look": look,
        "many": PAGE,
        "limit": errors,
        "doubtful": view.label_errors(doubtful[:errors]),
        "doubts": len(doubtful),
        "query": urlencode({"weights": f"runs/{name}", "tune": "full"}),
        "datasets": [each.name for each in studio.images.datasets.all()],
        "since": _since(run, view.corrections),
    }
    return page(request, "result.html", values)


@router.post("/result/score")
def score_again(request: Request, name: str) -> Response:
    """Score a run of an earlier vitrail again, so that its result can be shown here."""
    from vitrail.reports.run_report import score_again as score
    from vitrail.runs.run import open_run

    run = studio_of(request).run(name)
    if run.report().get("draft"):
        raise RunError(
            f"{name} is a draft, which is scored while it is made. Draft the images again to see more."
        )
    score(open_run(run.folder))
    return RedirectResponse("../result", 303)


@router.get("/result/figure/{number}.png")
def figure(request: Request, name: str, number: int) -> Response:
    """Return the figure of a section."""
    from vitrail.plots import Bar, curves, intervals, reliability
    from vitrail.tasks.result import Bars, Curve, Reliability

    found = studio_of(request).run(name).result()
    section = found.sections[number] if found is not None and 0 <= number < len(found.sections) else None
    if isinstance(section, Curve):
        drawn = curves(section.series, section.x, section.y, section.bands)
    elif isinstance(section, Bars):
        drawn = intervals([Bar(*span) for span in section.spans()], section.x, region=0.0)
    elif isinstance(section, Reliability):
        bins = section.calibration["bins"]
        drawn = reliability([(one["sure"], *one["right"].values(), one["answers"]) for one in bins])
    else:
        return missing()
    buffer = BytesIO()
    drawn.savefig(buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white")
    headers = {"Cache-Control": "private, max-age=600"}
    return Response(buffer.getvalue(), media_type="image/png", headers=headers)


@router.get("/image")
def image(request: Request, name: str, id: str, size: int = 256) -> Response:
    """Return an image of a run by its id."""
    return small_image_of_row(studio_of(request).run(name), id, size)


@router.get("/result/looked")
def looked(request: Request, name: str, id: str) -> Response:
    """Return an image of a run beside where its network looked."""
    from vitrail.explainers.explanation import explain, method_for

    studio = studio_of(request)
    run = studio.run(name)
    try:
        with studio.predictors.model(run.folder) as predictor:
            method = method_for(predictor.network)
            if method is None:
                return small_image_of_row(run, id, 512)
            return encoded(explain(predictor, _array(run, id, predictor), method).figure(1024))
    except DataError:  # moved or changed since the training
        return missing()


@router.get("/result/drawn")
def drawn(request: Request, name: str, id: str) -> Response:
    """Return an image of a run with the answer drawn on it, beside the truth where the task can draw both."""
    from vitrail import plots

    studio = studio_of(request)
    run = studio.run(name)
    try:
        with studio.predictors.model(run.folder) as predictor:
            array = _array(run, id, predictor)
            answer = predictor.of_row(array, id)
            picture = plots.of_array(predictor.preprocess.visible(array))
            compare, root = getattr(predictor.task, "compare", None), run.root()
            if compare is None or root is None:
                return encoded(predictor.task.render(picture, answer))
            return encoded(compare(picture, answer, predictor.task.read(run.row(id), root)))
    except DataError:  # moved or changed since the training
        return missing()


@router.get("/report.html")
def report_page(request: Request, name: str) -> Response:
    """Return the finished page of a run, sealed."""
    run = studio_of(request).run(name)
    if not run.page.is_file():
        raise RunError(f"{name} has no page yet. It is written at the end of the training.")
    return FileResponse(run.page, media_type="text/html", headers=SEALED)


@router.post("/result/correct")
def correct(
    request: Request,
    name: str,
    what: Annotated[Literal["relabel", "drop"], Form()],
    id: Annotated[list[str], Form()],
    label: Annotated[str, Form()] = "",
    back: Annotated[str, Form()] = "",
) -> Response:
    """Correct the label of images, or leave them out of the next training."""
    from vitrail.data.labels import join_labels

    studio = studio_of(request)
    run = studio.run(name)
    _refuse_wrong(run, what, id, label.strip())
    reason = f"seen in the result of {name}"
    written = join_labels([label.strip()]) if what == "relabel" else ""
    studio.images.datasets.decide(_images(studio, run), what, id, written, reason)
    return _back(back)


@router.post("/result/undo")
def undo(
    request: Request, name: str, number: Annotated[int, Form()], back: Annotated[str, Form()] = ""
) -> Response:
    """Take a correction back."""
    studio = studio_of(request)
    studio.images.datasets.undo(_images(studio, studio.run(name)), [number])
    return _back(back)


@router.post("/again")
def train_again(request: Request, name: str) -> Response:
    """Train with the same settings on the corrected images."""
    studio = studio_of(request)
    run = studio.run(name)
    known = studio.images.datasets.listed(run.source())
    revision = len(_history(studio, run).decisions)
    with studio.queue.naming:
        new = free_run(studio, name)
        words, title = again_words(run, new), f"{name}, with corrected labels"
        studio.queue.add(known.name if known else "", words, title, new, revision)
    return RedirectResponse(f"../{quote(new, safe='')}", 303)


def again_words(run: RunFiles, new: str) -> list[str]:
    """Return the command that trains with the settings of a run on its images as they are labelled now."""
    source = run.source()
    if not source:
        raise RunError(f"{run.name} does not name its images. Train on them from the page Images.")
    return ["train", source, "--recipe", f"runs/{run.name}/recipe.yaml", "--out", f"runs/{new}"]


def free_run(studio: Studio, name: str) -> str:
    """Return the name of a run that is neither there nor in the queue."""
    waiting = {job.run for job in studio.queue.jobs()}
    base, _, last = name.rpartition("-")
    stem = base if base and last.isdecimal() else name
    numbers = range(2, 10_000)
    names = (f"{stem}-{number}" for number in numbers)
    return next(one for one in names if one not in waiting and not (studio.workspace.runs / one).exists())


def _history(studio: Studio, run: RunFiles) -> History:
    """Return the decisions about the images of a run; none if they are not on this machine."""
    dataset = studio.images.datasets.of_source(run.source())
    return History() if dataset is None else studio.images.datasets.history(dataset)


def _images(studio: Studio, run: RunFiles) -> Dataset:
    """Return the data set of a run. DataError if its images are not on this machine."""
    source = run.source()
    dataset = studio.images.datasets.of_source(source)
    if dataset is None:
        raise DataError(
            f"The images of {run.name} were in {source or 'a place that it does not name'}, which is not here. "
            "Put them back to correct their labels."
        )
    return dataset


def _refuse_wrong(run: RunFiles, what: str, ids: Sequence[str], label: str) -> None:
    """Raise a DataError if the run has no such image, or a label cannot be corrected by a word."""
    for id in ids:
        run.row(id)
    truth = run.truth()
    if what == "relabel" and (not label or truth is None or truth.kind != ONE_NAME):
        raise DataError(
            "These images have no single label that a word could replace. Leave them out instead."
        )


def _since(run: RunFiles, corrections: Mapping[str, Correction]) -> list[str]:
    """Return the ids of its images that were corrected after a run had begun."""
    began = datetime.fromtimestamp((run.folder / "recipe.yaml").stat().st_mtime, UTC)
    rows = run.rows()
    return [
        id
        for id, one in corrections.items()
        if id in rows and datetime.fromisoformat(one.time) >= began.replace(microsecond=0)
    ]


def _array(run: RunFiles, id: str, predictor: Any) -> Any:
    from vitrail.data.loader import load_for

    return load_for(predictor.preprocess, run.root() or run.folder, run.row(id))


def _shown(name: str) -> Command:
    line = command("eval", f"runs/{name}")
    python = (
        f"from vitrail.reports.evaluate_model import evaluate_run\n\nevaluate_run({f'runs/{name}'!r}).result"
    )
    return Command(line, python)


def _back(place: str) -> Response:
    """Return to the place on the page where a click was made; anything but a place on it is left out."""
    return RedirectResponse(f"../result{place if place[:1] in ('?', '#') else ''}", 303)
