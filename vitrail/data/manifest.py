"""The manifest: one row per sample, the only list that training reads, and the header of its truths.

On disk it is `manifest.csv`, with the header of the truths in `manifest.json` and with truths that are too long for a
cell in `targets.jsonl`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitrail.core.errors import DataError
from vitrail.core.files import replace, write_text, writing
from vitrail.data.labels import natural, split_labels
from vitrail.data.open_image import is_clip
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    import polars as pl

    from vitrail.data.targets import Targets

KEPT, QUARANTINED, DROPPED = "kept", "quarantined", "dropped"
STATES = (KEPT, QUARANTINED, DROPPED)
DUPLICATES = "twins:"
"""The beginning of the groups that the check makes of duplicates; all others were named by the source."""

TRAIN, VAL, TEST = "train", "val", "test"

LONGEST = 1024
"""Longer truths, in characters, are stored in `targets.jsonl` instead of a cell."""


class Row(NamedTuple):
    """One sample: its file, truth, split, group, and its state with the reason.

    `id` and `path` are posix paths relative to the manifest's root (`archive.zip!member` inside an archive);
    `part` is the part of that file (`window=left,top,right,bottom`, `page=3`, `slice=40`), empty for the whole file;
    `target` is the truth in the format of the manifest's kind: a class, classes joined by `|`, the path of a mask,
    JSON; `split` is train, val, test or empty; rows with the same non-empty `group` are never in two splits; `state`
    is kept, quarantined or dropped.
    """

    id: str
    path: str
    part: str = ""
    target: str = ""
    split: str = ""
    group: str = ""
    hash: str = ""
    state: str = KEPT
    reason: str = ""


COLUMNS = Row._fields
OLD_COLUMNS = (
    "id",
    "path",
    "label",
    "split",
    "group",
    "hash",
    "state",
    "reason",
)  # of versions that supported only labels
_LONG = "truths_in_targets_jsonl"
"""The key of the header with the number of truths in targets.jsonl."""

_WAY_OUT = "Put back a copy of it, or train again to have a new one."


@dataclass(frozen=True)
class Manifest:
    """A table of samples below one root; `frame` has exactly the columns of `Row`, all of type text."""

    frame: pl.DataFrame
    root: Path
    truth: Truth

    @classmethod
    def of(cls, rows: Iterable[Row], root: Path, truth: Truth | None = None) -> Manifest:
        """Build a manifest from rows, in natural order of their ids; the default header is built from the rows."""
        import polars as pl  # slow to import, and a prediction reads no table

        ordered = sorted(rows, key=lambda row: natural(row.id))
        frame = pl.DataFrame(ordered, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")
        return cls(frame, root, truth or _truth_of_labels(frame))

    @classmethod
    def read(cls, path: str | Path, root: str | Path) -> Manifest:
        """Read a manifest written by `write`, or by an earlier version that supported only labels.

        Raises:
            DataError: a file is missing, broken, or lacks a column.
        """
        import polars as pl

        path = Path(path)
        try:
            frame = pl.read_csv(path, infer_schema=False).fill_null("")
        except (OSError, pl.exceptions.PolarsError) as error:
            gone = isinstance(error, FileNotFoundError)
            why = "it does not exist" if gone else str(error).splitlines()[0].rstrip(".")
            raise DataError(f"The manifest {path} cannot be read: {why}. {_WAY_OUT}") from error
        if tuple(frame.columns) == OLD_COLUMNS:
            frame = frame.rename({"label": "target"}).with_columns(part=pl.lit("")).select(COLUMNS)
        if tuple(frame.columns) != COLUMNS:
            raise DataError(
                f"The manifest {path} has the columns {frame.columns}, not {list(COLUMNS)}. {_WAY_OUT}"
            )
        header = _header_of(path)
        truth, many = _read_header(header) if header.is_file() else (None, 0)
        if targets := _long_truths(_long_of(path), many):
            cells = zip(frame["id"].to_list(), frame["target"].to_list(), strict=True)
            whole = pl.Series("target", [targets.get(one, cell) for one, cell in cells], pl.String)
            frame = frame.with_columns(whole)
        return cls(frame, Path(root), truth or _truth_of_labels(frame))

    def write(self, path: str | Path) -> Path:
        """Write the manifest as CSV, with its header and its long truths beside it; each file atomically."""
        import polars as pl

        path = Path(path)
        long = self.frame.filter(
            (pl.col("target").str.len_chars() > LONGEST) | pl.col("target").str.contains(r"^[\[{]")
        )
        lines = [_long_line(*cells) for cells in long.select("id", "target").iter_rows()]
        if lines:
            write_text(_long_of(path), "".join(lines))
        header = self.truth.to_dict() | ({_LONG: len(lines)} if lines else {})
        write_text(_header_of(path), json.dumps(header, ensure_ascii=False, indent=1) + "\n")
        short = self.frame.with_columns(
            target=pl.when(pl.col("id").is_in(long["id"].implode()))
            .then(pl.lit(""))
            .otherwise(pl.col("target"))
        )
        replace(path, short.write_csv)
        if not lines:
            with writing(_long_of(path)):
                _long_of(path).unlink(missing_ok=True)
        return path

    @property
    def holds_clips(self) -> bool:
        """Whether its rows are clips of videos instead of images; a manifest never holds both."""
        return any(is_clip(row.path, row.part) for row in self.rows()[:1])

    def rows(self, split: str | None = None, state: str | None = KEPT) -> list[Row]:
        """Return the rows of one split (None: all) in one state (None: any), in the manifest's order."""
        import polars as pl

        frame = self.frame if state is None else self.frame.filter(pl.col("state") == state)
        frame = frame if split is None else frame.filter(pl.col("split") == split)
        return [Row(*cells) for cells in frame.iter_rows()]

    def counts(self, targets: Targets[Any]) -> dict[str, dict[str, int]]:
        """Return split → stratum → number of kept rows, with every stratum in every split.

        Without strata, all rows are one stratum with an empty name.
        """
        tallies: dict[str, Counter[str]] = {}
        every: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for row in self.rows():
            strata = targets.strata(row)
            tallies.setdefault(row.split, Counter()).update(strata)
            every.update(strata)
            sizes[row.split] += 1
        order = sorted(tallies, key=lambda split: [TRAIN, VAL, TEST, ""].index(split))
        if not every:
            return {split: {"": sizes[split]} for split in order}
        names = dict.fromkeys((*self.truth.names, *sorted(every, key=natural)))
        return {split: {name: tallies[split][name] for name in names} for split in order}

    def states(self) -> dict[str, int]:
        """Return state → number of rows."""
        found = Counter(self.frame["state"].to_list())
        return {state: found[state] for state in STATES}

    def replace(self, rows: Sequence[Row]) -> Manifest:
        """Return a manifest of the same root and header with other rows."""
        return Manifest.of(rows, self.root, self.truth)


