"""1,000 photographs to a scored draft with a real ViT-S/14 at 224 px: seconds of the whole command, and its phases.

Wants ../shared (weights and photographs) beside the repository. The photographs are its hundred, each cut in ten
windows of ordinary size, in ten made-up classes: the cost is real, the score means nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from bench.pairs import machine

SHARED = Path(__file__).resolve().parents[2] / "shared"


def photographs(folder: Path) -> None:
    """Write 1,000 JPEG files of 500 × 375 px."""
    with zipfile.ZipFile(SHARED / "data" / "photos-100.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg")))[:100]
        for number, name in enumerate(names):
            with Image.open(BytesIO(archive.read(name))) as picture:
                whole = picture.convert("RGB").resize((640, 480))
            target = folder / f"class {number % 10}"
            target.mkdir(parents=True, exist_ok=True)
            for part in range(10):
                left, top = 14 * part, 10 * part
                whole.crop((left, top, left + 500, top + 375)).save(
                    target / f"{number:03}-{part}.jpg", quality=90
                )


def main() -> None:
    weights = SHARED / "weights" / "dinov2-small-saliency"
    if not weights.exists():
        print("skipped: ../shared/weights is not here")
        return
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs(folder / "photos")
        for size in (["--imgsz", "224"], []):
            environment = {**os.environ, "VITRAIL_CACHE": str(folder / f"cache{len(size)}")}
            words = ["train", str(folder / "photos"), "--weights", str(weights), *size]
            words += ["--out", str(folder / f"run{len(size)}")]
            began = time.perf_counter()
            command = [sys.executable, "-m", "vitrail.cli.main", *words]
            subprocess.run(command, check=True, env=environment, capture_output=True)
            took = time.perf_counter() - began
            report = json.loads((folder / f"run{len(size)}" / "report.json").read_text())
            parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in report["phases"].items())
            asked = "224 px asked for" if size else "size left to the draft"
            print(
                f"{asked}: {took:.1f} s of the whole command at {report['imgsz'][0]} px ({parts})", flush=True
            )


if __name__ == "__main__":
    main()
