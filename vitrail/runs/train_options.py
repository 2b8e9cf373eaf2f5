"""The options of training, for the command line and for Python. No heavy imports: the help text is made from here."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from vitrail.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training; those that are not given come from the recipe.

    Parameters
    ----------
    model
        network: one of ours or any timm name (see: vitrail models)
    network
        settings of the network itself, such as position=2d,depth=6; with weights only what the tensors do not show,
        such as heads=3,image=[64,96] (docs/models.md)
    weights
        initial weights: auto, none (from scratch), a file or folder, or a published name
    tune
        draft (frozen network, head in seconds), head (by gradient), full, or scratch
    recipe
        named recipe, or a YAML file like the recipe.yaml of a run
    task
        the task, by default the one that fits the data: classify, multilabel, segment, detect, instances, panoptic,
        pretrain, retrieve, or generate, or a class of your own, module:Class
    set
        settings of the task itself, such as dropout=0.2,mixup=0
    epochs
        how often every image is used
    time
        train for this time instead, such as 90s, 30m, 2h; the check and the report take additional time
    batch
        images per step
    micro
        images computed at once; by default measured once for a network and size, then cached
    imgsz
        side of the network's input in pixels, or HEIGHTxWIDTH
    stride
        pixels from one patch to the next: fewer than a patch has, and patches overlap (ViT, DINOv2)
    frames
        frames of a clip that the network sees, evenly spaced in time; 8 by default
    over_time
        how a network for images joins the frames of a clip: mean, or attention, which knows their order
    fit
        how an image is fitted to the input: squash, crop or pad
    lr
        highest learning rate
    layer_decay
        learning rate of each block relative to the next one, 1 for none
    weight_decay
        weight decay of AdamW
    warmup
        epochs until the highest learning rate
    drop_path
        chance that the last block is skipped
    ema
        decay of the moving average of the weights, 0 for none
    augment
        none, light, flip_crop, trivial, rand or three
    erase
        chance that a patch is erased
    mixup
        strength of Mixup, 0 for none
    cutmix
        strength of CutMix, 0 for none
    smoothing
        label smoothing
    loss
        cross_entropy, or bce: binary for each class (DeiT III); of pairs softmax (CLIP) or sigmoid (SigLIP)
    teacher
        a model for distillation: a run, a model file, or published weights
    distill
        what is taken from the teacher: hard, its top class, or soft, its probabilities
    pool
        how the tokens become one vector: cls, mean, cls_mean (both side by side) or attention
    text_tower
        the folder of a sentence encoder that reads the captions (retrieve): it and the vision model stay as they are,
        and only what joins them is trained
    elastic
        train one network for several input sizes and shares of kept tokens; supervit networks always are
    balance
        for classes of unequal size: loss weights them, sampling draws rare ones more often
    patience
        stop after so many epochs without a better score
    layout
        the layout of the data, if the automatic choice is wrong
    labels
        the table with the labels, and the column: labels.csv, or labels.csv:species; for rasters polygons, points or a
        raster of classes: training.gpkg, or training.gpkg:class
    groups
        the column whose values must stay on one side of the split, such as patient; none ignores such columns and
        the video names in file names
    splits
        the column of the splits, what its words or folders mean (0=train,1=test), or none: draw new ones
    things
        the classes of objects (instances, panoptic), such as car,pedestrian; others are no objects
    window
        side in pixels of the windows around labelled pixels of a raster, 8 by default; of tiles (segment) 64
    block
        side in pixels of the blocks of a raster that go to one split as a whole; by default about 40 hold labels
    seconds
        cut longer videos into clips of so many seconds; the clips of a video stay in one split
    buffer
        labelled pixels of a raster fewer than so many pixels from another split are left out; by default the window
    val
        share of the images for choosing the best epoch
    test
        share of the images for the final scores
    precision
        float32, bf16, or auto: bf16 if the machine supports it and the network is large enough; for convolutional
        networks measured once, then cached
    memory_format
        order of the values of an image: contiguous, channels_last, or auto: measured with --precision auto for
        convolutional networks, else contiguous
    compile
        compile the network first (faster for long runs)
    grad_checkpointing
        compute blocks again in the backward pass instead of storing them: less memory, about a third more time
    device
        auto, cpu, cuda, mps
    workers
        processes that read images, -1: one fewer than the cores
    seed
        the same seed gives the same run, on one CPU and with the same number of epochs; on a GPU nearly the same
    out
        run folder, runs/<data> by default; never overwritten
    """

    model: str | None = None
    network: str | None = None
    weights: str | None = None
    tune: Literal["draft", "head", "full", "scratch"] | None = None
    recipe: str | None = None
    task: str | None = None
    set: str | None = None
    epochs: int | None = None
    time: str | None = None
    batch: int | None = None
    micro: int | None = None
    imgsz: str | None = None
    stride: int | None = None
    frames: int | None = None
    over_time: Literal["mean", "attention"] | None = None
    fit: Literal["squash", "crop", "pad"] | None = None
    lr: float | None = None
    layer_decay: float | None = None
    weight_decay: float | None = None
    warmup: float | None = None
    drop_path: float | None = None
    ema: float | None = None
    augment: (
        Literal[
            "none", "light", "flip_crop", "trivial", "rand", "three", "scene", "flip_scale", "turns",
            "large_crop", "square",
        ]
        | None
    ) = None  # fmt: skip
    erase: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    smoothing: float | None = None
    loss: Literal["cross_entropy", "bce", "softmax", "sigmoid"] | None = None
    teacher: str | None = None
    distill: Literal["hard", "soft"] | None = None
    pool: Literal["cls", "mean", "cls_mean", "attention"] | None = None
    text_tower: str | None = None
    elastic: bool | None = None
    balance: Literal["none", "loss", "sampling"] | None = None
    patience: int | None = None
    layout: str | None = None
    labels: str | None = None
    groups: str | None = None
    splits: str | None = None
    things: str | None = None
    window: int | None = None
    block: int | None = None
    buffer: int | None = None
    seconds: float | None = None
    val: float | None = None
    test: float | None = None
    precision: Literal["auto", "float32", "bf16"] | None = None
    memory_format: Literal["auto", "contiguous", "channels_last"] | None = None
    compile: bool | None = None
    grad_checkpointing: bool | None = None
    device: str | None = None
    workers: int | None = None
    seed: int | None = None
    out: str | None = None


