"""README.md of a folder for timm or transformers, in the model card format of hubs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from vitrail.data.preprocess import Preprocess
from vitrail.export.agreement import Proven
from vitrail.export.words import decoding, named, point_words
from vitrail.infer.predictor import Predictor

USE: Mapping[str, str] = MappingProxyType(
    {
        "timm": """import timm, torch
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
config = timm.data.resolve_model_data_config(model)
prepare = timm.data.create_transform(**config, is_training=False)
with torch.no_grad():
    probabilities = model(prepare(Image.open("picture.jpg").convert("MODE"))[None]).SCORES
names = model.pretrained_cfg["label_names"]""",
        "transformers": """import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("FOLDER")
prepare = AutoImageProcessor.from_pretrained("FOLDER")
with torch.no_grad():
    inputs = prepare(Image.open("picture.jpg").convert("MODE"), return_tensors="pt")
    probabilities = model(**inputs).logits.SCORES
names = model.config.id2label""",
    }
)
"""Python code that loads a folder with each library and prepares an image."""

UNPREPARED: Mapping[str, str] = MappingProxyType(
    {
        "timm": """import timm, torch, vitrail

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
pixels = vitrail.load("model.safetensors of the run").ready("picture.jpg").pixels
with torch.no_grad():
    probabilities = model(pixels[None]).SCORES
names = model.pretrained_cfg["label_names"]""",
        "transformers": """import torch, vitrail
from transformers import AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("FOLDER")
pixels = vitrail.load("model.safetensors of the run").ready("picture.jpg").pixels
with torch.no_grad():
    probabilities = model(pixel_values=pixels[None]).logits.SCORES
names = model.config.id2label""",
    }
)
"""The same code if vitrail prepares the image."""


def readme(predictor: Predictor, library: str, proven: Proven) -> str:
    """Return the README: usage, agreement with the model, decoding, and classes in order."""
    steps = predictor.preprocess_at(predictor.point)
    several = getattr(predictor.task, "problem", "") == "multi_label_classification"
    at_point = point_words(predictor)
    use = (USE if proven.prepares else UNPREPARED)[library]
    if at_point:
        use = use.replace('of the run")', f'of the run", point="{predictor.point}")')
    use = use.replace("SCORES", "sigmoid()" if several else "softmax(-1)")
    lines = [
        "---",
        yaml.safe_dump(_front(predictor, library), sort_keys=False, allow_unicode=True).strip(),
        "---",
        f"# {named(predictor)}, {len(predictor.labels)} classes",
        "",
        " ".join([f"Written for {library} by vitrail export.", *([at_point] if at_point else [])]),
        "",
        "```python",
        use.replace("MODE", {1: "L", 4: "RGBA"}.get(steps.channels, "RGB")),
        "```",
        "",
        "## How well it agrees",
        "",
        f"- The network, on inputs prepared by vitrail: {proven.agreement}.",
        *(f"- {note}" for note in proven.notes),
        "",
        *_resize_words(steps, bool(at_point)),
        "",
        "## Decoding",
        "",
        decoding(steps),
        "",
        "## Classes, in the order of the outputs",
        "",
        ", ".join(predictor.labels),
        "",
    ]
    return "\n".join(lines)


def _resize_words(steps: Preprocess, at_point: bool) -> list[str]:
    shown = f"on images of {steps.size[0]} x {steps.size[1]} px, fit `{steps.fit}`, resized by"
    if steps.rounded:
        return [
            f"{'It answers here' if at_point else 'Its published weights were evaluated'} {shown}",
            f"antialiased {steps.interpolation} interpolation and rounded to whole numbers. A library that also rounds",
            "between width and height gives probabilities that differ slightly from vitrail's.",
        ]
    return [
        f"It {'answers here' if at_point else 'was trained'} {shown}",
        f"antialiased {steps.interpolation} interpolation in float32. A library that resizes in 8 bits, or places an",
        "odd margin differently, gives probabilities that differ slightly from vitrail's.",
    ]


def _front(predictor: Predictor, library: str) -> dict[str, Any]:
    """Return the YAML block that hubs index; it has a licence only if the weights have one."""
    exports = predictor.task.exports
    tag = [exports.pipeline_tag] if exports else []
    front: dict[str, Any] = {"library_name": library, **({"pipeline_tag": tag[0]} if tag else {})}
    if predictor.header.licence:
        front["license"] = predictor.header.licence.lower()
    return {**front, "tags": [library, "vitrail", *tag]}
