"""Export a model in any format: write it, compare it with the model, and keep it only if both agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitrail.core.errors import RunError, SettingError, UnknownNameError
from vitrail.core.files import make_folder, refuse_unwritable
from vitrail.data.manifest import TEST, TRAIN, VAL
from vitrail.export import agreement, graph_formats, words
from vitrail.export.agreement import Agreement, Proven, Side
from vitrail.export.formats import SUFFIXES
from vitrail.export.library_folders import FOLDERS, Library, refuse_point
from vitrail.export.words import Form
from vitrail.infer.inputs import expand
from vitrail.infer.predictor import Predictor, build_header_task
from vitrail.infer.proof_images import Pixels, Reader, readers_of, root_of, spread, usable
from vitrail.layers.elastic import read_point
from vitrail.runs.proof import ROUNDED
from vitrail.runs.run import open_run
from vitrail.tasks.base import Task

CLASSES_ONLY = (
    "The folder answers with one of the classes for every image; “none of these” is in the formats onnx, openvino and "
    "torch."
)


@dataclass(frozen=True, slots=True)
class Exported:
    """A written export, and how well it agrees with the model."""

    path: Path
    format: str
    bytes: int
    proven: Proven
    left_out: int = 0  # images of the run that changed, or cannot be read

    @property
    def agreement(self) -> Agreement:
        """Agreement in float32 on our inputs, where the export must be exact."""
        return self.proven.agreement

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "bytes": self.bytes,
            "agreement": self.agreement.to_dict(),
            "left_out": self.left_out,
            "elsewhere": {name: one.to_dict() for name, one in self.proven.elsewhere.items()},
            "notes": list(self.proven.notes),
        }


def _silent(line: str) -> None:
    """Ignore a message."""


def export(
    model: str | Path,
    format: str = "onnx",
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    attention: bool = False,
    batch: bool = False,
    point: str | None = None,
    say: Callable[[str], None] = _silent,
) -> Exported:
    """Export a model for other programs, checked on images of the run.

    `model` is a run folder, or a model file with `data`, images for the check. `attention` adds the attention of the
    class token in the last block to a graph's outputs; `batch` lets it take several images of one size. `point` is
    the operating point of the written network, such as 160px/merge8 (None: the whole network). `say` hears what is
    being done.

    Raises:
        SettingError: an unknown format or operating point, or an option that the format does not support.
        RunError: the export disagrees with the model; nothing is written then.
        DataError: there are no images for the check.
    """
    if format not in SUFFIXES:
        raise UnknownNameError("format", format, SUFFIXES, f"There are: {', '.join(SUFFIXES)}.")
    if format in FOLDERS and attention:
        raise SettingError(f"A {format} folder cannot have an attention output. Use --format onnx.")
    if format in FOLDERS and batch:
        raise SettingError(f"A {format} folder always takes batches. Remove --batch.")
    path = _named(Path(model), format, out, "" if point is None else str(read_point(point)))
    if path.suffix == SUFFIXES[format] or not path.exists():
        refuse_unwritable(path)
    predictor = Predictor(model, "cpu", point)
    predictor.answering()
    clips = predictor.preprocess.frames > 0
    if format in FOLDERS and clips:
        raise SettingError(
            f"A {format} folder takes images, and this model takes clips. Use --format onnx, openvino or torch."
        )
    if format in FOLDERS:
        refuse_point(predictor, format)
    asked = _pictures(Path(model), predictor, data)
    pictures = usable(asked)
    make_folder(path.parent)
    say(f"Writing {path.name}, then comparing it with the model on {agreement.LEAST} images.")
    if format in FOLDERS:
        check = partial(_check_folder, predictor, FOLDERS[format], pictures)
        proven = FOLDERS[format].write(predictor, path, check)
    else:
        check = partial(_check_graph, predictor, format, pictures)
        proven = graph_formats.write(predictor, path, Form(attention, batch, clips), check)
    if said := words.point_words(predictor):
        proven = replace(proven, notes=(said, *proven.notes))
    return Exported(path, format, _size(path), proven, len(asked) - len(pictures))


def _check_graph(predictor: Predictor, format: str, pictures: Sequence[Reader], written: Path) -> Proven:
    """Require agreement of a graph in float32, and measure OpenVINO in its default precision."""
    allowed = ROUNDED if predictor.preprocess.rounded else agreement.ALLOWED
    sides = {format: Side(graph_formats.asked_of_graph(predictor, written, format), allowed)}
    where, notes = "", []
    if format in ("onnx", "openvino") and find_spec("openvino") is not None:
        where = f"OpenVINO at its own default, {graph_formats.default_precision()}"
        try:
            sides[where] = Side(graph_formats.asked_by_default(predictor, written), agreement.FEW_BITS)
        except RunError as error:
            notes.append(f"{where}: {error}")
    found = _compared(predictor, predictor.task, sides, agreement.many_sizes(pictures), pictures)
    agreement.demand(found[format], f"{format} export")
    elsewhere = {name: one for name, one in found.items() if name != format}
    notes += _notes(elsewhere, "Set OpenVINO to float32: INFERENCE_PRECISION_HINT f32.")
    return Proven(found[format], elsewhere, tuple(notes))


def _check_folder(
    predictor: Predictor, library: Library, pictures: Sequence[Reader], written: Path
) -> Proven:
    """Require agreement of the library's network on our inputs, and measure it with its own preprocessing."""
    sides = {library.format: Side(library.asked(predictor, written))}
    # A library's network has the classes only.
    steps = predictor.preprocess_at(predictor.point)
    task = build_header_task(predictor.header_at(predictor.point), abstaining=False)
    found = _compared(predictor, task, sides, agreement.many_sizes(pictures), pictures)
    agreement.demand(found[library.format], f"{library.format} export")
    classes_only = (CLASSES_ONLY,) if len(task.outputs) < len(predictor.task.outputs) else ()
    if why := library.unprepared(steps):
        return Proven(found[library.format], {}, (why, *classes_only), prepares=False)
    own = {library.steps: Side(library.prepared(predictor, written), agreement.FEW_BITS)}
    elsewhere = _compared(predictor, task, own, (read() for read in pictures), pictures)
    hint = "Its preprocessing differs from ours; the formats onnx, openvino and torch contain ours."
    near = elsewhere[library.steps].near
    if left_out := not near and library.left_out(written, steps):
        hint = "So the folder does not include it: prepare the images yourself, or use the format onnx."
    notes = (*_notes(elsewhere, hint), *classes_only)
    return Proven(found[library.format], elsewhere, notes, prepares=not left_out)


