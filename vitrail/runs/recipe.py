"""A recipe is the whole setting of a run: data, model, task and training.

What a user leaves open is laid over one another by `layered`: a recipe by name (vitrail/recipes/*.yaml) states network
and training, `task_part` what its task sets in it, and everything that is more particular lies above.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from vitrail.core.catalog import with_task_name
from vitrail.core.config import Settings, read, read_mapping
from vitrail.core.errors import UnknownNameError
from vitrail.runs.task_settings import Regularization, default_settings, default_training

SCHEMA: Literal[1] = 1


Share = Annotated[float, Field(gt=0, lt=0.9)]


class DataSettings(Settings):
    """Where the images are, how they are read (`data.options.LayoutOptions`) and how they are split."""

    source: str = ""
    layout: str = "auto"
    labels: str = ""
    groups: str = ""
    splits: str = ""
    val: Share = 0.15
    test: Share = 0.15


class ModelSettings(Settings):
    """Which network, at which input size (height, width), and how an image is fitted to it.

    `crop_fraction` is the share of the resized image that the input shows; None is the fit's usual one.
    `stride` is the pixels from one patch to the next where patches overlap.
    `scale` is the value that counts as 1 where images are taken in the numbers of their files, such as 65535 or
    10000; `mean` and `std`, one number a channel, are in parts of it, and None is the usual ones.
    `settings` change the network's own, those of its page (`position`, `depth`, …), where it starts from scratch.
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
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    weights: str = "none"
    settings: dict[str, Any] = Field(default_factory=dict)


class TaskSettings(Settings):
    """Which task, with settings of its own."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, stated: Any) -> Any:
        return with_task_name(stated) if isinstance(stated, Mapping) else stated

    name: str = "classify"
    settings: dict[str, Any] = Field(default_factory=dict)


class TrainSettings(Settings):
    """How the network is trained; `seconds` (of `--time`) wins over `epochs`."""

    tune: Literal["scratch", "draft", "head", "full"] = "scratch"
    epochs: PositiveInt = 100
    seconds: PositiveFloat | None = None
    batch: PositiveInt = 128
    micro: PositiveInt | None = None
    lr: PositiveFloat = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    weight_decay: NonNegativeFloat = 0.05
    warmup: NonNegativeFloat = 5.0
    clip: NonNegativeFloat = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    augment: Literal["none", "light", "flip_crop", "trivial", "rand", "three", "scene"] = "trivial"
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    float32: tuple[str, ...] = ()  # convolutions that stay in float32 while the precision is bf16, by name
    compile: bool = False
    grad_checkpointing: bool = False
    device: str = "auto"
    workers: Annotated[int, Field(ge=-1)] = -1
    balance: Literal["none", "loss", "sampling"] = "none"
    patience: PositiveInt | None = None
    seed: int = 0


class Recipe(Settings):
    """Enough to rebuild and to retrain a run; stored in it as recipe.yaml."""

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
    """Tell a recipe's file from its name."""
    return recipe.endswith((".yaml", ".yml"))


def settings_of(recipe: str) -> dict[str, Any]:
    """Return the settings of a recipe by name or of a file."""
    return _settings(_whole(recipe))


def regularization_of(recipe: str) -> Regularization | None:
    """Return how strongly a recipe, by name or of a file, wants its task to regularise; None where it says nothing."""
    return read(_Regularized, _whole(recipe), recipe).regularization


class _Regularized(Settings):
    model_config = ConfigDict(extra="ignore")

    regularization: Regularization | None = None


BESIDE_SETTINGS = ("about", "models", "regularization", "schema_version")
"""What a recipe's file says that is no setting of a run."""


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in BESIDE_SETTINGS}


def _whole(recipe: str) -> dict[str, Any]:
    return read_mapping(Path(recipe)) if is_file(recipe) else _file(recipe)


def recipes() -> list[str]:
    """Return the names of the recipes that come with vitrail."""
    folder = files("vitrail").joinpath("recipes")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def recipe_for(model: str, tune: str) -> str | None:
    """Return the recipe whose `models` (shell patterns) name this network, for this way of training, or None.

    `model` is our name or timm's; a tag after a dot names weights and does not count.
    """
    bare = model.partition(".")[0]
    for name in recipes():
        values = _file(name)
        way = values.get("training", {}).get("tune", "scratch")
        if way == tune and any(fnmatchcase(bare, pattern) for pattern in values.get("models", ())):
            return name
    return None


def _file(name: str) -> dict[str, Any]:
    if name not in recipes():
        raise UnknownNameError("recipe", name, recipes(), f"There are: {', '.join(recipes())}.")
    path = files("vitrail").joinpath("recipes", f"{name}.yaml")
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def task_part(task: str, recipe: str, regularization: Regularization | None = None) -> dict[str, Any]:
    """Return what a task sets in a recipe by name, as a layer; `regularization` wins over the recipe's."""
    wanted = regularization or regularization_of(recipe)
    part: dict[str, Any] = {"task": {"name": task, "settings": default_settings(task, recipe, wanted)}}
    training = default_training(task)
    return part | ({"training": training} if training else {})


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested mappings over one another, the last on top; None leaves what lies below."""
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
    """Return the recipe `name`, for the task that `own` names (classify by default), with own settings over it."""
    task = own.get("task", {}).get("name") or TaskSettings().name
    return read(Recipe, layered(named(name), {"recipe": name}, task_part(task, name), own), where)
