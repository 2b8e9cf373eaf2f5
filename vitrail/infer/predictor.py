"""Load a trained model and predict; predict, explain, evaluate and export all use this object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail import __version__
from vitrail.core.errors import DataError, RunError, SettingError, VitrailError
from vitrail.core.text import command
from vitrail.data.batch import Batch, Geometry
from vitrail.data.decode import as_array
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.whole_file import decode_for
from vitrail.data.spacing import Spacing, stated
from vitrail.infer.clips import clip_for
from vitrail.infer.inputs import Source, expand
from vitrail.infer.operating_points import chosen, dial
from vitrail.infer.point_networks import PointNetworks
from vitrail.infer.prefetch import prefetch, read_then_compute
from vitrail.infer.runtimes import KINDS
from vitrail.layers.elastic import OperatingPoint, at_size
from vitrail.layers.heads import Output
from vitrail.layers.weight_init import ZerosForRandom
from vitrail.models.factory import rebuild
from vitrail.runs.device import device_for
from vitrail.runs.model_file import Header, read_model
from vitrail.runs.model_source import model_path
from vitrail.runs.network import Network, build_network, lend_network, task_of
from vitrail.runs.proof import TOLERANCE, answer, drift
from vitrail.runs.run import Run, open_run
from vitrail.runs.run_network import ASK, answering, run_network
from vitrail.tasks.ask import asked_of
from vitrail.tasks.base import Ask, Task
from vitrail.tasks.image_makers import MakesImages

BATCH = 32


class Ready(NamedTuple):
    """An image ready for the network; `id` is that of its row, if it has one."""

    pixels: Tensor  # (channels, height, width)
    geometry: Geometry
    image: NDArray[Any]  # (height, width, channels), as decoded
    id: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """How to compute predictions: the operating point, the backend and the options of the task.

    `backend` is a faster copy of the network at this operating point (`vitrail.infer.autotune`); None: the network
    itself.
    """

    point: OperatingPoint
    backend: nn.Module | None = None
    ask: Ask = ASK


@dataclass(frozen=True, slots=True)
class Answer:
    """The result for one image: a prediction, or an error message that names the problem."""

    path: str
    prediction: Any = None
    error: str = ""
    notes: tuple[str, ...] = ()  # what was said of reading it, such as a missing end of a clip

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        if self.error:
            return {"path": self.path, "error": self.error}
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {"path": self.path, **self.prediction.to_dict(), **notes}


def _no_model(run: Run) -> str:
    if run.state_path.is_file():
        return (
            f"{run.folder} has no model yet: its first epoch is not finished. "
            f"Continue with: {command('train', '--resume', run.folder)}"
        )
    return f"{run.folder} has no model: it ended before anything was saved. Train again from the start."


def refuse_exported(path: Path) -> None:
    """Raise a RunError for an exported file (by its suffix), where the network itself is needed."""
    if path.suffix in KINDS:
        raise RunError(
            f"{path} is an exported file. Only vitrail predict and vitrail.load accept it. "
            "Give the run folder that it was exported from, or its model.safetensors."
        )


class Predictor:
    """A trained model with its classes and its preprocessing. Opening it checks the proof in the file.

    `model` is a run, its folder or a model file; `device` is a torch device name, or auto; `point` is the default
    operating point, such as 160px/0.7, one of `known_points` (None: the whole network). `points` are those that the
    model was trained for. A predictor is immutable: requests
    with different operating points and backends may run concurrently.
    """

    def __init__(
        self, model: str | Path | Run, device: str = "auto", point: str | OperatingPoint | None = None
    ) -> None:
        path = model.folder if isinstance(model, Run) else Path(model)
        refuse_exported(path)
        self.path = open_run(path).model_path if path.is_dir() else path
        if path.is_dir() and not self.path.is_file():
            raise RunError(_no_model(open_run(path)))
        self.header, tensors = read_model(self.path)
        self.preprocess = Preprocess.from_dict(self.header.preprocess)
        self.task: Task[Any, Any] = build_header_task(self.header)
        self._built = self._network(tensors)
        self.proof_drift = self._check_proof()
        self.device = device_for(device)
        self._built.to(self.device)
        lend_network(self.task, self._built)
        self._at_points = PointNetworks(self._built, self.task, self.header)
        self.points = self._at_points.trained
        self.point = self.points[-1] if point is None else chosen(point, self.known_points, str(path))
        self.task = self.task_at(self.point)

    @property
    def network(self) -> Network:
        """The network itself, in float32, as it was trained."""
        return self._built

    @property
    def known_points(self) -> tuple[OperatingPoint, ...]:
        """The operating points that the model was trained for, and those that were measured."""
        return self._at_points.known

    @property
    def dial(self) -> tuple[OperatingPoint, ...]:
        """The operating points that can be measured, the whole network last.

        Those that the model was trained for, or, if it was trained for one cost only, what its network can do besides.
        """
        alone = len(self.points) == 1 and self.preprocess.zoom is None
        return dial(self._built, self.preprocess.size) if alone else self.points

    def at(self, point: OperatingPoint) -> Network:
        """Return the network for an operating point; all of them share one set of weights.

        Raises:
            SettingError: the network cannot drop or merge tokens, or cannot have such patches.
        """
        return self._at_points.at(point)

    def turned(self, point: OperatingPoint) -> Predictor:
        """Return this predictor with another default operating point; both share their networks."""
        other = copy(self)
        other.point, other.task = point, self.task_at(point)
        return other

    def task_at(self, point: OperatingPoint) -> Task[Any, Any]:
        """Return the task for an operating point: with the temperature and limits that were measured there, if any."""
        return self._at_points.task_at(point)

    def preprocess_at(self, point: OperatingPoint) -> Preprocess:
        """Return the steps before the network at an operating point (`at_size` follows for trained sizes)."""
        return self._at_points.preprocess_at(point)

    def header_at(self, point: OperatingPoint) -> Header:
        """Return the header of a file that answers at one operating point only; the model must be on the CPU."""
        return self._at_points.header_at(point)

    def _network(self, tensors: dict[str, Tensor]) -> Network:
        # Initializing random weights only to overwrite them costs more than reading the trained ones, so the network
        # is built on the meta device. Computed buffers, which are not stored, need a second, real build.
        with torch.device("meta"), ZerosForRandom():
            network = build_network(rebuild(self.header.encoder), self.task)
        if any(name not in tensors for name, _ in network.named_buffers()):
            with ZerosForRandom():
                network = build_network(rebuild(self.header.encoder), self.task)
        try:
            network.load_state_dict(tensors, strict=True, assign=True)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise RunError(
                f"{self.path} does not match the network that its header names: {first} Copy it again."
            ) from None
        return network.eval().requires_grad_(False)

    def _check_proof(self) -> float:
        if not self.header.proof:
            raise RunError(
                f"{self.path} contains no proof, so its predictions cannot be trusted. Train or export again."
            )
        apart = drift(self.header.proof, self._answer_to_proof())
        if not apart <= self._tolerance:
            raise RunError(
                f"{self.path} does not predict what it predicted after training: on its proof image a probability "
                f"differs by {apart:.2g} (allowed: {self._tolerance}). The file is damaged, or this version of torch "
                f"computes differently{self._older()}. Copy it again, or use the versions in its report."
            )
        return apart

    def _older(self) -> str:
        made = self.header.vitrail
        return (
            "" if made == __version__ else f", or vitrail {made}, which made it, did (this is {__version__})"
        )

    @property
    def _tolerance(self) -> float:
        """The largest difference from the proof that is allowed."""
        return TOLERANCE

    def _answer_to_proof(self) -> list[float]:
        return answer(self._built, self.task, self.preprocess)

    def answering(self) -> Predictor:
        """Return this predictor; RunError, with the way out, for a model that predicts nothing about an image."""
        if not self.task.answers:
            model = self.called
            if isinstance(self.task, MakesImages):
                way = command("predict", model, "--class", self.labels[0], "--n", 16, "--out", "made/")
                raise RunError(f"{model} makes images of its classes and predicts nothing about one: {way}")
            again = command("train", "photos/", "--weights", model, "--tune", "full")
            raise RunError(
                f"{model} was trained for {self.task.name}, which predicts nothing about an image. Train it further "
                f"on images with labels: {again}"
            )
        return self

    @property
    def called(self) -> Path:
        """The path of the model for users: of its run, if it is one."""
        return self.path.parent if (self.path.parent / "recipe.yaml").is_file() else self.path

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs."""
        return self.task.labels

    def __call__(self, images: Any) -> list[Any]:
        """Return one prediction per image, as `predict` does."""
        return self.predict(images)

    def predict(self, images: Any, request: Request | None = None, *, sets: float | None = None) -> list[Any]:
        """Return one prediction per image, for a path, a folder, a Pillow image, an array, or a list of them.

        `sets` is the allowed share of label sets without the right label (`vitrail.tasks.base.Ask`).

        Raises:
            DataError: an image cannot be read. `answers` continues with the other images instead.
            SettingError: the model has no label sets, or cannot promise this share.
        """
        if sets is not None:
            request = request or Request(self.point)
            request = replace(request, ask=asked_of(self.task, request.ask.threshold, sets))
        self.answering()
        many = images if isinstance(images, list | tuple) else [images]
        if not all(isinstance(one, str | Path) for one in many):
            request = request or Request(self.point)
            return self.predicted([self.ready(one, request.point) for one in many], request)
        answers = list(
            self.answers(expand(map(str, many), clips=self.preprocess.frames > 0), request=request)
        )
        for one in answers:
            if one.error:
                raise DataError(one.error)
        return [one.prediction for one in answers]

    def ready(self, image: Any, point: OperatingPoint | None = None) -> Ready:
        """Prepare a path, source, bytes, Pillow image, array or tensor as network input for an operating point."""
        if self.preprocess.frames:
            return self._ready_clip(image, point or self.point)
        array = self.decoded(image)
        spacing = self.spacing(image)
        if self.preprocess.zoom is not None:
            pixels, geometry = self.preprocess.whole((array.shape[0], array.shape[1])).eval(array)
            return Ready(pixels, replace(geometry, spacing=spacing), array)
        point = point or self.point
        pixels, geometry = self.preprocess_at(point).eval(array)
        size = point.size
        return Ready(at_size(pixels[None], size)[0], replace(geometry, size=size, spacing=spacing), array)

    def _ready_clip(self, image: Any, point: OperatingPoint) -> Ready:
        clip = clip_for(self.preprocess, image)
        pixels, geometry = self.preprocess_at(point).eval(clip.frames)
        return Ready(pixels, replace(geometry, times=clip.times), clip.frames, notes=clip.notes)

    def spacing(self, image: Any) -> Spacing:
        """Return the pixel spacing, if the image file states it and the task measures lengths."""
        if not self.task.measures or not isinstance(image, Source | str | Path | bytes):
            return None
        if isinstance(image, Source):
            return stated(image.open())
        return stated(image if isinstance(image, bytes) else Path(image))

    def decoded(self, image: Any) -> NDArray[Any]:
        """Decode a path, source, bytes, Pillow image, array or tensor for the preprocessing.

        Returns uint8 (height, width, channels), of a clip (frames, height, width, channels), or the values of the file
        for raw images.
        """
        steps = self.preprocess
        if steps.frames:
            return clip_for(steps, image).frames
        if isinstance(image, Source):
            return decode_for(steps, image.open(), image.called)
        if isinstance(image, str | Path):
            return decode_for(steps, Path(image))
        if isinstance(image, bytes):
            return decode_for(steps, image)
        return as_array(image, steps.channels, steps.raw)

    def answers(
        self, sources: Iterable[Source], batch: int = BATCH, request: Request | None = None
    ) -> Iterator[Answer]:
        """Yield one answer per source, in order; for an image that cannot be read the answer is an error."""
        self.answering()
        request = request or Request(self.point)
        batch = batch if self.preprocess.zoom is None else 1  # keep only one large image in memory
        waiting: list[tuple[str, Ready | str]] = []
        for made in self._read(sources, batch, request.point):
            waiting.append(made)
            if len(waiting) >= batch:
                yield from self._answer(waiting, request)
                waiting = []
        yield from self._answer(waiting, request)

    def _read(
        self, sources: Iterable[Source], batch: int, point: OperatingPoint
    ) -> Iterator[tuple[str, Ready | str]]:
        make = partial(self.prepared, point)
        if self.device.type == "cpu":
            return read_then_compute(make, prefetch(Source.fetched, sources, 2 * batch), batch)
        return prefetch(make, sources, 2 * batch)

    def prepared(self, point: OperatingPoint, source: Source) -> tuple[str, Ready | str]:
        """Return the name of an image, and the image ready for `predicted`, or why it cannot be read."""
        try:
            return source.name, self._waiting(self.ready(source, point))
        except VitrailError as error:
            return source.name, str(error)

    def _waiting(self, ready: Ready) -> Ready:
        """Return what to keep of an image until its batch is computed: no original pixels, which may be large."""
        return ready._replace(image=np.empty((0, 0, 0), np.uint8))

    def _answer(self, waiting: Sequence[tuple[str, Ready | str]], request: Request) -> Iterator[Answer]:
        predictions = iter(self.predicted([one for _, one in waiting if isinstance(one, Ready)], request))
        for name, one in waiting:
            yield (
                Answer(name, error=one)
                if isinstance(one, str)
                else Answer(name, next(predictions), notes=one.notes)
            )

    def predicted(self, ready: Sequence[Ready], request: Request) -> list[Any]:
        """Return one prediction per prepared image, computed together."""
        return [
            prediction
            for part in self.alike(ready)
            for prediction in self.task_at(request.point).decode(
                self.outputs(part, request), [one.geometry for one in part], request.ask
            )
        ]

    def alike(self, ready: Sequence[Ready]) -> Iterator[Sequence[Ready]]:
        """Yield groups of images of one size: all together, or one by one where sizes differ."""
        step = max(1, len(ready)) if self.preprocess.zoom is None else 1
        yield from (ready[start : start + step] for start in range(0, len(ready), step))

    def of_row(self, image: Any, id: str) -> Any:
        """Return what the task decodes for the image of a row, for drawings; also of a model that predicts nothing."""
        ready = self.ready(image)._replace(id=id)
        return self.predicted([ready], Request(self.point))[0]

    def outputs(self, ready: Sequence[Ready], request: Request | None = None) -> Output:
        """Return the task's raw output for prepared images, batch axis first, on the CPU."""
        return self.run(batch_of(ready), request)

    def run(self, batch: Batch[Any], request: Request | None = None) -> Output:
        """Return the task's raw output for a batch prepared for the operating point of the request."""
        request = request or Request(self.point)
        network = request.backend or self.at(request.point)
        compute = answering(self.task, network, request.ask, self._window)
        return next(run_network(compute, [batch], self.device))[1]

    @property
    def _window(self) -> tuple[int, int] | None:
        """The size of the sliding windows for larger images; None where the whole image is resized."""
        return None if self.preprocess.zoom is None else self.preprocess.size

    def encode(self, images: Sequence[Any]) -> Tensor:
        """Return the feature vector that the head reads, one per image: (b, d).

        Raises:
            RunError: the head does not read a single vector.
        """
        network = self.at(self.point)
        head = network.head
        if not head.pools:
            raise RunError(
                f"The head of {self.path} does not read a single vector per image, so there are no features."
            )

        def pooled(batch: Batch[Any]) -> Output:
            return {"vectors": head.vectors(network.encode(batch.inputs))}

        batch = batch_of([self.ready(one) for one in images])
        return next(run_network(pooled, [batch], self.device))[1]["vectors"]


