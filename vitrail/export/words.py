"""What an exported file says of itself: its input, outputs and classes, and how an image file is decoded for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.infer.runtimes import output_names

COLOURS: Mapping[int, str] = MappingProxyType({1: "grey", 3: "RGB", 4: "RGBA"})
"""The order of the channels of 8-bit images."""

CLEAR: Mapping[int, str] = MappingProxyType(
    {
        1: "lay transparency on white and reduce colour to grey (ITU-R 601: 0.299 R + 0.587 G + 0.114 B)",
        3: "lay transparency on white, repeat grey in all three channels and write palettes out",
        4: "repeat grey in all colours; an image without transparency has 255 in the fourth channel",
    }
)

EXACT = (
    "Proven in float32. A runtime that chooses fewer bits by itself (OpenVINO takes bf16 where the processor has it) "
    "answers a little otherwise; OpenVINO computes in float32 with INFERENCE_PRECISION_HINT f32."
)


@dataclass(frozen=True, slots=True)
class Form:
    """What a graph takes and gives: images one by one or in batches, and whether it says where it looks."""

    attention: bool = False
    batch: bool = False

    @property
    def input(self) -> str:
        """The name of the input."""
        return "images" if self.batch else "image"

    @property
    def layout(self) -> str:
        """The axes of the input, a letter each."""
        return "NHWC" if self.batch else "HWC"


def names(predictor: Predictor, form: Form) -> list[str]:
    """Return the names of the outputs, in order."""
    return [*output_names(predictor.task), *(["attention"] if form.attention else [])]


def input_words(steps: Preprocess, form: Form) -> dict[str, Any]:
    """Return what the input is, as plain data."""
    sides = ["height", "width", steps.channels]
    return {
        "name": form.input,
        "dtype": steps.dtype.__name__,
        "shape": ["batch", *sides] if form.batch else sides,
        "layout": form.layout,
        "color_order": "bands, as in training" if steps.raw else COLOURS[steps.channels],
        "range": [0, int(steps.scale) if steps.scale == int(steps.scale) else steps.scale],
        "is": _taken(steps, form),
    }


def output_words(predictor: Predictor, form: Form) -> list[dict[str, str]]:
    """Return what each output is, in order, as plain data."""
    several = getattr(predictor.task, "problem", "") == "multi_label_classification"
    known = {
        "probabilities": "the probability of each class, in the order of labels"
        + ("; each by itself, so they do not sum to 1" if several else ", which sum to 1"),
        "attention": "where the class token looks in the last block: (row, col) of the patches, mean over the heads",
        **{
            name: f"what the network says of ({', '.join(axes)}) before the task {predictor.task.name} decodes it"
            for name, axes in predictor.task.outputs.items()
        },
    }
    in_image = getattr(predictor.task, "picture_outputs", ())
    known |= {name: f"{name} of the pixels of the image itself: (height, width)" for name in in_image}
    first = "batch axis first: " if form.batch else ""
    return [
        {
            "name": name,
            "dtype": "int64" if name in in_image else "float32",
            "is": first + known.get(name, f"{name} of the task"),
        }
        for name in names(predictor, form)
    ]


def decoding(steps: Preprocess) -> str:
    """Return how an image file becomes the input, for whoever decodes it elsewhere."""
    if steps.raw:
        return (
            "Take the numbers as the file holds them, every band, and write NaN where there are no data; "
            "do not stretch them."
        )
    return (
        "Decode to 8 bits: turn the image upright by its EXIF orientation; of several frames take the first; "
        f"convert CMYK without its profile, as Pillow does; {CLEAR[steps.channels]}; scale 16 bits by 255/65535 and "
        "round; leave colours as the file holds them (an embedded colour profile is not applied). "
        "Do not resize or normalise: the graph does."
    )


def description(predictor: Predictor, form: Form) -> str:
    """Return in a few sentences what the file is."""
    taken = input_words(predictor.preprocess, form)
    given = "; ".join(f"{one['name']}: {one['is']}" for one in output_words(predictor, form))
    labels = predictor.labels
    return (
        f"{predictor.header.name}, {len(labels)} classes, written by vitrail export. "
        f"Input {taken['name']}: {taken['is']} Outputs: {given}. "
        f"Class i of an output is labels[i]. {EXACT}"
    )


def metadata(predictor: Predictor, form: Form) -> dict[str, str]:
    """Return what a graph tells people and programs of itself, as text by name."""
    return {
        "description": description(predictor, form),
        "labels": json.dumps(list(predictor.labels), ensure_ascii=False),
        "input": json.dumps(input_words(predictor.preprocess, form)),
        "outputs": json.dumps(output_words(predictor, form)),
        "decoding": decoding(predictor.preprocess),
        "preprocessing": json.dumps(predictor.preprocess.to_dict()),
    }


def beside(predictor: Predictor, form: Form, file: str) -> dict[str, Any]:
    """Return the same as plain data, for the file beside a graph: runtimes in JavaScript read no metadata."""
    return {
        "file": file,
        "description": description(predictor, form),
        "labels": list(predictor.labels),
        "input": input_words(predictor.preprocess, form),
        "outputs": output_words(predictor, form),
        "decoding": decoding(predictor.preprocess),
        "preprocessing": predictor.preprocess.to_dict(),
    }


def _taken(steps: Preprocess, form: Form) -> str:
    many = "images of one size, " if form.batch else "one image, "
    axes = ("batch × " if form.batch else "") + "height × width × channels"
    if steps.raw:
        what = f"float32, {steps.channels} bands, where {steps.scale:g} counts as 1 and NaN is no data"
    else:
        what = f"uint8, {COLOURS[steps.channels]}, 0 to 255"
    return f"{many}{axes} of any height and width, {what}, not resized and not normalised: both are inside the graph."
