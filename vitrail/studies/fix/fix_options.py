"""What a user may decide about labels. No heavy import: help reads this page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]


@dataclass(frozen=True, kw_only=True)
class FixOptions:
    """Decisions about the labels of a run, and where the run after them goes.

    Parameters
    ----------
    apply
        a table that this command wrote, with the column decision filled in: keep, drop or relabel
    relabel
        the right label of an image, IMAGE=LABEL
    drop
        leave this image out
    keep
        the label of this image is right: do not list it again
    undo
        take back the decision with this number
    out
        folder of the new run, RUN-fixed by default
    """

    apply: str = ""
    relabel: Words = ()
    drop: Words = ()
    keep: Words = ()
    undo: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = ()
    out: str = ""

    def decides(self) -> bool:
        """Tell whether anything is decided or taken back."""
        return bool(self.apply or self.relabel or self.drop or self.keep or self.undo)
