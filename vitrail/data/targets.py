"""The data half of a task: reading, transforming, checking and counting truths. No torch.

A task is a `Targets`; checking a data set needs only this half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from vitrail.core import catalog
from vitrail.core.errors import DataError, SettingError, VitrailError
from vitrail.data.manifest import Row
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from vitrail.data.findings import Finding
    from vitrail.data.image_facts import Facts

T = TypeVar("T")

_SHOWN = 60  # characters of a truth that is a text


class Targets(ABC, Generic[T]):
    """The truths of one data set, as a task takes them; `truth` is the header of its manifest."""

    truth: Truth
    texts: ClassVar[bool] = False
    """Whether truths are texts for people to read, which pages show below the images; `words` shortens them."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.noted: dict[tuple[str, str], Any] = {}
        """What `check` kept in mind of a truth, by the id and the target of its row, for `check_set` and `strata`."""

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header completed from rows; by default the header of the layout.

        Raises:
            DataError: the task does not support this kind of truth.
        """
        return truth

    def follow_header(self, truth: Truth, rows: Sequence[Row]) -> None:
        """Use the header of another source for reading its truths; the class names of the task do not change.

        By default rows contain class names, and nothing changes.

        Raises:
            DataError: the truths cannot be mapped to these names.
        """

    @abstractmethod
    def read(self, row: Row, root: Path) -> T:
        """Return the truth of a row in the pixels of its image; called in a worker of the loader."""

    def transform(self, target: T, view: Any) -> T:
        """Return the truth in a view of the image; by default unchanged."""
        return target

    @property
    def lies_in_image(self) -> bool:
        """Whether a truth moves with its image; then only augmentations that move the truth are allowed."""
        return type(self).transform is not Targets.transform

    def collate(self, targets: Sequence[T]) -> Any:
        """Return the truths of a batch, one per image: a tensor, a sequence, or a mapping of these."""
        return list(targets)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Yield findings about the truth of one readable image; `out` findings exclude it. The default only reads it.

        Findings of one kind are reported together: `text` is the problem, `hint` the remedy. A DataError means that the
        truth cannot be read.
        """
        read_truth(self, row, root)
        return iter(())

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Yield findings about the set as a whole; `rows` includes excluded rows."""
        return iter(())

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return the strata of a row for splits and sampling, such as classes; by default none."""
        return ()

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether two rows have the same truth; equal images with the same truth do not contradict."""
        return one.target == other.target

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether two rows have almost the same truth, for near-duplicate images; by default as `same`."""
        return self.same(one, other, root)

    def words(self, row: Row) -> str:
        """Return the truth of a row as text for messages and tables."""
        return row.target if len(row.target) <= _SHOWN else f"{row.target[: _SHOWN - 1]}…"

    def draw(self, image: Image, row: Row, root: Path, about: str = "") -> Image:
        """Return the image with its truth drawn on it, or only the stratum `about`; by default the image."""
        return image

    def colour(self, name: str) -> str:
        """Return the colour of a stratum, such as #804080; by default "", no colour."""
        return ""

    def describe(self) -> str:
        """Return a description of the truths, printed after their number; by default ""."""
        return ""

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Check that the kept rows can be used for training; the message is a predicate of the source: "has …".

        `findings` may contain the reason, the worst first. By default one kept row is enough.

        Raises:
            DataError: the rows cannot be used.
        """
        if not rows:
            why = f", the first because: {findings[0].text.rstrip('.')}" if findings else ""
            raise DataError(f"has no image with a truth that this task can use{why}.")

    def drawn(self, target: T, key: int) -> T:
        """Return the truth that training uses this time, such as one of several captions; by default all of it.

        `key` is the seed of all randomness of this image in this epoch.
        """
        return target

    def view(self, target: T, draw: Callable[[int], Any], key: int) -> Any:
        """Return the view of an image for training; by default the first one that is drawn.

        `draw(turn)` draws a view, a different one for each turn; `key` is the seed of all randomness of this image.
        """
        return draw(0)

    def learn(self, rows: Sequence[Row], root: Path) -> Mapping[str, Any]:
        """Return task settings computed from the truths before training; by default none."""
        return {}

    def unfit(self, rows: Sequence[Row]) -> Sequence[str]:
        """Return sentences, said before training, about settings that do not fit the truths; by default none."""
        return ()

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return the weight of each class in the loss, to balance rare classes: (k,).

        Raises:
            SettingError: this task has no classes.
        """
        raise SettingError(
            "--balance loss weighs classes, but this task has none. Remove it, or use --balance sampling."
        )


