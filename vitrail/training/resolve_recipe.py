"""Choose the settings that the user leaves open: initial weights, network, input size, task and recipe, with reasons.

A recipe is merged from layers; a later layer overrides the earlier ones (`_layers`). Then it is fitted to the network
and to the number of images. For distillation and elastic training its task is wrapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from vitrail.core.catalog import DISTILL, ELASTIC, PRETRAIN, RETRIEVE, family_of, load
from vitrail.core.config import read
from vitrail.core.errors import UsageError
from vitrail.data.builtin import names as builtin_names
from vitrail.data.labels import count
from vitrail.data.manifest import TRAIN
from vitrail.data.prepare import Prepared
from vitrail.data.targets import Targets
from vitrail.data.truth import Truth
from vitrail.layers.encoder import Encoder
from vitrail.models.names import our_name, timm_name
from vitrail.runs.network import build_task
from vitrail.runs.recipe import (
    Recipe,
    is_file,
    layered,
    recipe_for,
    regularization_of,
    settings_of,
    task_part,
)
from vitrail.runs.task_settings import settings_class, usual_recipes
from vitrail.runs.task_wrapping import Unwrapped, unwrap
from vitrail.runs.train_options import TrainOptions, image_size, seconds
from vitrail.tasks.base import Task
from vitrail.tasks.image_makers import MakesImages
from vitrail.training.clip_recipe import clip_layer, for_clips, refuse_clips
from vitrail.training.distillation import with_teacher
from vitrail.training.elastic_recipe import costs_of, with_operating_points
from vitrail.training.feature_cache import pool_kind
from vitrail.training.head_transfer import carries_over, settings_from
from vitrail.training.initialization import refuse_network
from vitrail.training.network_choice import (
    TINY,
    NamedNetwork,
    NetworkChoice,
    are_grey,
    fresh_network,
    named_network,
    pretrained_network,
    shapes_of,
    short_side,
)
from vitrail.training.raster_recipe import (
    at_window,
    for_raster,
    measured_weights,
    raster_layer,
    raster_line,
)
from vitrail.training.setting_origins import Layer, origins
from vitrail.training.task_choice import choose_task, refuse_balance, refuse_micro, stated_settings
from vitrail.training.validate_options import refuse_apart, refuse_idle
from vitrail.training.view_choice import view_layer

FEW = 5000
"""Largest number of images for which a fine-tune uses the recipe for small data sets."""

CLIPS = "timesformer"
"""The recipe for clips from scratch, also of networks for images over their frames: what is compared trains alike."""

STEPS = 8
"""Smallest number of steps per epoch. With fewer, the batch of the recipe is too large for the data set."""

SMALLEST_BATCH = 8
"""Smallest batch, in images, that is chosen to get more steps per epoch."""


class Planned(NamedTuple):
    """A complete recipe, the reasons for the choices, and for a draft the recipe of the full fine-tune after it."""

    recipe: Recipe
    reasons: tuple[str, ...]
    full: Recipe | None = None
    origins: Mapping[str, Mapping[str, Any]] = {}  # for a draft: of the full fine-tune after it
    shrink: bool = False  # whether a draft may use a smaller input to stay within its time


class _Wanted(NamedTuple):
    """The inputs from which a recipe is made."""

    source: str
    prepared: Prepared
    options: TrainOptions
    network: NetworkChoice
    task: str
    tune: str
    side: int  # median short side of the images, in pixels
    shapes: Sequence[tuple[int, int]]  # (height, width) of some images


def plan(source: str, prepared: Prepared, options: TrainOptions) -> Planned:
    """Choose the settings that the user leaves open from the images.

    Raises:
        WeightsError: the weights are not available. Training from scratch is never a silent replacement.
        SettingError: settings that contradict each other.
    """
    shapes = shapes_of(prepared.manifest)
    side, task = short_side(shapes), choose_task(options, prepared.manifest)
    named = for_raster(prepared, named_network(options), options.weights)
    named = for_clips(prepared, named, options, side)
    _refuse_draft(options.tune, task.name)  # before weights are fetched
    network, reasons = _network(source, prepared, options, named, load("task", task.name), side)
    refuse_clips(prepared, network.encoder, network.name)
    _refuse_network(task.name, options, prepared.manifest.truth, network.encoder)
    network, sized = _at_size_of_weights(network, named, task.name)
    network, windowed = at_window(prepared, network, named)
    tune = options.tune or _tune(options, network, task.name)
    refuse_apart(tune, network.weights)
    refuse_idle(tune, options)
    _refuse_draft(tune, task.name)
    wanted = _Wanted(source, prepared, options, network, task.name, tune, side, shapes)
    composed = _recipe(wanted)
    reasons = [
        *reasons,
        *task.reasons,
        *sized,
        *raster_line(prepared),
        *windowed,
        *_left_out(network, task.name),
        *(["1 channel: the images have no colour"] if _makes_grey(wanted) else []),
        *composed.reasons,
        *_remarks(options, tune),
        *costs_of(composed.recipe),
    ]
    full = _recipe(_after_draft(wanted)) if tune == "draft" else None
    return Planned(
        composed.recipe,
        tuple(reasons),
        full.recipe if full else None,
        origins=(full or composed).origins,
        shrink=named.size is None,
    )


def _network(
    source: str, prepared: Prepared, options: TrainOptions, named: NamedNetwork, task: Any, side: int
) -> tuple[NetworkChoice, list[str]]:
    """Choose the network of a task, given by its class, from scratch or from weights; return it with the reasons."""
    fresh, raster = task.fresh or named.clips, prepared.layout.raster is not None
    if from_scratch(source, options, raster=raster, fresh=fresh):
        return fresh_network(side, named, task.networks)
    return pretrained_network(options.weights or measured_weights(options) or "auto", named)


def from_scratch(source: str, options: TrainOptions, *, raster: bool, fresh: bool = False) -> bool:
    """Tell whether the training starts from scratch, by the options, the recipe, the built-in data or the task."""
    if options.weights is not None:
        return options.weights == "none"
    if tune := options.tune or _stated_tune(options.recipe):
        return tune == "scratch"
    # 8 × 8 pixels, or other bands: weights pretrained on photographs do not help
    return raster or fresh or source in builtin_names()


def _stated_tune(recipe: str | None) -> str | None:
    """Return the `tune` of a recipe, or None without a recipe or when a recipe file leaves it open."""
    if recipe is None:
        return None
    tune: str | None = settings_of(recipe).get("training", {}).get("tune")
    return tune if is_file(recipe) else tune or "scratch"


def _tune(options: TrainOptions, network: NetworkChoice, task: str) -> str:
    """Return what to train when --tune is not given: the recipe's choice if the weights allow it."""
    stated = _stated_tune(options.recipe)
    if network.weights == "none":
        return "scratch"
    if stated and stated != "scratch":
        return stated
    if options.text_tower:
        return "head"
    return "draft" if _has_draft(task) and not carries_over(network.head, task) else "full"


