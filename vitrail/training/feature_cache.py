"""Frozen features: what a pretrained network sees in an image, as one vector.

Features are computed once for each image and kept on disk under what they depend on: the weights, the
preprocessing, the precision, and the content of the file. New images only cost themselves.
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
"""Bytes that the patches of all images may take."""

FORMAT = 2
"""Counts up when features are computed otherwise; the first were wrong in bf16 on some machines (bf16_check.py)."""


def pool_kind(spec: FeatureSpec) -> Kind:
    """Return how a frozen network is pooled: class token and mean of patches where it has both."""
    if spec.pool == "own":
        return "own"
    return "cls_mean" if "cls" in spec.prefix else "mean"


class Frozen:
    """A frozen encoder that turns images into vectors, and remembers those it has seen.

    With `patches` an image is a vector for each of its patches, (p, d) in float16, in place of one of it all, (d,).
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
        kept = self.check.float32 if self.precision == "bf16" else ()
        said = [FORMAT, RULES, self.preprocess.to_dict(), self.pool.kind, self.precision, *kept]
        said += ["patches"] if self.patches else []
        digest.update(json.dumps(said).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def vectors(
        self, manifest: Manifest, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None
    ) -> Vectors:
        """Return one vector a row, (n, d), or one a patch, (n, p, d), computing only those not seen before.

        Raises:
            SettingError: the patches of all images would fill the memory.
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

    def _refuse_huge(self, pictures: int) -> None:
        size = 2 * pictures * self.grid[0] * self.grid[1] * self.encoder.spec.width if self.patches else 0
        if size > LARGEST:
            raise SettingError(
                f"The features of the patches of {pictures:,} images would take {size / 1e9:.0f} GB. Train the head "
                "in steps: --tune head; or take a smaller input: --imgsz."
            )

    def missing(self, rows: Sequence[Row]) -> int:
        """Return how many images would have to be computed."""
        return len({row.hash for row in rows} - self._read().keys())

    def seconds_per_image(self, manifest: Manifest, rows: Sequence[Row]) -> float:
        """Measure what one image costs: the quickest of two batches after one that warms up."""
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
        """Yield hashes and vectors, batch by batch; images are read in a process of their own meanwhile."""
        pictures = ImageDataset(rows, manifest.root, self.preprocess, NoTargets(Truth("none")))
        hashes = {row.id: row.hash for row in rows}
        batches = evaluation(pictures, BATCH, Share(), workers)
        for batch, output in run_network(self._pooled, batches, self.device, self.precision):
            vectors = output["vectors"].numpy()
            yield [hashes[one] for one in batch.ids], vectors.astype(np.float16) if self.patches else vectors

    def _pooled(self, batch: Batch[None]) -> Output:
        features = self.encoder(batch.images)
        return {"vectors": features.tokens.patches if self.patches else self.pool(features)}

    def _read(self) -> dict[str, Vectors]:
        try:
            with safe_open(self.path, framework="np") as handle:
                hashes = json.loads(handle.metadata()["hashes"])
                return dict(zip(hashes, handle.get_tensor("vectors"), strict=True))
        except (FileNotFoundError, SafetensorError, OSError, KeyError, ValueError):
            return {}  # a cache that cannot be read is computed again

    def _write(self, known: dict[str, Vectors]) -> None:
        metadata = {"hashes": json.dumps(list(known))}
        tensors = {"vectors": np.stack(list(known.values()))}
        keep(self.path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
