"""Choose the backend in which a frozen encoder gives its features: the fastest one that agrees with float32.

Backends are measured on real images of the job, once for a network and a machine. Their features are compared with
float32 on the same images, so that nothing else has to be proven.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.core.cache import keep_json
from vitrail.infer.backend_check import Away
from vitrail.infer.backends import PLAIN, Backend, BackendNetwork, backends_for
from vitrail.infer.bf16_check import Bf16Check, check_bf16, noise
from vitrail.layers.encoder import Encoder
from vitrail.layers.heads import NO_INPUTS, Head, Output
from vitrail.layers.mahalanobis import MIDDLE, VectorOutputs
from vitrail.layers.pooling import Pool
from vitrail.layers.tokens import Features
from vitrail.runs.device import fast_bf16
from vitrail.runs.network import Network

FEATURES_OFF = 0.1
"""Largest allowed distance of features from float32, relative to their spread over images: bf16 is 0.005 to 0.03 off
on photographs, features that ignore the image are 1 off."""

SMALLEST_MEASURED_JOB = 64
"""Jobs with fewer images take the backend with most of them in the cache, or the usual one, without measuring."""

TIMED = 8
"""Images of a timed call of an eager backend on a CPU."""

ROUNDS = 3
"""Timed calls of a backend that is among the fastest; others get one."""

NEAR = 1.5
"""A backend is among the fastest if its first timed call takes at most so many times the time of the fastest."""

SLOWEST = 1e-9
"""Images a second of a backend that cannot run the network."""

OPENVINO_SETUP = 10.0
"""Assumed setup time of an engine that translates the network, before it is measured."""

OPENVINO_SPEEDUP = 1.2
"""Assumed speedup of such an engine over the fastest eager backend, before it is measured; `ON_CONVOLUTIONS` for
networks without attention. Measured: 1.0 to 1.3, and 1.1 to 4."""

ON_CONVOLUTIONS = 2.0


class VectorHead(Head):
    """From features to vectors: one per image, (b, d), by a pool; without a pool one per patch, (b, p, d)."""

    def __init__(self, pool: Pool | None) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features -> {"vectors": …}."""
        return {"vectors": features.tokens.patches if self.pool is None else self.pool(features)}


def feature_network(encoder: Encoder, pool: Pool | None) -> Network:
    """Return a frozen encoder with its pool as a network whose first output is `vectors`.

    A column with a pool also gives the vectors halfway through it.
    """
    reader = VectorOutputs((MIDDLE,)) if pool is not None and encoder.middle else None
    names = ("vectors", *(reader.makes if reader is not None else ()))
    return Network(encoder, VectorHead(pool), names, reader).eval().requires_grad_(False)


