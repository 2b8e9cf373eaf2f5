"""What of two commits is compared, and how: names through a rename table, tensors to the bit, numbers to 1e-12."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

CLOSE = 1e-12
"""How far numbers of a report may be apart, relative to those above 1."""

TIMES = (
    "seconds", "phases.*", "full_seconds", "time", "points.*.images_per_second", "points.*.beaten_by",
)  # fmt: skip
"""Keys that hold what a clock said, or follow from it."""

WRITTEN = ("manifest", "doubts", "parameters")
"""Kinds without measured numbers: cells of tables, and the order of the parameters."""

Things = dict[str, Any]
"""Name → tensor, number or text."""

Renames = Mapping[str, Mapping[str, str]]


class Difference(NamedTuple):
    """One thing that is not the same: its name, both values in words, and how far apart its numbers are."""

    name: str
    before: str
    after: str
    apart: float | None = None

    def __str__(self) -> str:
        by = "" if self.apart is None else f" (apart by {self.apart:.3g})"
        return f"{self.name}: {self.before} → {self.after}{by}"


def how(kind: str, things: Things) -> str:
    """Say how a kind of things is compared."""
    if any(isinstance(one, Tensor) for one in things.values()):
        return "to the bit"
    return "as written" if kind in WRITTEN else "to 1e-12"


def differences(old: Things, new: Things) -> list[Difference]:
    """Return what differs between two sets of things, by name: tensors to the bit, numbers to 1e-12."""
    found = []
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in old or name not in new:
            before, after = (said(side[name]) if name in side else "not there" for side in (old, new))
            found.append(Difference(name, before, after))
        elif not _same(old[name], new[name]):
            found.append(Difference(name, said(old[name]), said(new[name]), _apart(old[name], new[name])))
    return found


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _bits(a, b)
    return _close(a, b)


def _bits(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors are the same bits; a NaN equals itself, and -0 is not 0."""
    alike = a.shape == b.shape and a.dtype == b.dtype
    return alike and bool(torch.equal(_raw(a), _raw(b)))


