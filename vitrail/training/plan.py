"""Decides what a user did not say: where to start, network, input size, recipe; and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import median_low
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from vitrail.core.catalog import family_of
from vitrail.core.errors import SettingError
from vitrail.data.builtin import names as builtin_names
from vitrail.data.manifest import TRAIN, Manifest
from vitrail.data.names import count
from vitrail.data.prepare import Prepared
from vitrail.data.preprocess import Preprocess, usual_fraction
from vitrail.data.source import load
from vitrail.layers.encoder import Encoder
from vitrail.models.create import build, create_encoder, our_name, timm_name
from vitrail.runs.options import TrainOptions, image_size, network_settings, seconds
from vitrail.runs.recipe import Recipe, compose, is_file, merge, recipe_for, settings_of
from vitrail.training.asked import refuse_apart, refuse_idle
from vitrail.training.dial import dialled
from vitrail.training.frozen import pool_kind
from vitrail.training.taught import taught, unwrapped
from vitrail.weights.find import find_weights
from vitrail.weights.infer import preset_of
from vitrail.weights.library import known
from vitrail.weights.preprocessing import deviations, published_preprocess
from vitrail.weights.pretrained import Pretrained

MULTI = "classify_multi"
"""The task where a picture may have several labels or none."""

TINY = 64
"""Pictures whose short side is at most this many pixels get a network made for small pictures."""

DRAFT_MODEL = "dinov2_s14"
"""The network whose published weights are asked for where the user names none."""

DRAFT_SIZE = 224
FEW = 5000
"""Up to so many pictures a fine-tune gets the recipe for few."""

STEPS = 8
"""Steps of an epoch below which a recipe's batch is too large for the pictures there are."""

SMALLEST_BATCH = 8
"""Pictures of a step that are not gone below for it."""


class Planned(NamedTuple):
    """A complete recipe, the reasons for what the user left open, and for a draft the fine-tune after it."""

    recipe: Recipe
    reasons: tuple[str, ...]
    full: Recipe | None = None
    shrink: bool = False  # whether a draft may take a smaller input to keep its minute


class _Found(NamedTuple):
    """What the network will be, before its recipe is chosen."""

    name: str
    weights: str
    encoder: Encoder  # on the meta device: only what it says of itself
    size: tuple[int, int] | None
    settings: Mapping[str, Any] = MappingProxyType({})
    view: Preprocess | None = None  # as the weights want pictures, where they say so


def plan(source: str, prepared: Prepared, options: TrainOptions) -> Planned:
    """Fill in what the user did not say from what the pictures are.

    Raises:
        WeightsError: weights were wanted and cannot be had; a training from noise is never put in their place.
        SettingError: settings that contradict each other.
    """
    reasons: list[str] = []
    side = short_side(prepared.manifest)
    model = _model(options)
    found = (
        _scratch(side, model, reasons)
        if _from_scratch(source, options)
        else _pretrained(options.weights or "auto", model, reasons)
    )
    multi = prepared.manifest.multi
    if multi:
        reasons.append(
            f"task {MULTI}: some pictures have several labels or none, so each label is a yes or a no"
        )
    tune = options.tune or _tune(options, found)
    refuse_apart(tune, found.weights)
    refuse_idle(tune, options)
    recipe, cut = _recipe(source, prepared, options, found, tune)
    reasons += cut
    if tune == "scratch" and _stated_tune(options.recipe) not in (None, "scratch"):
        reasons.append(
            f"recipe {options.recipe} is made for published weights; from scratch it learns slowly"
        )
    recipe = dialled(recipe, found.encoder, options.elastic)
    if "keeps" in recipe.task.settings:
        reasons.append(_costs(recipe))
    after = options if _stated_tune(options.recipe) == "full" else replace(options, recipe=None)
    full = _recipe(source, prepared, after, found, "full")[0] if tune == "draft" else None
    full = full and dialled(full, found.encoder, options.elastic)
    return Planned(recipe, tuple(reasons), full, shrink=model.size is None)