def batch_of(ready: Sequence[Ready]) -> Batch[None]:
    """Return prepared images as one batch without targets."""
    images = torch.stack([one.pixels for one in ready])
    ids, places = tuple(one.id for one in ready), tuple(one.geometry for one in ready)
    return Batch({"images": images}, None, ids, places)


def load(
    model: str | Path | Run, device: str = "auto", *, trust: bool = False, point: str | None = None
) -> Predictor:
    """Load a run, its folder, a model file or an exported file (.onnx, .xml, .pt2), and check its proof.

    Published weights with a classifier are loaded too: by a name of timm's or ours, organisation/repository, a path;
    what was assumed about them is warned of.
    `trust` allows a torch program (.pt2), which can run arbitrary code on this machine; `point` as in `Predictor`.
    """
    if not isinstance(model, Run) and Path(model).suffix in KINDS:
        from vitrail.infer.exported_predictor import ExportedPredictor

        if device not in {"auto", "cpu"}:
            raise SettingError(
                f"An exported file runs in its own runtime on the CPU. Remove --device {device}."
            )
        return ExportedPredictor(Path(model), trust, point)
    return Predictor(model if isinstance(model, Run) else model_path(model), device, point)


def build_header_task(header: Header, abstaining: bool = True) -> Task[Any, Any]:
    """Return the task that a model file header describes; without `abstaining`, it has no label sets."""
    if not abstaining:
        kept = {key: value for key, value in header.task.items() if key != "abstention"}
        header = header.model_copy(update={"task": kept})
    return task_of(header, {})