def words_of(options: TrainOptions) -> list[str]:
    """Return the given options as command line words."""
    words: list[str] = []
    for field in fields(options):
        value, name = getattr(options, field.name), field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            text = str(value)
            words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return words


OF_TASK = ("mixup", "cutmix", "smoothing", "loss", "pool", "text_tower")
"""Options that are settings of the task, if the task has a setting with this name."""


def network_settings(text: str | None) -> dict[str, Any]:
    """Parse settings of a network such as position=2d,depths=[2,2,6]; values are YAML."""
    return _assignments(text, "--network", "position=2d,depth=6")


def task_settings(text: str | None) -> dict[str, Any]:
    """Parse settings of a task such as dropout=0.2,class_weights=[1,2]; values are YAML."""
    return _assignments(text, "--set", "dropout=0.2,mixup=0")


def _assignments(text: str | None, option: str, example: str) -> dict[str, Any]:
    import yaml

    if text is None:
        return {}
    try:
        values = yaml.safe_load("{" + re.sub(r"\s*=\s*", ": ", text) + "}")
    except yaml.YAMLError:
        values = {"": None}
    if not isinstance(values, dict) or any(value is None for value in values.values()):
        raise SettingError(f"{option} {text!r} cannot be read. Write them like {example}.")
    return values


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str | None) -> float | None:
    """Parse a duration such as 90s, 30m or 1h30m into seconds; a plain number is minutes."""
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) * 60
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise SettingError(f"--time {text!r} cannot be read. Write it like 90s, 30m or 1h30m.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def image_size(text: str | int | None) -> tuple[int, int] | None:
    """Parse an image size such as 224 or 192x256 (height x width)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x,×](\d+))?", str(text))
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise SettingError(f"--imgsz {text!r} cannot be read. Write it like 224 or 192x256 (height x width).")
    return int(match[1]), int(match[2] or match[1])
