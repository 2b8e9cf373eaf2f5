"""The history of decisions about a data set, one line per decision; every decision can be undone.

The file is beside the data, never inside: `photos.vitrail.jsonl` beside `photos/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import ENAMETOOLONG
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from vitrail.core.errors import DataError
from vitrail.core.files import write_text
from vitrail.data.findings import CONTRADICTS, Finding
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import DROPPED, KEPT, QUARANTINED, Row
from vitrail.data.rasters.sources import words_of

What = Literal["quarantine", "keep", "drop", "relabel", "undo"]


_CONFLICT = "one image, several labels"


class Decision(NamedTuple):
    """One line of the history.

    `value` is the new label of a relabel, the number of the decision to undo, or the key of the finding that was
    answered; such an answer may concern no image, as "kept" for classes of unequal size. `hashes` are the contents of
    the images that were decided about, if they were noted: a decision does not hold for another image of that name.
    """

    number: int
    what: What
    ids: tuple[str, ...] = ()
    value: str = ""
    reason: str = ""
    time: str = ""
    hashes: tuple[str, ...] = ()

    def contents(self) -> dict[str, str]:
        """Return the noted content hash of each image, by its id; {} if none were noted."""
        return dict(zip(self.ids, self.hashes, strict=False))

    def text(self) -> str:
        """Return the decision as one line of text."""
        if self.what == "undo":
            return f"{self.number}  took back {self.value}"
        done = {
            "quarantine": "kept out",
            "keep": "kept",
            "drop": "dropped",
            "relabel": f"labelled {self.value!r}",
        }
        why = f": {self.reason}" if self.reason else ""
        which = f" {shorten(self.ids)}" if self.ids else ""
        return f"{self.number}  {done[self.what]}{which}{why}"


@dataclass(frozen=True)
class History:
    """The decisions about one data set, oldest first."""

    decisions: tuple[Decision, ...] = ()

    @classmethod
    def read(cls, path: Path) -> History:
        """Read a history; one that does not exist is empty.

        Raises:
            DataError: a line is broken, or the file cannot be read.
        """
        # A name that is too long for the file system cannot have a history.
        try:
            whole = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            if getattr(error, "errno", None) == ENAMETOOLONG:
                return cls()
            why = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise DataError(
                f"{path}, where decisions about these images stand, cannot be read: {why}. Move it elsewhere."
            ) from error
        decisions = []
        for line, text in enumerate(whole.splitlines(), 1):
            try:
                values: dict[str, Any] = json.loads(text)
                lists = {name: tuple(values.get(name, ())) for name in ("ids", "hashes")}
                decision = Decision(**values | lists)
                if decision.what not in get_args(What):
                    raise ValueError(f"unknown decision {decision.what!r}")
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"Line {line} of {path} is broken ({error}). Mend it, or delete the line."
                ) from error
            decisions.append(decision)
        return cls(tuple(decisions))

    def write(self, path: Path) -> None:
        """Write the history atomically."""
        lines = [json.dumps(_plain(one), ensure_ascii=False) for one in self.decisions]
        write_text(path, "".join(line + "\n" for line in lines))

    def decide(self, what: What, ids: Iterable[str], value: str = "", reason: str = "") -> History:
        """Return the history with one more decision."""
        return self.add([Decision(0, what, tuple(ids), value, reason)])

    def add(self, decisions: Iterable[Decision]) -> History:
        """Return the history with more decisions, which get their numbers and the present time."""
        number = self.decisions[-1].number if self.decisions else 0
        now = datetime.now(UTC).isoformat(timespec="seconds")
        more = [one._replace(number=number + i, time=now) for i, one in enumerate(decisions, 1)]
        return History((*self.decisions, *more))

    def latest(self) -> dict[str, Decision]:
        """Return the last decision by hand about each image that holds, by its id."""
        undone = self.undone()
        return {
            id: one
            for one in self.decisions
            if one.what in ("keep", "drop", "relabel") and one.number not in undone
            for id in one.ids
        }

    def undo(self, number: int) -> History:
        """Return the history with a decision that undoes an earlier one; an undo can also be undone.

        Raises:
            DataError: there is no such decision, or it is already undone.
        """
        if number not in {one.number for one in self.decisions}:
            known = f"1 to {self.decisions[-1].number}" if self.decisions else "none"
            raise DataError(
                f"There is no decision {number}; the history has {known}. See them: vitrail check DATA --history."
            )
        if number in self.undone():
            raise DataError(f"Decision {number} is taken back already. Nothing is to be done.")
        return self.decide("undo", (), str(number))

    def undone(self) -> set[int]:
        """Return the numbers of the decisions that are undone."""
        gone: set[int] = set()
        for one in reversed(self.decisions):
            if one.what == "undo" and one.number not in gone:
                gone.add(int(one.value))
        return gone

    def note(self, findings: Iterable[Finding]) -> History:
        """Return the history with the automatic decisions of a check that it does not contain yet."""
        known = {one.ids for one in self.decisions if one.what == "quarantine"}
        history = self
        for finding in findings:
            if finding.kind == "conflict" and finding.ids not in known:
                history = history.decide("quarantine", finding.ids, reason=_CONFLICT)
        return history

    def apply(self, rows: Sequence[Row], again: Callable[[Row], Row]) -> tuple[list[Row], list[str]]:
        """Return the rows of a check with the decisions applied, and a note on the changes.

        `again` checks once more a row that is to be kept (`Report.again`): an image that cannot be read, or whose truth
        cannot be used, stays excluded.
        """
        gone, done = self.undone(), 0
        other: list[str] = []
        by_id = {row.id: row for row in rows}
        for one in self.decisions:
            if one.what == "undo" or (one.what == "quarantine") == (one.number not in gone):
                continue  # the rows already contain the automatic decisions, unless they are undone
            contents = one.contents()
            for known in one.ids:
                row = by_id.get(known)
                if row is not None and contents.get(known, row.hash) != row.hash:
                    other.append(known)
                elif row is not None and (changed := _decided(row, one, again)) != row:
                    by_id[known], done = changed, done + 1
        notes = (
            [f"{count(done, 'image')} as decided before: vitrail check DATA --history shows it."]
            if done
            else []
        )
        if other:
            notes.append(
                f"{count(len(other), 'decision')} not applied, because the image is another one now: "
                f"{shorten(other)}. Look at it, and decide again."
            )
        return list(by_id.values()), notes


def _plain(decision: Decision) -> dict[str, Any]:
    """Return a decision as plain data; contents are left out if none were noted, as in earlier versions."""
    values = decision._asdict() | {"ids": list(decision.ids), "hashes": list(decision.hashes)}
    return values if decision.hashes else {key: value for key, value in values.items() if key != "hashes"}


def _decided(row: Row, decision: Decision, again: Callable[[Row], Row]) -> Row:
    contradicts = row.state == QUARANTINED and row.reason.startswith(CONTRADICTS)
    if decision.what == "drop":
        return row._replace(state=DROPPED, reason=decision.reason or "dropped by hand")
    if decision.what == "relabel":
        changed = row._replace(target=decision.value)
        return changed if row.state == DROPPED else again(changed)
    return again(row._replace(state=KEPT, reason="")) if contradicts or row.state == DROPPED else row


def history_path(source: Path) -> Path:
    """Return the path of a data set's history: beside it, with its name; of several files, beside the first."""
    whole = Path(words_of(source)[0]).resolve()
    return whole.with_name(f"{whole.name}.vitrail.jsonl")
