"""Projects: each data set with its runs, and the next step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from vitrail.core.cache import place
from vitrail.data.builtin import names as builtin_names
from vitrail.data.options import DEFAULTS
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.datasets import Datasets
from vitrail.studio.run_list import Summary


@dataclass(frozen=True)
class Project:
    """A data set with its runs, and some of its images for a card."""

    dataset: Dataset
    runs: tuple[Summary, ...] = ()
    images: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.dataset.name

    @property
    def options(self) -> dict[str, str]:
        """The options of how it is read that are not the defaults."""
        options = asdict(self.dataset.options)
        return {name: value for name, value in options.items() if value != getattr(DEFAULTS, name)}

    @property
    def builtin(self) -> bool:
        """Whether it comes with vitrail. Its images are too small for weights pretrained on photographs."""
        return self.dataset.source in builtin_names()

    @property
    def best(self) -> Summary | None:
        """The run with the best score; among equal ones the newest."""
        scored = [run for run in self.runs if run.value is not None and run.usable]
        return max(scored, key=lambda run: (_rank(run), run.changed), default=None)


def _rank(run: Summary) -> float:
    value = run.value or 0.0
    return -value if run.lower_is_better else value


TILES, LOOKED = 6, 400
"""Images on the card of a project, and names that are looked at to find them."""

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings of files that a browser can get a small image of."""


def some_images(folder: Path) -> tuple[str, ...]:
    """Return some images of a folder, from as many of its folders as possible; only names are read, and few."""
    found: dict[str, list[str]] = {}
    looked = 0
    for path, inner, names in os.walk(folder):
        inner.sort()
        del inner[LOOKED:]
        relative = Path(path).relative_to(folder).as_posix()
        images = [name for name in sorted(names)[:LOOKED] if Path(name).suffix.lower() in IMAGES]
        if images:
            found[relative] = [f"{relative}/{name}" if relative != "." else name for name in images[:TILES]]
        looked += 1 + len(names)
        if looked > LOOKED * TILES:
            break
    turns = (ids[turn] for turn in range(TILES) for ids in found.values() if turn < len(ids))
    return tuple(islice(turns, TILES))


def projects(datasets: Datasets, runs: Sequence[Summary] = ()) -> list[Project]:
    """Return the data sets with their runs, the one that was opened last first."""
    found = datasets.all()
    own: dict[str, list[Summary]] = {}
    for run in runs:
        own.setdefault(datasets.key(run.source), []).append(run)
    return [Project(one, tuple(own.get(datasets.key(one.source), ()))) for one in found]


def project(datasets: Datasets, name: str, runs: Sequence[Summary] = ()) -> Project:
    """Return a data set with its runs. DataError if there is none with this name."""
    dataset = datasets.get(name)
    key = datasets.key(dataset.source)
    return Project(dataset, tuple(run for run in runs if datasets.key(run.source) == key))


def with_images(datasets: Datasets, project: Project) -> Project:
    """Return a project with the names of some of its images; a built-in set may not be on the disk yet."""
    builtin = place("data") / project.dataset.source
    folder = builtin if project.builtin else datasets.place(project.dataset)
    return replace(project, images=some_images(folder)) if folder.is_dir() else project