class _Model(NamedTuple):
    """The network that the user or the user's recipe names, if any, with changed settings and size."""

    name: str | None
    settings: dict[str, Any]
    size: tuple[int, int] | None


def _model(options: TrainOptions) -> _Model:
    said = settings_of(options.recipe).get("model", {}) if options.recipe else {}
    settings = {**said.get("settings", {}), **network_settings(options.network)}
    size = image_size(options.imgsz) or (tuple(said["imgsz"]) if "imgsz" in said else None)
    return _Model(options.model or said.get("name"), settings, size)


def _costs(recipe: Recipe) -> str:
    settings = recipe.task.settings
    sizes = len(settings["sizes"]) + 1
    keeps = ", ".join(f"{keep:g}" for keep in (*settings["keeps"], 1))
    return (
        f"trained for {sizes * (len(settings['keeps']) + 1)} costs at once: {sizes} input sizes, and tokens kept at "
        f"{keeps}; a step computes up to four of them, so it takes longer"
    )


def _from_scratch(source: str, options: TrainOptions) -> bool:
    """Tell whether nothing pretrained is wanted: said so, or the recipe is one from scratch."""
    if options.weights is not None:
        return options.weights == "none"
    if tune := options.tune or _stated_tune(options.recipe):
        return tune == "scratch"
    return source in builtin_names()  # eight pixels a side: nothing that was pretrained on photographs helps


def _stated_tune(recipe: str | None) -> str | None:
    """Return what a recipe says to train; None where there is none, or a file that leaves it open."""
    if recipe is None:
        return None
    tune: str | None = settings_of(recipe).get("training", {}).get("tune")
    return tune if is_file(recipe) else tune or "scratch"


def _tune(options: TrainOptions, found: _Found) -> str:
    """Return what to train where the user does not say: what the recipe says, if the weights allow it."""
    stated = _stated_tune(options.recipe)
    if found.weights == "none":
        return "scratch"
    return stated if stated and stated != "scratch" else "draft"


