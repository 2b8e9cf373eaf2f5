"""Writing the whole way, pixels to answers, as ONNX, OpenVINO or a torch program."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitrail.core.errors import RunError
from vitrail.core.files import replace
from vitrail.data.view import weights_in_original
from vitrail.export.graph import Looking, Whole
from vitrail.export.proof import Asked
from vitrail.infer.exported import (
    KEY,
    contradicts,
    core,
    need,
    open_exported,
    openvino,
    output_names,
    readable,
)
from vitrail.infer.held_back import Pixels
from vitrail.infer.predictor import Predictor
from vitrail.infer.translated import quietly
from vitrail.layers.head import Output
from vitrail.models.create import count_params
from vitrail.runs.proof import picture_for

OPSET = 18
LIMIT = 2_000_000_000
"""Bytes: protobuf, in which ONNX is written, holds no file of 2 GB."""

Check = Callable[[Path], None]
"""Asks a written file; raises where it does not answer as the model."""


def program(predictor: Predictor, attention: bool = False) -> torch.export.ExportedProgram:
    """Return the model from a picture (height, width, channels), of any size, to its outputs as a torch program."""
    kind = Looking if attention else Whole
    whole = kind(predictor.network.cpu(), predictor.task, predictor.preprocess).eval()
    sample = torch.from_numpy(picture_for(predictor.preprocess))
    sides = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with torch.no_grad(), quietly():
        return torch.export.export(whole, (sample,), dynamic_shapes=sides)


def metadata(predictor: Predictor) -> dict[str, str]:
    """Return what every exported file says of itself, as text by name."""
    shown = picture_for(predictor.preprocess)
    header = predictor.header.model_dump()
    return {
        KEY: json.dumps(header, ensure_ascii=False),
        "labels": json.dumps(list(predictor.labels), ensure_ascii=False),
        "preprocessing": json.dumps(predictor.preprocess.to_dict()),
        "proof_dtype": shown.dtype.name,
        "proof_shape": json.dumps(list(shown.shape)),
        "proof_picture": base64.b64encode(shown.tobytes()).decode(),
        "proof_fingerprint": json.dumps(predictor.header.proof),
    }


def names(predictor: Predictor, attention: bool) -> list[str]:
    """Return the names of the outputs, in order."""
    return [*output_names(predictor.task), *(["attention"] if attention else [])]


def write_onnx(predictor: Predictor, path: Path, attention: bool, check: Check) -> None:
    """Write an ONNX file (opset 18), in one step and only where `check` lets it pass."""
    model = _onnx(predictor, attention)

    def write(temporary: Path) -> None:
        temporary.write_bytes(model.SerializeToString())
        check(temporary)

    replace(path, write)


def write_openvino(predictor: Predictor, path: Path, attention: bool, check: Check) -> None:
    """Write OpenVINO's .xml and .bin, through ONNX, only where `check` lets them pass."""
    ov = openvino()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".vitrail-") as folder:
        source = Path(folder, "model.onnx")
        source.write_bytes(_onnx(predictor, attention).SerializeToString())
        model = core().read_model(str(source))
        for port, name in zip(model.outputs, names(predictor, attention), strict=True):
            port.get_tensor().set_names({name})
        for name, text in metadata(predictor).items():
            model.set_rt_info(text, ["model_info", name])
        written = Path(folder, path.name)
        # Half precision would be the default of this call; an export promises the model's own weights.
        ov.save_model(model, str(written), compress_to_fp16=False)
        check(written)
        os.replace(written.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(written, path)


def write_program(predictor: Predictor, path: Path, attention: bool, check: Check) -> None:
    """Write a torch program (.pt2), in one step and only where `check` lets it pass."""
    whole = program(predictor, attention)
    whole.example_inputs = None  # else the proof picture is pickled into the file

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle, quietly():
            torch.export.save(whole, handle, extra_files=metadata(predictor))
        check(temporary)

    replace(path, write)


def _onnx(predictor: Predictor, attention: bool) -> Any:
    need("onnx")
    need("onnxscript")
    if 4 * count_params(predictor.network) > LIMIT:
        raise RunError(
            f"{predictor.header.name} is too large for one ONNX file (2 GB). Export it with --format torch."
        )
    with torch.no_grad(), quietly():
        converted = torch.onnx.export(
            program(predictor, attention),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=names(predictor, attention),
            verbose=False,
        )
    if converted is None:
        raise RunError("torch gave no ONNX program. Use the versions of constraints.txt.")
    model = converted.model_proto
    _name_sides(model)
    for name, text in metadata(predictor).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    return model


def _name_sides(model: Any) -> None:
    """Call the free sides of the input what they are; torch numbers them."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    known: Mapping[str, str] = {sides[0].dim_param: "height", sides[1].dim_param: "width"}
    sides[0].dim_param, sides[1].dim_param = "height", "width"
    for value in model.graph.value_info:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in known:
                side.dim_param = known[side.dim_param]


def asked_of_graph(predictor: Predictor, path: Path, kind: str) -> Asked:
    """Return what a written file says of pictures, as the task's raw outputs.

    What people read beside these must be what the task itself makes of them (RunError).
    """
    engine, names = open_exported(path, kind, trust=True).engine, output_names(predictor.task)

    def answered(image: Pixels) -> Output:
        found = dict(zip(names, engine(image), strict=False))
        geometry = predictor.preprocess.geometry(image.shape[0], image.shape[1])
        raw = {name: found[name][None] for name in predictor.task.outputs}
        for name, again in readable(predictor.task, raw, partial(weights_in_original, geometry)).items():
            if contradicts(again[0], found[name]):
                raise RunError(
                    f"The {kind} export contradicts itself: its output {name} is not what the model makes of its "
                    "others. Nothing was written. Export another format, or report this with the network's name."
                )
        return found

    def ask(images: Sequence[Pixels]) -> Output:
        found = [answered(image) for image in images]
        return {name: torch.stack([one[name] for one in found]) for name in predictor.task.outputs}

    return ask
