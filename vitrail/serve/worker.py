"""A worker process: it opens the model, and answers one message after the other until its connection ends."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

from vitrail.serve.messages import Batch, Failed, Model, Question, Ready

GENTLE = 5
"""How much an explanation steps back behind predictions, as a nice value."""


def work(model: Model, connection: Connection, measure: bool) -> None:
    """Open a model and answer; the first message is `Ready` or `Failed`, with the facts if they are measured.

    The front of the server ends a worker by closing the connection: Ctrl-C and SIGTERM, which a terminal or a service
    manager may send to every process, are for the front alone, so that what was accepted is still answered.
    """
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    from vitrail.core.errors import VitrailError
    from vitrail.core.text import reason
    from vitrail.serve.engine import Engine

    try:
        engine = Engine(model)
        connection.send(Ready(engine.facts() if measure else None))
    except VitrailError as error:
        connection.send(Failed(str(error)))
        return
    except Exception as error:  # the front tells whoever started it
        connection.send(Failed(f"The model could not be opened: {reason(error)}."))
        return
    while True:
        try:
            message: Batch = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(engine.computed(message))


def explain_requests(model: Model, connection: Connection) -> None:
    """Open a model and explain one image after the other, at low priority."""
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(GENTLE)
    import torch

    from vitrail.core.errors import VitrailError
    from vitrail.infer.predictor import load
    from vitrail.serve.explaining import explain

    torch.set_num_threads(1)
    try:
        predictor = load(model.path, model.device, trust=model.trust)
        connection.send(Ready(None))
    except VitrailError as error:
        connection.send(Failed(str(error)))
        return
    while True:
        try:
            question: Question = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(explain(predictor, question))
