"""Settings of a recipe that follow from rasters: bands, windows, and an augmentation for views from above."""

from __future__ import annotations

from typing import Any

from vitrail.core.errors import SettingError
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import TRAIN
from vitrail.data.prepare import Prepared
from vitrail.data.rasters.statistics import band_statistics
from vitrail.layers.tokens import FeatureSpec
from vitrail.runs.recipe import is_file, settings_of
from vitrail.runs.train_options import TrainOptions
from vitrail.training.network_choice import NamedNetwork, NetworkChoice

NETWORK = "wetmapformer"
"""The network for rasters, if none is named."""

_FEWEST = 2
"""Least number of cells of the last map on each side of a window; a smaller window is enlarged."""

_CELLS = 4
"""Number of cells of the last map on each side of a window that is enlarged."""


def for_raster(prepared: Prepared, named: NamedNetwork, weights: str | None = None) -> NamedNetwork:
    """Return the named network, or the one for rasters if the source is one and names no network or weights."""
    if prepared.layout.raster is None or named.name is not None or weights not in (None, "none"):
        return named
    return named._replace(name=NETWORK)


def measured_weights(options: TrainOptions) -> str | None:
    """Return the weights that a recipe file states for its own bands, as those of a comparison do; else None."""
    if options.recipe is None or not is_file(options.recipe):
        return None
    model = settings_of(options.recipe).get("model", {})
    stated: str = model.get("weights") or "none"
    measured = bool(model.get("bands")) and stated != "none" and options.weights in (None, stated)
    return stated if measured else None


def at_window(
    prepared: Prepared, network: NetworkChoice, named: NamedNetwork
) -> tuple[NetworkChoice, list[str]]:
    """Use the window of a raster as the input size, if the network can read it and the user names no size."""
    raster = prepared.layout.raster
    if raster is None or named.size is not None:
        return network, []
    spec = network.encoder.spec
    side = _side(raster.window, spec, network.encoder.image_size)
    line = f"input {side} px for windows of {raster.window} px"
    if side > raster.window:
        line += ": the network needs more cells, so windows are enlarged (--network patch=2 may read them as they are)"
    return network._replace(size=(side, side)), [line]


def _side(window: int, spec: FeatureSpec, built: tuple[int, int]) -> int:
    if window == built[0] == built[1] or (spec.sizes != "fixed" and _is_whole(window, spec)):
        return window
    return max(built) if spec.sizes == "fixed" else _CELLS * int(spec.unit)


def _is_whole(window: int, spec: FeatureSpec) -> bool:
    return window % spec.unit == 0 and window >= _FEWEST * spec.unit


def raster_layer(prepared: Prepared) -> dict[str, Any]:
    """Return channels, bands, their mean and deviation in the training rows, and the augmentation; {} for images.

    Raises:
        DataError: a band has no data, or one value everywhere.
        SettingError: there are no training rows.
    """
    raster = prepared.layout.raster
    if raster is None:
        return {}
    rows = prepared.manifest.rows(TRAIN)
    if not rows:
        raise SettingError("The split leaves no row for training. Lower --val and --test, or --block.")
    measured = band_statistics(rows, prepared.manifest.root, raster.bands)
    return {
        "model": {
            "channels": len(raster.bands),
            "bands": measured.bands,
            "window": raster.window,
            "pixel": raster.pixel,
            "scale": 1.0,
            "mean": measured.mean,
            "std": measured.std,
            "fit": "squash",
        },
        "training": {"augment": "turns", "erase": 0.0},
    }


def raster_line(prepared: Prepared) -> list[str]:
    """Return a line on the bands that the network reads; [] for images."""
    raster = prepared.layout.raster
    if raster is None:
        return []
    return [f"{count(len(raster.bands), 'band')}: {shorten(band.called for band in raster.bands)}"]
