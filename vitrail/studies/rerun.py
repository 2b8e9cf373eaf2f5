"""Run a training again from the passport in its report, and say whether the result is equal, or what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.config import read
from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.core.text import command
from vitrail.data.builtin import names as builtin_names
from vitrail.data.changed_images import Changes
from vitrail.data.labels import shorten
from vitrail.data.manifest import Manifest
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.rasters.sources import found_again
from vitrail.data.split import SHARE
from vitrail.runs.model_file import read_model
from vitrail.runs.passport import Difference, Passport, causes, data_hashes, placeless, read_passport
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import Run, open_run
from vitrail.runs.task_wrapping import unwrap
from vitrail.tasks.result import Number
from vitrail.training.draft import draft
from vitrail.training.fit import start
from vitrail.training.loop import Event
from vitrail.training.progress import Listener, note
from vitrail.training.resolve_recipe import Planned


@dataclass(frozen=True)
class Places:
    """Where data and weights are now, and the folder of the new run; "" is where the run had them."""

    data: str = ""
    weights: str = ""
    out: str = ""


@dataclass(frozen=True)
class Rerun:
    """The run that was made, both passports, and what differs.

    `drift` is the largest difference of a trained weight, None if the old model is not there or has other shapes.
    `pictures` names images that changed, if the old manifest is there.
    """

    run: Run
    then: Passport
    now: Passport
    causes: tuple[Difference, ...]
    scores: tuple[Difference, ...]
    drift: float | None
    pictures: str

    @property
    def equal(self) -> bool:
        """Whether all weights and all scores are equal to the bit."""
        return self.then.model == self.now.model and not self.scores

    def lines(self) -> list[str]:
        """Return what was found as text, the answer first."""
        seen = [f"  {one.text()}" for one in self.causes]
        if self.equal:
            also = ["What differs, without any effect:", *seen] if seen else []
            return [f"Equal to the bit: all trained weights and all {len(self.now.scores)} scores.", *also]
        lines = [self._unequal(), *(f"  {one.text()}" for one in self.scores)]
        if self.pictures:
            lines.append(self.pictures)
        if seen:
            return [*lines, "What differs in how it was made:", *seen, *self._reasons()]
        return [
            *lines,
            *(self._reasons() or ["Nothing that a passport records differs, so the machine does."]),
        ]

    def _unequal(self) -> str:
        if self.then.model == self.now.model:
            return "The trained weights are equal to the bit, but the scores are not:"
        far = "" if self.drift is None else f" (by {self.drift:.1e} at most)"
        same = "all scores are equal." if not self.scores else "scores differ:"
        return f"Not equal to the bit: the trained weights differ{far}; {same}"

    def _reasons(self) -> list[str]:
        """Return why even the same machine may give other bits."""
        reasons = []
        if self.then.recipe["training"].get("seconds") is not None:
            reasons.append(
                "It was trained for a time, not for epochs: how many steps that makes depends on the speed."
            )
        if self.then.history.get("lengthened") or self.then.history.get("resumed elsewhere"):
            reasons.append(
                "It was lengthened, or resumed under other conditions: a rerun in one piece is another training."
            )
        return reasons

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "equal": self.equal,
            "run": str(self.run.folder),
            "drift": self.drift,
            "scores": [one._asdict() for one in self.scores],
            "differs": [one._asdict() for one in self.causes],
            "says": self.lines(),
        }


def rerun(report: Path, places: Places = Places(), listeners: Sequence[Listener] = ()) -> Rerun:
    """Make a run again from its report, and compare.

    Raises:
        RunError: the report has no passport, or one of another version, or of a run that no training made.
        DataError: the images are not there.
    """
    then = read_passport(report)
    if then.kind == "refit":
        raise RunError(
            f"{report} is the report of a head fitted after decisions about labels. Reproduce the run that it came "
            f"from, then: {then.command}"
        )
    old = _run_beside(report)
    recipe = _recipe(then, old, places)
    prepared = _prepared(recipe, listeners)
    for line in _early(then, prepared):
        note(listeners, [line])
    if then.kind == "draft":
        run = draft(Planned(recipe, ()), prepared, _folder(then, old, places), listeners)
    else:
        run = start(recipe, prepared, _folder(then, old, places), listeners)
    now = read_passport(run.folder)
    drift = _drift(old, run)
    pictures = _pictures(old, prepared.manifest)
    return Rerun(run, then, now, tuple(causes(then, now)), _scores(then, now), drift, pictures)


def _run_beside(report: Path) -> Run | None:
    """Return the run whose report this is, if the report is still in its folder."""
    folder = report if report.is_dir() else report.parent
    try:
        return open_run(folder)
    except VitrailError:
        return None


def _folder(then: Passport, old: Run | None, places: Places) -> str | None:
    return places.out or (f"{old.folder}-again" if old else None)


def _recipe(then: Passport, old: Run | None, places: Places) -> Recipe:
    """Return the recipe of a passport with the places of data and weights on this machine."""
    recipe = read(Recipe, then.recipe, "the passport's recipe")
    if old is not None and placeless(old.recipe(), then.weights["name"]) == then.recipe:
        recipe = old.recipe()
    source = places.data or _source(recipe.data.source, old)
    update: dict[str, Any] = {"data": recipe.data.model_copy(update={"source": source})}
    if places.weights:
        update["model"] = recipe.model.model_copy(update={"weights": places.weights})
    return recipe.model_copy(update=update)


def _source(stated: str, old: Run | None) -> str:
    if stated in builtin_names() or (stated and expanded(stated).exists()):
        return stated
    try:
        root = old.root() if old else Path()
    except RunError:
        root = Path()
    if rasters := found_again(stated, root):
        return rasters
    for place in (root, root / Path(stated).name):
        if stated and place.name == Path(stated).name and place.exists():
            return str(place)
    raise DataError(
        f"The images of this run, {stated or 'of an unknown name'}, are not here. Say where they are: "
        f"{command('reproduce', 'REPORT', '--data', 'PLACE')}"
    )


def _prepared(recipe: Recipe, listeners: Sequence[Listener]) -> Prepared:
    def looked(done: int, total: int) -> None:
        for listener in listeners:
            listener(Event("looked", 0, {"done": done, "total": total}))

    data = recipe.data
    options = data.reading()
    task = unwrap(recipe.task.model_dump()).task["name"]
    shares = {
        name: None if value == SHARE else value for name, value in (("val", data.val), ("test", data.test))
    }
    return prepare(
        data.source, options, seed=recipe.training.seed, progress=looked, task=task,
        val=shares["val"], test=shares["test"],
    )  # fmt: skip


def _early(then: Passport, prepared: Prepared) -> list[str]:
    """Return what differs in the data, before the training begins."""
    now = data_hashes(prepared.manifest, then.data.name)
    parts = [
        name for name in ("contents", "truths", "split") if getattr(now, name) != getattr(then.data, name)
    ]
    if not parts:
        return []
    decided = [line for line in prepared.notes if "decided" in line]
    return [
        f"The data are not those of the run: {', '.join(parts)} differ. The result will differ, too.",
        *decided,
    ]


def _scores(then: Passport, now: Passport) -> tuple[Difference, ...]:
    """Return the scores of the old passport that came out otherwise; one that only newer versions count is none."""
    return tuple(
        Difference(name, _told(value), _told(now.scores.get(name)))
        for name, value in then.scores.items()
        if value != now.scores.get(name)
    )


def _told(value: float | None) -> str:
    return Number(value, unit="").text() if value is None else f"{value:.6g}"


def _drift(old: Run | None, new: Run) -> float | None:
    """Return the largest difference of a weight; None if there is no old model, or one of other shapes."""
    if old is None or not old.model_path.is_file():
        return None
    one, other = read_model(old.model_path).tensors, read_model(new.model_path).tensors
    if {name: tensor.shape for name, tensor in one.items()} != {n: t.shape for n, t in other.items()}:
        return None
    return max(
        (float((one[n].double() - other[n].double()).abs().max()) for n in one if one[n].numel()), default=0.0
    )


def _pictures(old: Run | None, manifest: Manifest) -> str:
    """Return in words which images changed, if the old manifest is there."""
    if old is None or not old.manifest_path.is_file():
        return ""
    before = old.manifest(manifest.root).rows()
    now = {row.id: row for row in manifest.rows()}
    known = {row.id for row in before}
    changed = tuple(row for row in before if row.id in now and now[row.id].hash != row.hash)
    missing = tuple(row for row in before if row.id not in now)
    texts = [
        Changes(changed, missing).text(len(before)),
        _named("labelled otherwise", [r.id for r in before if r.id in now and now[r.id].target != r.target]),
        _named("new", [id for id in now if id not in known]),
    ]
    return "; ".join(text for text in texts if text)


def _named(what: str, ids: Sequence[str]) -> str:
    return f"{len(ids):,} {what} ({shorten(ids)})" if ids else ""