class ImageHead(Head):
    """From features to vectors, (b, d): what a head with the output `image` makes of images alone."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.reads, self.taps, self.words = head.reads, head.taps, head.words

    def forward(self, features: Features, inputs: Mapping[str, Tensor] = NO_INPUTS) -> Output:
        """Features -> {"vectors": (b, d)}."""
        return {"vectors": self.head(features)["image"]}


def image_network(encoder: Encoder, head: Head) -> Network:
    """Return a frozen encoder with a head whose output `image` are the vectors."""
    return Network(encoder, ImageHead(head), ("vectors",)).eval().requires_grad_(False)


class FeatureSpeed(NamedTuple):
    """Images a second, seconds of setup, and the distance of the features from float32."""

    speed: float
    setup: float
    off: float

    @property
    def faithful(self) -> bool:
        """Whether the features agree with float32."""
        return self.off <= FEATURES_OFF


class FeatureBackends:
    """The backends of a feature network for batches of one shape, and what is known of their speed on this machine.

    `shape` is (b, channels, height, width); `path` is the cache file of the measurements. Images of different sizes
    (`fixed` is False) exclude engines that translate the network for one size.
    """

    def __init__(
        self,
        network: Network,
        shape: tuple[int, ...],
        device: torch.device,
        path: Path,
        fixed: bool = True,
    ) -> None:
        self.network, self.shape, self.device, self.path, self.fixed = network, shape, device, path, fixed
        self.check = Bf16Check()
        if fast_bf16(device):
            self.check = check_bf16(network.encoder, noise(shape[1:], device))
        last = network.spec.attention == "none"
        usual: Backend = Backend("bf16" if fast_bf16(device) and self.check.faithful else "float32", last)
        eager = [Backend(usual.precision), Backend("float32", last), PLAIN]
        engines = [one for one in backends_for(network, device) if one.engine == "openvino"]
        translated = [one for one in engines if one.precision == usual.precision and fixed]
        self.plans = tuple(dict.fromkeys([usual, *eager, *translated]))
        self.seen = self._known()
        self._networks: dict[Backend, nn.Module] = {PLAIN: network}

    def _known(self) -> dict[Backend, FeatureSpeed]:
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            return {Backend(**row["plan"]): FeatureSpeed(**row["seen"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # missing, or written by another version: measure again

    def choose(self, missing: Mapping[Backend, int], images: Callable[[], Tensor]) -> Backend:
        """Return the backend that soonest has the features of a job.

        `missing` says how many images each backend would have to compute; `images` returns a batch of the job, which
        is called only if something has to be measured. Images of different sizes cannot be compared in a batch, so
        nothing is measured for them.
        """
        least = min(self.plans, key=missing.__getitem__)
        if not missing[least] or not self.fixed:
            return least
        if not self.seen and missing[least] < SMALLEST_MEASURED_JOB:
            return least
        eager = [plan for plan in self.plans if plan.engine == "eager"]
        batch = None if all(plan in self.seen for plan in eager) else images()
        if batch is not None:
            self._measure(eager, batch)
        for plan in self.plans:
            if plan not in self.seen and self._pays(plan, missing):
                self._measure([plan], images() if batch is None else batch)
        usable = [plan for plan in self.plans if plan in self.seen and self.seen[plan].faithful]
        chosen = min(usable, key=lambda plan: self._seconds(plan, missing))
        self._networks = {
            PLAIN: self.network,
            chosen: self.network_of(chosen),
        }  # release the memory of the others
        return chosen

    def _pays(self, plan: Backend, missing: Mapping[Backend, int]) -> bool:
        """Whether measuring an engine, with its setup, may shorten this job."""
        best = min(
            (one for one in self.seen if self.seen[one].faithful), key=lambda one: self._seconds(one, missing)
        )
        speedup = ON_CONVOLUTIONS if self.network.spec.attention == "none" else OPENVINO_SPEEDUP
        speed = speedup * self.seen[best].speed
        return OPENVINO_SETUP + missing[plan] / speed < self._seconds(best, missing)

    def _seconds(self, plan: Backend, missing: Mapping[Backend, int]) -> float:
        seen = self.seen[plan]
        setup = 0.0 if plan in self._networks else seen.setup
        return setup + missing[plan] / seen.speed

    def _measure(self, plans: Sequence[Backend], images: Tensor) -> None:
        """Set backends up on some images, compare them with float32, and time them in turn: the fastest call counts."""
        exact = self._timed(PLAIN, images)[0]
        ready: dict[Backend, FeatureSpeed] = {}
        for plan in plans:
            began = time.perf_counter()
            try:
                vectors = self._timed(plan, images)[0] if plan != PLAIN else exact
            except Exception:  # an engine may fail in any way; another backend works
                self.seen[plan] = FeatureSpeed(SLOWEST, 0.0, float("inf"))
                continue
            setup = time.perf_counter() - began if plan.engine != "eager" else 0.0
            ready[plan] = FeatureSpeed(0.0, setup, 0.0 if plan == PLAIN else _distance(exact, vectors))
        best = {plan: self._timed(plan, self._some(plan, images))[1] for plan in ready}
        near = [plan for plan in ready if best[plan] <= NEAR * min(best.values())]
        for plan in near * (ROUNDS - 1):
            best[plan] = min(best[plan], self._timed(plan, self._some(plan, images))[1])
        for plan, seen in ready.items():
            self.seen[plan] = seen._replace(speed=len(self._some(plan, images)) / best[plan])
        keep_json(
            self.path, [{"plan": asdict(plan), "seen": seen._asdict()} for plan, seen in self.seen.items()]
        )

    def _some(self, plan: Backend, images: Tensor) -> Tensor:
        """Return the images of a timed call: whole batches for a GPU, which idles on few images, and for an engine."""
        return images[:TIMED] if plan.engine == "eager" and self.device.type == "cpu" else images

    def _timed(self, plan: Backend, images: Tensor) -> tuple[Tensor, float]:
        run = self.network_of(plan)
        began = time.perf_counter()
        with torch.inference_mode():
            vectors: Tensor = run({"images": images.to(self.device)})["vectors"].float().cpu()
        return vectors, time.perf_counter() - began

    def network_of(self, plan: Backend) -> nn.Module:
        """Return the network that runs with a backend: dict of float32 images -> dict of float32 vectors."""
        if plan not in self._networks:
            self._networks[plan] = BackendNetwork(self.network, plan, self.shape)
        return self._networks[plan]


def _distance(exact: Tensor, vectors: Tensor) -> float:
    """Return the distance of features from float32, relative to their spread over the images."""
    apart = Away()
    apart.add(exact, vectors)
    return apart.distance()
