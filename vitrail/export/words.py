"""Self-description of exported files: input, outputs, classes, and how to decode an image file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor
from vitrail.infer.runtimes import output_names
from vitrail.metrics.conformal import limit
from vitrail.tasks.abstention import Abstention

COLOURS: Mapping[int, str] = MappingProxyType({1: "grey", 3: "RGB", 4: "RGBA"})
"""The order of the channels of 8-bit images."""

CLEAR: Mapping[int, str] = MappingProxyType(
    {
        1: "blend transparency with white and convert colour to grey (ITU-R 601: 0.299 R + 0.587 G + 0.114 B)",
        3: "blend transparency with white, repeat grey in all three channels and expand palettes",
        4: "repeat grey in all colours; an image without transparency has 255 in the fourth channel",
    }
)

PLACE: Mapping[str, str] = MappingProxyType(
    {
        "squash": "the input shows the whole image, so resize the map to height × width of the image",
        "pad": "the image, resized to fit, lies in the middle of the input, so cut off the cells of the padding and "
        "resize the others to height × width of the image",
        "crop": "the input is cut from the middle of the resized image, so resize the map to the part of the image "
        "that it shows; the rest of the image is not seen",
    }
)
"""How to place maps that cover the input in the pixels of the image, by the fit of the preprocessing."""

VECTOR = "image_vector"
"""What the output "image" is called in a graph, whose input may have this name."""

EXACT = (
    "Checked in float32. A runtime that uses fewer bits by default (OpenVINO uses bf16 if the processor supports it) "
    "gives slightly different outputs; OpenVINO computes in float32 with INFERENCE_PRECISION_HINT f32."
)


@dataclass(frozen=True, slots=True)
class Form:
    """Interface of a graph: single images (or clips) or batches, with or without an attention output."""

    attention: bool = False
    batch: bool = False
    clips: bool = False

    @property
    def input(self) -> str:
        """The name of the input."""
        return ("clip" if self.clips else "image") + ("s" if self.batch else "")

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes of the input."""
        batch, frames = ("batch",) if self.batch else (), ("frames",) if self.clips else ()
        return (*batch, *frames, "height", "width", "channels")

    @property
    def layout(self) -> str:
        """The axes of the input, one letter each: N batch, D frames (the depth of a volume), H, W, C."""
        letters = {"batch": "N", "frames": "D", "height": "H", "width": "W", "channels": "C"}
        return "".join(letters[axis] for axis in self.axes)


def names(predictor: Predictor, form: Form) -> list[str]:
    """Return the names of the outputs, in order; none is called like the input."""
    raw = _raw_names(predictor, form)
    return [VECTOR if name == "image" else name for name in raw]


def _raw_names(predictor: Predictor, form: Form) -> list[str]:
    """Return the names of the outputs as the task has them."""
    return [*output_names(predictor.task), *(["attention"] if form.attention else [])]


def input_words(steps: Preprocess, form: Form) -> dict[str, Any]:
    """Describe the input, as plain data."""
    fixed = {"frames": steps.frames, "channels": steps.channels}
    return {
        "name": form.input,
        "dtype": steps.dtype.__name__,
        "shape": [fixed.get(axis, axis) for axis in form.axes],
        "layout": form.layout,
        "color_order": _order(steps),
        **_ranges(steps),
        "is": _taken(steps, form),
    }


def _order(steps: Preprocess) -> str:
    if steps.bands:
        return ", ".join(steps.band_names)
    return "bands, as in training" if steps.raw else COLOURS[steps.channels]


def _ranges(steps: Preprocess) -> dict[str, Any]:
    """Return the range of values, or the name, unit and range in training of each band."""
    if not steps.bands:
        return {"range": [0, int(steps.scale) if steps.scale == int(steps.scale) else steps.scale]}
    bands = [
        {"name": band.name, "unit": band.unit, "training_range": band.range and list(band.range)}
        for band in steps.bands
    ]
    sides = {"window": steps.window} if steps.window else {}
    return {"bands": bands, **sides, **({"pixel_metres": steps.pixel} if steps.pixel else {})}


def output_words(predictor: Predictor, form: Form) -> list[dict[str, str]]:
    """Describe each output, in order, as plain data."""
    several = getattr(predictor.task, "problem", "") == "multi_label_classification"
    known = {
        "probabilities": "the probability of each class, in the order of labels"
        + ("; independent, so they do not sum to 1" if several else ", which sum to 1"),
        "attention": f"where the class token looks in the last block: ({'frame, ' * form.clips}row, col) of the "
        "patches, mean over the heads"
        + ("; 0 for patches that were dropped" if predictor.point.keep < 1 else "")
        + ("; patches that were merged share it equally" if predictor.point.merge else ""),
        **_raw_words(predictor),
        **_novelty_words(predictor.task.abstention),
    }
    in_image = {one.name: one for one in getattr(predictor.task, "picture_outputs", ())}
    known |= {name: one.words for name, one in in_image.items()}
    first = "batch axis first: " if form.batch else ""
    return [
        {
            "name": called,
            "dtype": in_image[name].dtype if name in in_image else "float32",
            "is": first + known.get(name, f"{name} of the task"),
        }
        for name, called in zip(_raw_names(predictor, form), names(predictor, form), strict=True)
    ]


def _raw_words(predictor: Predictor) -> dict[str, str]:
    """Describe the outputs of the network itself: what the task says of them, else only their axes."""
    task, place = predictor.task, PLACE[predictor.preprocess.fit]
    meanings: Mapping[str, str] = getattr(task, "meanings", {})
    found = {}
    for name, axes in task.outputs.items():
        if name in meanings:
            found[name] = f"({', '.join(axes)}): {meanings[name].format(place=place)}"
        else:
            found[name] = (
                f"raw output of the network, ({', '.join(axes)}), before the task {task.name} decodes it"
            )
    return found


