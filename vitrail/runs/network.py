"""Build the network of a recipe: the encoder with the head of the task."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.data.truth import Truth
from vitrail.layers.encoder import Encoder
from vitrail.layers.heads import Head, Output
from vitrail.layers.sdpa import Recorder
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.models.factory import create_encoder
from vitrail.runs.model_file import Header
from vitrail.tasks.base import Task


class _Assembled(nn.Module):
    """An encoder with a head."""

    encoder: Encoder

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
            return self.encoder.summarise(images, given=given)
        return self.encoder(images, given=given, record=record)


class Network(_Assembled):
    """An encoder with the head of a task: the inputs of a batch by name → the task's outputs by name.

    `outputs` names the outputs outside of training, in order.
    """

    __call__: Callable[..., Output]

    def __init__(self, encoder: Encoder, head: Head, outputs: Sequence[str] = ("logits",)) -> None:
        super().__init__(encoder, head)
        self.outputs = tuple(outputs)

    def forward(self, inputs: Mapping[str, Tensor], record: Recorder | None = None) -> Output:
        """Return the outputs of the head; with a recorder, the attention is recorded."""
        return self.head(self.encode(inputs, record), inputs)


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
    return build_task(stored["name"], truth, {**stored["settings"], **learnt})


def build_network(encoder: Encoder, task: Task[Any, Any]) -> Network:
    """Return the encoder with the head of this task."""
    return Network(encoder, task.head(encoder.spec), tuple(task.outputs))


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