def _at_size_of_weights(
    network: NetworkChoice, named: NamedNetwork, task: str
) -> tuple[NetworkChoice, list[str]]:
    """Use the input size of the weights, which their head knows the objects of, and report it if it is large."""
    size = network.view.size if network.view else network.encoder.image_size
    if named.size is not None or size == network.size or not carries_over(network.head, task):
        return network, []
    line = f"input {max(size)} px, as the head of the weights had it (--imgsz for a smaller one, which is faster)"
    return network._replace(size=size), [line]


def _has_draft(task: str) -> bool:
    """Tell whether the task has a probe, so that a head on frozen features can be fitted without training steps."""
    return load("task", task).probe is not Task.probe


def _lies_in_image(task: str) -> bool:
    """Tell whether the labels of a task are tied to places in the image (masks), so that no part may be cropped."""
    transforms: bool = load("task", task).transform is not Targets.transform
    return transforms


def _refuse_network(task: str, options: TrainOptions, truth: Truth, encoder: Encoder) -> None:
    """Raise a SettingError if the task cannot be trained with the network, before anything is computed."""
    if hasattr(load("task", task), "refuse_network"):
        refuse_network(build_task(task, truth, stated_settings(task, options)), encoder)


def _pretrained(network: NetworkChoice, task: str) -> bool:
    """Tell whether the weights come from pretraining without labels, and another task is trained now."""
    return network.head is not None and network.head.task == PRETRAIN != task


