"""The formats of exports. No torch: help and pages read this module."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "timm": "-timm", "huggingface": "-huggingface"}
)
"""The formats, and the suffix of the written file or folder."""

USES: Mapping[str, str] = MappingProxyType(
    {
        "onnx": "One file for ONNX Runtime, on servers, phones and in browsers, from any language.",
        "openvino": "For OpenVINO, the quickest on processors of Intel.",
        "torch": "A program for PyTorch that needs no code of vitrail.",
        "timm": "A folder that timm.create_model opens.",
        "huggingface": "A folder that transformers opens with AutoModel.",
    }
)
"""The formats, and what each is for."""