def dump_target(value: Any) -> str:
    """Return a truth that is not text as one line for a row."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _truth_of_labels(frame: pl.DataFrame) -> Truth:
    """Return the header built from the labels of kept rows: classes in natural order, 2 before 10."""
    import polars as pl

    cells = frame.filter(pl.col("state") == KEPT)["target"].unique().to_list()
    labels = [split_labels(cell) for cell in cells]
    names = sorted({one for some in labels for one in some}, key=natural)
    return Truth("classes" if any(len(some) != 1 for some in labels) else "class", tuple(names))


def _header_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _long_of(path: Path) -> Path:
    return path.with_name("targets.jsonl")


def _long_line(name: str, target: str) -> str:
    """Return one line of targets.jsonl; JSON is kept readable if it can be restored exactly."""
    value: Any = target
    if target[:1] in {"[", "{"}:
        try:
            parsed = json.loads(target)
            value = parsed if dump_target(parsed) == target else target
        except ValueError:
            value = target  # a text that only starts like JSON
    return json.dumps({"id": name, "target": value}, ensure_ascii=False) + "\n"


def _read_long(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            values = json.loads(line)
            target = values["target"]
            yield values["id"], target if isinstance(target, str) else dump_target(target)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"Line {number} of {path} is broken ({error}). {_WAY_OUT}") from error


def _long_truths(path: Path, many: int) -> dict[str, str]:
    """Return the truths in targets.jsonl by row id; the header states their number."""
    targets = dict(_read_long(path)) if path.is_file() else {}
    if len(targets) < many:
        raise DataError(f"{path} holds {len(targets)} of the {many} truths that stand there. {_WAY_OUT}")
    return targets


def _read_header(path: Path) -> tuple[Truth, int]:
    """Return the header of the truths, and their number in targets.jsonl."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Truth.from_dict(values), int(values.get(_LONG, 0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}, the header of the manifest, is broken ({error}). {_WAY_OUT}") from error


def group_key(row: Row) -> str:
    """Return the key of the unit that stays together: the group of a row, or the row itself.

    It begins with `d:` for duplicates, which are answered alike, and with `g:` for images of one origin (a patient, a
    block of a map), which are not: `vitrail.metrics.intervals` treats the two differently.
    """
    if not row.group:
        return f"r:{row.id}"
    return f"{'d' if row.group.startswith(DUPLICATES) else 'g'}:{row.group}"
