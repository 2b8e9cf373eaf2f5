"""Settings of a recipe that follow from clips: the network, its frames, and an augmentation that keeps directions."""

from __future__ import annotations

from typing import Any

from vitrail.core.errors import SettingError, UsageError
from vitrail.core.text import command
from vitrail.data.prepare import Prepared
from vitrail.layers.encoder import Encoder
from vitrail.runs.recipe import is_file, settings_of
from vitrail.runs.train_options import TrainOptions
from vitrail.training.network_choice import TINY, NamedNetwork, NetworkChoice

SMALL, USUAL = "timesformer_digits", "timesformer_s"
"""The networks for clips, if none is named: for small frames, and for others."""


def for_clips(prepared: Prepared, named: NamedNetwork, options: TrainOptions, side: int) -> NamedNetwork:
    """Return the named network with its frames, or the one for clips of this short side if none is named.

    Raises:
        UsageError: an option of clips is given, but the data are images.
    """
    if not prepared.manifest.holds_clips:
        for option, given in (("--frames", options.frames), ("--over-time", options.over_time)):
            if given is not None:
                raise UsageError(f"{option} is for clips, but {prepared.source} holds images. Leave it out.")
        return named
    if options.frames is not None and options.frames < 1:
        raise UsageError(f"A clip has at least one frame, so --frames {options.frames} is not possible.")
    stated = (
        settings_of(options.recipe).get("model", {}) if options.recipe and is_file(options.recipe) else {}
    )
    frames = options.frames or stated.get("frames") or None
    joined = options.over_time or stated.get("over_time")
    name = named.name
    if name is None and options.weights in (None, "none"):
        name = SMALL if side <= TINY else USUAL
    return named._replace(name=name, clips=True, frames=frames, over_time=joined)


def refuse_clips(prepared: Prepared, encoder: Encoder, name: str) -> None:
    """Raise a SettingError for a network that takes clips, if the data are images."""
    if encoder.spec.frames and not prepared.manifest.holds_clips:
        again = command("train", prepared.source, "--model", "vit_s16")
        raise SettingError(
            f"{name} takes clips of {encoder.spec.frames} frames, but {prepared.source} holds images. Name a network "
            f"for images: {again}"
        )


def clip_layer(prepared: Prepared, network: NetworkChoice, side: int) -> dict[str, Any]:
    """Return the frames of the network and the augmentation of clips; {} for images.

    No mirror and no quarter turn: a class may be a direction of motion. Small frames are left as they are: turned and
    shifted, they show motion much later (`bench/moving_digits.py`), and which frames are shown is drawn anyway.
    """
    if not prepared.manifest.holds_clips:
        return {}
    return {
        "model": {"frames": network.encoder.spec.frames, "over_time": network.over_time},
        "training": {"augment": "none" if side <= TINY else "square", "erase": 0.0},
    }
