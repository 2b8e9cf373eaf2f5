"""vitrail predict."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vitrail.infer.predict_options import AnswerOptions

if TYPE_CHECKING:
    from vitrail.infer.draw_predictions import Drawing
    from vitrail.infer.inputs import Source
    from vitrail.infer.label_files import LabelFiles
    from vitrail.infer.predictor import Answer, Predictor, Request
    from vitrail.tasks.base import Ask


def predict(
    model: str,
    images: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)] = (),
    /,
    *,
    json: bool = False,
    csv: str | None = None,
    out: str | None = None,
    device: str = "auto",
    trust: bool = False,
    options: Annotated[AnswerOptions, Parameter(name="*")] = AnswerOptions(),
) -> int:
    """Predict images with a trained model, or with a published classifier without any training.

    An image that cannot be read gets an error and the others are still predicted; the exit code is then 1. Long
    jobs use a faster backend if its predictions agree with the model in float32; the backend is reported.

        vitrail predict runs/photos new/*.jpg
        vitrail predict tf_efficientnet_lite0 photo.jpg
        vitrail predict runs/photos new/ --csv answers.csv
        vitrail predict runs/photos new/ --sets 0.05
        vitrail predict runs/photos new/ --point 160px/merge8
        vitrail predict runs/photos new/ --latency 15ms
        vitrail predict runs/street drive.jpg --out masks/ --threshold 0.6
        vitrail predict runs/cells new/ --yolo labelled/
        vitrail predict runs/trees map.tif --tiles 400 --out shown/
        vitrail predict runs/scene big.tif --out map.tif
        vitrail predict runs/street drive.mp4 --track --out followed/ --csv tracks.csv
        cat photo.jpg | vitrail predict runs/photos -
        vitrail predict runs/generated --class rare --n 16 --seed 0 --out made/
        vitrail predict runs/painters photo.jpg --class monet --strength 0.5
        vitrail predict new/ --zero-shot "cat,dog,something else"

    Parameters
    ----------
    model
        a run folder, a model.safetensors, an exported .onnx, .xml or .pt2, or published weights: a timm name, org/repo,
        a folder. With --zero-shot it may be left out
    images
        files, folders, patterns such as 'new/*.jpg', zip or tar files, or - for standard input
    json
        print one JSON value, for programs
    csv
        write a table with one row per image to this file
    out
        write each image with its prediction drawn on it into this folder, and files such as masks; input images and
        other files of yours are never overwritten. A name such as map.tif: write the map of a raster, one file or
        several whose bands lie on one another, with probabilities, entropy and areas beside it
    device
        auto, cpu, cuda, mps
    trust
        open a .pt2, which can run any code
    """
    from vitrail.cli.answer_table import print_answers
    from vitrail.cli.made_images import make_images, refuse_making
    from vitrail.cli.output import say
    from vitrail.cli.path_checks import model_file, model_there
    from vitrail.cli.predict_tracks import predict_tracks
    from vitrail.cli.raster_map import is_map, predict_map
    from vitrail.cli.zero_shot import predict_zero_shot

    if options.zero_shot is not None:
        return predict_zero_shot((model, *images), options, json, csv, out, device)
    if options.class_ is not None:
        return make_images(model, images, options, json, csv, out, device)
    refuse_making(options)
    _refuse_misused(model, images, options)
    model_there(model)
    _refuse_unwritable(csv)
    from vitrail.infer.predictor import load
    from vitrail.tasks.ask import asked_of

    predictor = load(model_file(model), device, trust=trust, point=options.point).answering()
    if options.track:
        return predict_tracks(predictor, images, options, json, csv, out)
    if out is not None and is_map(out):
        return predict_map(predictor, images, out, options, json, csv)
    sources = _sources(predictor, model, images)
    predictor, request = _ready(predictor, model, sources, options)
    ask = asked_of(predictor.task, options.threshold, options.sets, options.each_class)
    request = replace(request, ask=ask)
    labels = _labels(predictor, options)
    drawing = None if out is None else _drawing(predictor, out, sources)
    made = _made(predictor, sources, request, options)
    answers = list(_answers(sources, made, drawing, labels))
    labels.write(say)
    written = bool(csv) and _written(csv or "", answers, predictor.task.columns)
    _say_drawn(drawing)
    print_answers(answers, json, written)
    failed = _say_ends(predictor, request.ask, answers)
    return 1 if failed or (csv and not written) else 0


def _say_drawn(drawing: Drawing | None) -> None:
    from vitrail.cli.output import say

    if drawing is not None:
        say(f"{drawing.count} files written to {drawing.folder}")


def _sources(predictor: Predictor, model: str, images: Sequence[str]) -> list[Source]:
    """Return the images that are named, after refusing rasters that are too large to be one image."""
    from vitrail.cli.output import say
    from vitrail.cli.raster_map import refuse_squeezed
    from vitrail.infer.inputs import expand

    piped = sys.stdin.buffer.read() if "-" in images else None
    sources = list(expand(images, piped, say, clips=predictor.preprocess.frames > 0))
    refuse_squeezed(predictor, model, sources)
    return sources


def _refuse_unwritable(csv: str | None) -> None:
    from vitrail.core.files import refuse_unwritable

    if csv:
        refuse_unwritable(Path(csv))


def _refuse_maker(model: str) -> None:
    """Raise a RunError for a run that makes images: it wants a class, and no images to look at."""
    from vitrail.cli.path_checks import model_file
    from vitrail.infer.predictor import Predictor
    from vitrail.tasks.image_makers import MakesImages

    predictor = Predictor(model_file(model), "cpu")
    if isinstance(predictor.task, MakesImages):
        predictor.answering()


def _refuse_misused(model: str, images: Sequence[str], options: AnswerOptions) -> None:
    """Raise a UsageError without images, and for a latency with what it chooses, or with tiles, several an image."""
    from vitrail.core.errors import UsageError

    if not images:
        if Path(model).is_dir():
            _refuse_maker(model)
        raise UsageError(
            "Name images to look at: vitrail predict runs/photos new/*.jpg. See: vitrail predict --help"
        )
    if options.latency is None:
        return
    for name in ("point", "tiles"):
        if getattr(options, name) is not None:
            raise UsageError(f"--latency and --{name} contradict each other. Give one of them.")


def _ready(
    predictor: Predictor, model: str, sources: Sequence[Source], options: AnswerOptions
) -> tuple[Predictor, Request]:
    """Return the predictor at its operating point, and the request with the fastest faithful backend; say which.

    A single image is predicted in float32: to prepare another backend takes longer, and so does the import of what
    chooses it.
    """
    from vitrail.cli.output import say
    from vitrail.infer.predictor import Request

    if options.latency is not None:
        from vitrail.infer.latency import within_latency

        found = within_latency(predictor, model, sources, options.latency, say)
        say(found.why)
        return found.predictor, found.request
    if len(sources) == 1:
        return predictor, Request(predictor.point)
    from vitrail.infer.autotune import speed_up

    choice = speed_up(predictor, model, sources)
    if choice.why:
        say(choice.why)
    return predictor, choice.request


def _say_ends(predictor: Predictor, ask: Ask, answers: Sequence[Answer]) -> int:
    """Say what explains the answers, and how many images could not be read; return their number."""
    from vitrail.cli.output import say, unread

    for line in _remarks(predictor, ask, answers):
        say(line)
    for one in answers:
        for note in one.notes:
            say(f"{one.path}: {note}")
    failed = sum(bool(one.error) for one in answers)
    if failed:
        say(unread(failed, len(answers)))
    return failed


def _remarks(predictor: Predictor, ask: Ask, answers: Sequence[Answer]) -> Sequence[str]:
    """Return sentences of the task that explain the numbers of the answers."""
    from vitrail.tasks.abstention import Abstaining

    if not isinstance(predictor.task, Abstaining):
        return []
    novel = any(not one.error and one.prediction.to_dict().get("none_of_these") for one in answers)
    return predictor.task.remarks(ask, novel)


def _made(
    predictor: Predictor, sources: Sequence[Source], request: Request, options: AnswerOptions
) -> Iterator[Answer]:
    if options.tiles is not None:
        from vitrail.infer.tiling import tiled_answers

        yield from tiled_answers(predictor, sources, options.tiles, request)
    elif options.latency is None:
        yield from predictor.answers(sources, request=request)
    else:
        from vitrail.cli.output import say
        from vitrail.infer.latency import Stopwatch

        watch = Stopwatch()
        yield from watch.watch(predictor.answers(sources, 1, request))
        say(watch.line(options.latency))


def _labels(predictor: Predictor, options: AnswerOptions) -> LabelFiles:
    """Return the label files to write; raise a SettingError for options that the task does not support."""
    from vitrail.infer.label_files import LabelFiles
    from vitrail.infer.tiling import refuse_tiles

    if options.tiles is not None:
        refuse_tiles(predictor, options.tiles)

    return LabelFiles(predictor.task, {"coco": options.coco, "yolo": options.yolo})


def _drawing(predictor: Predictor, out: str, sources: Sequence[Source]) -> Drawing:
    from vitrail.infer.draw_predictions import Drawing

    return Drawing(predictor, Path(out), sources)


def _written(csv: str, answers: Sequence[Answer], columns: Sequence[str]) -> bool:
    """Write the table; if that fails, say why, so that the predictions are printed instead."""
    from vitrail.cli.answer_table import write_csv
    from vitrail.cli.output import say
    from vitrail.core.errors import RunError

    try:
        write_csv(csv, answers, columns)
    except RunError as error:
        say(str(error))
        return False
    say(f"{len(answers)} rows written to {csv}")
    return True


def _answers(
    sources: Sequence[Source], answers: Iterable[Answer], drawing: Drawing | None, labels: LabelFiles
) -> Iterator[Answer]:
    """Yield answers without pixels, after their files are written: masks of many images need too much memory."""
    from vitrail.infer.draw_predictions import told

    for source, answer in zip(sources, answers, strict=True):
        written = drawing.write(source, answer) if drawing is not None and not answer.error else {}
        labels.add(source, answer)
        yield told(answer, written)
