"""Write folders that timm and transformers load directly: their names and settings, our weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail import __version__
from vitrail.core.errors import RunError, SettingError
from vitrail.core.files import replace_folder, write_json, write_text
from vitrail.data.batch import Batch, images_only
from vitrail.data.preprocess import Preprocess
from vitrail.export import processors
from vitrail.export.agreement import Asked, Check, Proven
from vitrail.export.folder_readme import readme
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import Pixels
from vitrail.infer.runtimes import need
from vitrail.layers.heads import Output
from vitrail.models.patch_size import can_resize_patches
from vitrail.runs.model_source import EXPORTED
from vitrail.runs.network import Network
from vitrail.runs.run_network import run_network
from vitrail.weights.to_timm import for_timm
from vitrail.weights.to_transformers import for_transformers


def refuse_point(predictor: Predictor, format: str) -> None:
    """Raise a SettingError if a library has no such network as the predictor's operating point needs."""
    point = predictor.point
    if point == predictor.points[-1]:
        return
    if point.keep < 1 or point.merge:
        why = "that library has no network that drops or merges tokens"
    elif predictor.preprocess_at(point).size != point.size:
        why = "this model was trained on images that are resized twice, which that library does not do"
    elif not can_resize_patches(predictor.network.encoder):
        why = "of networks for another size it takes ViT, DeiT and DINOv2 with a learned position table alone"
    else:
        return
    raise SettingError(
        f"A {format} folder cannot hold the operating point {point}: {why}. "
        "Use --format onnx, openvino or torch, or remove --point."
    )


def _network(predictor: Predictor) -> Network:
    """Return the network at the predictor's operating point, with a position table for its size."""
    point = predictor.point
    if point == predictor.points[-1]:
        return predictor.network.cpu()
    return predictor.at(point._replace(patch=point.patch or predictor.network.spec.strides[0])).cpu()


def write_timm(predictor: Predictor, folder: Path, check: Check) -> Proven:
    """Write a folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`, if `check` passes."""
    settings, tensors = for_timm(_network(predictor), _temperature(predictor))
    settings["num_classes"] = len(predictor.labels)
    settings["pretrained_cfg"] = {
        **processors.of_timm(predictor.preprocess_at(predictor.point)),
        "num_classes": len(predictor.labels),
        "label_names": list(predictor.labels),
    }
    draft = partial(_fill, tensors, {"config.json": settings})
    return _write(predictor, "timm", folder, draft, check)


def write_huggingface(predictor: Predictor, folder: Path, check: Check) -> Proven:
    """Write a folder for `AutoModelForImageClassification.from_pretrained(FOLDER)`, if `check` passes."""
    need("transformers")
    settings, tensors = for_transformers(_network(predictor), _temperature(predictor))
    names = {str(i): label for i, label in enumerate(predictor.labels)}
    settings |= {
        "problem_type": _problem(predictor),
        "id2label": names,
        "label2id": {label: int(i) for i, label in names.items()},
    }
    files = {"config.json": settings}
    steps = predictor.preprocess_at(predictor.point)
    if not processors.transformers_cannot(steps):
        files["preprocessor_config.json"] = processors.of_transformers(steps)
    return _write(predictor, "transformers", folder, partial(_fill, tensors, files), check)


def asked_of_timm(predictor: Predictor, folder: Path) -> Asked:
    """Return a function that runs timm's network from the folder on images that we prepare."""
    return _asked(predictor, read_timm(folder), partial(_ready, predictor))


def prepared_by_timm(predictor: Predictor, folder: Path) -> Asked:
    """Return a function that runs timm's network on images prepared by the folder's own transform."""
    import timm.data

    network, library = read_timm(folder), cast(Any, timm.data)
    steps = library.create_transform(**library.resolve_model_data_config(network), is_training=False)

    def prepare(images: Sequence[Pixels]) -> Tensor:
        return torch.stack([steps(_picture(image)) for image in images])

    return _asked(predictor, network, prepare)


def asked_of_huggingface(predictor: Predictor, folder: Path) -> Asked:
    """Return a function that runs transformers' network from the folder on images that we prepare."""
    return _asked(predictor, read_huggingface(folder), partial(_ready, predictor))