def _scratch(side: int, wanted: _Model, reasons: list[str]) -> _Found:
    model = wanted.name
    if model is None:
        model = "vit_digits" if side <= TINY else "vit_s16"
        reasons.append(f"network {model}: the pictures are {side} px on their short side")
    with torch.device("meta"):
        encoder = create_encoder(
            model, image=wanted.size if wanted.settings else None, settings=wanted.settings
        )
    own = encoder.image_size
    if encoder.spec.attention == "none" and side < min(own) and wanted.size is None:
        small = min(*own, max(32, -(-side // 32) * 32))
        reasons.append(f"input {small} px: the pictures are {side} px on their short side")
        return _Found(model, "none", encoder, (small, small), wanted.settings)
    return _Found(model, "none", encoder, own, wanted.settings)


def _pretrained(wanted: str, asked: _Model, reasons: list[str]) -> _Found:
    if asked.settings:
        raise SettingError(
            f"Published weights fit the network as it is; settings of it ({', '.join(asked.settings)}) go with "
            "--weights none."
        )
    weights = _wanted(wanted, asked.name)
    model = asked.name or preset_of(weights.config) or _network_of(weights)
    if wanted == "auto":
        reasons.append(f"weights {weights.name}, licence {weights.licence or 'not stated'}")
    with torch.device("meta"):
        encoder = build(weights.config)
    view = published_preprocess(weights)
    reasons += deviations(weights)
    size = view.size if max(view.size) <= DRAFT_SIZE else (DRAFT_SIZE, DRAFT_SIZE)
    name = weights.name if wanted == "auto" else wanted
    return _Found(model, name, encoder, size, view=view if weights.preprocessing else None)


def _network_of(weights: Pretrained) -> str:
    """Return the name of timm's network: that of the weights, with their tag, where these have one of timm's."""
    network: str = weights.config.name if weights.config.family == "timm" else weights.name
    return weights.name if weights.name.partition(".")[0] == network else network


def _wanted(source: str, model: str | None) -> Pretrained:
    """Return the weights that were asked for; `auto` without a network takes what the user added, then DINOv2."""
    if source == "auto" and model is None:
        added = known()
        return find_weights(added[0].name) if added else find_weights("auto", DRAFT_MODEL)
    return find_weights(source, model)


def _recipe(
    source: str, prepared: Prepared, options: TrainOptions, found: _Found, tune: str
) -> tuple[Recipe, list[str]]:
    """Return the whole recipe, and what had to be changed for it."""
    tiny = short_side(prepared.manifest) <= TINY
    usual = _usual(source, tune, found, len(prepared.manifest.rows()))
    name = options.recipe or usual
    said, teaching = unwrapped(settings_of(name))
    view, plain = (
        _view(one, tiny, said.get("model", {}), options.fit) for one in (found, found._replace(view=None))
    )
    own = _own(source, options, found, tune)
    own["model"] |= view
    if prepared.manifest.multi:
        own["task"]["name"] = MULTI
    spec = found.encoder.spec
    two = options.teacher is not None and "dist" in spec.prefix  # its heads stand on tokens of their own
    pool = "own" if tune == "scratch" or two else pool_kind(spec)
    low: dict[str, Any] = {
        "model": {"imgsz": found.size},
        "task": {"settings": {} if pool == "own" else {"pool": pool}},
    }
    values = merge(merge(low, said), own)
    recipe = compose(usual, values, name) if is_file(name) else compose(name, values)
    recipe = _fitted(taught(recipe, teaching, options), options, found)
    recipe, smaller = _for_few(recipe, options, len(prepared.manifest.rows(TRAIN)))
    recipe, cut = _tiled(recipe, options, found.encoder)
    told = [] if view == plain else [_as_evaluated(view)]
    return recipe, [*told, *smaller, *cut]


def _as_evaluated(view: Mapping[str, Any]) -> str:
    return (
        f"fit {view['fit']}, {view['crop_fraction']:.4g} of each side shown, {view['interpolation']}: as the weights "
        "were evaluated"
    )


def _view(found: _Found, tiny: bool, said: Mapping[str, Any], wanted: str | None) -> dict[str, Any]:
    """Return fit, crop fraction and interpolation: the weights' own, where neither recipe nor `wanted` says a fit.

    Whoever says another fit means its usual crop, and a recipe that says one means bicubic too, as it did before
    weights were asked. A margin of a tiny picture is content, and stays.
    """
    view: dict[str, Any] = {
        "fit": "squash" if tiny else "crop",
        "crop_fraction": None,
        "interpolation": "bicubic",
    }
    if found.view is not None and said.get("fit") is None:
        view["interpolation"] = found.view.interpolation
        if not tiny:
            view |= {"fit": found.view.fit, "crop_fraction": found.view.crop_fraction}
    view |= {key: said[key] for key in view if said.get(key) is not None}
    if wanted not in (None, view["fit"]):
        view |= {"fit": wanted, "crop_fraction": None}
    if view["crop_fraction"] is None:
        view["crop_fraction"] = usual_fraction(view["fit"])
    return view


def _fitted(recipe: Recipe, options: TrainOptions, found: _Found) -> Recipe:
    """Leave out of a recipe of a kind what this one network has not: a drop path."""
    config = found.encoder.config
    if options.drop_path is not None or config.family != "timm" or recipe.model.drop_path is None:
        return recipe
    from vitrail.models.timm import takes_drop_path

    if takes_drop_path(config):
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"drop_path": None})})


