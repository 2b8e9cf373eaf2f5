"""Features of a frozen pretrained network, cached on disk.

Features are computed once for each image. The cache key holds everything they depend on: the weights, the
preprocessing, the precision and the content of the file. Later calls compute new images only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.environment import cache_dir
from vitrail.core.errors import SettingError, VitrailError
from vitrail.data.decode import RULES
from vitrail.data.loader import ImageDataset, Share, evaluation, listed, processes
from vitrail.data.manifest import Manifest, Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.targets import NoTargets
from vitrail.data.truth import Truth
from vitrail.infer.backends import Backend
from vitrail.infer.feature_backends import FeatureBackends, feature_network, image_network
from vitrail.infer.prefetch import prefetch, read_then_compute
from vitrail.infer.timing import machine
from vitrail.layers.encoder import Encoder
from vitrail.layers.heads import Head
from vitrail.layers.mahalanobis import LAST, MIDDLE
from vitrail.layers.pooling import Pool
from vitrail.layers.tokens import FeatureSpec
from vitrail.layers.tokens import Pool as Kind
from vitrail.tasks.probe import Vectors
from vitrail.training.feature_files import hashes_in, read_all, read_matrix, write_all

BATCH = 16

GPU_BATCH = 128
"""Images that a GPU computes at once: smaller batches leave it waiting for the next one."""

FEW = 1000
"""Fewer images are read in threads; the start of reading processes takes as long as reading some thousand images."""

LARGEST = 4_000_000_000
"""Largest size of the patch features of all images, in bytes."""

READ = 8 * BATCH
"""Images that are read at a time, between batches of a network on the CPU."""

SAVED = 60.0
"""Seconds after which new features are written while others are still computed: what is known survives an end."""

AS_PREDICTED = -1
"""The key of an image that is prepared as in prediction (`ImageDataset`)."""

FORMAT = 4
"""Version of the computation, a part of the cache key. Version 1 was wrong in bf16 on some machines (bf16_check.py),
version 2 ran under autocast, version 3 had no vectors from halfway through the network."""


def pool_kind(spec: FeatureSpec) -> Kind:
    """Return the pooling for a frozen network: class token and mean of patches if it has a class token."""
    if spec.pool == "own":
        return "own"
    return "cls_mean" if "cls" in spec.prefix else "mean"


class Frozen:
    """A frozen encoder that turns images into vectors and caches them.

    With `patches` an image gives one vector per patch, (p, d) in float16, instead of one vector, (d,); `kind` is the
    pooling of that one vector, by default `pool_kind`. The features of each backend have their own cache file, so that
    the features of one job come from one backend. With a `head`, the vectors are what it makes of the features of an
    image as the output `image`.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        device: torch.device,
        patches: bool = False,
        head: Head | None = None,
        kind: Kind | None = None,
    ) -> None:
        self.patches = patches
        self.encoder = encoder.eval().requires_grad_(False).to(device)
        self.preprocess, self.device = preprocess, device
        self.kind = kind or pool_kind(encoder.spec)
        self.head = None if head is None else head.eval().requires_grad_(False).to(device)
        network = (
            feature_network(self.encoder, None if patches else Pool(encoder.spec, self.kind))
            if self.head is None
            else image_network(self.encoder, self.head)
        )
        self.outputs = network.outputs
        self._digest = self._identity()
        self.batch = BATCH if device.type == "cpu" else GPU_BATCH
        shape = (self.batch, *preprocess.shape)
        self.backends = FeatureBackends(
            network, shape, device, self._measurements(shape), preprocess.zoom is None
        )

    def _identity(self) -> Any:
        """Return the digest of everything that features depend on, but for the backend and the image."""
        digest = blake2b(digest_size=16)
        parts = [FORMAT, RULES, self.preprocess.to_dict(), self.kind, "patches" if self.patches else "image"]
        digest.update(json.dumps(parts).encode())
        tensors = self.encoder.state_dict()
        if self.head is not None:
            tensors |= {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest

    def path(self, plan: Backend) -> Path:
        """Return the cache file of the features that a backend gives."""
        digest = self._digest.copy()
        float32 = self.backends.check.float32 if plan.precision == "bf16" else ()
        digest.update(json.dumps([str(plan), *float32]).encode())
        return cache_dir() / "features" / f"{digest.hexdigest()}.safetensors"

    @property
    def usual(self) -> Backend:
        """The backend by rule, whatever this machine's speed: for features that a training starts from."""
        return self.backends.plans[0]

    def _measurements(self, shape: tuple[int, ...]) -> Path:
        """Return the cache file of what backends of this network cost on this machine."""
        digest = self._digest.copy()
        digest.update(repr((shape, str(self.device), machine())).encode())
        return cache_dir() / "features" / f"{digest.hexdigest()}.json"

    def vectors(
        self,
        manifest: Manifest,
        rows: Sequence[Row],
        progress: Callable[[int, int], None] | None = None,
        plan: Backend | None = None,
    ) -> Vectors:
        """Return one vector per row, (n, d), or per patch, (n, p, d). Only images that are not cached are computed.

        `plan` is the backend; None: the one that has them soonest, which depends on the speed of this machine.

        Raises:
            SettingError: the patch features of all images are larger than `LARGEST`.
        """
        plan = plan or self.backend(manifest, rows)
        if (cached := read_matrix(self.path(plan), self.outputs[0], [row.hash for row in rows])) is not None:
            return cached
        known = self._computed(manifest, rows, progress, plan)
        return np.stack([known[row.hash][0] for row in rows])

    def by_place(self, manifest: Manifest, rows: Sequence[Row], plan: Backend) -> dict[str, Vectors]:
        """Return the vectors of rows at each place of the network that has one: (n, d) each."""
        known = self._computed(manifest, rows, None, plan)
        return self._placed([known[row.hash] for row in rows])

    def of_images(self, images: Sequence[NDArray[Any]], plan: Backend) -> dict[str, Vectors]:
        """Return the same for decoded images, which are not cached."""
        pixels = torch.stack([self.preprocess.eval(image)[0] for image in images])
        parts = [self._run(plan, batch) for batch in torch.split(pixels, BATCH)]
        return self._placed([one for part in parts for one in zip(*part, strict=True)])

    def _placed(self, known: Sequence[tuple[Vectors, ...]]) -> dict[str, Vectors]:
        places = (LAST, MIDDLE)[: len(self.outputs)]
        return {place: np.stack([one[i] for one in known]) for i, place in enumerate(places)}

    def _computed(
        self,
        manifest: Manifest,
        rows: Sequence[Row],
        progress: Callable[[int, int], None] | None,
        plan: Backend,
    ) -> dict[str, tuple[Vectors, ...]]:
        """Return the outputs of images by the hash of their content; those of new images are computed and cached."""
        self._refuse_huge(len(rows))
        known = read_all(self.path(plan), self.outputs)
        new = _distinct(row for row in rows if row.hash not in known)
        if not new:
            return known
        done, saved = 0, time.monotonic()
        for hashes, outputs in self.compute(manifest, new, plan):
            known |= zip(hashes, zip(*outputs, strict=True), strict=True)
            done += len(hashes)
            if progress is not None:
                progress(done, len(new))
            if not self.patches and time.monotonic() - saved > SAVED:
                write_all(self.path(plan), self.outputs, known)
                saved = time.monotonic()
        write_all(self.path(plan), self.outputs, known)
        return known

    def backend(self, manifest: Manifest, rows: Sequence[Row]) -> Backend:
        """Return the backend that soonest has the features of these rows, with what is cached."""
        wanted = _distinct(rows)
        missing = {
            plan: len({row.hash for row in wanted} - self._hashes(plan)) for plan in self.backends.plans
        }

        def images() -> Tensor:
            return next(iter(self.batches(manifest, wanted[: self.batch])))[1]

        return self.backends.choose(missing, images)

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of the patches of an input."""
        spec = self.encoder.spec
        height, width = (
            -(-int(side - 2 * spec.overlap_margin) // spec.strides[-1]) for side in self.preprocess.size
        )
        return height, width

    def _refuse_huge(self, images: int) -> None:
        if not self.patches:
            return
        size = 2 * images * self.grid[0] * self.grid[1] * self.encoder.spec.width
        if size > LARGEST:
            raise SettingError(
                f"The patch features of {images:,} images would take {size / 1e9:.0f} GB. Train the head "
                "in steps: --tune head; or use a smaller input: --imgsz."
            )

    def missing(self, rows: Sequence[Row]) -> int:
        """Return the number of images that no backend has in its cache."""
        wanted = {row.hash for row in rows}
        return min(len(wanted - self._hashes(plan)) for plan in self.backends.plans)

    def seconds_per_image(self, manifest: Manifest, rows: Sequence[Row]) -> float:
        """Measure the seconds per image: the faster of two batches, after one for warming up."""
        some = [*rows[: self.batch]] * (1 + (len(rows) < self.batch))
        plan, took = self.backend(manifest, rows), []
        for _ in range(3):
            began = time.perf_counter()
            next(iter(self.compute(manifest, some[: self.batch], plan)))
            took.append(time.perf_counter() - began)
        return min(took[1:]) / min(self.batch, len(some))

    def compute(
        self, manifest: Manifest, rows: Sequence[Row], plan: Backend
    ) -> Iterator[tuple[list[str], tuple[Vectors, ...]]]:
        """Yield hashes and the network's outputs, batch by batch."""
        for hashes, images in self.batches(manifest, rows):
            yield hashes, self._run(plan, images)

    def _run(self, plan: Backend, images: Tensor) -> tuple[Vectors, ...]:
        """Return the outputs for prepared images: the vectors, then those halfway."""
        with torch.inference_mode():
            found = self.backends.network_of(plan)({"images": images.to(self.device)})
        arrays = [found[name].float().cpu().numpy() for name in self.outputs]
        return tuple(array.astype(np.float16) if self.patches else array for array in arrays)

    def batches(self, manifest: Manifest, rows: Sequence[Row]) -> Iterator[tuple[list[str], Tensor]]:
        """Yield hashes and prepared images, read in turns with the network on the CPU, and ahead of a GPU."""
        images = ImageDataset(rows, manifest.root, self.preprocess, NoTargets(Truth("none")))
        left = iter(rows)
        for batch in self._read_images(images):
            yield [row.hash for row in islice(left, len(batch))], batch

    def _read_images(self, images: ImageDataset) -> Iterator[Tensor]:
        """Yield the prepared images of all rows, batch by batch, (b, channels, height, width)."""
        if self.device.type != "cpu" and len(images) >= FEW:
            # Threads share Python's lock: on an H100 they read 450 images a second, whatever their number.
            read = evaluation(images, self.batch, Share(), processes(-1))
            yield from (batch.images for batch in read)
            return
        at = [(index, AS_PREDICTED) for index in range(len(images))]
        make = images.__getitem__
        # With a zoom, images are large and of different sizes: one at a time.
        size, ahead = (self.batch, READ) if self.preprocess.zoom is None else (1, 1)
        cpu = self.device.type == "cpu"
        seen = read_then_compute(make, at, ahead) if cpu else prefetch(make, at, 2 * size)
        while some := list(islice(seen, size)):
            batch = listed(some)
            if isinstance(batch, VitrailError):
                raise batch
            yield batch.images

    def _hashes(self, plan: Backend) -> set[str]:
        return set(hashes_in(self.path(plan)))


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Return the first row of each content."""
    return list({row.hash: row for row in rows}.values())
