"""The model file: weights, and a header with everything that prediction needs and the proof."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail import __version__
from vitrail.core.catalog import with_task_name
from vitrail.core.config import Settings, read
from vitrail.core.errors import RunError, SettingError
from vitrail.core.files import replace

FORMAT: Literal[1] = 1


class Header(Settings):
    """The header of a model file.

    `task` holds the task's name and settings, its `labels`, its `truth`, the description of its training labels, its
    `abstention` (`vitrail.tasks.abstention`), if the task supports it, and what else it has learnt (`Task.stored`).
    Files of earlier versions hold the labels only. `point` is the operating point of an exported graph that answers at
    another one than the whole network (`vitrail.layers.elastic`); its input is what `preprocess` makes, resized to the
    size of this point.
    """

    format: Literal[1] = FORMAT
    vitrail: str = __version__
    name: str
    encoder: dict[str, Any]
    task: dict[str, Any]
    preprocess: dict[str, Any]
    weights: str = "none"
    licence: str | None = None
    proof: list[float] = Field(default_factory=list)
    points: list[dict[str, Any]] = Field(default_factory=list)
    # Left out where it says nothing, so that earlier versions read the file.
    point: str = Field(default="", exclude_if=operator.not_)

    @field_validator("task")
    @classmethod
    def _named(cls, task: dict[str, Any]) -> dict[str, Any]:
        return with_task_name(task)


class ModelFile(NamedTuple):
    """An opened model file."""

    header: Header
    tensors: dict[str, Tensor]


def write_model(
    path: Path, network: nn.Module, header: Header, beside: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write the weights and the header in one step, so that an interruption leaves the old file intact.

    `beside` are other entries of the file's metadata, which prediction does not need.
    """
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()}
    metadata = {**beside, "vitrail": header.model_dump_json()}
    replace(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_model(path: Path) -> ModelFile:
    """Read a model file. RunError, with the reason, if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            if "vitrail" not in metadata:
                raise RunError(
                    f"{path} holds weights but no vitrail header, so its classes and preprocessing are unknown. "
                    "Name a run folder or a model.safetensors written by vitrail."
                )
            header = parse_header(metadata["vitrail"], path)
            return ModelFile(header, {key: handle.get_tensor(key) for key in handle.keys()})  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"{path} does not exist. Name a run folder or a model file.") from None
    except (SafetensorError, OSError) as error:
        raise RunError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    """Return in words why a file cannot be read: incomplete, damaged, or of another type by its name."""
    if path.suffix == ".safetensors" or isinstance(error, OSError):
        return f"{path} is not a complete model file ({error}). Copy it again or train again."
    graph = path.with_suffix(".xml")
    if path.suffix == ".bin" and graph.is_file():
        return f"{path} holds only the weights of the exported {graph.name}. Name {graph}."
    return f"{path} is not a model file. Name a run folder, a model.safetensors, or an exported .onnx, .xml or .pt2."


def parse_header(text: str, path: Path) -> Header:
    """Parse the JSON of a header. RunError if it is broken or of another format version."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RunError(f"{path} has a broken header ({error}). Copy it again.") from None
    if values.get("format") != FORMAT:
        raise RunError(
            f"{path} has format {values.get('format')}, but this vitrail {__version__} reads {FORMAT}. Update vitrail."
        )
    try:
        return read(Header, values, str(path))
    except SettingError as error:
        raise RunError(f"{path} has a header that this vitrail {__version__} cannot read: {error}") from None
