"""Queue trainings: one click is a draft and the whole network behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vitrail.core.catalog import PRETRAIN
from vitrail.core.errors import RunError
from vitrail.runs.train_options import TrainOptions, words_of
from vitrail.studio.commands import options_in
from vitrail.studio.datasets import Datasets
from vitrail.studio.jobs import Queue
from vitrail.studio.projects import Project
from vitrail.studio.run_list import summary
from vitrail.studio.run_view import run_folder
from vitrail.studio.task_choice import drafted
from vitrail.studio.train_form import options_of
from vitrail.studio.workspace import safe_name

Words = tuple[str, ...]
"""The words after `vitrail`."""


class Trainings:
    """Makes jobs of a project's trainings."""

    def __init__(self, datasets: Datasets, queue: Queue) -> None:
        self.datasets, self.workspace, self.queue = datasets, datasets.workspace, queue

    def planned(self, project: Project, form: Mapping[str, str], task: str) -> list[tuple[Words, str]]:
        """Return the words of the commands of a form that was sent, each with its run: two where the draft comes first.

        `task` is what will be learned, "" if that is not known: not all have a draft.

        Raises:
            SettingError: a value of the form is none of its kind.
        """
        options = options_of(form, project.options)
        if task == PRETRAIN:  # never learned unasked
            options = replace(options, task=task)
        open_end = options.tune is None and options.weights != "none" and options.recipe is None
        if project.builtin or not open_end or not drafted(task):
            return [self._one(project, options, project.name, ())]
        draft = self._one(project, _only_draft(options), f"{project.name} draft", ())
        return [draft, self._one(project, replace(options, tune="full"), project.name, (draft[1],))]

    def start(self, project: Project, form: Mapping[str, str], task: str) -> str:
        """Queue what a form asks for, and return the first run."""
        seen, before = self.datasets.revision(project.dataset), None
        with self.queue.naming:
            planned = self.planned(project, form, task)
            for words, run in planned:
                before = self.queue.add(project.name, words, _title(words), run, seen, after=before)
        return planned[0][1]

    def _one(
        self, project: Project, options: TrainOptions, name: str, taken: tuple[str, ...]
    ) -> tuple[Words, str]:
        run = self.free_name(name, taken)
        return ("train", project.dataset.source, *words_of(replace(options, out=f"runs/{run}"))), run

    def free_name(self, wanted: str, taken: tuple[str, ...] = ()) -> str:
        """Return a name of a run that neither a folder nor a job has, like the wanted one."""
        base = safe_name(wanted.replace(" ", "-")).lstrip("-.") or "run"
        used = {job.run for job in self.queue.jobs() if job.active} | set(taken)
        number, name = 2, base
        while name in used or (self.workspace.runs / name).exists():
            name, number = f"{base}-{number}", number + 1
        return name

    def go_on(self, name: str, more: int = 0) -> None:
        """Queue that a run is continued, for `more` epochs beyond its end.

        Raises:
            RunError: it has no saved state, or it is in the queue already.
        """
        folder = run_folder(self.workspace, name)
        words = ("train", "--resume", f"runs/{folder.name}", *(("--epochs", str(more)) if more else ()))
        title = f"{more} more epochs" if more else "Go on"
        with self.queue.naming:
            job = self.queue.of_run(folder.name)
            if job is not None and job.active:
                raise RunError(f"{folder.name} is in the queue already.")
            if not summary(folder).resumable:
                raise RunError(
                    f"{folder.name} has no saved state, so that it cannot go on. Train the images again instead."
                )
            dataset, seen = (job.dataset, job.revision) if job is not None else ("", 0)
            self.queue.add(dataset, words, title, folder.name, seen)


def _only_draft(options: TrainOptions) -> TrainOptions:
    """Return the options of the draft before a training: what it is about, without what only steps have."""
    kept = ("model", "weights", "task", "imgsz", "fit", "seed", "device", "val", "test", "set")
    read = ("layout", "labels", "groups", "splits", "things")
    return TrainOptions(tune="draft", **{name: getattr(options, name) for name in (*kept, *read)})


def _title(words: Words) -> str:
    """Return what a job does, in a few words."""
    return "First model" if dict(options_in(words[1:])).get("tune") == "draft" else "Training"
