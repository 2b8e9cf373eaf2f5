"""Make the studio's sample run, vitrail/studio/sample/run.zip: a small network that has learned the digits.

python -m bench.studio_sample
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import vitrail.studio
from vitrail.studio.sample import PLACE, RUN, SOURCE

LEFT_OUT = ("report.html", "state")
"""What the studio makes itself, or does not need."""

STEPS = 5
"""One step of so many stays in the history."""

WORDS = (
    "--model", "vit_digits_narrow", "--epochs", "60", "--precision", "float32",
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


def main() -> None:
    target = Path(vitrail.studio.__file__).parent / "sample" / "run.zip"
    target.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "vitrail", "train", SOURCE, *WORDS, "--out", f"runs/{RUN}"]
        subprocess.run(words, cwd=folder, check=True)
        run = Path(folder, "runs", RUN)
        with ZipFile(target, "w", ZIP_DEFLATED, compresslevel=9) as archive:
            for file in sorted(run.iterdir()):
                if file.name in LEFT_OUT:
                    continue
                data = file.read_bytes()
                if file.name == "history.jsonl":
                    data = history(data.decode("utf-8")).encode("utf-8")
                archive.writestr(ZipInfo(file.name), data, ZIP_DEFLATED)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