def _for_few(recipe: Recipe, options: TrainOptions, pictures: int) -> tuple[Recipe, list[str]]:
    """Take a smaller batch where a named recipe's would make too few steps of an epoch; say so.

    Adam's rate goes with the square root of the batch (Malladi et al. 2022, arXiv:2205.10287).
    """
    training = recipe.training
    told = options.batch is not None or (options.recipe is not None and is_file(options.recipe))
    if told or training.tune == "draft":
        return recipe, []
    batch = training.batch
    while batch > SMALLEST_BATCH and pictures < STEPS * batch:
        batch //= 2
    if batch == training.batch:
        return recipe, []
    lr = options.lr or float(f"{training.lr * (batch / training.batch) ** 0.5:.2g}")
    line = (
        f"batch {batch} and rate {lr:g} in place of {training.batch} and {training.lr:g}: "
        f"{count(pictures, 'picture')} would make too few steps"
    )
    smaller = training.model_copy(update={"batch": batch, "lr": lr})
    return recipe.model_copy(update={"training": smaller}), [line]


def _tiled(recipe: Recipe, options: TrainOptions, encoder: Encoder) -> tuple[Recipe, list[str]]:
    """Cut the size to what overlapping patches tile to the last pixel, unless the user said a size; say so."""
    step, size = recipe.model.stride, recipe.model.imgsz
    if step is None or options.imgsz is not None:
        return recipe, []
    span = int(encoder.spec.strides[-1] + 2 * encoder.spec.rim)
    height, width = (max(span, side - (side - span) % step) for side in size)
    if (height, width) == size:
        return recipe, []
    line = f"input {height} px in place of {size[0]} px: patches of {span} px, one every {step}, tile it"
    model = recipe.model.model_copy(update={"imgsz": (height, width)})
    return recipe.model_copy(update={"model": model}), [line]


def _usual(source: str, tune: str, found: _Found, pictures: int) -> str:
    """Return the recipe of this network, or of its kind where it has none of its own."""
    convolutional = found.encoder.config.family == "timm" and found.encoder.spec.attention == "none"
    preset = our_name(found.name)[0]
    own = recipe_for(preset if family_of(preset) else timm_name(found.name), tune)
    if tune in {"draft", "head"}:
        return tune
    if own is not None and source not in builtin_names():
        return own
    if tune == "full":
        return "cnn_finetune" if convolutional else "finetune_small" if pictures <= FEW else "finetune"
    if source in builtin_names():
        return "digits_cnn" if convolutional else "digits_vit"
    return "cnn_scratch" if convolutional else "scratch_small"


_SAME = (
    "epochs", "batch", "micro", "lr", "layer_decay", "weight_decay", "warmup", "ema", "augment", "erase", "balance",
    "precision", "compile", "device", "workers", "patience", "seed",
)  # fmt: skip
"""Settings that are called alike on the command line and in a recipe's training part."""


def _own(source: str, o: TrainOptions, found: _Found, tune: str) -> dict[str, Any]:
    """Return what the user said, in the recipe's own shape."""
    mixing = {
        "mixup": o.mixup, "cutmix": o.cutmix, "smoothing": o.smoothing, "loss": o.loss, "pool": o.pool,
    }  # fmt: skip
    return {
        "data": {"source": source, "layout": o.layout, "val": o.val, "test": o.test},
        "model": {
            "name": found.name,
            "imgsz": image_size(o.imgsz),
            "stride": o.stride,
            "drop_path": o.drop_path,
            "weights": found.weights,
            "settings": dict(found.settings),
        },
        "task": {"settings": {k: v for k, v in mixing.items() if v is not None}},
        "training": {**{key: getattr(o, key) for key in _SAME}, "seconds": seconds(o.time), "tune": tune},
    }


def short_side(manifest: Manifest, most: int = 32) -> int:
    """Return the median short side, in pixels, of some of the kept pictures spread over the manifest."""
    rows = manifest.rows()
    some = rows[:: max(1, len(rows) // most)]
    return int(median_low(min(load(manifest.root, row.path).image.shape[:2]) for row in some))
