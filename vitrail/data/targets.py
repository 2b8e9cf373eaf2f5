"""How a task reads, moves, checks and counts truths: all that a data set is asked about them. No torch.

A task is a `Targets`; checking a data set needs this half of it alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

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

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.noted: dict[tuple[str, str], Any] = {}
        """What `check` kept in mind of a truth, by the id and the target of its row, for `check_set` and `strata`."""

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header completed from rows; by default as the layout states it.

        Raises:
            DataError: truths of a kind that this task does not read.
        """
        return truth

    def follow_header(self, truth: Truth, rows: Sequence[Row]) -> None:
        """Read from now on the truths of another source, whose header this is; names stay as they are learned.

        By default rows name what they show, and nothing changes.

        Raises:
            DataError: truths that cannot be brought to these names.
        """

    @abstractmethod
    def read(self, row: Row, root: Path) -> T:
        """Return the truth of a row in its image's own pixels; called in a loader's worker."""

    def transform(self, target: T, view: Any) -> T:
        """Return the truth as it lies in a view of the image; by default the same."""
        return target

    @property
    def lies_in_image(self) -> bool:
        """Whether a truth moves with its image, so that a training may only change the image in ways it follows."""
        return type(self).transform is not Targets.transform

    def collate(self, targets: Sequence[T]) -> Any:
        """Return the truths of a batch: a tensor, a sequence, or a mapping of these, one an image."""
        return list(targets)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Say what is wrong with the truth of one readable image; `out` findings keep it out. By default it is read.

        Findings of one kind are told together: their `text` says what is wrong, their `hint` what to do. A DataError
        says that the truth cannot be read.
        """
        read_truth(self, row, root)
        return iter(())

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Say what is wrong with the set as a whole; rows that are kept out are among `rows`."""
        return iter(())

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return what a split and a balance keep in proportion, such as classes; by default all is one pot."""
        return ()

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Tell whether two rows say the same; equal images that do not contradict each other."""
        return one.target == other.target

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        """Tell whether two rows say nearly the same, as almost equal images may; by default the same."""
        return self.same(one, other, root)

    def words(self, row: Row) -> str:
        """Return the truth of a row for messages and tables."""
        return row.target if len(row.target) <= _SHOWN else f"{row.target[: _SHOWN - 1]}…"

    def draw(self, image: Image, row: Row, root: Path, about: str = "") -> Image:
        """Return the image with its truth drawn on it, or what it says `about` one stratum; by default as it is."""
        return image

    def colour(self, name: str) -> str:
        """Return the colour in which a stratum is drawn, as #804080; by default none."""
        return ""

    def describe(self) -> str:
        """Return what is to be said of the truths beside their number; by default nothing."""
        return ""

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Refuse kept rows from which nothing can be learned, as a predicate of the source: "has …".

        `findings` may tell why; the first of them is the worst. By default one kept row is enough.

        Raises:
            DataError: such rows.
        """
        if not rows:
            why = f", the first because: {findings[0].text.rstrip('.')}" if findings else ""
            raise DataError(f"has no image with a truth that this task can use{why}.")

    def view(self, target: T, draw: Callable[[int], Any], key: int) -> Any:
        """Return the view that a training takes of an image: by default the first of those that may be drawn.

        `draw(turn)` draws one, each turn another; `key` is what all randomness of this image comes from.
        """
        return draw(0)

    def learn(self, rows: Sequence[Row], root: Path) -> Mapping[str, Any]:
        """Return settings of the task that the truths of a training tell before it begins; by default none."""
        return {}

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Return what each class weighs in the loss so that rare ones count as much: (k,).

        Raises:
            SettingError: this task has no classes to weigh.
        """
        raise SettingError(
            "--balance loss weighs classes, and this task has none. Leave it out, or take --balance sampling."
        )


def read_truth(targets: Targets[T], row: Row, root: Path) -> T:
    """Return the truth of a row, whatever a task's own code may raise on it.

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
"""From the rows of a data set to its targets: the header may have to be completed from them."""


class NoTargets(Targets[None]):
    """Images without truths: nothing is read and nothing is checked."""

    def read(self, row: Row, root: Path) -> None:
        """Return nothing."""
        return


def targets_class(truth: Truth, task: str | None = None, *, refusal: str = "") -> type[Targets[Any]]:
    """Return how the named task takes truths; without a name, how the usual task for their kind does.

    Raises:
        SettingError: no such task, or one that reads no truths itself.
        DataError: a kind that no task is usual for; `refusal` says it.
    """
    name = task or catalog.DEFAULT_TASKS.get(truth.kind)
    if name is None:
        raise DataError(
            refusal or f"No task reads truths of the kind {truth.kind!r} yet. Name one of your own: --task"
        )
    own = ":" in name
    if not own and name in catalog.TASKS and name not in catalog.TARGETS:
        raise SettingError(
            f"The task {name!r} trains another one. Name that: {', '.join(catalog.DEFAULT_TASKS.values())}."
        )
    found: Any = catalog.load("task" if own or name not in catalog.TARGETS else "targets", name)
    if not (isinstance(found, type) and issubclass(found, Targets)):
        raise SettingError(
            f"{name} is no task: it does not read truths. Inherit from vitrail.tasks.base.Task."
        )
    return found


def targets_for(truth: Truth, task: str | None = None, *, refusal: str = "") -> Gather:
    """Return the targets of a task as a function of the rows that complete the header."""
    found = targets_class(truth, task, refusal=refusal)
    noted: dict[tuple[str, str], Any] = {}

    def gather(rows: Sequence[Row]) -> Targets[Any]:
        try:
            made = found(found.gather(truth, rows))
        except DataError as error:
            if refusal:
                raise DataError(f"{error} {refusal}") from error
            raise
        made.noted = noted  # what one look at the truths told stays known when decisions leave other rows
        return made

    return gather
