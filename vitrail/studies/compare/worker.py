"""One training of a duel in a process of its own: what crashes it, or fills the memory, harms no other one.

Called as `python -m vitrail.studies.compare.worker JOB`, JOB a JSON file; it writes `result.json`, and for a training
`answers.npz`, into the folder of the job.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitrail.core.config import read, read_mapping
from vitrail.core.errors import TrainingError, VitrailError
from vitrail.core.files import write_json, writing
from vitrail.core.text import reason
from vitrail.data.manifest import TEST, TRAIN, VAL, Manifest

FORWARD = 1 / 3
"""What computing the features of an image costs of training on it."""

KINDS = Literal["measure", "search", "train"]


@dataclass(frozen=True)
class Job:
    """What one process does: `measure` a step, `search` (train and validate), or `train` (and answer the test)."""

    kind: KINDS
    folder: str
    recipe: str
    manifest: str
    root: str
    seconds: float
    seed: int
    lr: float | None = None
    looked: float = 0.0
    keep: bool = False
    epochs: int | None = None

    def write(self) -> Path:
        """Write the job into its folder and return the file."""
        path = Path(self.folder) / "job.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))
        return path


def work(job: Job) -> dict[str, Any]:
    """Do a job and return what it found."""
    from vitrail.runs.recipe import Recipe

    recipe = read(Recipe, read_mapping(Path(job.recipe)), job.recipe)
    length = {"epochs": job.epochs, "seconds": None} if job.epochs else {"seconds": max(job.seconds, 0.1)}
    training = recipe.training.model_copy(
        update={"seed": job.seed, "lr": job.lr or recipe.training.lr, **length}
    )
    recipe = recipe.model_copy(update={"training": training})
    manifest = Manifest.read(job.manifest, job.root)
    return _measured(recipe, manifest) if job.kind == "measure" else _trained(job, recipe, manifest)


def _measured(recipe: Any, manifest: Manifest) -> dict[str, Any]:
    """Return what a step costs, what the network is, and where its weights are from."""
    from vitrail.models.factory import count_macs, count_params
    from vitrail.training.batch_size_finder import measure
    from vitrail.training.initialization import build_from_recipe
    from vitrail.training.session import accelerator_for, first_batch, training_images

    start = build_from_recipe(recipe, manifest.truth, manifest.rows(TRAIN))
    device = accelerator_for(recipe.training.device).device
    images = training_images(recipe, manifest, start.task, start.preprocess)
    first_batch(recipe, images)
    began = time.monotonic()
    batch = first_batch(recipe, images)
    loading = time.monotonic() - began  # on the same cores as the steps
    found = measure(recipe, start.network, start.task, batch, device)
    return {
        "image": (found.seconds + loading) / found.batch,
        "head": 0.0
        if recipe.training.tune == "scratch"
        else FORWARD * found.seconds / found.batch * len(images),
        "images": len(images),
        "parameters": count_params(start.network),
        "macs": count_macs(start.network.encoder, recipe.model.imgsz),
        "origin": start.origin,
        "precision": found.precision,
    }


def _trained(job: Job, recipe: Any, manifest: Manifest) -> dict[str, Any]:
    """Train, and return the best validation score, or the answers to the test images."""
    from vitrail.data.loader import Order
    from vitrail.evaluate.collect_answers import evaluate, result_of, rows_of, scope_of
    from vitrail.reports.calibrate_model import calibrate_on_validation
    from vitrail.studies.compare.outcome import score_of
    from vitrail.training.fit import Checked, train_checked, with_class_weights

    out = Path(job.folder) / "run"
    shutil.rmtree(out, ignore_errors=True)
    trained = train_checked(with_class_weights(recipe, manifest), Checked(manifest, {}, job.looked), str(out))
    if not trained.finished:
        raise TrainingError("The training was stopped before its end.")
    run = trained.context.run
    events = run.effective_history()
    images = len(manifest.rows(TRAIN))
    order = Order(images, min(recipe.training.batch, images), recipe.training.seed)
    epochs = events[-1]["step"] / order.steps  # the last event tells how it ended
    common = {"epochs": round(epochs, 2), "trained_seconds": round(trained.seconds, 2)}
    if job.kind == "search":
        shutil.rmtree(out)
        return common | _best([event for event in events if event["event"] == "score"])
    predictor = calibrate_on_validation(run, manifest)
    tests = rows_of(manifest, TEST)
    evaluation = evaluate(predictor, tests, manifest.root)
    result = result_of(evaluation, tests, scope_of(manifest, TEST))
    score = score_of(evaluation)
    path = Path(job.folder) / "answers.npz"
    with writing(path):
        np.savez(path, allow_pickle=False, ids=np.array([row.id for row in tests]), scores=score.values)
    if not job.keep:
        shutil.rmtree(out)
    return {
        **common,
        "score": score.name,
        "result": result.to_dict(),
        "images": {split: len(manifest.rows(split)) for split in (TRAIN, VAL, TEST)},
    }


def _best(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the best validation score of a training that was kept by it; None where none was made."""
    better = [event for event in scores if event["better"]]
    return {"score": better[-1][better[-1]["main"]] if better else None, "scored": len(scores)}


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone: nobody would read what it finds."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(path: str) -> int:
    """Do the job of a file; what fails is written down, with the reason, and not raised."""
    began = time.monotonic()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    found: dict[str, Any]
    try:
        found = work(job)
    except VitrailError as error:
        found = {"failed": str(error)}
    except Exception as error:  # a network of a library may fail in any way: it loses, the others go on
        found = {"failed": f"{type(error).__name__}: {reason(error)}"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    write_json(Path(job.folder) / "result.json", {**found, "peak": peak, "seconds": time.monotonic() - began})
    return 1 if "failed" in found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