def _novelty_words(abstention: Abstention | None) -> dict[str, str]:
    """Describe the output `novelty`: from which value on an image is of none of the classes."""
    if abstention is None or not abstention.novelty:
        return {}
    above = limit(abstention.novelty, abstention.error)
    return {
        "novelty": f"how unlike all classes the image is; above {above:.6g} the answer is none of these, as it is for "
        f"{100 * abstention.error:g} % of images of the classes"
    }


def decoding(steps: Preprocess) -> str:
    """Explain how to decode an image file, or a video, to the input, for other programs."""
    if steps.frames:
        return (
            f"Give {steps.frames} frames evenly spaced in time: cut the duration into {steps.frames} equal spans, and "
            "take the frame shown at the middle of each, by presentation times; repeat frames of shorter clips. "
            f"Decode to 8 bits, {COLOURS[steps.channels]}, and apply the rotation that the file states. "
            "Do not resize or normalise: the graph does."
        )
    if steps.bands:
        told = "; ".join(band.told for band in steps.bands)
        size = (
            f" Give windows of {steps.window} x {steps.window} px, not a whole scene." if steps.window else ""
        )
        return (
            f"Read these bands by their names, in this order, with the range of each in training: {told}. Apply scale "
            f"and offset of the file, and give NaN where there is no data; do not rescale them otherwise.{size}"
        )
    if steps.raw:
        return "Use the values of the file, all bands, with NaN where there is no data; do not rescale them."
    return (
        "Decode to 8 bits: apply the EXIF orientation; use the first of several frames; "
        f"convert CMYK without its profile, as Pillow does; {CLEAR[steps.channels]}; scale 16 bits by 255/65535 and "
        "round; keep the colours of the file (an embedded colour profile is not applied). "
        "Do not resize or normalise: the graph does."
    )


def point_words(predictor: Predictor) -> str:
    """Say at which operating point an export answers, and what that means; "" for the whole network."""
    point, whole = predictor.point, predictor.points[-1]
    if point == whole:
        return ""
    height, width = point.size
    parts = [f"the network sees {height} x {width} px"]
    parts += [f"patches have a side of {point.patch} px"] if point.patch else []
    parts += [f"each station keeps {100 * point.keep:g} % of the tokens"] if point.keep < 1 else []
    parts += [f"each block but the last merges {point.merge} pairs of patches"] if point.merge else []
    return (
        f"It answers at the operating point {point}, not as the whole network, {whole}: {', '.join(parts)}."
    )


def named(predictor: Predictor) -> str:
    """Return the name of the model, with its operating point if that is not the whole network."""
    name = predictor.header.name
    return f"{name} at {predictor.point}" if point_words(predictor) else name


def preprocessing(predictor: Predictor) -> dict[str, Any]:
    """Describe what is done to an image before the network, as plain data."""
    point = predictor.point
    steps = predictor.preprocess_at(point)
    if steps.size == point.size:
        return steps.to_dict()
    again = {"size": list(point.size), "interpolation": "bilinear", "align_corners": True}
    return {**steps.to_dict(), "resized_again": again}


def _point_data(predictor: Predictor) -> dict[str, str]:
    return {"operating_point": str(predictor.point)} if point_words(predictor) else {}


def description(predictor: Predictor, form: Form) -> str:
    """Describe the file in a few sentences."""
    taken = input_words(predictor.preprocess, form)
    given = "; ".join(f"{one['name']}: {one['is']}" for one in output_words(predictor, form))
    labels, said = predictor.labels, point_words(predictor)
    said = said and f"{said} "
    classes = f", {len(labels)} classes" if labels else ""
    order = "Class i of an output is labels[i]. " if labels else ""
    return (
        f"{named(predictor)}{classes}, written by vitrail export. "
        f"{said}Input {taken['name']}: {taken['is']} Outputs: {given}. {order}{EXACT}"
    )


def metadata(predictor: Predictor, form: Form) -> dict[str, str]:
    """Return the metadata of a graph for people and programs, as text by name."""
    return {
        "description": description(predictor, form),
        "labels": json.dumps(list(predictor.labels), ensure_ascii=False),
        "input": json.dumps(input_words(predictor.preprocess, form)),
        "outputs": json.dumps(output_words(predictor, form)),
        "decoding": decoding(predictor.preprocess),
        "preprocessing": json.dumps(preprocessing(predictor)),
        **_point_data(predictor),
    }


def beside(predictor: Predictor, form: Form, file: str) -> dict[str, Any]:
    """Return the same as plain data, for the JSON file next to a graph: JavaScript runtimes cannot read metadata."""
    return {
        "file": file,
        "description": description(predictor, form),
        "labels": list(predictor.labels),
        "input": input_words(predictor.preprocess, form),
        "outputs": output_words(predictor, form),
        "decoding": decoding(predictor.preprocess),
        "preprocessing": preprocessing(predictor),
        **_point_data(predictor),
    }


def _taken(steps: Preprocess, form: Form) -> str:
    kind = f"clip of {steps.frames} frames" if form.clips else "image"
    many = f"{form.input} of one size, " if form.batch else f"one {kind}, "
    axes = " × ".join(form.axes)
    if steps.bands:
        named = ", ".join(band.called for band in steps.bands)
        what = f"float32, the bands {named} in this order, in their units, NaN means no data"
    elif steps.raw:
        what = f"float32, {steps.channels} bands, {steps.scale:g} means 1 and NaN means no data"
    else:
        what = f"uint8, {COLOURS[steps.channels]}, 0 to 255"
    return f"{many}{axes} of any height and width, {what}, not resized and not normalised: both are inside the graph."
