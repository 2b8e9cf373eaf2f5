"""Write the complete model, from pixels to probabilities, as ONNX, OpenVINO or a torch program."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail import __version__
from vitrail.core.errors import RunError
from vitrail.core.files import replace, write_json, writing
from vitrail.data.preprocess import shape_of
from vitrail.export import words
from vitrail.export.agreement import Asked, Check, Proven
from vitrail.export.traced_model import EndToEnd, EndToEndWithAttention, Single
from vitrail.export.words import Form
from vitrail.infer.openvino_backend import quietly
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import Pixels
from vitrail.infer.runtimes import (
    KEY,
    OfGeometry,
    Opened,
    by_default,
    contradicts,
    core,
    need,
    open_exported,
    openvino,
    output_names,
    readable,
)
from vitrail.layers.heads import Output
from vitrail.models.factory import count_params
from vitrail.runs.model_file import Header
from vitrail.runs.proof import proof_image_for

OPSET = 18
LIMIT = 2_000_000_000
"""Bytes: ONNX files are protobuf, which is limited to 2 GB."""

SHORT: Mapping[str, str] = MappingProxyType({"bfloat16": "bf16", "float16": "f16", "float32": "f32"})
"""Short names of OpenVINO's number types."""

Writer = Callable[[Predictor, Path, Form, Check], Proven]


def program(predictor: Predictor, form: Form) -> torch.export.ExportedProgram:
    """Return the complete model, for an image or a clip of any size or a batch of them, as a torch program."""
    kind = EndToEndWithAttention if form.attention else EndToEnd
    point = predictor.point
    network = predictor.at(point).cpu()
    whole = kind(network, predictor.task, predictor.preprocess_at(point), point.size)
    sample = torch.from_numpy(proof_image_for(predictor.preprocess))
    free, side = torch.export.Dim.DYNAMIC, int(form.clips)
    with torch.no_grad(), quietly():
        if not form.batch:
            return torch.export.export(
                Single(whole).eval(), (sample,), dynamic_shapes=({side: free, side + 1: free},)
            )
        # With one image, torch.export would fix the batch size to 1.
        samples = torch.stack([sample, sample])
        return torch.export.export(
            whole.eval(), (samples,), dynamic_shapes=({0: free, side + 1: free, side + 2: free},)
        )


def _without_words(header: Header) -> Header:
    """Return a header without the vocabulary of a text tower: a graph has the image tower only."""
    task = {key: value for key, value in header.task.items() if key != "vocabulary"}
    return header.model_copy(update={"task": task})


def metadata(predictor: Predictor, form: Form) -> dict[str, str]:
    """Return the metadata of an exported graph, as text by name."""
    shown = proof_image_for(predictor.preprocess)
    header = _without_words(predictor.header_at(predictor.point))
    return {
        KEY: json.dumps(header.model_dump(), ensure_ascii=False),
        **words.metadata(predictor, form),
        "proof_dtype": shown.dtype.name,
        "proof_shape": json.dumps(list(shown.shape)),
        "proof_picture": base64.b64encode(shown.tobytes()).decode(),
        "proof_fingerprint": json.dumps(header.proof),
    }


def write(predictor: Predictor, path: Path, form: Form, check: Check) -> Proven:
    """Write a graph in the format of its suffix, atomically, and only if `check` passes."""
    writers: Mapping[str, Writer] = {".onnx": _write_onnx, ".xml": _write_openvino, ".pt2": _write_program}
    proven = writers[path.suffix](predictor, path, form, check)
    write_json(labels_file(path), words.beside(predictor, form, path.name))
    return proven


def labels_file(path: Path) -> Path:
    """Return the JSON file next to a graph, with the same content as its metadata."""
    return path.with_name(f"{path.name}.json")


def _write_onnx(predictor: Predictor, path: Path, form: Form, check: Check) -> Proven:
    model = onnx_model(predictor, form)

    def fill(temporary: Path) -> Proven:
        temporary.write_bytes(model.SerializeToString())
        return check(temporary)

    return replace(path, fill)


