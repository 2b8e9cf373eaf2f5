"""Build the network of a recipe: the encoder with the head of the task."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.core.config import read
from vitrail.data.truth import Truth
from vitrail.layers.encoder import Encoder
from vitrail.layers.heads import Head, Output
from vitrail.layers.mahalanobis import LAST, MIDDLE, VectorOutputs, VectorReader
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.models.factory import create_encoder
from vitrail.runs.model_file import Header
from vitrail.tasks.abstention import Abstention
from vitrail.tasks.base import Task


class _Assembled(nn.Module):
    """An encoder with a head; `blocks` are those of a column whose maps are wanted besides."""

    encoder: Encoder
    blocks: tuple[int, ...] = ()

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def spec(self) -> FeatureSpec:
        """The feature description of the encoder."""
        return self.encoder.spec

    def encode(
        self, inputs: Mapping[str, Tensor], record: Recorder | None = None, whole: bool = False
    ) -> Features:
        """Return the features that the head reads; with `whole`, all features.

        With a recorder, the attention is recorded and all features are computed.
        """
        # Inputs of the encoder besides the images.
        given = {name: inputs[name] for name in self.encoder.takes if name in inputs}
        images = inputs["images"]
        if self.head.reads == "levels":
            return self.encoder.tap(images, self.head.taps, given=given, record=record)
        if record is None and not whole and self.head.reads == "prefix":
            return self.encoder.summarise(images, self.blocks, given=given)
        if self.blocks:
            return self.encoder.tap(images, self.blocks, given=given, record=record)
        return self.encoder(images, given=given, record=record)


class Network(_Assembled):
    """An encoder with the head of a task: the inputs of a batch by name → the task's outputs by name.

    `outputs` names the outputs outside of training, in order. `reader` makes additional outputs from the vectors of an
    image at some places of the network (`vitrail.layers.mahalanobis`).
    """

    __call__: Callable[..., Output]

    def __init__(
        self,
        encoder: Encoder,
        head: Head,
        outputs: Sequence[str] = ("logits",),
        reader: VectorReader | None = None,
    ) -> None:
        super().__init__(encoder, head)
        self.outputs, self.reader = tuple(outputs), reader
        if reader is not None and MIDDLE in reader.places and encoder.middle:
            self.blocks = (encoder.middle,)

    def forward(self, inputs: Mapping[str, Tensor], record: Recorder | None = None) -> Output:
        """Return the outputs of the head; with a recorder, the attention is recorded."""
        return self.read(self.encode(inputs, record), inputs)

    def read(self, features: Features, inputs: Mapping[str, Tensor]) -> Output:
        """Return the outputs from the features that `encode` returned."""
        output = self.head(features, inputs)
        if self.reader is None:
            return output
        return {
            **output,
            **self.reader({place: self._vector(place, features) for place in self.reader.places}),
        }

    def places(self, features: Features) -> tuple[str, ...]:
        """Return the places with one vector per image, of which the last is what the head reads."""
        last = (LAST,) if self.head.pools else ()
        return (*last, MIDDLE) if self.encoder.middle or len(features.levels) > 1 else last

    def _vector(self, place: str, features: Features) -> Tensor:
        """Return the vectors at a place: (b, d); halfway, the mean of the map."""
        if place == LAST:
            return self.head.vectors(features)
        level = features.levels[0 if self.blocks else len(features.levels) // 2]
        return level.mean(tuple(range(2, level.ndim)))


def with_reader(network: Network, outputs: Sequence[str], reader: VectorReader | None) -> Network:
    """Return a network that shares encoder and head, with other outputs."""
    return Network(network.encoder, network.head, outputs, reader).train(network.training)


def without_reader(network: Network) -> tuple[Network, VectorReader | None]:
    """Return a network whose outputs are vectors where a reader makes numbers of them, and this reader.

    Backends of few bits compute the first; the second always computes in float32.
    """
    reader = network.reader
    if reader is None or isinstance(reader, VectorOutputs):
        return network, None
    plain = VectorOutputs(reader.places)
    names = [name for name in network.outputs if name not in reader.makes]
    return with_reader(network, (*names, *plain.makes), plain), reader


class Classifier(_Assembled):
    """An encoder with a classifier: images (b, channels, height, width) → logits (b, k)."""

    __call__: Callable[..., Tensor]

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) → (b, k)."""
        inputs = {"images": images}
        return self.head(self.encode(inputs), inputs)["logits"]


