"""Folders that timm and transformers open by themselves: their names, their settings, our numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail.core.errors import RunError
from vitrail.core.files import replace_folder, write_json, write_text
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.export.proof import Asked
from vitrail.infer.exported import need
from vitrail.infer.held_back import Pixels
from vitrail.infer.predictor import Predictor, batch_of
from vitrail.layers.head import Output
from vitrail.runs.run_network import run_network
from vitrail.weights.to_timm import for_timm
from vitrail.weights.to_transformers import for_transformers

Check = Callable[[Path], None]


def write_timm(predictor: Predictor, folder: Path, check: Check) -> None:
    """Write a folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`, where `check` lets it pass."""
    settings, tensors = for_timm(predictor.network.cpu(), _temperature(predictor))
    steps = predictor.preprocess
    settings["num_classes"] = len(predictor.labels)
    settings["pretrained_cfg"] = {
        "input_size": [steps.channels, *steps.size],
        "mean": list(steps.mean),
        "std": list(steps.std),
        "interpolation": steps.interpolation,
        "crop_pct": steps.crop_fraction,
        "crop_mode": {"squash": "squash", "crop": "center", "pad": "border"}[steps.fit],
        "num_classes": len(predictor.labels),
        "label_names": list(predictor.labels),
    }
    _write(predictor, folder, tensors, {"config.json": settings}, check)


def write_huggingface(predictor: Predictor, folder: Path, check: Check) -> None:
    """Write a folder for `AutoModelForImageClassification.from_pretrained(FOLDER)`, where `check` lets it pass."""
    need("transformers")
    settings, tensors = for_transformers(predictor.network.cpu(), _temperature(predictor))
    names = {str(i): label for i, label in enumerate(predictor.labels)}
    settings |= {
        "problem_type": _problem(predictor),
        "id2label": names,
        "label2id": {label: int(i) for i, label in names.items()},
    }
    files = {"config.json": settings}
    if (steps := _processor(predictor.preprocess)) is not None:
        files["preprocessor_config.json"] = steps
    _write(predictor, folder, tensors, files, check)


def asked_of_timm(predictor: Predictor, folder: Path) -> Asked:
    """Return what timm's own network says after reading the folder."""
    import timm

    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return _asked(predictor, network.eval())


def asked_of_huggingface(predictor: Predictor, folder: Path) -> Asked:
    """Return what transformers' own network says after reading the folder."""
    return _asked(predictor, read_huggingface(folder))


def read_huggingface(folder: Path) -> nn.Module:
    """Return transformers' own network from a folder, as a function from images (b, c, height, width) to logits."""
    from transformers import AutoModelForImageClassification

    with redirect_stderr(StringIO()):  # its progress bar, for a moment's work
        network = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    return Logits(network).eval()


class Logits(nn.Module):
    """A network of transformers as a function from images to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def _asked(predictor: Predictor, network: nn.Module) -> Asked:
    # The temperature went into the written head; the task divides by it once more.
    temperature = _temperature(predictor)

    def ask(images: Sequence[Pixels]) -> Output:
        batch = batch_of([predictor.ready(image) for image in images])

        def compute(batch: Batch[Any]) -> Output:
            return {"logits": network(batch.images) * temperature}

        return next(run_network(compute, [batch], torch.device("cpu")))[1]

    return ask


def _write(
    predictor: Predictor,
    folder: Path,
    tensors: Mapping[str, Tensor],
    files: Mapping[str, Mapping[str, Any]],
    check: Check,
) -> None:
    """Fill a folder beside the wanted one and give it its name once it is proven."""
    if folder.exists():
        raise RunError(f"{folder} exists and is not overwritten. Choose another place with --out.")

    def fill(draft: Path) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            draft / "model.safetensors",
            metadata={"format": "pt"},
        )
        for name, values in files.items():
            write_json(draft / name, values)
        said = "preprocessor_config.json" in files or "pretrained_cfg" in files["config.json"]
        write_text(draft / "README.md", _readme(predictor, said))
        check(draft)

    replace_folder(folder, fill)


def _temperature(predictor: Predictor) -> float:
    return float(getattr(predictor.task, "temperature", 1.0))


def _problem(predictor: Predictor) -> str:
    problem: str = predictor.task.problem  # type: ignore[attr-defined]
    return problem


def _processor(steps: Preprocess) -> dict[str, Any] | None:
    """Return transformers' words for the preprocessing; None where it has none.

    It has none for padding, for a crop that is no square, and for raw pictures.
    """
    if steps.raw or steps.fit == "pad" or (steps.fit == "crop" and steps.size[0] != steps.size[1]):
        return None
    size = {"height": steps.size[0], "width": steps.size[1]}
    said: dict[str, Any] = {
        "do_resize": True,
        "resample": {"bicubic": 3, "bilinear": 2}[steps.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(steps.mean),
        "image_std": list(steps.std),
    }
    if steps.fit == "squash" and steps.crop_fraction == 1:
        return {"image_processor_type": "ViTImageProcessor", "size": size, **said}
    tall, wide = (int(side / steps.crop_fraction) for side in steps.size)
    aim = {"height": tall, "width": wide} if steps.fit == "squash" else {"shortest_edge": tall}
    cropped = {"do_center_crop": True, "crop_size": size, "size": aim}
    return {"image_processor_type": "BitImageProcessor", **cropped, **said}


def _readme(predictor: Predictor, said: bool) -> str:
    steps = predictor.preprocess
    lines = [
        f"# {predictor.header.name}, {len(predictor.labels)} classes",
        "",
        "Written by vitrail export. The network answers as the trained one does; that was checked before writing.",
        f"It was trained on pictures of {steps.size[0]} x {steps.size[1]} px, fit `{steps.fit}`, resized by",
        f"antialiased {steps.interpolation} interpolation in float32. The library that opens this folder resizes with",
        "rounded numbers of its own, so its probabilities for a file differ a little from vitrail's.",
        *([] if said else ["It has no words for this fit: prepare the pictures yourself."]),
        "",
        f"Classes: {', '.join(predictor.labels)}",
        "",
    ]
    return "\n".join(lines)
