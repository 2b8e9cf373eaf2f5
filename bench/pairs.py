"""The tables of the benches; the timing is the package's own (`vitrail bench` uses the same)."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from vitrail.infer.timing import Ratio, in_turn, machine, ratio

__all__ = ["Ratio", "in_turn", "machine", "ratio", "table"]


def table(times: Mapping[str, list[float]], ours: str, unit: str, amount: float) -> str:
    """Return a Markdown table: median seconds, `amount` per second, and how much faster `ours` is than each."""
    rows = [f"| what | median s | min … max | {unit}/s | ours is faster by |", "|---|---|---|---|---|"]
    for name, found in times.items():
        faster = "–" if name == ours else str(ratio(times[ours], found))
        rows.append(
            f"| {name} | {median(found):.3f} | {min(found):.3f} … {max(found):.3f} | "
            f"{amount / median(found):.1f} | {faster} |"
        )
    return "\n".join(rows)