def _left_out(network: NetworkChoice, task: str) -> list[str]:
    """Return a line about the decoder in the weights, if only their encoder is taken."""
    if not _pretrained(network, task):
        return []
    return [f"encoder of {network.weights} ({network.name}); the decoder of its pretraining is left out"]


def _refuse_draft(tune: str | None, task: str) -> None:
    if tune == "draft" and not _has_draft(task):
        raise UsageError(f"The task {task} has no draft. Train with --tune full, or --weights none.")


def _remarks(options: TrainOptions, tune: str) -> list[str]:
    if tune != "scratch" or _stated_tune(options.recipe) in (None, "scratch"):
        return []
    return [f"recipe {options.recipe} is made for published weights; from scratch it trains slowly"]


def _after_draft(wanted: _Wanted) -> _Wanted:
    """Return the inputs for the recipe of the full fine-tune after a draft."""
    return wanted._replace(options=after_draft(wanted.options), tune="full")


def after_draft(options: TrainOptions) -> TrainOptions:
    """Return the options of the full fine-tune after a draft with these options. A recipe for drafts is left out."""
    recipe = options.recipe if _stated_tune(options.recipe) == "full" else None
    return replace(options, recipe=recipe, tune="full")


class _Composed(NamedTuple):
    """A recipe, the lines that explain its changes, and the origins of its settings."""

    recipe: Recipe
    reasons: list[str]
    origins: Mapping[str, Mapping[str, Any]]


def _recipe(wanted: _Wanted) -> _Composed:
    """Merge the layers of a recipe, then fit the result to the network and the images."""
    options, encoder = wanted.options, wanted.network.encoder
    layers, file, reasons = _layers(wanted)
    merged = recipe = read(Recipe, layered(*(layer.settings for layer in layers)), "settings")
    refuse_balance(settings_class(recipe.task.name), recipe.task.name, recipe.training.balance)
    refuse_micro(wanted.task, options.micro, recipe.training.batch)
    recipe = _without_drop_path(with_teacher(recipe, file.settings_of(DISTILL), options), options, encoder)
    recipe, smaller = _for_few(recipe, options, len(wanted.prepared.manifest.rows(TRAIN)))
    recipe, cut = snap_to_patches(recipe, options, encoder)
    recipe, windowed = _in_windows(recipe, wanted)
    cut += windowed
    recipe = with_operating_points(recipe, encoder, options.elastic, file.settings_of(ELASTIC))
    return _Composed(recipe, reasons + smaller + cut, origins(layers, merged, recipe))


def _layers(wanted: _Wanted) -> tuple[list[Layer], Unwrapped, list[str]]:
    """Return the layers of a recipe (the last one wins), the unwrapped task of a recipe file, and lines to print."""
    options, usual = wanted.options, default_recipe(wanted)
    file = options.recipe if options.recipe and is_file(options.recipe) else None
    name = usual if file else options.recipe or usual
    stated = settings_of(file) if file else {}
    of_file = unwrap(stated.get("task", {}))
    task, dropped = _of_task(of_file.task, wanted.task)
    stated_head = {**task.get("settings", {}), **stated_settings(wanted.task, options)}
    layers = [
        Layer("suggested by network and images", _suggested(wanted)),
        Layer(f"recipe {name}", {"recipe": name, **settings_of(name)}),
        Layer(f"task {wanted.task}", task_part(wanted.task, name, regularization_of(file) if file else None)),
        Layer("the rasters", raster_layer(wanted.prepared)),
        Layer("the clips", clip_layer(wanted.prepared, wanted.network, wanted.side)),
        Layer("the weights", _of_weights(wanted, stated_head)),
        Layer(f"file {file}", {**stated, "task": task}),
        Layer("command line, and what follows from it", user_overrides(wanted)),
    ]
    model = layered(*(layer.settings for layer in layers[1:-1])).get("model", {})
    whole = wanted.side <= TINY or _lies_in_image(wanted.task)
    view, reasons = view_layer(wanted.network.view, whole, model, options.fit)
    return [*layers, Layer("how images are fitted", view)], of_file, dropped + reasons