def _write_openvino(predictor: Predictor, path: Path, form: Form, check: Check) -> Proven:
    ov = openvino()
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".vitrail-") as folder:
        source = Path(folder, "model.onnx")
        source.write_bytes(onnx_model(predictor, form).SerializeToString())
        model = core().read_model(str(source))
        for port, name in zip(model.outputs, words.names(predictor, form), strict=True):
            port.get_tensor().set_names({name})
        model.get_parameters()[0].set_layout(ov.Layout(form.layout))
        for name, text in metadata(predictor, form).items():
            model.set_rt_info(text, ["model_info", name])
        written = Path(folder, path.name)
        # The default would be half precision; an export must keep the model's own weights.
        ov.save_model(model, str(written), compress_to_fp16=False)
        proven = check(written)
        os.replace(written.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(written, path)
    return proven


def _write_program(predictor: Predictor, path: Path, form: Form, check: Check) -> Proven:
    whole = program(predictor, form)
    whole.example_inputs = None  # otherwise the proof image is pickled into the file

    def fill(temporary: Path) -> Proven:
        packed = BytesIO()  # torch's own writer aborts the process if the disk is full
        with quietly():
            torch.export.save(whole, packed, extra_files=metadata(predictor, form))
        temporary.write_bytes(packed.getbuffer())
        return check(temporary)

    return replace(path, fill)


def onnx_model(predictor: Predictor, form: Form) -> Any:
    """Return the ONNX model of a predictor with this interface."""
    need("onnx")
    need("onnxscript")
    if 4 * count_params(predictor.at(predictor.point)) > LIMIT:
        raise RunError(
            f"{predictor.header.name} is too large for one ONNX file (2 GB). Export it with --format torch."
        )
    with torch.no_grad(), quietly():
        converted = torch.onnx.export(
            program(predictor, form),
            dynamo=True,
            opset_version=OPSET,
            input_names=[form.input],
            output_names=words.names(predictor, form),
            verbose=False,
            custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
        )
    if converted is None:
        raise RunError("torch returned no ONNX program. Use the versions in constraints.txt.")
    model = converted.model_proto
    _name_axes(model, form)
    _describe(model, predictor, form)
    return model


def stable_sort(self: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """Translate torch's stable sort, by which networks choose tokens, and for which torch has no translation.

    Of equal numbers, TopK returns the first one first (ONNX operators, TopK); OpenVINO, in any order.
    """
    from onnxscript import opset18 as op

    axis: Any = op.Constant(value_ints=[dim])
    return op.TopK(self, op.Gather(op.Shape(self), axis), axis=dim, largest=int(descending), sorted=1)


def _describe(model: Any, predictor: Predictor, form: Form) -> None:
    """Write the self-description into the metadata and doc strings of the ONNX model."""
    model.producer_name, model.producer_version = "vitrail", __version__
    texts = metadata(predictor, form)
    model.doc_string = f"{texts['description']} Decoding: {texts['decoding']}"
    taken = words.input_words(predictor.preprocess, form)
    model.graph.input[0].doc_string = f"{taken['is']} {texts['decoding']}"
    for output, given in zip(model.graph.output, words.output_words(predictor, form), strict=True):
        output.doc_string = given["is"]
    for name, text in texts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text


def _name_axes(model: Any, form: Form) -> None:
    """Name the dynamic axes of the input; torch only numbers them."""
    axes = model.graph.input[0].type.tensor_type.shape.dim
    known = {axis.dim_param: name for axis, name in zip(axes, form.axes, strict=False) if axis.dim_param}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in known:
                axis.dim_param = known[axis.dim_param]


def asked_of_graph(predictor: Predictor, path: Path, kind: str) -> Asked:
    """Return a function that runs a written file on images in float32 and returns the task's raw outputs.

    The readable outputs must match those that the task computes from the raw outputs (RunError).
    """
    return _asked(predictor, open_exported(path, kind, trust=True), _refuse_contradiction)


def asked_by_default(predictor: Predictor, path: Path) -> Asked:
    """Return a function that runs a written file in OpenVINO with its default precision."""
    return _asked(predictor, by_default(path), _accept)


def default_precision() -> str:
    """Return the default precision of OpenVINO on this processor."""
    named = str(core().get_property("CPU", "INFERENCE_PRECISION_HINT"))
    return next((short for long, short in SHORT.items() if long in named), named)


def _asked(predictor: Predictor, opened: Opened, check: Callable[[Predictor, Pixels, Output], None]) -> Asked:
    names = output_names(predictor.task)

    def answered(image: Pixels, turn: int) -> Output:
        output = dict(zip(names, answer(opened, image, turn), strict=False))
        check(predictor, image, output)
        return output

    def ask(images: Sequence[Pixels]) -> Output:
        outputs = [answered(image, i) for i, image in enumerate(images)]
        return {name: torch.stack([one[name] for one in outputs]) for name in predictor.task.outputs}

    return ask


def _accept(predictor: Predictor, image: Pixels, found: Output) -> None:
    """Accept any output: in low precision classes may tie in many pixels, and only raw outputs are compared."""


def _refuse_contradiction(predictor: Predictor, image: Pixels, found: Output) -> None:
    """Raise a RunError if the readable outputs are not those that the task computes from the raw outputs."""
    point = predictor.point
    placed = predictor.preprocess_at(point).geometry(*shape_of(image))
    geometry = dataclasses.replace(placed, size=point.size)
    raw = {name: found[name][None] for name in predictor.task.outputs}
    for name, again in readable(predictor.task, raw, OfGeometry(geometry)).items():
        if contradicts(again[0], found[name]):
            raise RunError(
                f"The export contradicts itself: its output {name} does not match its raw outputs. "
                "Nothing was written. Export another format, or report this with the network's name."
            )


def answer(opened: Opened, image: Pixels, turn: int) -> tuple[Tensor, ...]:
    """Return a graph's outputs for one image; a batch graph gets a mirrored copy before or after it."""
    if not opened.batched:
        return opened.run(image)
    place = turn % 2
    other = np.ascontiguousarray(image[..., ::-1, :])
    batch = np.stack([other, image] if place else [image, other])
    return tuple(found[place] for found in opened.run(batch))
