"""LitServe around our predictor at the full point: what `bench.serve` puts beside our own server.

    python -m venv lit && lit/bin/pip install litserve==0.2.19
    PYTHONPATH=.:.venv/lib/python3.11/site-packages lit/bin/python -m bench.litserve_side RUN --images FOLDER

It runs in an environment of its own, which sees our packages by PYTHONPATH: versions of what both have (FastAPI,
uvicorn, pydantic) are ours. POST /predict takes the raw bytes of an image and answers in the form of `vitrail serve`.
The backend is the fastest one for the full point, proven on the images of the folder. Batches go through the network
image by image or in portions, whichever is expected to be quicker for their size.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import litserve
from fastapi import Body

from vitrail.infer.openvino_backend import portion
from vitrail.infer.point_speeds import fastest_backend, runner_at
from vitrail.infer.predictor import BATCH, Predictor, Request

IMAGES = 48
"""Images for the check of the backend."""

TIMED = 3


class FullPoint(litserve.LitAPI):
    """Decodes one image at a time and predicts a batch."""

    def __init__(self, run: str, images: Path, **batching: Any) -> None:
        super().__init__(**batching)
        self.run, self.images = run, images

    def setup(self, device: str) -> None:
        self.predictor = Predictor(self.run, device)
        files = sorted(path for path in self.images.rglob("*") if path.is_file())[:IMAGES]
        readers = [partial(self.predictor.decoded, path) for path in files]
        plan = fastest_backend(self.predictor, readers)
        self.point = self.predictor.points[-1]
        self.ways = runner_at(self.predictor, plan, self.point, readers)
        # A network of OpenVINO has a fixed batch size: a smaller batch is padded and takes as long as a whole one.
        self.portion = portion((BATCH, self.predictor.preprocess.channels, *self.point.size))
        few = [read() for _, read in zip(range(self.portion), readers, strict=False)]
        self.one, self.whole = self._seconds(few[:1], self.ways.single), self._seconds(few, self.ways.batched)
        print(
            f"LitServe {litserve.__version__}, {self.point}, {plan}: {1000 * self.one:.0f} ms alone, "
            f"{1000 * self.whole:.0f} ms for {self.portion}", flush=True,
        )  # fmt: skip

    def _seconds(self, images: list[Any], request: Request) -> float:
        times = []
        for _ in range(TIMED + 1):
            began = time.perf_counter()
            self.predictor.predict(images, request)
            times.append(time.perf_counter() - began)
        return min(times[1:])

    def way(self, count: int) -> Request:
        """Return the quicker way for so many images."""
        portions = math.ceil(count / self.portion)
        return self.ways.single if count * self.one < portions * self.whole else self.ways.batched

    # The type makes LitServe take the body as it is; without it only JSON and forms are read.
    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Any:
        return self.predictor.decoded(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, images: list[Any]) -> list[dict[str, Any]]:
        found = self.predictor.predict(images, self.way(len(images)))
        beside = {"point": str(self.point), "batch": len(images)}
        return [{**one.to_dict(), **beside} for one in found]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"answers": [output]}


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.litserve_side", description=__doc__)
    words.add_argument("run")
    words.add_argument("--port", type=int, default=8001)
    words.add_argument("--images", type=Path, required=True, help="on which the backend is proven")
    words.add_argument("--batch", type=int, default=16)
    words.add_argument("--batch-timeout", type=float, default=0.005, help="seconds")
    words.add_argument(
        "--fast-queue", action="store_true", help="LitServe's queue for many requests (ZeroMQ)"
    )
    options = words.parse_args()
    api = FullPoint(
        options.run, options.images, max_batch_size=options.batch, batch_timeout=options.batch_timeout
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=options.fast_queue)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