def _of_weights(wanted: _Wanted, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the head in the weights, if the training begins with it."""
    head = wanted.network.head
    if head is None or wanted.tune == "draft" or not carries_over(head, wanted.task):
        return {}
    return {"task": {"settings": settings_from(head, wanted.task, stated)}}


def _of_task(stated: dict[str, Any], task: str) -> tuple[dict[str, Any], list[str]]:
    """Return the `task` of a recipe file without the settings of another task, and a line that reports this."""
    name = stated.get("name", task)
    if name == task or not stated.get("settings"):
        return stated, []
    return {}, [f"task {task}: the recipe's settings of {name} are left out"]


def _suggested(wanted: _Wanted) -> dict[str, Any]:
    """Return the input size and the pooling that suit the network and the images."""
    spec = wanted.network.encoder.spec
    two = wanted.options.teacher is not None and "dist" in spec.prefix  # two heads, each on its own token
    pool = "own" if wanted.tune == "scratch" or two else pool_kind(spec)
    if pool != "own" and wanted.tune == "full" and _pretrained(wanted.network, wanted.task):
        pool = "mean"  # nothing has yet trained the class token to stand for the image
    pools = pool != "own" and "pool" in settings_class(wanted.task).model_fields
    return {
        "model": {"imgsz": wanted.network.size, "channels": 1 if _makes_grey(wanted) else None},
        "task": {"settings": {"pool": pool} if pools else {}},
    }


def _makes_grey(wanted: _Wanted) -> bool:
    """Return whether the training makes images, and those that it learns from have no colour.

    In three equal channels most of the noise has nothing to do with the images, and they are learnt much later.
    """
    makes = issubclass(load("task", wanted.task), MakesImages) and wanted.network.weights == "none"
    latents = stated_settings(wanted.task, wanted.options).get("vae")
    return makes and not latents and are_grey(wanted.prepared.manifest)


_DATA = (
    "layout",
    "labels",
    "groups",
    "splits",
    "things",
    "window",
    "block",
    "buffer",
    "seconds",
    "val",
    "test",
)
"""Settings with the same name on the command line and in the `data` section of a recipe."""

_SAME = (
    "epochs", "batch", "micro", "lr", "layer_decay", "weight_decay", "warmup", "ema", "augment", "erase", "balance",
    "precision", "memory_format", "compile", "grad_checkpointing", "device", "workers", "patience", "seed",
)  # fmt: skip
"""Settings with the same name on the command line and in the `training` section of a recipe."""


def user_overrides(wanted: _Wanted) -> dict[str, Any]:
    """Return the user's options as nested recipe settings."""
    o, network = wanted.options, wanted.network
    return {
        "data": {"source": wanted.source, **{key: getattr(o, key) for key in _DATA}},
        "model": {
            "name": network.name,
            "imgsz": image_size(o.imgsz),
            "stride": o.stride,
            "drop_path": o.drop_path,
            "weights": network.weights,
            "settings": dict(network.settings),
        },
        "task": {"name": wanted.task, "settings": stated_settings(wanted.task, o)},
        "training": {
            **{key: getattr(o, key) for key in _SAME}, "seconds": seconds(o.time), "tune": wanted.tune,
            "augment": o.augment or ("none" if _aligned(wanted) else None),
        },
    }  # fmt: skip


def _aligned(wanted: _Wanted) -> bool:
    """Tell whether only a head for words is trained, by default on features that are computed once."""
    return wanted.tune == "head" and wanted.task == RETRIEVE


def default_recipe(wanted: _Wanted) -> str:
    """Return the name of the recipe for this network, or for its kind when it has no own recipe."""
    network, tune, builtin = wanted.network, wanted.tune, wanted.source in builtin_names()
    if usual := usual_recipes(wanted.task).get(tune):
        return usual
    if tune in {"draft", "head"}:
        return tune
    if tune == "scratch" and wanted.prepared.manifest.holds_clips:
        return CLIPS
    if tune == "full" and _pretrained(network, wanted.task):
        return "after_pretraining"
    preset = our_name(network.name)[0]
    own = recipe_for(preset if family_of(preset) else timm_name(network.name), tune)
    if own is not None and (not builtin or load("task", wanted.task).fresh):
        return own
    convolutional = network.encoder.convolutional
    if tune == "full":
        few = len(wanted.prepared.manifest.rows()) <= FEW
        return "cnn_finetune" if convolutional else "finetune_small" if few else "finetune"
    if builtin:
        return "digits_cnn" if convolutional else "digits_vit"
    return "cnn_scratch" if convolutional else "scratch_small"


def _without_drop_path(recipe: Recipe, options: TrainOptions, encoder: Encoder) -> Recipe:
    """Remove the drop path of a general recipe when this network has none, unless the user asks for it."""
    if options.drop_path is not None or recipe.model.drop_path is None or encoder.takes_drop_path:
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"drop_path": None})})


