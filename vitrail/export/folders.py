"""Folders that timm and transformers open by themselves: their names, their settings, our numbers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail.core.errors import RunError
from vitrail.core.files import write_json, write_text
from vitrail.data.preprocess import Preprocess
from vitrail.export.proof import Asked
from vitrail.infer.exported import need
from vitrail.infer.held_back import Pixels
from vitrail.infer.predictor import Predictor
from vitrail.tasks.multilabel import MultiLabel
from vitrail.weights import rules
from vitrail.weights.convert import table_for
from vitrail.weights.rules import Table
from vitrail.weights.tables import timm as timm_tables

Check = Callable[[Path], None]


def write_timm(predictor: Predictor, folder: Path, check: Check) -> None:
    """Write a folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`, where `check` lets it pass."""
    config = predictor.network.encoder.config
    if config.family == "timm":
        settings, table = _of_timm(predictor)
    else:
        settings, table = _vision_transformer(predictor), table_for(config, "timm")
    steps = predictor.preprocess
    settings["num_classes"] = len(predictor.labels)
    settings["pretrained_cfg"] = {
        "input_size": [steps.channels, *steps.size],
        "mean": list(steps.mean),
        "std": list(steps.std),
        "interpolation": "bicubic",
        "crop_pct": steps.crop_fraction,
        "crop_mode": {"squash": "squash", "crop": "center", "pad": "border"}[steps.fit],
        "num_classes": len(predictor.labels),
        "label_names": list(predictor.labels),
    }
    _write(predictor, folder, table, {"config.json": settings}, check)


def write_huggingface(predictor: Predictor, folder: Path, check: Check) -> None:
    """Write a folder for `AutoModelForImageClassification.from_pretrained(FOLDER)`, where `check` lets it pass."""
    need("transformers")
    config, pool = predictor.network.encoder.config, _pool(predictor)
    settings = huggingface_settings(config, pool)
    if settings is None and pool != "cls":
        raise _no_place(predictor, "transformers", "a network that reads its class token (--pool cls)")
    if settings is None:
        raise _no_place(predictor, "transformers", "a plain ViT with a class token")
    names = {str(i): label for i, label in enumerate(predictor.labels)}
    settings |= {
        "problem_type": _problem(predictor),
        "id2label": names,
        "label2id": {label: int(i) for i, label in names.items()},
    }
    files = {"config.json": settings, "preprocessor_config.json": _processor(predictor.preprocess)}
    _write(predictor, folder, table_for(config, "huggingface"), files, check, prefix="vit.")


def huggingface_settings(config: Any, pool: str) -> dict[str, Any] | None:
    """Return transformers' words for a plain ViT that reads its class token, None for any other network."""
    plain = config.family == "vit" and config.prefix == ("cls",) and config.position == "1d"
    if not plain or pool != "cls" or bool(getattr(config, "stem", ())):
        return None
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden or 4 * config.width,
        "hidden_act": "gelu" if config.gelu == "exact" else "gelu_pytorch_tanh",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.size[0] if config.size[0] == config.size[1] else list(config.size),
        "patch_size": config.patch,
        "num_channels": config.channels,
        "qkv_bias": True,
    }


def asked_of_timm(predictor: Predictor, folder: Path) -> Asked:
    """Return what timm's own network says after reading the folder."""
    import timm

    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return _asked(predictor, network.eval())


def asked_of_huggingface(predictor: Predictor, folder: Path) -> Asked:
    """Return what transformers' own network says after reading the folder."""
    from transformers import AutoModelForImageClassification

    network = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    return _asked(predictor, Logits(network))


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

    def ask(images: Sequence[Pixels]) -> Tensor:
        with torch.inference_mode():
            logits = network(torch.stack([predictor.preprocess.eval(image)[0] for image in images]))
            return predictor.task.probabilities(logits * temperature)

    return ask


def _write(
    predictor: Predictor,
    folder: Path,
    table: Table,
    files: Mapping[str, Mapping[str, Any]],
    check: Check,
    prefix: str = "",
) -> None:
    """Fill a folder beside the wanted one and give it its name once it is proven."""
    if folder.exists():
        raise RunError(f"{folder} exists and is not overwritten. Choose another place with --out.")
    tensors = _tensors(predictor, table, prefix)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vitrail-") as temporary:
        draft = Path(temporary, folder.name)
        draft.mkdir()
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        for name, values in files.items():
            write_json(draft / name, values)
        write_text(draft / "README.md", _readme(predictor))
        check(draft)
        shutil.move(draft, folder)


def _tensors(predictor: Predictor, table: Table, prefix: str) -> dict[str, Tensor]:
    network = predictor.network.cpu()
    head = {name: tensor.clone() for name, tensor in network.head.state_dict().items()}
    for name in head:
        if name.startswith(("linear.", "dist.")):
            head[name] /= _temperature(predictor)
    encoder = rules.save(table, network.encoder.state_dict())
    written = {f"{prefix}{name}": tensor for name, tensor in encoder.items()}
    return written | rules.save(table, {}, head)


def _temperature(predictor: Predictor) -> float:
    return float(getattr(predictor.task.settings, "temperature", 1.0))


def _pool(predictor: Predictor) -> str:
    network = predictor.network
    return str(getattr(predictor.task.settings, "pool", None) or network.spec.pool)


def _problem(predictor: Predictor) -> str:
    several = isinstance(predictor.task, MultiLabel)
    return "multi_label_classification" if several else "single_label_classification"


def _of_timm(predictor: Predictor) -> tuple[dict[str, Any], Table]:
    config: Any = predictor.network.encoder.config
    encoder: Any = predictor.network.encoder
    classifier = encoder.net.pretrained_cfg.get("classifier")
    if not isinstance(classifier, str):
        raise _no_place(predictor, "timm", "a network with one classifier")
    settings = {"architecture": config.name.split(".")[0], "model_args": dict(encoder.settings)}
    return settings, timm_tables.network(classifier)


def _vision_transformer(predictor: Predictor) -> dict[str, Any]:
    settings = timm_settings(predictor.network.encoder.config, _pool(predictor))
    if settings is None:
        raise _no_place(predictor, "timm", "plain ViTs and DeiTs, and for timm's own networks")
    return settings


def timm_settings(config: Any, pool: str) -> dict[str, Any] | None:
    """Return timm's words for a plain ViT or a DeiT of any size, or None where it has none for a network."""
    plain = config.family in ("vit", "deit") and not getattr(config, "stem", ()) and config.norm_eps == 1e-6
    pooled = {"cls": "token", "mean": "avg", "attention": "map"}
    if not plain or config.prefix not in ((), ("cls",)) or config.position not in ("1d", "1d_patches"):
        return None
    if pool not in pooled:
        return None
    arguments: dict[str, Any] = {
        "img_size": list(config.size),
        "patch_size": config.patch,
        "in_chans": config.channels,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": (getattr(config, "hidden", None) or 4 * config.width) / config.width,
        "act_layer": "gelu_tanh" if getattr(config, "gelu", "exact") == "tanh" else "gelu",
        "class_token": bool(config.prefix),
        "no_embed_class": config.position == "1d_patches",
        "global_pool": pooled[pool],
        "fc_norm": False,
    }
    if getattr(config, "layer_scale", None) is not None:
        arguments["init_values"] = config.layer_scale
    return {"architecture": "vit_base_patch16_224", "model_args": arguments}


def _processor(steps: Preprocess) -> dict[str, Any]:
    """Return transformers' words for the preprocessing; padding is beyond its processors and is left to the reader."""
    size = {"height": steps.size[0], "width": steps.size[1]}
    said: dict[str, Any] = {
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(steps.mean),
        "image_std": list(steps.std),
    }
    if steps.fit != "crop":
        return {"image_processor_type": "ViTImageProcessor", "size": size, **said}
    edge = int(min(steps.size) / steps.crop_fraction)
    cropped = {"do_center_crop": True, "crop_size": size, "size": {"shortest_edge": edge}}
    return {"image_processor_type": "BitImageProcessor", **cropped, **said}


def _readme(predictor: Predictor) -> str:
    steps = predictor.preprocess
    lines = [
        f"# {predictor.header.name}, {len(predictor.labels)} classes",
        "",
        "Written by vitrail export. The network answers as the trained one does; that was checked before writing.",
        f"It was trained on pictures of {steps.size[0]} x {steps.size[1]} px, fit `{steps.fit}`, resized by",
        "antialiased bicubic interpolation in float32. The library that opens this folder resizes with rounded",
        "numbers of its own, so its probabilities for a file differ a little from vitrail's.",
        "",
        f"Classes: {', '.join(predictor.labels)}",
        "",
    ]
    return "\n".join(lines)


def _no_place(predictor: Predictor, library: str, place: str) -> RunError:
    return RunError(
        f"{library} has no place for this {predictor.header.name}; it has one for {place}. Use --format onnx."
    )
