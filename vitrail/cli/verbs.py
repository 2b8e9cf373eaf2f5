"""The verbs, where each lives, and what each does in a line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

VERBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demo": ("vitrail.cli.demo:demo", "see everything once, on real handwritten digits, in minutes"),
        "check": ("vitrail.cli.check:check", "look at a data set: what it is, what is wrong, what to do"),
        "train": ("vitrail.cli.train:train", "train a network on a folder of images"),
        "predict": ("vitrail.cli.predict:predict", "ask a trained model about images"),
        "explain": ("vitrail.cli.explain:explain", "see where a model looked"),
        "inspect": (
            "vitrail.cli.inspect:inspect",
            "see what a network has learned, or an image's way through it",
        ),
        "eval": ("vitrail.cli.eval:evaluate", "say how good a model is, on its own or on new images"),
        "curve": ("vitrail.cli.curve:curve", "see whether more images would help"),
        "bench": ("vitrail.cli.bench:bench", "measure how fast networks run here"),
        "export": ("vitrail.cli.export:export", "write a model for other programs, proven equal"),
        "push": ("vitrail.cli.push:push", "share a run on the model hub, without its images"),
        "weights": ("vitrail.cli.weights:weights", "list pretrained weights, or add some that you fetched"),
        "convert": ("vitrail.cli.convert:convert", "bring a checkpoint from one layout into another"),
        "models": ("vitrail.cli.models:models", "list the networks there are"),
    }
)

OLD_VERBS: Mapping[str, str] = MappingProxyType({"inside": "inspect"})
"""What a verb was called in the release before this one, and what it is called now."""
