"""A recipe holds all settings of a run: data, model, task and training.

`layered` merges the sources of settings: a named recipe (vitrail/recipes/*.yaml) states network and training,
`task_part` adds the settings of the task, and more specific settings override both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from vitrail.core.catalog import with_task_name
from vitrail.core.config import Settings, read, read_mapping
from vitrail.core.errors import UnknownNameError
from vitrail.data.options import LayoutOptions
from vitrail.data.rasters.bands import Band
from vitrail.runs.task_settings import Regularization, default_settings, default_training

SCHEMA: Literal[1] = 1


Share = Annotated[float, Field(gt=0, lt=0.9)]

Precision = Literal["float32", "bf16"]

Augmentation = Literal[
    "none",
    "light",
    "flip_crop",
    "trivial",
    "rand",
    "three",
    "scene",
    "flip_scale",
    "turns",
    "large_crop",
    "square",
]

OverTime = Literal["mean", "attention"]
"""How a network for images joins the frames of a clip: their mean, or attention with the times of the frames."""

MemoryFormat = Literal["contiguous", "channels_last"]
"""The order of an image's values in memory: channel by channel, or all channels of a pixel together."""


class DataSettings(Settings):
    """Where the images are, how they are read (`data.options.LayoutOptions`) and how they are split."""

    source: str = ""
    layout: str = "auto"
    labels: str = ""
    groups: str = ""
    splits: str = ""
    things: str = ""
    window: Annotated[int, Field(ge=1)] | None = None
    block: Annotated[int, Field(ge=1)] | None = None
    buffer: Annotated[int, Field(ge=0)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    val: Share = 0.15
    test: Share = 0.15

    def reading(self) -> LayoutOptions:
        """Return the options for reading the images."""
        return LayoutOptions(**{field.name: getattr(self, field.name) for field in fields(LayoutOptions)})


class ModelSettings(Settings):
    """The network, its input size (height, width), and the preprocessing of images.

    `crop_fraction` is the share of the resized image that the input shows; None is the usual one of the fit.
    `stride` is the pixels from one patch to the next, for patches that overlap.
    `scale` is the pixel value that counts as 1 when images keep the numbers of their files, such as 65535 or 10000.
    `mean` and `std`, one number per channel, are fractions of it; None is the usual ones.
    `bands` are the named bands that are the channels, `window` the side in pixels of the windows of a raster, and
    `pixel` that of a pixel in metres (`data.preprocess.Preprocess`).
    `frames` is the frames of a clip (0: images), `over_time` how a network for images joins those of a clip.
    `settings` change settings of the network's config (`position`, `depth`, …) for training from scratch.
    """

    name: str
    imgsz: tuple[PositiveInt, PositiveInt]
    channels: PositiveInt = 3
    stride: PositiveInt | None = None
    fit: Literal["squash", "crop", "pad"] = "crop"
    crop_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    scale: PositiveFloat = 255.0
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None
    bands: tuple[Band, ...] = ()
    window: NonNegativeInt = 0
    pixel: NonNegativeFloat = 0.0
    frames: NonNegativeInt = 0
    over_time: OverTime | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    weights: str = "none"
    settings: dict[str, Any] = Field(default_factory=dict)


class TaskSettings(Settings):
    """The task and its settings."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, stated: Any) -> Any:
        return with_task_name(stated) if isinstance(stated, Mapping) else stated

    name: str = "classify"
    settings: dict[str, Any] = Field(default_factory=dict)


class TrainSettings(Settings):
    """How the network is trained; `seconds` (from `--time`) overrides `epochs`. `beta2` and `eps` are those of Adam."""

    tune: Literal["scratch", "draft", "head", "full"] = "scratch"
    epochs: PositiveInt = 100
    seconds: PositiveFloat | None = None
    batch: PositiveInt = 128
    micro: PositiveInt | None = None
    lr: PositiveFloat = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    weight_decay: NonNegativeFloat = 0.05
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    eps: PositiveFloat = 1e-8
    warmup: NonNegativeFloat = 5.0
    clip: NonNegativeFloat = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    augment: Augmentation = "trivial"
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    precision: Literal["auto"] | Precision = "auto"
    memory_format: Literal["auto"] | MemoryFormat = "auto"
    float32: tuple[str, ...] = ()  # convolutions that stay in float32 while the precision is bf16, by name
    compile: bool = False
    grad_checkpointing: bool = False
    device: str = "auto"
    workers: Annotated[int, Field(ge=-1)] = -1
    balance: Literal["none", "loss", "sampling"] = "none"
    patience: PositiveInt | None = None
    seed: int = 0


class Recipe(Settings):
    """The settings for rebuilding or repeating a run; stored in the run folder as recipe.yaml."""

    schema_version: Literal[1] = SCHEMA
    recipe: str
    data: DataSettings
    model: ModelSettings
    task: TaskSettings = TaskSettings()
    training: TrainSettings = TrainSettings()


def named(name: str) -> dict[str, Any]:
    """Return the settings of one of the recipes that come with vitrail (vitrail/recipes/*.yaml)."""
    return _settings(_file(name))


def is_file(recipe: str) -> bool:
    """Tell whether this is a recipe file (and not the name of a recipe)."""
    return recipe.endswith((".yaml", ".yml"))


def settings_of(recipe: str) -> dict[str, Any]:
    """Return the settings of a named recipe or a recipe file."""
    return _settings(_whole(recipe))


def regularization_of(recipe: str) -> Regularization | None:
    """Return the regularization that a named recipe or a recipe file states, or None."""
    return read(_Regularized, _whole(recipe), recipe).regularization


class _Regularized(Settings):
    model_config = ConfigDict(extra="ignore")

    regularization: Regularization | None = None


BESIDE_SETTINGS = ("about", "models", "regularization", "schema_version")
"""Keys of a recipe file that are not settings of a run."""


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in BESIDE_SETTINGS}


def _whole(recipe: str) -> dict[str, Any]:
    return read_mapping(Path(recipe)) if is_file(recipe) else _file(recipe)


def recipes() -> list[str]:
    """Return the names of the recipes that come with vitrail."""
    folder = files("vitrail").joinpath("recipes")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def recipe_for(model: str, tune: str) -> str | None:
    """Return the recipe whose `models` (shell patterns) match this network, for this `tune`, or None.

    `model` is our name or timm's. A tag after a dot names weights and is ignored.
    """
    bare = model.partition(".")[0]
    for name in recipes():
        values = _file(name)
        stated = values.get("training", {}).get("tune", "scratch")
        if stated == tune and any(fnmatchcase(bare, pattern) for pattern in values.get("models", ())):
            return name
    return None


def _file(name: str) -> dict[str, Any]:
    if name not in recipes():
        raise UnknownNameError("recipe", name, recipes(), f"There are: {', '.join(recipes())}.")
    path = files("vitrail").joinpath("recipes", f"{name}.yaml")
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def task_part(task: str, recipe: str, regularization: Regularization | None = None) -> dict[str, Any]:
    """Return the settings of a task for a named recipe, as a layer. `regularization` overrides that of the recipe."""
    wanted = regularization or regularization_of(recipe)
    part: dict[str, Any] = {"task": {"name": task, "settings": default_settings(task, recipe, wanted)}}
    training = default_training(task)
    if training:
        part["training"] = training
    return part


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; a later one overrides the earlier ones, but None does not override."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer)
    return merged


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = _merge(below if isinstance(below, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def compose(name: str, own: Mapping[str, Any], where: str = "settings") -> Recipe:
    """Return the recipe `name` for the task in `own` (default: classify), with the settings of `own` on top."""
    task = own.get("task", {}).get("name") or TaskSettings().name
    return read(Recipe, layered(named(name), {"recipe": name}, task_part(task, name), own), where)
