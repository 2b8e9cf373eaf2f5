"""A worker process: it opens the model, and answers one message after the other until its connection ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from vitrail.serve.messages import Failed, Model, Ready

Answering = Callable[[Any], Any]
"""From a message of the front to the answer."""

GENTLE = 5
"""How much an explanation steps back behind predictions, as a nice value."""


def work(model: Model, connection: Connection, measure: bool) -> None:
    """Open a model and answer; the first message is `Ready` or `Failed`, with the facts if they are measured."""

    def opened() -> tuple[Ready, Answering]:
        from vitrail.serve.engine import Engine

        engine = Engine(model)
        return Ready(engine.facts() if measure else None), engine.computed

    _serve(connection, opened)


def explain_requests(model: Model, connection: Connection) -> None:
    """Open a model and explain one image after the other, at low priority."""

    def opened() -> tuple[Ready, Answering]:
        if hasattr(os, "nice"):
            os.nice(GENTLE)
        import torch

        from vitrail.infer.predictor import load
        from vitrail.serve.explaining import explain

        torch.set_num_threads(1)
        return Ready(None), partial(explain, load(model.path, model.device, trust=model.trust))

    _serve(connection, opened)


def _serve(connection: Connection, opened: Callable[[], tuple[Ready, Answering]]) -> None:
    """Open a model, and answer each message until the front closes the connection.

    Ctrl-C and SIGTERM, which a terminal or a service manager may send to every process, are for the front alone, so
    that what was accepted is still answered.
    """
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    from vitrail.core.errors import VitrailError
    from vitrail.core.text import reason

    try:
        ready, answer = opened()
        connection.send(ready)
    except VitrailError as error:
        connection.send(Failed(str(error)))
        return
    except Exception as error:  # the front tells whoever started it
        connection.send(Failed(f"The model could not be opened: {reason(error)}."))
        return
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(answer(message))
