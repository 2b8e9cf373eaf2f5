"""Measure the speed of networks on this machine, in turn with installed peers that have the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from vitrail.benchmark.peers import Run, forward, peers
from vitrail.core.errors import SettingError
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork, backends_for
from vitrail.infer.openvino_backend import OfImages
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.infer.quantize_int8 import Scales
from vitrail.infer.timing import Peak, Ratio, in_turn, matmul_peak, ratio
from vitrail.models.factory import config_of, count_macs, create_encoder
from vitrail.runs.device import device_for, fast_bf16
from vitrail.runs.model_source import is_published
from vitrail.runs.network import Network, build_network, build_task
from vitrail.runs.published import published_model

OURS = "vitrail "
"""Prefix of the names of our own backends."""


CLASSES = 1000
"""Number of classes of a network that is measured by name (ImageNet)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One backend of one network: median seconds per batch with spread, and derived numbers."""

    model: str
    way: str
    batch: int
    seconds: float
    fastest: float
    slowest: float
    images: float  # a second
    memory: int | None  # bytes that setup and one run added, if the system reports it
    share: float | None  # of the measured matmul peak of its precision; not measured for int8
    ahead: Ratio | None  # speedup of our fastest backend in bf16 or float32
    in_int8: Ratio | None  # speedup of our fastest backend in int8

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        names = ("model", "way", "batch", "seconds", "fastest", "slowest", "images", "memory", "share")
        ratios = {"ours_quicker_by": self.ahead, "ours_in_int8_quicker_by": self.in_int8}
        return {
            **{name: getattr(self, name) for name in names},
            **{name: found and asdict(found) for name, found in ratios.items()},
        }


@dataclass(frozen=True, slots=True)
class Setting:
    """Options of a measurement: batch size, rounds, device, and whether peers are measured too."""

    batch: int = 16
    rounds: int = 7
    device: str = "auto"
    peers: bool = False
    compiled: bool = True


def refuse_unknown(name: str) -> None:
    """Raise a SettingError or RunError for a name that cannot be measured, before anything is measured."""
    if Path(name).exists():
        refuse_exported(Path(name))
    elif not _names_weights(name):
        config_of(name)


def bench(name: str, setting: Setting) -> list[Row]:
    """Measure one network, by name, run folder or model file, one image at a time and in batches.

    Raises:
        SettingError: a batch or a number of rounds below one.
    """
    if min(setting.batch, setting.rounds) < 1:
        raise SettingError("--batch and --rounds must be 1 or more.")
    device = device_for(setting.device)
    network, size = _network(name, device)
    peaks = {"float32": matmul_peak(device, torch.float32)}
    if fast_bf16(device):
        peaks["bf16"] = matmul_peak(device, torch.bfloat16)
    macs = count_macs(network.encoder, size)
    channels = network.encoder.config.channels
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for batch in dict.fromkeys((1, setting.batch)):
            images = torch.randn(batch, channels, *size, device=device)
            backends = _ways(network, images, setting, Path(folder))
            times = in_turn({way: run for way, (run, _) in backends.items()}, setting.rounds)
            rows += [_row(name, way, batch, times, backends[way][1], macs, peaks) for way in times]
    return rows


def _network(name: str, device: torch.device) -> tuple[Network, tuple[int, int]]:
    if Path(name).exists() or _names_weights(name):
        # What is assumed of names and preprocessing changes no speed, so the notes are not for this table.
        path = published_model(name).path if is_published(name) else name
        predictor = Predictor(path, str(device))
        predictor.answering()
        return predictor.network, predictor.preprocess.size
    encoder = create_encoder(name)
    network = build_network(encoder, build_task("classify", [str(i) for i in range(CLASSES)], {}))
    return network.eval().requires_grad_(False).to(device), encoder.image_size


def _names_weights(name: str) -> bool:
    """Return whether a name is of published weights, with organisation or tag; one of a network stands for itself."""
    return ("/" in name or "." in name) and is_published(name)


def _ways(
    network: Network, images: Tensor, setting: Setting, folder: Path
) -> dict[str, tuple[Run, int | None]]:
    """Return everything to measure, by name, with its memory; `folder` holds files that several of them read."""
    backends: dict[str, tuple[Run, int | None]] = {}
    named = _runs(network, images, setting, folder)
    while True:
        peak = Peak(images.device)
        entry = next(named, None)
        if entry is None:
            return backends
        way, run = entry
        run()
        backends[way] = run, peak.read()


def _runs(network: Network, images: Tensor, setting: Setting, folder: Path) -> Iterator[tuple[str, Run]]:
    plans = [
        plan for plan in backends_for(network, images.device) if setting.compiled or plan.engine != "compiled"
    ]
    for plan in plans:
        try:
            ours = _ours(network, plan, images, folder)
        except SettingError:  # some networks have no layer to quantize to int8
            continue
        yield f"{OURS}{plan}", ours
    if setting.peers:
        theirs = folder / f"peers of {len(images)}"
        theirs.mkdir()
        yield from peers(network, images, theirs, setting.compiled)


def _row(
    name: str,
    way: str,
    count: int,
    times: Mapping[str, list[float]],
    memory: int | None,
    macs: int,
    peaks: Mapping[str, float],
) -> Row:
    seconds = times[way]
    middle, precision = median(seconds), _precision(way)
    share = macs * count / middle / peaks[precision] if precision in peaks else None
    against = [
        ratio(times[ours], seconds) if ours and not way.startswith(OURS) else None
        for ours in (_fastest(times, int8=False), _fastest(times, int8=True))
    ]
    return Row(name, way, count, middle, min(seconds), max(seconds), count / middle, memory, share, *against)


def _fastest(times: Mapping[str, list[float]], int8: bool) -> str | None:
    """Return our fastest backend; int8 is compared separately, because no peer is quantized."""
    ours = [way for way in times if way.startswith(OURS) and (_precision(way) == "int8") == int8]
    return min(ours, key=lambda way: median(times[way]), default=None)


def _precision(way: str) -> str:
    return next((known for known in ("int8", "bf16") if known in way), "float32")


def _ours(network: Network, plan: Backend, images: Tensor, folder: Path) -> Run:
    if plan == PLAIN:
        return forward(OfImages(network), images)
    batch, channels, height, width = images.shape
    shape = (batch, channels, height, width)
    optimized = BackendNetwork(network, plan, shape, folder / "network.openvino", Scales(images.cpu))
    return forward(lambda images: optimized({"images": images}), images)


HEAD = (
    "model",
    "way",
    "batch",
    "images/s",
    "ms",
    "ms, spread",
    "MB",
    "of peak",
    "ours faster by",
    "ours in int8 by",
)
"""Column titles."""


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the rows as text cells of a table."""
    return [
        [
            row.model,
            row.way,
            str(row.batch),
            f"{row.images:.1f}",
            f"{1e3 * row.seconds:.1f}",
            f"{1e3 * row.fastest:.1f} … {1e3 * row.slowest:.1f}",
            "" if row.memory is None else f"{row.memory / 1e6:.0f}",
            "" if row.share is None else f"{row.share:.0%}",
            str(row.ahead or ""),
            str(row.in_int8 or ""),
        ]
        for row in rows
    ]
