"""The initial network of a training: random, or from published weights with their preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.nn.modules.batchnorm import _BatchNorm

from vitrail.core.errors import SettingError
from vitrail.data.preprocess import Preprocess, usual_fraction
from vitrail.data.truth import Truth
from vitrail.layers.encoder import Encoder
from vitrail.layers.gradient_checkpointing import set_checkpointing
from vitrail.models.factory import create_encoder, describe, rebuild
from vitrail.runs.network import Network, build_network, build_task, stored_of, take_stored
from vitrail.runs.recipe import ModelSettings, Recipe
from vitrail.tasks.base import Task
from vitrail.training.class_table import fit_classes, with_classes
from vitrail.training.distillation import open_teacher
from vitrail.training.head_transfer import PublishedHead, carries_over, take_head
from vitrail.weights.preprocessing import published_preprocess
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.resolve import find_weights

if TYPE_CHECKING:
    from vitrail.data.manifest import Row


@dataclass(frozen=True)
class InitialState:
    """A network before training, its task, its preprocessing, and the name and licence of its weights."""

    network: Network
    task: Task[Any, Any]
    preprocess: Preprocess
    licence: str | None = None
    origin: str = "none"  # the name of the weights; never a path, because model files are shared
    lines: tuple[str, ...] = ()  # what was taken of the head of the weights

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `rebuild_from_state`."""
        return {
            "encoder": describe(self.network.encoder),
            "preprocess": self.preprocess.to_dict(),
            "licence": self.licence,
            "origin": self.origin,
            "task": stored_of(self.task),
        }


def build_from_recipe(recipe: Recipe, truth: Truth, rows: Sequence[Row] = ()) -> InitialState:
    """Build the network of a recipe, from scratch or from the weights it names; a task may learn words from `rows`.

    Raises:
        WeightsError: the weights are not available or do not fit. Training from scratch is never a silent replacement.
        SettingError: the head of the network for this task only answers, or the network does not fit into memory.
    """
    task = build_task(recipe.task.name, truth, recipe.task.settings)
    opened = _opened(recipe.model, task)
    said = _learn_words(task, recipe.task.name, opened.weights, rows)
    if reason := opened.encoder.why_not_trained(task.name):
        raise SettingError(reason)
    preprocess = task.steps(opened.preprocess)
    _set_teacher(task, preprocess)
    refuse_network(task, opened.encoder)
    network = build_network(opened.encoder, task)
    _set_checkpointing(network, recipe)
    lines = take_head(network, task, recipe.task.name, opened.weights) if opened.weights else ()
    told = (*opened.lines, *said, *lines)
    return InitialState(network, task, preprocess, opened.licence, opened.origin, told)


def _learn_words(
    task: Task[Any, Any], name: str, weights: Pretrained | None, rows: Sequence[Row]
) -> Sequence[str]:
    """Give a task that reads words its vocabulary: that of the weights whose text tower it takes, or a new one."""
    learn: Callable[[Sequence[Row]], Sequence[str]] = getattr(task, "learn_vocabulary", lambda _: ())
    if (
        weights is None
        or not weights.words
        or not carries_over(PublishedHead(weights.task, weights.settings), name)
    ):
        return learn(rows)
    if any(getattr(task.settings, one) != weights.settings.get(one) for one in ("vocabulary", "context")):
        return learn(rows)
    take_stored(task, {"vocabulary": weights.words})  # another one would give its numbers other meanings
    return ()


def refuse_network(task: Task[Any, Any], encoder: Encoder) -> None:
    """Raise a SettingError if a task cannot be trained with this network."""
    if (refuse := getattr(task, "refuse_network", None)) is not None:
        refuse(encoder)


def _set_checkpointing(network: Network, recipe: Recipe) -> None:
    """Switch on gradient checkpointing if the recipe asks for it.

    Raises:
        SettingError: the network does not support it, or has batch norms, which would count the second forward pass.
    """
    if not recipe.training.grad_checkpointing:
        return
    if any(isinstance(module, _BatchNorm) for module in network.encoder.modules()):
        why = "has batch norms, whose statistics would be counted twice"
    elif not set_checkpointing(network, True):
        why = "has no blocks that can be computed again"
    else:
        return
    raise SettingError(
        f"--grad-checkpointing: {recipe.model.name} {why}. Leave it out; a smaller --micro also saves memory."
    )