def _raw(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _close(a: Any, b: Any) -> bool:
    if not (_is_number(a) and _is_number(b)):
        return type(a) is type(b) and bool(a == b)
    return a == b or abs(a - b) <= CLOSE * max(1.0, abs(a)) or (math.isnan(a) and math.isnan(b))


def _is_number(one: Any) -> bool:
    return isinstance(one, int | float) and not isinstance(one, bool)


def _apart(a: Any, b: Any) -> float | None:
    if isinstance(a, Tensor):
        if not isinstance(b, Tensor) or a.shape != b.shape:
            return None
        gaps = (a.double() - b.double()).abs().flatten()
        return float(gaps[~gaps.isnan()].max()) if (~gaps.isnan()).any() else 0.0
    return abs(a - b) if _is_number(a) and _is_number(b) else None


def said(one: Any) -> str:
    """Say a value in one line."""
    if isinstance(one, Tensor):
        shape = "×".join(map(str, one.shape)) or "one number"
        return f"{str(one.dtype).removeprefix('torch.')} {shape}"
    text = repr(one)
    return text if len(text) < 120 else f"{text[:117]}…"


def translated(kind: str, old: Things, new: Things, renames: Renames) -> Things:
    """Return the old things under their new names: whatever name the new side lacks goes through the rename table."""
    rename = _renaming(kind, renames)
    words = {**renames["tasks"], **renames["options"]}
    moved = {name if name in new else rename(name): one for name, one in old.items()}
    for name, one in moved.items():
        if isinstance(one, str) and one != new.get(name):
            moved[name] = " ".join(words.get(word, word) for word in one.split(" "))
    return moved


def _renaming(kind: str, renames: Renames) -> Callable[[str], str]:
    if kind in {"weights", "network", "average", "optimiser", "parameters"}:
        return lambda name: _prefixed(name, renames["parameters"])
    if kind in {"manifest", "doubts"}:
        return lambda name: _column(name, renames["columns"])
    return lambda name: _keyed(name, renames["keys"])


def _prefixed(name: str, table: Mapping[str, str]) -> str:
    """Rename by the longest prefix that the table knows."""
    known = [prefix for prefix in table if name.startswith(prefix)]
    longest = max(known, key=len, default="")
    return table[longest] + name.removeprefix(longest) if known else name


def _column(name: str, table: Mapping[str, str]) -> str:
    row, _, column = name.rpartition(" · ")
    return f"{row} · {table.get(column, column)}"


def _keyed(name: str, table: Mapping[str, str]) -> str:
    """Rename a dotted key by its first parts; a `*` stands for one part and is kept."""
    parts = name.split(".")
    for old, new in table.items():
        pattern = old.split(".")
        if len(pattern) <= len(parts) and all(map(fnmatchcase, parts, pattern)):
            stars = iter([part for part, one in zip(parts, pattern, strict=False) if one == "*"])
            head = [next(stars) if one == "*" else one for one in new.split(".")]
            return ".".join([*head, *parts[len(pattern) :]])
    return name


def collected(side: Path, run: str) -> dict[str, Things]:
    """Return everything that is compared of one run of one side: kind → things; what is not there is left out."""
    folder = side / "runs" / run
    found: dict[str, Things] = {}
    if (model := folder / "model.safetensors").is_file():
        found["weights"], metadata = _opened(model)
        found["header"] = flat(json.loads(metadata["vitrail"]))
    for file in sorted((folder / "state").glob("*.safetensors")):
        for name, tensor in _opened(file)[0].items():
            group, _, rest = name.partition(".")
            found.setdefault(group, {})[rest] = tensor
    for kind, file in {"report": folder / "report.json", "eval": side / "eval" / f"{run}.json"}.items():
        if file.is_file():
            found[kind] = flat(json.loads(file.read_text(encoding="utf-8")))
    for kind in ("manifest", "doubts"):
        if (folder / f"{kind}.csv").is_file():
            found[kind] = _cells(folder / f"{kind}.csv")
    if (folder / "history.jsonl").is_file() and (events := _history(folder / "history.jsonl")):
        found["history"] = events
    return {**found, **_probed(side / "probe", run)}


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118


def flat(value: Any, where: str = "") -> Things:
    """Return the leaves of nested JSON by dotted keys, without what a clock said; an empty list is a leaf."""
    if any(fnmatchcase(where, pattern) for pattern in TIMES):
        return {}
    if not isinstance(value, dict | list) or not value:
        return {where: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    leaves: Things = {}
    for key, one in pairs:
        leaves |= flat(one, f"{where}.{key}" if where else str(key))
    return leaves


def _cells(path: Path) -> Things:
    """Return the cells of a table by row and column; a row is called by its number and its first cell."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return {
        f"{number} {next(iter(row.values()))} · {column}": cell
        for number, row in enumerate(rows)
        for column, cell in row.items()
    }


def _history(path: Path) -> Things:
    """Return losses, rates and scores of every step and epoch."""
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        f"{event['event']} {event['step']}.{key}": one
        for event in events
        if event["event"] in {"step", "score"}
        for key, one in flat(event).items()
    }


def _probed(folder: Path, run: str) -> dict[str, Things]:
    told = _told(folder, run)
    answers = told.get("answers", {})
    found: dict[str, Things] = {
        "predictions": {
            f"{Path(path).stem}.{key}": one
            for path, answer in answers.items()
            for key, one in flat(answer).items()
        },
        "parameters": {name: place for place, name in enumerate(told.get("parameters", ()))},
    }
    if told:
        with np.load(folder / f"{run}.npz") as arrays:
            for name, array in arrays.items():
                kind, _, rest = name.rpartition("/")
                found.setdefault(kind, {})[rest] = torch.from_numpy(array)
    return {kind: things for kind, things in found.items() if things}


def _told(folder: Path, run: str) -> dict[str, Any]:
    path = folder / f"{run}.json"
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return told


def failures(side: Path, run: str) -> dict[str, str]:
    """Return what one side could not do or answer, and what it said; `command` is a verb that failed."""
    told = _told(side / "probe", run)
    found: dict[str, str] = told["errors"] if told else {"command": "it ended before"}
    return found