def _compared(
    predictor: Predictor,
    task: Task[Any, Any],
    sides: Mapping[str, Side],
    shown: Iterator[Pixels],
    pictures: Sequence[Reader],
) -> dict[str, Agreement]:
    ours = agreement.model_side(predictor)
    return agreement.compare(task, ours, sides, shown, agreement.shown(pictures))


def _notes(elsewhere: Mapping[str, Agreement], hint: str) -> list[str]:
    return [f"{name}: {one}.{'' if one.near else ' ' + hint}" for name, one in elsewhere.items()]


def _named(model: Path, format: str, out: str | Path | None, point: str) -> Path:
    suffix = SUFFIXES[format]
    if out is None:
        base = model.resolve()
        parts = [base.stem if base.is_file() else base.name, *(point.split("/") if point else [])]
        return Path(f"{'-'.join(parts)}{suffix}")
    path = Path(out)
    if suffix.startswith(".") and path.suffix != suffix:
        raise SettingError(
            f"The name of a file in the format {format} must end with {suffix}, not {path.name}."
        )
    return path


def _pictures(model: Path, predictor: Predictor, data: str | Path | None) -> Sequence[Reader]:
    steps = predictor.preprocess
    run = open_run(model) if model.is_dir() else None
    if run is not None and (data is None or run.manifest_path.is_file()):
        root = Path(data) if data else root_of(run)
        return readers_of(run, root, (TEST, VAL, TRAIN), steps, agreement.LEAST, unchanged=data is None)
    if data is None:
        raise SettingError(
            f"{model} is a model file; an export is checked on images. Name some: --data photos/"
        )
    sources = spread(list(expand([str(data)], clips=steps.frames > 0)), agreement.LEAST)
    return [partial(predictor.decoded, one) for one in sources]


def _size(path: Path) -> int:
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    files = path.rglob("*") if path.is_dir() else [path, graph_formats.labels_file(path), *beside]
    return sum(file.stat().st_size for file in files if file.is_file())