def build_task(name: str, truth: Truth | Sequence[str], settings: Mapping[str, Any]) -> Task[Any, Any]:
    """Return the task with this name, ours or "module:Class", for labels described by a header or by class names."""
    task: Task[Any, Any] = load("task", name)(truth, settings)
    return task


def task_of(header: Header, learnt: Mapping[str, Any]) -> Task[Any, Any]:
    """Return the task of a model file; `learnt` are settings that override its own."""
    stored = header.task
    truth = Truth.from_dict(stored["truth"]) if "truth" in stored else stored["labels"]
    task = build_task(stored["name"], truth, {**stored["settings"], **learnt})
    if stored.get("abstention") is not None:
        task.abstention = read(Abstention, stored["abstention"], "abstention")
    take_stored(task, stored)
    return task


def stored_of(task: Task[Any, Any]) -> dict[str, Any]:
    """Return what a task has learnt besides its settings and weights, such as a vocabulary, as plain data."""
    stored: dict[str, Any] = getattr(task, "stored", dict)()
    return stored


def take_stored(task: Task[Any, Any], stored: Mapping[str, Any]) -> None:
    """Set what `stored_of` returned; other keys do not count."""
    getattr(task, "take_stored", lambda _: None)(stored)


def reads_words(task: str) -> bool:
    """Return whether the head of a task has a text tower, whose vocabulary it learns first."""
    return hasattr(load("task", task), "learn_vocabulary")


def lend_network(task: Task[Any, Any], network: Network) -> None:
    """Give a task that encodes texts the network whose text tower does it."""
    getattr(task, "use_network", lambda _: None)(network)


def build_network(encoder: Encoder, task: Task[Any, Any]) -> Network:
    """Return the encoder with the head of this task."""
    reader: VectorReader | None = getattr(task, "reader", lambda: None)()
    head = encoder.own_head(task.name, len(task.labels)) or task.head(encoder.spec)
    return Network(encoder, head, tuple(task.outputs), reader)


def create_model(
    name: str,
    num_classes: int = 1000,
    *,
    pretrained: bool | str = False,
    image: tuple[int, int] | None = None,
    channels: int = 3,
    pool: str | None = None,
) -> Classifier:
    """Return a network from images (b, channels, height, width) to logits (b, num_classes).

    `name` is one of ours (`vit_s16`) or timm's; `image` is the size (height, width) for the position table.
    `pretrained` is True for the best available weights, or names a file or a checkpoint. Their classifier is loaded if
    it has `num_classes` classes and is applied directly to the pooled features; otherwise the classifier is new.
    Assumptions about the weights are reported as warnings.

    Raises:
        WeightsError: the weights are not available or do not fit.
    """
    labels = [str(i) for i in range(num_classes)]
    if pretrained is False:
        encoder = create_encoder(name, image=image, channels=channels)
        return Classifier(encoder, build_task("classify", labels, {"pool": pool}).head(encoder.spec))
    from vitrail.weights.resolve import find_weights  # imports timm, which opening a model does not need

    weights = find_weights("auto" if pretrained is True else pretrained, name)
    for line in weights.assumed:
        warnings.warn(f"the weights {weights.name}: {line}", stacklevel=2)
    same_classes = len(weights.head.get("linear.bias", ())) == num_classes
    task = build_task("classify", labels, {"pool": pool or (weights.pool if same_classes else None)})
    encoder = weights.build(image=image, channels=channels)
    network = Classifier(encoder, task.head(encoder.spec))
    take_head(network, weights.head)
    return network.eval()


def take_head(network: Network | Classifier, head: Mapping[str, Tensor]) -> bool:
    """Load a published classifier if its shapes match the network's head; return whether they do."""
    own = {key: tuple(tensor.shape) for key, tensor in network.head.state_dict().items()}
    if {key: tuple(tensor.shape) for key, tensor in head.items()} != own:
        return False
    network.head.load_state_dict({key: tensor.float() for key, tensor in head.items()})
    return True