def prepared_by_huggingface(predictor: Predictor, folder: Path) -> Asked:
    """Return a function that runs transformers' network on images prepared by the folder's own processor."""
    from transformers import AutoImageProcessor

    steps = cast(Any, AutoImageProcessor).from_pretrained(folder, local_files_only=True)

    def prepare(images: Sequence[Pixels]) -> Tensor:
        pixels: Tensor = steps([_picture(image) for image in images], return_tensors="pt")["pixel_values"]
        return pixels

    return _asked(predictor, read_huggingface(folder), prepare)


def without_steps(folder: Path, steps: Preprocess) -> bool:
    """Remove transformers' processor from a folder if it only approximates ours; return whether it was removed."""
    if processors.transformers_approximates(steps):
        (folder / "preprocessor_config.json").unlink()
        return True
    return False


def read_timm(folder: Path) -> nn.Module:
    """Load timm's network from a folder."""
    import timm

    network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return network.eval()


def read_huggingface(folder: Path) -> nn.Module:
    """Load transformers' network from a folder, as a module from images (b, c, height, width) to logits."""
    from transformers import AutoModelForImageClassification

    with redirect_stderr(StringIO()):  # hide its progress bar
        network = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    return Logits(network).eval()


class Logits(nn.Module):
    """Wraps a network of transformers: images -> logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def _ready(predictor: Predictor, images: Sequence[Pixels]) -> Tensor:
    return torch.stack([predictor.ready(image).pixels for image in images])


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _asked(predictor: Predictor, network: nn.Module, prepare: Callable[[Sequence[Pixels]], Tensor]) -> Asked:
    # The written head includes the temperature, and the task divides by it again.
    temperature = _temperature(predictor)

    def ask(images: Sequence[Pixels]) -> Output:
        batch = images_only(prepare(images))

        def compute(batch: Batch[Any]) -> Output:
            return {"logits": network(batch.images) * temperature}

        return next(run_network(compute, [batch], torch.device("cpu")))[1]

    return ask


def _fill(tensors: Mapping[str, Tensor], files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt", EXPORTED: __version__},
    )
    for name, values in files.items():
        write_json(folder / name, values)


def _write(
    predictor: Predictor, library: str, folder: Path, fill: Callable[[Path], None], check: Check
) -> Proven:
    """Fill a temporary folder and rename it after the check passes."""
    if folder.exists():
        raise RunError(f"{folder} already exists and is not overwritten. Choose another folder with --out.")

    def made(draft: Path) -> Proven:
        fill(draft)
        proven = check(draft)
        write_text(draft / "README.md", readme(predictor, library, proven))
        return proven

    return replace_folder(folder, made)


def _temperature(predictor: Predictor) -> float:
    return float(getattr(predictor.task, "temperature", 1.0))


def _problem(predictor: Predictor) -> str:
    problem: str = predictor.task.problem  # type: ignore[attr-defined]
    return problem


@dataclass(frozen=True, slots=True)
class Library:
    """A library that can load our folders: how to write, run and check them."""

    format: str
    steps: str  # name of its own preprocessing
    write: Callable[[Predictor, Path, Check], Proven]
    asked: Callable[[Predictor, Path], Asked]
    prepared: Callable[[Predictor, Path], Asked]
    unprepared: Callable[[Preprocess], str]
    left_out: Callable[
        [Path, Preprocess], bool
    ]  # removes its preprocessing from a folder if it only approximates ours


FOLDERS: Mapping[str, Library] = MappingProxyType(
    {
        "timm": Library(
            "timm",
            "timm's own transform",
            write_timm,
            asked_of_timm,
            prepared_by_timm,
            processors.timm_cannot,
            lambda folder, steps: False,
        ),
        "huggingface": Library(
            "huggingface",
            "transformers' own processor",
            write_huggingface,
            asked_of_huggingface,
            prepared_by_huggingface,
            processors.transformers_cannot,
            without_steps,
        ),
    }
)
"""The formats that are folders of other libraries."""
