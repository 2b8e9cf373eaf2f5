"""Open exported files: one image in, the graph's outputs out, in ONNX Runtime, OpenVINO or torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import RunError, SettingError
from vitrail.data.batch import Geometry
from vitrail.data.preprocess import Preprocess
from vitrail.data.view import boxes_in_original, weights_in_original
from vitrail.layers.heads import Output
from vitrail.runs.model_file import Header, parse_header
from vitrail.tasks.base import InOriginal, Task

KEY = "vitrail"
"""Key of the header in the metadata of every exported file."""

KINDS: Mapping[str, str] = MappingProxyType({".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"})
"""Format of an exported file, by suffix."""

BATCHED = 4
"""Number of input axes of a graph that takes batches of images; of clips one more, the frames."""

IN_FLOAT32: Mapping[str, str] = MappingProxyType({"INFERENCE_PRECISION_HINT": "f32"})
"""OpenVINO uses bf16 by default where the CPU supports it; an export promises float32."""

INFO = (["model_info", KEY], ["framework", KEY])
"""Where OpenVINO stores the header: in its own files, and in ONNX files that it has read."""

NEEDED: Mapping[str, str] = MappingProxyType(
    {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
)

TIES = 0.005
"""Largest allowed share of integers that differ between two computations."""

Engine = Callable[[NDArray[Any]], tuple[Tensor, ...]]
"""From the input of a graph, a decoded image or a batch, to its outputs, in order."""


def readable(task: Task[Any, Any], output: Output, onto: InOriginal) -> Output:
    """Return the readable outputs of a graph, which precede the raw outputs, if the task has any.

    These are probabilities, or what `onto` places in the pixels of the original image: maps and boxes.
    """
    made, drawn = getattr(task, "readable", None), getattr(task, "in_image", None)
    return {
        **({} if made is None else made(output)),
        **({} if drawn is None else drawn(output, onto)),
    }


class OfGeometry(NamedTuple):
    """An `InOriginal` of one input whose position is known."""

    geometry: Geometry

    def weights(self, rows: int, cols: int) -> tuple[Tensor, Tensor]:
        return weights_in_original(self.geometry, rows, cols)

    def boxes(self, xyxy: Tensor) -> Tensor:
        (height, width), flat = self.geometry.size, xyxy.detach().double().reshape(-1, 4).numpy()
        placed = boxes_in_original(self.geometry, flat * [width, height, width, height])
        return torch.from_numpy(placed).reshape(xyxy.shape).to(xyxy.dtype)


def contradicts(one: Tensor, other: Tensor) -> bool:
    """Return whether two computations of a readable output differ by more than rounding, or in more than a few places.

    Integers are class indices, of which two may be equally likely.
    """
    if one.shape != other.shape:
        return True
    if one.is_floating_point():
        largest = max(1.0, float(one.abs().max()))
        return not float((one - other).abs().max()) <= 1e-5 * largest  # a NaN contradicts
    return float((one != other).float().mean()) > TIES


def output_names(task: Task[Any, Any]) -> tuple[str, ...]:
    """Return the names of a graph's outputs, in order: readable outputs first, then the task's raw outputs."""
    pictured = (one.name for one in getattr(task, "picture_outputs", ()))
    return (*getattr(task, "readable_outputs", ()), *pictured, *task.outputs)


class Opened(NamedTuple):
    """A loaded exported file; `batched` if it takes several images or clips, batch axis first."""

    header: Header
    run: Engine
    batched: bool

    def one(self, image: NDArray[Any]) -> tuple[Tensor, ...]:
        """Return the graph's outputs for one image (height, width, channels), or one clip with its frames in front."""
        if not self.batched:
            return self.run(image)
        return tuple(output[0] for output in self.run(image[None]))