def read_truth(targets: Targets[T], row: Row, root: Path) -> T:
    """Return the truth of a row; every exception of the task's code becomes a DataError.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return targets.read(row, root)
    except VitrailError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(".")
        raise DataError(
            f"{row.id}: its truth {targets.words(row)!r} cannot be read by {type(targets).__name__} ({what}). Mend it, "
            "or name another task: --task."
        ) from error


Gather = Callable[[Sequence[Row]], Targets[Any]]
"""Builds targets from the rows of a data set, which may be needed to complete the header."""


class NoTargets(Targets[None]):
    """Images without truths: nothing is read or checked."""

    def read(self, row: Row, root: Path) -> None:
        """Return nothing."""
        return


_TASKS_OF: Mapping[str, str] = MappingProxyType(
    {
        "class": "--task classify",
        "classes": "--task multilabel",
        "mask": "--task segment",
        "boxes": "--task detect, or --task instances if they have outlines",
        "instances": "--task instances or --task detect",
        "panoptic": "--task panoptic, --task instances or --task segment",
        "none": "--task pretrain",
        "caption": "--task retrieve",
    }
)
"""Kind of truth → the tasks that read it."""


def refused_kind(truth: Truth, task: str, wanted: str) -> DataError:
    """Return the error of a task that reads other truths: `task` as a noun, and what it needs."""
    return DataError(
        f"{task} needs {wanted}, and these truths are of the kind {truth.kind!r}. {tasks_of(truth)}"
    )


def tasks_of(truth: Truth) -> str:
    """Return a sentence with the tasks that read truths of this kind."""
    fitting = _TASKS_OF.get(truth.kind)
    return f"What reads them: {fitting}." if fitting else "Choose a task of your own for them with --task."


def targets_class(truth: Truth, task: str | None = None, *, refusal: str = "") -> type[Targets[Any]]:
    """Return a function that builds the targets of the named task, or of the default task for the kind of truth.

    Raises:
        SettingError: there is no such task, or it does not read truths itself.
        DataError: there is no default task for this kind; `refusal` is the message.
    """
    name = task or catalog.DEFAULT_TASKS.get(truth.kind)
    if name is None:
        raise DataError(
            refusal
            or f"No task supports truths of the kind {truth.kind!r} yet. Use a task of your own: --task"
        )
    own = ":" in name
    if not own and name in catalog.TASKS and name not in catalog.TARGETS:
        raise SettingError(
            f"The task {name!r} wraps another task. Name that task: {', '.join(catalog.DEFAULT_TASKS.values())}."
        )
    found: Any = catalog.load("task" if own or name not in catalog.TARGETS else "targets", name)
    if not (isinstance(found, type) and issubclass(found, Targets)):
        raise SettingError(
            f"{name} is not a task: it does not read truths. Inherit from vitrail.tasks.base.Task."
        )
    return found


def targets_for(truth: Truth, task: str | None = None, *, refusal: str = "") -> Gather:
    """Return a function that builds the targets of a task from the rows that complete the header."""
    found = targets_class(truth, task, refusal=refusal)
    noted: dict[tuple[str, str], Any] = {}

    def gather(rows: Sequence[Row]) -> Targets[Any]:
        try:
            made = found(found.gather(truth, rows))
        except DataError as error:
            if refusal:
                raise DataError(f"{error} {refusal}") from error
            raise
        made.noted = noted  # keep the results of checked truths when decisions change the rows
        return made

    return gather
