"""Tables that name pictures: CSV, TSV, JSON lines, Parquet, Excel, whatever their separator and code."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from vitrail.core.errors import DataError
from vitrail.data.names import is_picture, join_labels, label, some, split_of

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xls")

PATH = (
    "file_name", "filename", "file", "filepath", "file_path", "path", "image_path", "image", "img", "image_id",
    "image_name", "img_path", "picture", "photo", "id", "name", "uid", "图片", "文件名", "路径",
)  # fmt: skip
LABEL = (
    "label", "class", "category", "target", "species", "breed", "class_name", "label_name", "diagnosis", "y",
    "标签", "类别",
)  # fmt: skip
LABELS = ("labels", "tags", "classes", "categories", "targets", "attributes")
SPLIT = ("split", "set", "subset", "partition")
GROUP = (
    "group",
    "group_id",
    "patient",
    "patient_id",
    "subject",
    "subject_id",
    "scene",
    "location",
    "video",
    "site",
)

_ENOUGH = 10  # rows below which repetition tells nothing


@dataclass(frozen=True)
class Columns:
    """Which column says what; `hot` are the one-hot columns where no single one holds the label."""

    path: str
    label: str = ""
    hot: tuple[str, ...] = ()
    separator: str = ""  # between the labels of one cell; empty where a cell is one label
    split: str = ""
    group: str = ""


def is_table(name: str) -> bool:
    """Tell by its name whether a file may be a table."""
    return name.lower().endswith(SUFFIXES)


def read_table(name: str, data: bytes) -> pl.DataFrame:
    """Read a table as text: every cell a string, lists joined by bars, missing cells empty.

    Raises:
        DataError: empty, broken, or no table.
    """
    kind = name.lower().rsplit(".", 1)[-1]
    try:
        if kind in {"csv", "tsv", "txt"}:
            frame = _separated(_text(data))
        elif kind in {"jsonl", "ndjson"}:
            frame = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
        elif kind == "parquet":
            frame = pl.read_parquet(io.BytesIO(data))
        else:
            frame = pl.read_excel(io.BytesIO(data), engine="calamine", infer_schema_length=None)
    except (Exception, pl.exceptions.PanicException) as error:  # each format's reader has errors of its own
        raise DataError(
            f"{name} cannot be read as a table: {_first_line(error)}. Save it again as CSV."
        ) from error
    if frame.is_empty():
        raise DataError(f"{name} has no rows. Give one row a picture: image,label.")
    return frame.select(_as_text(frame[column]) for column in frame.columns)


def understand(frame: pl.DataFrame) -> Columns | None:
    """Find out by names and contents which column says what; None where no column names pictures or labels.

    A column of paths is the first known name, else the one whose cells look like picture files.
    """
    by_name = {column.strip().casefold(): column for column in reversed(frame.columns)}
    path = _known(by_name, PATH) or _pictures_column(frame)
    if path is None:
        return None
    split, group = _known(by_name, SPLIT) or "", _known(by_name, GROUP) or ""
    if split and not any(split_of(value) for value in frame[split].unique().to_list()):
        split = ""  # a column called so that speaks of something else
    for names, plural in ((LABEL, False), (LABELS, True)):
        found = _known({k: v for k, v in by_name.items() if v != path}, names)
        if found is not None:
            return Columns(path, found, (), _separator(frame[found], plural), split, group)
    rest = [column for column in frame.columns if column not in {path, split, group}]
    hot = tuple(column for column in rest if set(frame[column].unique()) <= {"0", "1", "0.0", "1.0", ""})
    if len(hot) >= 2:
        return Columns(path, "", hot, "", split, group)
    if len(rest) == 1 and _repeats(frame[rest[0]]):
        return Columns(path, rest[0], (), _separator(frame[rest[0]], plural=False), split, group)
    return None


def labels_of(frame: pl.DataFrame, columns: Columns) -> list[str]:
    """Return the label cell of every row as a manifest holds it."""
    if columns.hot:
        marks = [frame[column].to_list() for column in columns.hot]
        names = [label(column) for column in columns.hot]
        return [
            join_labels(name for name, mark in zip(names, row, strict=True) if mark in {"1", "1.0"})
            for row in zip(*marks, strict=True)
        ]
    cells = [cell.strip() for cell in frame[columns.label].to_list()]
    if not columns.separator:
        return [join_labels([cell]) if cell else "" for cell in cells]
    known = {cell: join_labels(one for one in _pieces(cell, columns.separator)) for cell in set(cells)}
    return [known[cell] for cell in cells]


def code_of(data: bytes) -> str:
    """Return the code that a text file is written in: UTF-8, GBK and its successor, or Western European."""
    for code in ("utf-8-sig", "gb18030"):
        try:
            data.decode(code)
        except UnicodeDecodeError:
            continue
        return code
    return "cp1252"


def _text(data: bytes) -> str:
    return data.decode(code_of(data), errors="replace")


def _separated(text: str) -> pl.DataFrame:
    lines = text.splitlines()[:50]
    if not lines:
        raise ValueError("it is empty")
    separator = max(",;\t| ", key=lambda mark: _columns(lines, mark))
    rows = list(csv.reader(io.StringIO(text), delimiter=separator, strict=True))
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    header = rows[0]
    if any(
        is_picture(cell.strip()) for cell in header
    ):  # a table without a header: its first row is a picture
        header = [f"column {i + 1}" for i in range(len(header))]
        rows.insert(0, header)
    ragged = [i + 2 for i, row in enumerate(rows[1:]) if len(row) > len(header)]
    if ragged:
        raise ValueError(f"more cells than the header in row {some(map(str, ragged))}")
    names = [name.strip() or f"column {i + 1}" for i, name in enumerate(header)]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise ValueError(f"the column {twice[0]!r} stands there twice")
    filled = [row + [""] * (len(header) - len(row)) for row in rows[1:]]
    return pl.DataFrame(filled, schema=dict.fromkeys(names, pl.String), orient="row")


def _columns(lines: Sequence[str], mark: str) -> tuple[bool, int]:
    """Rank a separator: the same number of cells in most lines counts first, many cells second."""
    widths = [len(row) for row in csv.reader(lines, delimiter=mark)]
    usual, times = Counter(widths).most_common(1)[0]
    return usual > 1 and times >= 0.8 * len(widths) and widths[0] == usual, widths[0]


def _as_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List):
        cells = [
            join_labels(str(one) for one in cell) if cell is not None else "" for cell in column.to_list()
        ]
        return pl.Series(column.name, cells, pl.String)
    if isinstance(column.dtype, pl.Struct | pl.Binary):
        return pl.Series(column.name, [""] * len(column), pl.String)
    if column.dtype.is_float() and column.drop_nulls().is_finite().all():
        whole = column.drop_nulls()
        if (whole == whole.round()).all():  # Excel knows no whole numbers: 1.0 is the label 1
            column = column.cast(pl.Int64)
    return column.cast(pl.String).fill_null("")


def _repeats(column: pl.Series) -> bool:
    """Tell a column of classes from one of captions, where hardly two cells are equal."""
    return len(column) < _ENOUGH or column.n_unique() <= len(column) / 2


def _known(by_name: dict[str, str], names: Sequence[str]) -> str | None:
    return next((by_name[name] for name in names if name in by_name), None)


def _pictures_column(frame: pl.DataFrame) -> str | None:
    for column in frame.columns:
        cells = frame[column].head(50).to_list()
        if sum(is_picture(cell) for cell in cells) > len(cells) / 2:
            return column
    return None


def _separator(column: pl.Series, plural: bool) -> str:
    """Find the mark between several labels of a cell: taking cells apart by it must leave fewer labels."""
    cells = {cell.strip() for cell in column.unique().to_list() if cell.strip()}
    for mark in "|;," + (" " if plural else ""):
        parted = [cell for cell in cells if len(_pieces(cell, mark)) > 1]
        pieces = {piece for cell in cells for piece in _pieces(cell, mark)}
        if parted and (len(pieces) < len(cells) + (mark == " ") or (plural and mark != " ")):
            return mark
    return ""


def _pieces(cell: str, mark: str) -> list[str]:
    return [piece.strip().strip("'\"[]") for piece in cell.split(mark) if piece.strip().strip("'\"[]")]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
