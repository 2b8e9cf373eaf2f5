"""Results that survive an interruption: one JSON file, a row a name; what stands in it is not measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitrail.core.files import write_json

SHARED = Path(__file__).resolve().parents[2] / "shared"
CIFAR = SHARED / "data" / "cifar10-10k.zip"


class Kept:
    """Rows of one bench, under the settings that they were measured with."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.rows: dict[str, Any] = self._found()

    def _found(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        found = json.loads(self.path.read_text(encoding="utf-8"))
        if found["settings"] != self.settings:
            raise SystemExit(
                f"{self.path} holds results of {found['settings']}, not {self.settings}. Name another place."
            )
        rows: dict[str, Any] = found["rows"]
        return rows

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Keep one row at once, beside what another process has kept meanwhile."""
        self.rows = self._found() | {name: row}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"settings": self.settings, "rows": self.rows})


def percent(found: dict[str, float]) -> str:
    """Return a share with its interval."""
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
