"""One way out for every format: open the model, write, ask both sides, and keep only what agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.core.files import make_folder, refuse_unwritable
from vitrail.data.manifest import TEST, TRAIN, VAL
from vitrail.export import folders, graphs, proof
from vitrail.export.proof import Agreement, Asked
from vitrail.infer.held_back import Reader, readers_of, root_of, spread, usable
from vitrail.infer.predictor import Predictor
from vitrail.infer.sources import expand
from vitrail.runs.folder import open_run

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "timm": "-timm", "huggingface": "-huggingface"}
)
"""The formats, and how the name of what is written ends."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how well it was seen to agree with the model."""

    path: Path
    format: str
    bytes: int
    agreement: Agreement
    left_out: int = 0  # pictures of the run that changed since, or cannot be read: they prove nothing

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "bytes": self.bytes,
            "agreement": self.agreement.to_dict(),
            "left_out": self.left_out,
        }


def export(
    model: str | Path,
    format: str = "onnx",
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    attention: bool = False,
) -> Exported:
    """Write a model for other programs and return what was written, proven on pictures of the run.

    `model` is a run folder, or a model file with `data`, pictures to prove it on; `attention` adds to a graph's
    outputs where the class token looks in the last block.

    Raises:
        SettingError: an unknown format, or attention that a format cannot hold.
        RunError: the export does not answer as the model does; nothing is written then.
        DataError: there are no pictures to prove it on.
    """
    if format not in SUFFIXES:
        raise UnknownNameError("format", format, SUFFIXES, f"There are: {', '.join(SUFFIXES)}.")
    if attention and format in ("timm", "huggingface"):
        raise SettingError(f"A {format} folder holds no attention output. Use --format onnx.")
    path = _named(Path(model), format, out)
    if path.suffix == SUFFIXES[format] or not path.exists():
        refuse_unwritable(path)
    predictor = Predictor(model, "cpu")
    asked = _pictures(Path(model), predictor, data)
    pictures = usable(asked)
    make_folder(path.parent)
    found: list[Agreement] = []

    def check(written: Path) -> None:
        sides = proof.model_side(predictor), _asked(predictor, format, written)
        shown = proof.shown(pictures)
        agreement = proof.compare(predictor.task, sides, proof.many_sizes(pictures), shown)
        proof.demand(agreement, f"{format} export")
        found.append(agreement)

    _write(predictor, format, path, attention, check)
    return Exported(path, format, _size(path), found[0], len(asked) - len(pictures))


def _write(
    predictor: Predictor, format: str, path: Path, attention: bool, check: Callable[[Path], None]
) -> None:
    match format:
        case "onnx":
            graphs.write_onnx(predictor, path, attention, check)
        case "openvino":
            graphs.write_openvino(predictor, path, attention, check)
        case "torch":
            graphs.write_program(predictor, path, attention, check)
        case "timm":
            folders.write_timm(predictor, path, check)
        case _:
            folders.write_huggingface(predictor, path, check)


def _asked(predictor: Predictor, format: str, written: Path) -> Asked:
    if format == "timm":
        return folders.asked_of_timm(predictor, written)
    if format == "huggingface":
        return folders.asked_of_huggingface(predictor, written)
    return graphs.asked_of_graph(predictor, written, format)


def _named(model: Path, format: str, out: str | Path | None) -> Path:
    suffix = SUFFIXES[format]
    if out is None:
        base = model.resolve()
        return Path(f"{base.stem if base.is_file() else base.name}{suffix}")
    path = Path(out)
    if suffix.startswith(".") and path.suffix != suffix:
        raise SettingError(f"A file of the format {format} is called something{suffix}, not {path.name}.")
    return path


def _pictures(model: Path, predictor: Predictor, data: str | Path | None) -> Sequence[Reader]:
    steps = predictor.preprocess
    run = open_run(model) if model.is_dir() else None
    if run is not None and (data is None or run.manifest_path.is_file()):
        root = Path(data) if data else root_of(run)
        return readers_of(run, root, (TEST, VAL, TRAIN), steps, proof.LEAST, unchanged=data is None)
    if data is None:
        raise SettingError(
            f"{model} is a model alone; an export is proven on pictures. Name some: --data photos/"
        )
    sources = spread(list(expand([str(data)])), proof.LEAST)
    return [partial(predictor.decoded, one) for one in sources]


def _size(path: Path) -> int:
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    files = path.rglob("*") if path.is_dir() else [path, *beside]
    return sum(file.stat().st_size for file in files if file.is_file())
