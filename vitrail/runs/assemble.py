"""Recipe → network: the only place where a model meets a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vitrail.core.catalog import load
from vitrail.layers.attend import Recorder
from vitrail.layers.encoder import Encoder
from vitrail.layers.tokens import Features, FeatureSpec
from vitrail.models.create import create_encoder
from vitrail.runs.recipe import Recipe
from vitrail.tasks.base import Task
from vitrail.weights.find import find_weights


class Network(nn.Module):
    """An encoder with the head of a task: images (b, channels, height, width) → the task's output."""

    encoder: Encoder

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def spec(self) -> FeatureSpec:
        """What the encoder says of itself."""
        return self.encoder.spec

    def forward(
        self, images: Tensor, given: Mapping[str, Tensor] | None = None, record: Recorder | None = None
    ) -> Tensor:
        """Return the output of the head, recording attention where a recorder is handed in."""
        if record is None and getattr(self.head, "reads_prefix", False):
            features = self.encoder.summarise(images, given=given or {})
        else:
            features = self.encoder(images, given=given or {}, record=record)
        output: Tensor = self.head(features)
        return output

    def forward_features(self, images: Tensor) -> Features:
        """Return what the encoder saw."""
        return self.encoder(images)


def build_task(name: str, labels: Sequence[str], settings: Mapping[str, Any]) -> Task[Any, Any]:
    """Return the task of this name, ours or "module:Class"."""
    task: Task[Any, Any] = load("task", name)(labels, settings)
    return task


def join(encoder: Encoder, task: Task[Any, Any]) -> Network:
    """Return the network that gives the encoder this task's head."""
    return Network(encoder, task.head(encoder.spec))


def assemble(recipe: Recipe, labels: Sequence[str]) -> tuple[Network, Task[Any, Any]]:
    """Return the untrained network of a recipe and its task."""
    task = build_task(recipe.task.name, labels, recipe.task.settings)
    encoder = create_encoder(
        recipe.model.name,
        image=recipe.model.imgsz,
        channels=recipe.model.channels,
        drop_path=recipe.model.drop_path,
        stride=recipe.model.stride,
        settings=recipe.model.settings,
    )
    return join(encoder, task), task


def create_model(
    name: str,
    num_classes: int = 1000,
    *,
    pretrained: bool | str = False,
    image: tuple[int, int] | None = None,
    channels: int = 3,
    pool: str | None = None,
) -> Network:
    """Return a network from images (b, channels, height, width) to logits (b, num_classes).

    `name` is one of ours (`vit_s16`) or timm's; `image` is the size (height, width) that positions are made for.
    `pretrained` is True for the best weights that can be had, or names a file or a checkpoint; the classifier comes
    along where it has as many classes and stands directly on the pooled features, else it is freshly drawn.

    Raises:
        WeightsError: the weights cannot be had or do not fit.
    """
    labels = [str(i) for i in range(num_classes)]
    task = build_task("classify", labels, {"pool": pool})
    if pretrained is False:
        return join(create_encoder(name, image=image, channels=channels), task)
    found = find_weights("auto" if pretrained is True else pretrained, name)
    network = join(found.build(image=image, channels=channels), task)
    take_head(network, found.head)
    return network.eval()


def take_head(network: Network, head: Mapping[str, Tensor]) -> bool:
    """Load a published classifier where it has the shapes of the network's own; tell whether it has."""
    own = {key: tuple(tensor.shape) for key, tensor in network.head.state_dict().items()}
    if {key: tuple(tensor.shape) for key, tensor in head.items()} != own:
        return False
    network.head.load_state_dict({key: tensor.float() for key, tensor in head.items()})
    return True
