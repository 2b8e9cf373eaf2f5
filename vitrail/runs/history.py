"""The events of a run as they count. No torch, so that pages can read them at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def effective(history: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events without the steps that a later resume repeated, so that each step occurs once."""
    events: list[dict[str, Any]] = []
    for event in history:
        if event["event"] == "resumed":
            events = [earlier for earlier in events if earlier.get("step", 0) <= event["step"]]
        events.append(event)
    return events
