"""Make the studio's sample run, vitrail/studio/sample/run.zip: a small network that has learned the digits.

python -m bench.studio_sample (about three minutes on two cores)
"""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from PIL import Image

import vitrail.studio
from vitrail.core.text import command
from vitrail.studio.sample import PLACE, RUN, SOURCE

LEFT_OUT = ("README.md", "report.html", "state")
"""What the studio makes itself, or does not need."""

STEPS = 5
"""One step of so many stays in the history."""

COLOURS = 22
"""Colours of the drawing of validation images."""

WORDS = (
    "--model", "vit_digits_narrow", "--epochs", "24", "--precision", "float32", "--workers", "0",
)  # fmt: skip


def history(text: str) -> str:
    """Return a history without its folder, and with a part of its steps."""
    lines = []
    for line in text.splitlines():
        event = json.loads(line)
        if event["event"] == "step" and event["step"] % STEPS and event["step"] > STEPS:
            continue
        if "root" in event:
            event["root"] = PLACE
        lines.append(json.dumps(event, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def small(image: bytes) -> bytes:
    """Return a PNG with few colours."""
    data = BytesIO()
    Image.open(BytesIO(image)).convert("RGB").quantize(COLOURS).save(data, "PNG", optimize=True)
    return data.getvalue()


def named(recipe: str) -> str:
    """Return a recipe whose first line names the command, and no folder of this machine."""
    return f"# Made by: {command('train', SOURCE, *WORDS)}\n" + recipe.partition("\n")[2]


def pack(run: Path, target: Path) -> None:
    """Pack the files of a finished run as the sample."""
    target.parent.mkdir(exist_ok=True)
    with ZipFile(target, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(run.iterdir()):
            if file.name in LEFT_OUT:
                continue
            data = file.read_bytes()
            if file.name == "history.jsonl":
                data = history(data.decode("utf-8")).encode("utf-8")
            if file.name == "recipe.yaml":
                data = named(data.decode("utf-8")).encode("utf-8")
            if file.name == "live.png":
                data = small(data)
            archive.writestr(ZipInfo(file.name), data, ZIP_DEFLATED)
    print(f"{target}: {target.stat().st_size:,} bytes")


def main() -> None:
    with TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "vitrail", "train", SOURCE, *WORDS, "--out", f"runs/{RUN}"]
        subprocess.run(words, cwd=folder, check=True)
        pack(Path(folder, "runs", RUN), Path(vitrail.studio.__file__).parent / "sample" / "run.zip")


if __name__ == "__main__":
    main()