def open_exported(path: Path, kind: str, trust: bool = False) -> Opened:
    """Open an exported file; `kind` is one of `KINDS`.

    Raises:
        RunError: it is missing, broken, not written by vitrail, or its runtime is not installed.
        SettingError: a `.pt2` file, which can run arbitrary code, needs `trust`.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist. Name a run folder, a model file or an exported file.")
    need(NEEDED[kind])
    if kind == "torch" and not trust:
        raise SettingError(
            f"{path} is a torch program. When it is opened, it can run any code that its author put into it. "
            "If you trust it, add --trust. model.safetensors and .onnx files are safe without it."
        )
    return _opened(path, {"onnx": _onnx, "openvino": _openvino, "torch": _program}[kind])


def by_default(path: Path) -> Opened:
    """Open an ONNX or OpenVINO file in OpenVINO with its default precision."""
    return _opened(path, partial(_openvino, settings={}))


def _opened(path: Path, opener: Callable[[Path], Opened]) -> Opened:
    try:
        opened = opener(path)
        dtype = Preprocess.from_dict(opened.header.preprocess).dtype
        return opened._replace(run=lambda image: opened.run(np.asarray(image, dtype)))
    except RunError:
        raise
    except Exception as error:  # three runtimes, each with its own exceptions for a broken file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"{path} cannot be opened ({first}). Export it again.") from error


def need(library: str) -> None:
    """Raise a RunError with install instructions if a library is not installed."""
    if find_spec(library) is None:
        raise RunError(
            f"This needs {library}, which is not installed. Install it: pip install 'vitrail[export]'"
        )


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Prevent the import of OpenVINO's telemetry: without it, OpenVINO uses a stub that sends nothing."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def openvino() -> Any:
    """Return the module `openvino`, imported without its telemetry."""
    need("openvino")
    with without_telemetry():
        import openvino as module

        return module


@cache
def core() -> Any:
    """Return the OpenVINO core, one per process, never unloaded.

    Its CPU plugin installs a signal stack for the thread that loads it, and removes the stack when it is unloaded, even
    if it is in use. After two cores were destroyed in creation order, the next Ctrl-C, or the end of any child process
    with a signal handler, caused a segmentation fault.
    """
    return openvino().Core()


def _header(text: str | None, path: Path) -> Header:
    if not text:
        raise RunError(
            f"{path} was not exported by vitrail, so its classes and preprocessing are unknown. "
            "Name a file that vitrail export wrote."
        )
    return parse_header(text, path)


def _batched(header: Header, axes: int) -> bool:
    """Return whether a graph whose input has so many axes takes several inputs at a time."""
    return axes == BATCHED + (Preprocess.from_dict(header.preprocess).frames > 0)


def _onnx(path: Path) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    header = _header(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    taken = session.get_inputs()[0]

    def answer(image: NDArray[Any]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(one) for one in session.run(None, {taken.name: image}))

    return Opened(header, answer, _batched(header, len(taken.shape)))


def _openvino(path: Path, settings: Mapping[str, str] = IN_FLOAT32) -> Opened:
    model = core().read_model(str(path))
    text = next((model.get_rt_info(place).value for place in INFO if model.has_rt_info(place)), None)
    header = _header(text, path)
    compiled = core().compile_model(model, "CPU", dict(settings))
    batched = _batched(header, len(model.input(0).get_partial_shape()))
    count, alone = len(compiled.outputs), Lock()

    def answer(image: NDArray[Any]) -> tuple[Tensor, ...]:
        with alone:
            outputs = compiled(image)
            return tuple(torch.from_numpy(outputs[place].copy()) for place in range(count))

    return Opened(header, answer, batched)


def _program(path: Path) -> Opened:
    extra = {KEY: ""}
    loaded = torch.export.load(path, extra_files=extra)
    (taken,) = (node for node in loaded.graph.nodes if node.name in loaded.graph_signature.user_inputs)
    module: Any = loaded.module()

    def answer(image: NDArray[Any]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            outputs: tuple[Tensor, ...] = module(torch.tensor(image))
        return outputs

    header = _header(extra[KEY], path)
    return Opened(header, answer, _batched(header, taken.meta["val"].ndim))
