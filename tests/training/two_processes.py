"""A short training that writes its losses; a test starts it in one process or two."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train


def main() -> None:
    torch.set_num_threads(1)
    data = Path(tempfile.gettempdir()) / "vitrail-two-processes" / sys.argv[1].replace("/", "_")
    draw = np.random.default_rng(0)
    import os

    if os.environ.get("RANK") == "0":
        for label in "ab":
            (data / label).mkdir(parents=True, exist_ok=True)
            for number in range(24):
                pixels = draw.integers(0, 120, (32, 32, 3), dtype=np.uint8) + (100 if label == "b" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(data / label / f"{number}.png")
    from accelerate import PartialState

    PartialState(cpu=True).wait_for_everyone()
    options = TrainOptions(
        model="vit_digits", recipe="digits_vit", epochs=3, batch=16, micro=8, precision="float32",
        device="cpu", workers=0, mixup=0.5, drop_path=0.2, out=str(Path(sys.argv[1]).with_suffix("")),
    )  # fmt: skip
    run = train(data, options)
    if os.environ.get("RANK") == "0":
        events = run.history()
        losses = [event["loss"] for event in events if event["event"] == "step"]
        scores = [event["accuracy"] for event in events if event["event"] == "score"]
        Path(sys.argv[1]).write_text(json.dumps({"losses": losses, "accuracy": scores}))


if __name__ == "__main__":
    main()
