"""The peers of `vitrail bench`: timm, transformers, ONNX Runtime and OpenVINO, each with the same weights.

ONNX Runtime and OpenVINO run timm's network if timm has it, exported as their users would do, else ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail.core.environment import compiler
from vitrail.core.files import write_json
from vitrail.export.library_folders import read_huggingface
from vitrail.infer.openvino_backend import OfImages, quietly
from vitrail.infer.runtimes import core
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import Network
from vitrail.weights.library_mapping import UnsupportedByLibraryError
from vitrail.weights.to_timm import for_timm
from vitrail.weights.to_transformers import for_transformers

Run = Callable[[], Any]


def forward(network: Callable[[Tensor], Any], images: Tensor, bf16: bool = False) -> Run:
    """Return a function that runs a network and waits for the result (also on a GPU)."""

    def run() -> None:
        with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    return run


def peers(network: Network, images: Tensor, folder: Path, compiled: bool) -> Iterator[tuple[str, Run]]:
    """Yield the installed peers that can run this network, by name; `folder` holds the files that they read."""
    bf16 = fast_bf16(images.device)
    twin = timm_twin(network)
    if twin is not None:
        yield "timm eager", forward(twin, images)
        if compiled and (compiler() or images.device.type == "cuda"):
            compiled_twin = torch.compile(twin, dynamic=False, options={"freezing": True})
            words = "timm compiled, frozen" + (", bf16" if bf16 else "")
            yield words, forward(compiled_twin, images, bf16)
    theirs = transformers_twin(network, folder / "transformers")
    if theirs is not None:
        yield "transformers", forward(theirs, images)
    if images.device.type == "cpu" and find_spec("onnxscript") is not None:
        yield from _runtimes(twin or OfImages(network), images, folder / "network.onnx", bf16)


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
        graph = core().compile_model(str(path), "CPU", settings)
        yield f"OpenVINO {hint}", lambda: graph(images.numpy())


def timm_twin(network: Network) -> nn.Module | None:
    """Return timm's network with these weights, including the classifier, or None if timm has no equivalent."""
    try:
        settings, tensors = for_timm(network)
    except UnsupportedByLibraryError:
        return None
    import timm

    twin: nn.Module = timm.create_model(
        settings["architecture"], num_classes=_classes(network), **settings["model_args"]
    )
    twin.load_state_dict(tensors)
    return twin.to(next(network.parameters()).device).eval().requires_grad_(False)


def transformers_twin(network: Network, folder: Path) -> nn.Module | None:
    """Return transformers' network with these weights, read from `folder`, or None if it has no equivalent."""
    if find_spec("transformers") is None:
        return None
    try:
        settings, tensors = for_transformers(network)
    except UnsupportedByLibraryError:
        return None
    folder.mkdir()
    labels = {str(i): str(i) for i in range(_classes(network))}
    write_json(folder / "config.json", {**settings, "id2label": labels})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return read_huggingface(folder).to(next(network.parameters()).device).requires_grad_(False)


def _classes(network: Network) -> int:
    return int(network.head.get_parameter("linear.bias").numel())