def _set_teacher(task: Task[Any, Any], student: Preprocess) -> None:
    """Open the teacher if the task needs one."""
    if (set_teacher := getattr(task, "taught_by", None)) is not None:
        set_teacher(open_teacher(task.settings.teacher, task.labels, student))


class _Opened(NamedTuple):
    encoder: Encoder
    preprocess: Preprocess
    licence: str | None
    origin: str
    weights: Pretrained | None = None
    lines: tuple[str, ...] = ()


def _opened(model: ModelSettings, task: Task[Any, Any]) -> _Opened:
    """Open the network; SettingError if its size needs more memory than there is."""
    try:
        return _open(model, task)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        size = " x ".join(map(str, model.imgsz))
        raise SettingError(
            f"{model.name} for images of {size} pixels needs more memory than there is. Choose a smaller "
            "--imgsz."
        ) from error


def _open(model: ModelSettings, task: Task[Any, Any]) -> _Opened:
    inner = _of_network(model, task)
    if model.weights == "none":
        inner = with_classes(inner, task.labels)
        encoder = create_encoder(
            inner.name,
            image=inner.imgsz,
            channels=inner.channels,
            drop_path=inner.drop_path,
            stride=inner.stride,
            settings=inner.settings,
            frames=inner.frames or None,
            over_time=inner.over_time,
        )
        base = Preprocess.for_size(model.imgsz, model.channels)
        return _Opened(encoder, _fitted(base, model, encoder.spec.frames), None, "none")
    weights = find_weights(model.weights, model.name, model.settings)
    lines: tuple[str, ...] = ()
    if weights.task == task.name:
        weights, lines = fit_classes(weights, task.labels)
    drop_path = model.drop_path if hasattr(weights.config, "drop_path") else None
    encoder = weights.build(
        image=inner.imgsz,
        channels=inner.channels,
        drop_path=drop_path,
        stride=model.stride,
        bands=[band.name for band in model.bands],
        frames=model.frames or None,
    )
    encoder = weights.for_clips(encoder, model.frames or None, model.over_time)
    base = published_preprocess(weights, model.imgsz, model.channels)
    steps = _fitted(base, model, encoder.spec.frames)
    return _Opened(encoder, steps, weights.licence, weights.name, weights, lines)


def _of_network(model: ModelSettings, task: Task[Any, Any]) -> ModelSettings:
    """Return the settings of a model with the size and channels of what its network sees, if those are not the image's.

    A task that works in the latents of an autoencoder has `network_input`, from (size, channels) to (size, channels).
    """
    seen = getattr(task, "network_input", None)
    if seen is None:
        return model
    size, channels = seen(model.imgsz, model.channels)
    return model.model_copy(update={"imgsz": size, "channels": channels})


def _fitted(base: Preprocess, model: ModelSettings, frames: int) -> Preprocess:
    """Return the preprocessing with the settings of the recipe; by default those are the ones of the weights."""
    fraction = model.crop_fraction or usual_fraction(model.fit)
    return replace(
        base,
        fit=model.fit,
        crop_fraction=fraction,
        interpolation=model.interpolation,
        scale=model.scale,
        mean=base.mean if model.mean is None else model.mean,
        std=base.std if model.std is None else model.std,
        bands=model.bands,
        window=model.window,
        pixel=model.pixel,
        frames=frames,
    )


def rebuild_from_state(saved: Mapping[str, Any], recipe: Recipe, truth: Truth) -> InitialState:
    """Build the network of a run again, without its initial weights: the saved state replaces them."""
    task = build_task(recipe.task.name, truth, recipe.task.settings)
    take_stored(task, saved.get("task", {}))  # states of earlier versions have none
    network = build_network(rebuild(saved["encoder"]), task)
    _set_checkpointing(network, recipe)
    preprocess = Preprocess.from_dict(saved["preprocess"])
    _set_teacher(task, preprocess)
    return InitialState(network, task, preprocess, saved["licence"], saved["origin"])
