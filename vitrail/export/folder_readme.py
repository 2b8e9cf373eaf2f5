"""README.md of a folder for timm or transformers, in the model card format of hubs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from vitrail.data.preprocess import Preprocess
from vitrail.export.agreement import Proven
from vitrail.export.words import decoding
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
    steps = predictor.preprocess
    several = getattr(predictor.task, "problem", "") == "multi_label_classification"
    use = (USE if proven.prepares else UNPREPARED)[library]
    use = use.replace("SCORES", "sigmoid()" if several else "softmax(-1)")
    lines = [
        "---",
        yaml.safe_dump(_front(predictor, library), sort_keys=False, allow_unicode=True).strip(),
        "---",
        f"# {predictor.header.name}, {len(predictor.labels)} classes",
        "",
        f"Written for {library} by vitrail export.",
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
        *_resize_words(steps),
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


def _resize_words(steps: Preprocess) -> list[str]:
    shown = f"on images of {steps.size[0]} x {steps.size[1]} px, fit `{steps.fit}`, resized by"
    if steps.rounded:
        return [
            f"Its published weights were evaluated {shown}",
            f"antialiased {steps.interpolation} interpolation and rounded to whole numbers. A library that also rounds",
            "between width and height gives probabilities that differ slightly from vitrail's.",
        ]
    return [
        f"It was trained {shown}",
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
