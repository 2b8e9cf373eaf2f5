"""vitrail: from a folder of images to a Vision Transformer you can trust.

Names are resolved on first use (PEP 562), so that `import vitrail` loads neither torch nor NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vitrail.core.errors import VitrailError as VitrailError
    from vitrail.explainers.explanation import explain as explain
    from vitrail.infer.predictor import Predictor as Predictor
    from vitrail.infer.predictor import load as load
    from vitrail.models.factory import create_encoder as create_encoder
    from vitrail.models.factory import list_models as list_models
    from vitrail.runs.network import create_model as create_model
    from vitrail.runs.train_options import TrainOptions as TrainOptions
    from vitrail.training.fit import train as train

_PUBLIC = {
    "Predictor": "vitrail.infer.predictor",
    "TrainOptions": "vitrail.runs.train_options",
    "VitrailError": "vitrail.core.errors",
    "create_encoder": "vitrail.models.factory",
    "create_model": "vitrail.runs.network",
    "explain": "vitrail.explainers.explanation",
    "list_models": "vitrail.models.factory",
    "load": "vitrail.infer.predictor",
    "train": "vitrail.training.fit",
}

__all__ = [
    "Predictor",
    "TrainOptions",
    "VitrailError",
    "__version__",
    "create_encoder",
    "create_model",
    "explain",
    "list_models",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vitrail' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
