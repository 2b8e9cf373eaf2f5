"""The peers of `vitrail bench`: timm, transformers, ONNX Runtime and OpenVINO, each with the same weights.

ONNX Runtime and OpenVINO run timm's network where timm has it, as their users would export it, else ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail.core.files import write_json
from vitrail.core.paths import compiler
from vitrail.export.folders import Logits, huggingface_settings, timm_settings
from vitrail.infer.exported import openvino
from vitrail.infer.translated import quietly
from vitrail.runs.assemble import Network
from vitrail.runs.device import fast_bf16
from vitrail.weights import rules
from vitrail.weights.convert import table_for
from vitrail.weights.tables import timm as timm_tables

Run = Callable[[], Any]


def forward(network: Callable[[Tensor], Any], images: Tensor, bf16: bool = False) -> Run:
    """Return a call of a network that has ended when it returns."""

    def run() -> None:
        with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    return run


def peers(network: Network, images: Tensor, folder: Path, compiled: bool) -> Iterator[tuple[str, Run]]:
    """Yield the installed peers that can run this network, by name; `folder` is for what they read from disk."""
    bf16 = fast_bf16(images.device)
    twin = timm_twin(network)
    if twin is not None:
        yield "timm eager", forward(twin, images)
        if compiled and (compiler() or images.device.type == "cuda"):
            quick = torch.compile(twin, dynamic=False, options={"freezing": True})
            words = "timm compiled, frozen" + (", bf16" if bf16 else "")
            yield words, forward(quick, images, bf16)
    theirs = transformers_twin(network, folder / "transformers")
    if theirs is not None:
        yield "transformers", forward(theirs, images)
    if images.device.type == "cpu" and find_spec("onnxscript") is not None:
        yield from _runtimes(twin or network, images, folder / "network.onnx", bf16)


def _runtimes(network: nn.Module, images: Tensor, path: Path, bf16: bool) -> Iterator[tuple[str, Run]]:
    with quietly(), torch.no_grad():
        torch.onnx.export(network, (images,), path, dynamo=True, verbose=False, external_data=False)
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        fed = {session.get_inputs()[0].name: images.numpy()}
        yield "ONNX Runtime", lambda: session.run(None, fed)
    if find_spec("openvino") is not None:
        hint = "bf16" if bf16 else "f32"
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        graph = openvino().Core().compile_model(str(path), "CPU", settings)
        yield f"OpenVINO {hint}", lambda: graph(images.numpy())


def timm_twin(network: Network) -> nn.Module | None:
    """Return timm's own network with these weights, classifier included, or None where timm has none like it."""
    config: Any = network.encoder.config
    head = _linear(network)
    if head is None:
        return None
    import timm

    if config.family == "timm":
        encoder: Any = network.encoder
        name, settings = config.name.split(".")[0], dict(encoder.settings)
        classifier = encoder.net.pretrained_cfg.get("classifier")
        if not isinstance(classifier, str):
            return None
        table = timm_tables.network(classifier)
    else:
        found = timm_settings(config, _pool(network))
        if found is None:
            return None
        name, settings, table = found["architecture"], found["model_args"], table_for(config, "timm")
    twin: nn.Module = timm.create_model(name, num_classes=len(head["linear.bias"]), **settings)
    twin.load_state_dict(rules.save(table, network.encoder.state_dict()) | rules.save(table, {}, head))
    return twin.to(next(network.parameters()).device).eval().requires_grad_(False)


def transformers_twin(network: Network, folder: Path) -> nn.Module | None:
    """Return transformers' own network with these weights, read from `folder`, or None where it has none like it."""
    config: Any = network.encoder.config
    head, settings = _linear(network), huggingface_settings(config, _pool(network))
    if head is None or settings is None or find_spec("transformers") is None:
        return None
    from transformers import AutoModelForImageClassification

    table = table_for(config, "huggingface")
    tensors = {
        f"vit.{name}": value for name, value in rules.save(table, network.encoder.state_dict()).items()
    }
    folder.mkdir()
    labels = {str(i): str(i) for i in range(len(head["linear.bias"]))}
    write_json(folder / "config.json", {**settings, "id2label": labels})
    save_file(tensors | rules.save(table, {}, head), folder / "model.safetensors", metadata={"format": "pt"})
    with redirect_stderr(StringIO()):  # its progress bar, for a moment's work
        twin: nn.Module = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    return Logits(twin).to(next(network.parameters()).device).eval().requires_grad_(False)


def _pool(network: Network) -> str:
    return str(network.head.get_submodule("pool").kind)


def _linear(network: Network) -> dict[str, Tensor] | None:
    """Return the classifier's weights where it stands directly on the pooled features, else None."""
    head = dict(network.head.state_dict())
    return head if head.keys() == {"linear.weight", "linear.bias"} else None
