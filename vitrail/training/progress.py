"""Listeners: they receive the events of a training and do not change it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from vitrail.core.text import clock
from vitrail.tasks.result import measured
from vitrail.training.loop import Event


class Listener(Protocol):
    """A function that is called with every event of a training."""

    def __call__(self, event: Event) -> None: ...


def note(listeners: Iterable[Listener], lines: list[str]) -> None:
    """Send lines of text to the listeners."""
    for listener in listeners:
        listener(Event("note", 0, {"lines": lines}))


class Teller:
    """Prints progress to standard error: on a terminal a bar with the time left, elsewhere one line per epoch."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say_plain = say
        self.live = sys.stderr.isatty()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            disable=not self.live,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, left="", start=False)
        self.first, self.began, self.total = 0, time.monotonic(), 0
        self.limit = math.inf
        self.loss = ""

    def __enter__(self) -> Teller:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, event: Event) -> None:
        getattr(self, f"_{event.kind}", self._nothing)(event)

    def _nothing(self, event: Event) -> None:
        """Ignore events without a line of their own."""

    def _note(self, event: Event) -> None:
        for line in event.values["lines"]:
            self.say(line)

    def _looked(self, event: Event) -> None:
        done, total = event.values["done"], event.values["total"]
        self.bar.start_task(self.task)
        self.bar.update(self.task, description="reading every image", completed=done, total=total)

    def _features(self, event: Event) -> None:
        done, total = event.values["done"], event.values["total"]
        self.bar.start_task(self.task)
        self.bar.update(self.task, description="features", completed=done, total=total)

    def _begun(self, event: Event) -> None:
        self.first, self.total, self.began = event.step, event.values["total"], time.monotonic()
        limit = event.values["seconds"]
        self.limit = math.inf if limit is None else limit
        self.bar.reset(self.task, total=self.total, completed=event.step, description="training", left="")

    def _planned(self, event: Event) -> None:
        self.total = event.values["total"]
        self.say(f"The time is enough for {self.total} steps, {event.values['epochs']:.1f} epochs.")

    def _smaller(self, event: Event) -> None:
        self.say(f"Memory ran out: continuing with {event.values['micro']} images at a time, same batch.")

    def _step(self, event: Event) -> None:
        self.loss = f"loss {event.values['loss']:.3f}"
        description = f"epoch {event.values['epoch']:.1f}  {self.loss}"
        self.bar.update(
            self.task,
            description=description,
            completed=event.step,
            total=self.total,
            left=self._left(event.step),
        )

    def _score(self, event: Event) -> None:
        v = event.values
        score, best = (measured(v[key], v["unit"]).replace(" %", "%") for key in (v["main"], "best"))
        mark = "  (best)" if v["better"] else f"  (best {best})"
        self.say(
            f"epoch {v['epoch']:5.1f}  {self.loss}  validation {v['main']} {score}{mark}"
            f"  {self._left(event.step)}".rstrip()
        )

    def _left(self, step: int) -> str:
        if step <= self.first or step >= self.total:
            return ""
        elapsed = time.monotonic() - self.began
        left = elapsed / (step - self.first) * (self.total - step)
        return clock(min(left, max(0.0, self.limit - elapsed))) + " left"

    def say(self, line: str) -> None:
        """Print one line, above the bar if there is one."""
        if self.live:
            self.bar.console.print(line, highlight=False, markup=False)
        else:
            self.say_plain(line)
