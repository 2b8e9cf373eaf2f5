"""One commit at work for `bench/golden.py`: its commands, then what its public Python API answers of the models.

`python -P golden_side.py PLAN.json` with the commit in PYTHONPATH. Every command is `python -m vitrail …` in a process
of its own, forked from this one, which has imported everything before: a small training spends most of its time on
that. For every run RUN.npz (arrays) and RUN.json (answers, names of the parameters in order, errors) are written.
Where the public API changes, this page learns both forms.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import vitrail

SHOWN = 2
"""Images that are explained, of those that are predicted."""

HEAVY = ("torch._dynamo", "accelerate", "timm", "torchvision", "sklearn.linear_model", "matplotlib.pyplot")
"""What vitrail imports late, beside its own pages."""


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not Path(vitrail.__file__).is_relative_to(plan["tree"]):
        sys.exit(f"{vitrail.__file__} is not of the tree {plan['tree']}.")
    warm()
    for name, run in plan["runs"].items():
        began = time.monotonic()
        trained = _trained(run, plan["options"])
        if not trained:
            trained = command(run["eval"], run["log"], plan["options"], Path(run["scores"]))
        arrays, said = answered(run) if not trained else ({}, {"errors": {"command": trained}})
        np.savez(f"probe/{name}.npz", **arrays)
        Path(f"probe/{name}.json").write_text(json.dumps(said), encoding="utf-8")
        print(f"{plan['name']}: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def warm() -> None:
    """Import every page of vitrail and what they import late; one that cannot be is left to the commands."""
    pages = (
        found.name for found in pkgutil.walk_packages(vitrail.__path__, "vitrail.", onerror=lambda _: None)
    )
    for name in [*HEAVY, *(page for page in pages if not page.endswith("__main__"))]:
        with suppress(Exception):
            importlib.import_module(name)


def _trained(run: dict[str, Any], options: dict[str, str]) -> str:
    """Train; return what went wrong. A run that is to be stopped is tried again where it was too quick."""
    if not run["stop"]:
        return command(run["train"], run["log"], options)
    for _ in range(3):
        shutil.rmtree(run["run"], ignore_errors=True)
        failed = command(run["train"], run["log"], options, stop=(Path(run["run"]), run["stop"]))
        history = Path(run["run"]) / "history.jsonl"
        if failed or not _finished(history):
            return failed or command(run["resume"], run["log"], options)
    return "it ended each time before it could be stopped"


def command(
    words: list[str],
    log: str,
    options: dict[str, str],
    out: Path = Path(os.devnull),
    stop: tuple[Path, int] | None = None,
) -> str:
    """Run `vitrail WORDS`, its answer into `out`; return the last words of one that failed."""
    if known := [word for word in words if word in options]:
        page = Path("probe/help.txt")
        _wait(_forked([words[0], "--help"], page, os.devnull))
        there = page.read_text(encoding="utf-8").split()
        named = {word: options[word] for word in known if options[word].replace("--no-", "--") in there}
        words = [named.get(word, word) for word in words]
    process = _forked(words, out, log)
    if stop:
        while not _reached(stop[0] / "history.jsonl", stop[1]):
            if os.waitpid(process, os.WNOHANG)[0]:
                return f"{' '.join(words)}: it ended before step {stop[1]}"
            time.sleep(0.005)
        os.kill(process, signal.SIGTERM)
    if _wait(process):
        said = Path(log).read_text(encoding="utf-8").strip().splitlines()
        return f"{' '.join(words[:3])}: {' '.join(said[-1:])}"
    return ""


def _wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _forked(words: list[str], out: Path, log: str) -> int:
    """Start a command in a child of this process and return its number."""
    if process := os.fork():
        return process
    code = 1
    try:
        for file, number in ((out, 1), (Path(log), 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        sys.argv = ["vitrail", *words]
        runpy.run_module("vitrail", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reached(history: Path, step: int) -> bool:
    return history.is_file() and f'"event": "step", "step": {step},' in history.read_text(encoding="utf-8")


def _finished(history: Path) -> bool:
    return '"event": "finished"' in history.read_text(encoding="utf-8")


def answered(run: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the Python API says of a trained run: arrays, and the rest as plain data."""
    arrays: dict[str, Any] = {}
    said: dict[str, Any] = {"answers": {}, "parameters": [], "errors": {}}
    for what, ask in _questions(run, arrays, said).items():
        try:
            ask()
        except Exception as error:  # what one commit cannot answer is a row of the table, not the end of it
            said["errors"][what] = f"{type(error).__name__}: {error}"
    return arrays, said


def _questions(
    wish: dict[str, Any], arrays: dict[str, Any], said: dict[str, Any]
) -> dict[str, Callable[[], None]]:
    run, pictures = wish["run"], wish["pictures"]

    def predictions() -> None:
        found = vitrail.load(run, device="cpu")(pictures)
        said["answers"] = {path: answer.to_dict() for path, answer in zip(pictures, found, strict=True)}

    def parameters() -> None:
        network = vitrail.load(run, device="cpu").network
        said["parameters"] = [name for name, _ in network.named_parameters()]

    def logits(point: str | None) -> Callable[[], None]:
        return lambda: arrays.update(_logits(run, pictures, point))

    def maps(method: str) -> Callable[[], None]:
        return lambda: arrays.update(_maps(run, pictures[:SHOWN], method))

    return {
        "predictions": predictions,
        "parameters": parameters,
        **{f"logits {point or ''}".strip(): logits(point) for point in (None, *wish["points"])},
        **{f"map {method}": maps(method) for method in wish["maps"]},
    }


def _logits(run: str, pictures: list[str], point: str | None) -> dict[str, Any]:
    """Return the eager network's raw output for the images; one that answers with several tensors gives all.

    Before outputs had names a predictor was `asked` for its one tensor.
    """
    predictor = vitrail.load(run, device="cpu", point=point)
    ask = getattr(predictor, "asked", None) or predictor.outputs
    found = ask([predictor.ready(path) for path in pictures])
    kind = f"logits {point}" if point else "logits"
    named = found if isinstance(found, Mapping) else {"logits": found}
    return {f"{kind}/{name}": one.numpy() for name, one in named.items()}


def _maps(run: str, pictures: list[str], method: str) -> dict[str, Any]:
    predictor = vitrail.load(run, device="cpu")
    found = {path: vitrail.explain(predictor, path, method=method) for path in pictures}
    return {
        f"map {method}/{kind} of {Path(path).name}": np.asarray(getattr(one, kind))
        for path, one in found.items()
        for kind in ("grid", "heat")
    }


if __name__ == "__main__":
    main()
