"""The verbs: where each is defined, and a line of help."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

VERBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demo": ("vitrail.cli.demo:demo", "show every feature once, on real handwritten digits, in minutes"),
        "studio": (
            "vitrail.cli.studio:studio",
            "open the studio in the browser: everything below without code, on this machine",
        ),
        "check": ("vitrail.cli.check:check", "check a data set: its layout, its problems, what to do next"),
        "train": ("vitrail.cli.train:train", "train a network on a folder of images"),
        "predict": ("vitrail.cli.predict:predict", "predict images with a trained model"),
        "search": ("vitrail.cli.search:search", "find images by words, or images similar to one"),
        "explain": ("vitrail.cli.explain:explain", "show where a model looked"),
        "inspect": (
            "vitrail.cli.inspect:inspect",
            "show the inside of a network, or the steps of one image through it",
        ),
        "eval": ("vitrail.cli.eval:evaluate", "evaluate a model on its own or on new images"),
        "fix": (
            "vitrail.cli.fix:fix",
            "list the images whose label the model doubts, decide, and compare before and after",
        ),
        "reproduce": (
            "vitrail.cli.reproduce:reproduce",
            "run a training again from its report, and say what differs",
        ),
        "compare": ("vitrail.cli.compare:compare", "say which of several networks is better on your images"),
        "curve": ("vitrail.cli.curve:curve", "see whether more images would help"),
        "augment": (
            "vitrail.cli.augment:augment",
            "add generated images of a class to the training images, if real accuracy rises by it",
        ),
        "bench": ("vitrail.cli.bench:bench", "measure the speed of networks on this machine"),
        "export": ("vitrail.cli.export:export", "export a model for other programs, checked against it"),
        "serve": ("vitrail.cli.serve:serve", "serve a model over HTTP: an answer in time, whatever the load"),
        "push": ("vitrail.cli.push:push", "upload a run to the model hub, without its images"),
        "weights": (
            "vitrail.cli.weights:weights",
            "list pretrained weights, or add weights that you downloaded",
        ),
        "convert": ("vitrail.cli.convert:convert", "convert a checkpoint from one layout to another"),
        "models": ("vitrail.cli.models:models", "list the available networks"),
    }
)

OLD_VERBS: Mapping[str, str] = MappingProxyType({"inside": "inspect"})
"""Names of verbs in the previous release, and their names now."""