def _for_few(recipe: Recipe, options: TrainOptions, images: int) -> tuple[Recipe, list[str]]:
    """Use a smaller batch when that of a named recipe gives too few steps per epoch, and report it.

    Adam's learning rate scales with the square root of the batch (Malladi et al. 2022, arXiv:2205.10287).
    """
    training = recipe.training
    stated = options.batch is not None or (options.recipe is not None and is_file(options.recipe))
    # Steps on cached features cost next to nothing, and a smaller batch has fewer captions to tell apart.
    cached = recipe.recipe == usual_recipes(recipe.task.name).get("head")
    if stated or cached or training.tune == "draft":
        return recipe, []
    batch = training.batch
    while batch > SMALLEST_BATCH and images < STEPS * batch:
        batch //= 2
    if batch == training.batch:
        return recipe, []
    lr = options.lr or float(f"{training.lr * (batch / training.batch) ** 0.5:.2g}")
    line = (
        f"batch {batch} and learning rate {lr:g} instead of {training.batch} and {training.lr:g}: "
        f"{count(images, 'image')} would give too few steps per epoch"
    )
    smaller = training.model_copy(update={"batch": batch, "lr": lr})
    return recipe.model_copy(update={"training": smaller}), [line]


def snap_to_patches(recipe: Recipe, options: TrainOptions, encoder: Encoder) -> tuple[Recipe, list[str]]:
    """Reduce the input size so that overlapping patches cover it exactly, unless the user sets it, and report it."""
    step, size = recipe.model.stride, recipe.model.imgsz
    if step is None or options.imgsz is not None:
        return recipe, []
    span = int(encoder.spec.strides[-1] + 2 * encoder.spec.overlap_margin)
    height, width = (max(span, side - (side - span) % step) for side in size)
    if (height, width) == size:
        return recipe, []
    line = (
        f"input {height} px instead of {size[0]} px: patches of {span} px, one every {step}, cover it exactly"
    )
    model = recipe.model.model_copy(update={"imgsz": (height, width)})
    return recipe.model_copy(update={"model": model}), [line]


def _in_windows(recipe: Recipe, wanted: _Wanted) -> tuple[Recipe, list[str]]:
    """Use the task's settings for images much larger than the input, which are predicted in windows; report it.

    A draft keeps its settings: its features are those of whole images.
    """
    usual = getattr(load("task", recipe.task.name), "for_large", None)
    if usual is None or recipe.training.tune == "draft":
        return recipe, []
    strides = wanted.network.encoder.spec.strides
    settings, lines = usual(recipe.task.settings, recipe.model.imgsz, wanted.shapes, strides)
    task = recipe.task.model_copy(update={"settings": {**recipe.task.settings, **settings}})
    return recipe.model_copy(update={"task": task}), lines
