"""Features of a frozen pretrained network, cached on disk.

Features are computed once for each image. The cache key holds everything they depend on: the weights, the
preprocessing, the precision and the content of the file. Later calls compute new images only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vitrail.core.cache import keep
from vitrail.core.environment import cache_dir
from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch
from vitrail.data.decode import RULES
from vitrail.data.loader import ImageDataset, Share, evaluation
from vitrail.data.manifest import Manifest, Row
from vitrail.data.preprocess import Preprocess
from vitrail.data.targets import NoTargets
from vitrail.data.truth import Truth
from vitrail.infer.bf16_check import Bf16Check, check_bf16, keep_in_float32, noise
from vitrail.layers.encoder import Encoder
from vitrail.layers.heads import Output
from vitrail.layers.pooling import Pool
from vitrail.layers.tokens import FeatureSpec
from vitrail.layers.tokens import Pool as Kind
from vitrail.runs.device import fast_bf16
from vitrail.runs.run_network import run_network
from vitrail.tasks.probe import Vectors

BATCH = 16

LARGEST = 4_000_000_000
"""Largest size of the patch features of all images, in bytes."""

FORMAT = 2
"""Version of the computation, a part of the cache key. Version 1 was wrong in bf16 on some machines (bf16_check.py)."""


def pool_kind(spec: FeatureSpec) -> Kind:
    """Return the pooling for a frozen network: class token and mean of patches if it has a class token."""
    if spec.pool == "own":
        return "own"
    return "cls_mean" if "cls" in spec.prefix else "mean"


class Frozen:
    """A frozen encoder that turns images into vectors and caches them.

    With `patches` an image gives one vector per patch, (p, d) in float16, instead of one vector, (d,).
    """

    def __init__(
        self, encoder: Encoder, preprocess: Preprocess, device: torch.device, patches: bool = False
    ) -> None:
        self.patches = patches
        self.encoder = encoder.eval().requires_grad_(False).to(device)
        self.preprocess, self.device = preprocess, device
        self.pool = Pool(encoder.spec, pool_kind(encoder.spec))
        self.check = Bf16Check()
        if fast_bf16(device):
            self.check = check_bf16(self.encoder, noise((preprocess.channels, *preprocess.size), device))
        self.precision = "bf16" if fast_bf16(device) and self.check.faithful else "float32"
        keep_in_float32(self.encoder, self.check.float32)
        self.path = cache_dir() / "features" / f"{self._key()}.safetensors"

    def _key(self) -> str:
        digest = blake2b(digest_size=16)
        float32 = self.check.float32 if self.precision == "bf16" else ()
        parts = [FORMAT, RULES, self.preprocess.to_dict(), self.pool.kind, self.precision, *float32]
        if self.patches:
            parts.append("patches")
        digest.update(json.dumps(parts).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def vectors(
        self, manifest: Manifest, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None
    ) -> Vectors:
        """Return one vector per row, (n, d), or per patch, (n, p, d). Only images that are not cached are computed.

        Raises:
            SettingError: the patch features of all images are larger than `LARGEST`.
        """
        self._refuse_huge(len(rows))
        known = self._read()
        new = list({row.hash: row for row in rows if row.hash not in known}.values())
        if new:
            for done, (hashes, vectors) in enumerate(self.compute(manifest, new), 1):
                known |= zip(hashes, vectors, strict=True)
                if progress is not None:
                    progress(min(len(new), done * BATCH), len(new))
            self._write(known)
        return np.stack([known[row.hash] for row in rows])

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
        """Return the number of images that are not cached."""
        return len({row.hash for row in rows} - self._read().keys())

    def seconds_per_image(self, manifest: Manifest, rows: Sequence[Row]) -> float:
        """Measure the seconds per image: the faster of two batches, after one for warming up."""
        some = [*rows[:BATCH]] * (1 + (len(rows) < BATCH))
        took = []
        for _ in range(3):
            began = time.perf_counter()
            next(iter(self.compute(manifest, some[:BATCH], workers=0)))
            took.append(time.perf_counter() - began)
        return min(took[1:]) / min(BATCH, len(some))

    def compute(
        self, manifest: Manifest, rows: Sequence[Row], workers: int = 1
    ) -> Iterator[tuple[list[str], Vectors]]:
        """Yield hashes and vectors, batch by batch. Another process reads the images at the same time."""
        images = ImageDataset(rows, manifest.root, self.preprocess, NoTargets(Truth("none")))
        hashes = {row.id: row.hash for row in rows}
        batches = evaluation(images, BATCH, Share(), workers)
        for batch, output in run_network(self._pooled, batches, self.device, self.precision):
            vectors = output["vectors"].numpy()
            yield [hashes[id] for id in batch.ids], vectors.astype(np.float16) if self.patches else vectors

    def _pooled(self, batch: Batch[None]) -> Output:
        features = self.encoder(batch.images)
        return {"vectors": features.tokens.patches if self.patches else self.pool(features)}

    def _read(self) -> dict[str, Vectors]:
        try:
            with safe_open(self.path, framework="np") as handle:
                hashes = json.loads(handle.metadata()["hashes"])
                return dict(zip(hashes, handle.get_tensor("vectors"), strict=True))
        except (FileNotFoundError, SafetensorError, OSError, KeyError, ValueError):
            return {}  # features in a broken cache are computed again

    def _write(self, known: dict[str, Vectors]) -> None:
        metadata = {"hashes": json.dumps(list(known))}
        tensors = {"vectors": np.stack(list(known.values()))}
        keep(self.path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
