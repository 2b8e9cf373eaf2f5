"""How fast networks run on this machine, beside the peers that are installed, in turn and with the same weights."""

from __future__ import annotations

import resource
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.core.paths import compiler
from vitrail.export.folders import timm_settings
from vitrail.infer.exported import openvino
from vitrail.infer.fast import PLAIN, Plan, Quick
from vitrail.infer.predictor import Predictor
from vitrail.infer.timing import Ratio, in_turn, matmul_peak, ratio
from vitrail.models.create import count_macs
from vitrail.runs.assemble import Network, create_model
from vitrail.runs.device import device_for, fast_bf16
from vitrail.weights import rules
from vitrail.weights.convert import table_for

Run = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run one network: median seconds a batch with their spread, and what they make."""

    model: str
    way: str
    batch: int
    seconds: float
    fastest: float
    slowest: float
    images: float  # a second
    share: float  # of the measured matmul peak of its precision
    ahead: Ratio | None  # how many times quicker our quickest way is

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        ahead = self.ahead and {"middle": self.ahead.middle, "low": self.ahead.low, "high": self.ahead.high}
        names = ("model", "way", "batch", "seconds", "fastest", "slowest", "images", "share")
        return {**{name: getattr(self, name) for name in names}, "ours_quicker_by": ahead}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: pictures at once, rounds, the device, and whether peers run beside."""

    batch: int = 16
    rounds: int = 7
    device: str = "auto"
    peers: bool = False
    compiled: bool = True


def bench(name: str, setting: Setting) -> list[Row]:
    """Measure one network, by name, run folder or model file, one picture at a time and in batches.

    Raises:
        SettingError: a batch or a number of rounds below one.
    """
    if min(setting.batch, setting.rounds) < 1:
        raise SettingError(
            "There is nothing to measure in no batch and no round. Give --batch and --rounds 1 or more."
        )
    device = device_for(setting.device)
    network, size = _network(name, device)
    peaks = {"float32": matmul_peak(device, torch.float32)}
    if fast_bf16(device):
        peaks["bf16"] = matmul_peak(device, torch.bfloat16)
    macs = count_macs(network.encoder, size)
    rows = []
    for batch in dict.fromkeys((1, setting.batch)):
        images = torch.randn(batch, network.encoder.config.channels, *size, device=device)
        rows += _measured(name, network, images, setting, macs, peaks)
    return rows


def memory() -> float:
    """Return the most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _network(name: str, device: torch.device) -> tuple[Network, tuple[int, int]]:
    if Path(name).exists():
        predictor = Predictor(name, str(device))
        return predictor.network, predictor.preprocess.size
    network = create_model(name).eval().requires_grad_(False).to(device)
    config: Any = network.encoder.config
    if config.family == "timm":
        from vitrail.models.timm import input_size

        return network, input_size(config)
    side = config.image
    return network, side if isinstance(side, tuple) else (side, side)


def _measured(
    name: str, network: Network, images: Tensor, setting: Setting, macs: int, peaks: Mapping[str, float]
) -> list[Row]:
    runs = {
        f"vitrail {plan}": _ours(network, plan, images) for plan in _plans(network, images.device, setting)
    }
    with tempfile.TemporaryDirectory() as folder:
        if setting.peers and images.device.type == "cpu":
            runs |= dict(_peers(network, images, Path(folder), setting.compiled))
        times = in_turn(runs, setting.rounds)
    ours = min((way for way in times if way.startswith("vitrail")), key=lambda way: median(times[way]))
    rows = []
    for way, seconds in times.items():
        middle, count = median(seconds), len(images)
        peak = peaks.get("bf16" if "bf16" in way else "float32", peaks["float32"])
        ahead = None if way.startswith("vitrail") else ratio(times[ours], seconds)
        spread = (min(seconds), max(seconds))
        rows.append(
            Row(name, way, count, middle, *spread, count / middle, macs * count / middle / peak, ahead)
        )
    return rows


def _plans(network: Network, device: torch.device, setting: Setting) -> list[Plan]:
    last = network.spec.attention == "none"
    quick = Plan("bf16" if fast_bf16(device) else "float32", last)
    compiled = setting.compiled and (device.type == "cuda" or compiler() is not None)
    plans = [PLAIN, quick, *([Plan(quick.precision, last, compiled=True)] if compiled else [])]
    return list(dict.fromkeys(plans))


def _ours(network: nn.Module, plan: Plan, images: Tensor) -> Run:
    return _forward(network if plan == PLAIN else Quick(network, plan, len(images)), images)


def _forward(network: Callable[[Tensor], Any], images: Tensor, bf16: bool = False) -> Run:
    def run() -> None:
        with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    return run


def _peers(network: Network, images: Tensor, folder: Path, compiled: bool) -> Iterator[tuple[str, Run]]:
    """Yield the installed peers that can run this network; each gets the same weights."""
    twin = _timm_twin(network)
    if twin is not None:
        yield "timm eager", _forward(twin, images)
        if compiled and compiler():
            quick = torch.compile(twin, dynamic=False, options={"freezing": True})
            yield "timm compiled, frozen, bf16", _forward(quick, images, fast_bf16(images.device))
    if find_spec("onnxscript") is None:
        return
    path = folder / "network.onnx"
    with _silence(), torch.no_grad():
        torch.onnx.export(network, (images,), path, dynamo=True, verbose=False, external_data=False)
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        fed = {session.get_inputs()[0].name: images.numpy()}
        yield "ONNX Runtime", lambda: session.run(None, fed)
    if find_spec("openvino") is not None:
        hint = "bf16" if fast_bf16(images.device) else "f32"
        graph = openvino().Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})
        yield f"OpenVINO {hint}", lambda: graph(images.numpy())


def _timm_twin(network: Network) -> nn.Module | None:
    """Return timm's own network with these weights, or None where timm has none like it."""
    config: Any = network.encoder.config
    if config.family == "timm":
        return cast(nn.Module, network.encoder.net)
    settings = timm_settings(config, network.spec.pool)
    if settings is None:
        return None
    import timm

    twin: nn.Module = timm.create_model(settings["architecture"], num_classes=0, **settings["model_args"])
    twin.load_state_dict(rules.save(table_for(config, "timm"), network.encoder.state_dict()))
    return twin.eval().requires_grad_(False)


@contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the rows as cells of a table for people."""
    return [
        [
            row.model,
            row.way,
            str(row.batch),
            f"{row.images:.1f}",
            f"{1e3 * row.seconds:.1f}",
            f"{1e3 * row.fastest:.1f} … {1e3 * row.slowest:.1f}",
            f"{row.share:.0%}",
            str(row.ahead or ""),
        ]
        for row in rows
    ]
