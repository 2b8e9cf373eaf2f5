"""Read tables of images: CSV, TSV, JSON lines, Parquet, Excel, with any separator and encoding."""

from __future__ import annotations

import csv
import io
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from vitrail.core.errors import DataError, UnknownNameError
from vitrail.data.caption_columns import caption_columns, is_caption_name, is_sure, likeliest, prose_columns
from vitrail.data.captions import are_captions, captions_in, join_captions
from vitrail.data.labels import SPLITS, count, is_image, join_labels, label, natural, shorten
from vitrail.data.manifest import dump_target
from vitrail.data.options import LayoutOptions
from vitrail.data.videos import is_video

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx", ".xls")

PATH = (
    "filename", "file", "filepath", "path", "imagepath", "image", "img", "imageid", "imagename", "imagefile",
    "imagefilename", "imageindex", "imgpath", "picture", "photo", "idcode", "id", "name", "uid", "uuid", "图片",
    "文件名", "路径", "video", "videopath", "videofile", "videoname", "videoid", "clip", "clippath", "clipname",
    "clipid",
)  # fmt: skip
LABEL = (
    "label", "class", "category", "target", "species", "breed", "classname", "labelname", "classlabel", "labelclass",
    "diagnosis", "dx", "finding", "findinglabel", "disease", "diseasename", "condition", "choice", "y", "groundtruth",
    "level", "classid", "labelid", "categoryid", "classindex", "标签", "类别",
)  # fmt: skip
LABELS = (
    "labels", "tags", "classes", "categories", "targets", "attributes", "findinglabels", "findings", "diseases",
    "diagnoses", "choices", "attributeids",
)  # fmt: skip
SPLIT = (
    "split", "set", "subset", "partition", "datasplit", "traintest", "phase", "usage", "fold", "dataset", "datatype",
)  # fmt: skip
GROUP = (
    "group", "groupid", "patient", "patientid", "patientname", "subject", "subjectid", "person", "personid", "lesion",
    "lesionid", "case", "caseid", "study", "studyid", "animal", "animalid", "individual", "individualid", "specimen",
    "specimenid", "plant", "plantid", "tree", "treeid", "slide", "slideid", "video", "videoid", "clip", "clipid",
    "sequence", "sequenceid", "session", "sessionid", "scene", "sceneid",
)  # fmt: skip
PLACES = ("location", "site", "place", "hospital", "camera", "source")
"""Columns that may contain groups, if they have many values: three groups are too few for a split."""

_YES, _NO = frozenset(("1", "true", "yes", "1.0")), frozenset(("0", "false", "no", "0.0", "-1", ""))
_FEWEST_PLACES = 10

_ENOUGH = 10  # with fewer rows, repetition is not significant


class UnclearError(DataError):
    """A table that probably contains labels, but whose label column is ambiguous."""


class Columns(NamedTuple):
    """The role of each column; `hot` are the one-hot columns if no single column contains the label.

    `separator` separates the labels of a cell, empty if a cell is one label; `split_words` are the meanings of the
    words in the split column, in lower case; `captions` are columns of captions, and then there are no labels.
    """

    path: str
    label: str = ""
    hot: tuple[str, ...] = ()
    separator: str = ""
    split: str = ""
    split_words: Mapping[str, str] = MappingProxyType({})
    group: str = ""
    captions: tuple[str, ...] = ()

    def of(self, label: str, separator: str) -> Columns:
        """Return the same with the column of labels."""
        return self._replace(label=label, separator=separator)


def is_table(name: str) -> bool:
    """Return whether a file name can be that of a table."""
    return name.lower().endswith(SUFFIXES)


def read_table(name: str, data: bytes) -> pl.DataFrame:
    """Read a table as text: every cell is a string, lists are joined by bars, missing cells are empty.

    Raises:
        DataError: the file is empty, broken, or not a table.
    """
    kind = name.lower().rsplit(".", 1)[-1]
    try:
        if kind in {"csv", "tsv", "txt"}:
            frame = _separated(_text(data))
        elif kind in {"jsonl", "ndjson"}:
            frame = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
        elif kind == "json":
            frame = _records(data)
        elif kind == "parquet":
            frame = pl.read_parquet(io.BytesIO(data))
        else:
            frame = pl.read_excel(io.BytesIO(data), engine="calamine", infer_schema_length=None)
    except (
        Exception,
        pl.exceptions.PanicException,
    ) as error:  # the reader of each format raises its own exceptions
        raise DataError(
            f"{name} cannot be read as a table: {_first_line(error)}. Save it again as CSV."
        ) from error
    if frame.is_empty():
        raise DataError(f"{name} has no rows. Give one row an image: image,label.")
    return frame.select(_as_text(frame[column]) for column in frame.columns)


def plain(name: str) -> str:
    """Return the name of a column for comparisons: only letters and digits, in lower case."""
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def understand(
    frame: pl.DataFrame, path: str, wanted: LayoutOptions, asked: str = "", *, kind: str = ""
) -> Columns:
    """Detect the role of each column by names and contents; `path` is the column with the images.

    `asked` is the label column named by the user, `kind` the kind of truth that is wanted, "" for any.

    Raises:
        UnclearError: several columns could contain the labels; the message is a sentence about the table.
        DataError: no column could.
        SettingError: a named column does not exist.
    """
    by_name = {plain(column): column for column in reversed(frame.columns) if column != path}
    split, words = split_column(frame, wanted)
    group = group_column(frame, wanted)
    free = {key: column for key, column in by_name.items() if column not in {split, group}}
    found = Columns(path, split=split, split_words=words, group=group)
    if kind in {"", "caption"} and (captions := _captions(frame, path, free, asked, kind)):
        return found._replace(captions=captions)
    if asked:
        column = _named(frame, asked, "--labels")
        return found.of(column, _separator(frame[column], plain(column) in LABELS))
    for names, plural in ((LABEL, False), (LABELS, True)):
        column = _known(free, names)
        if column and frame[column].str.strip_chars().ne("").any():
            return found.of(column, _separator(frame[column], plural))
    rest = list(free.values())[::-1]
    hot = tuple(column for column in rest if set(frame[column].str.strip_chars().unique()) <= _YES | _NO)
    if len(hot) >= 2:
        return found._replace(hot=hot)
    likely = [
        column for column in rest if _tells_classes(frame[column]) and not _counts_rows(frame, path, column)
    ]
    if len(likely) > 1:
        several = f"its labels could stand in {' or '.join(map(repr, likely[:4]))}"
        raise UnclearError(f"{several}: name the column (--labels TABLE:{likely[0]})")
    if not likely and kind == "" and (prose := prose_columns(frame, rest)):
        return found._replace(captions=_only(prose))
    if not likely:
        others = [column for column in frame.columns if column != path]
        if not others:
            raise DataError("it names images and says nothing of them")
        raise DataError(f"none of its other columns ({shorten(map(repr, others))}) holds classes")
    return found.of(likely[0], _separator(frame[likely[0]], plural=False))


def _captions(
    frame: pl.DataFrame, path: str, free: Mapping[str, str], asked: str, kind: str
) -> tuple[str, ...]:
    """Return the columns of captions if the user wants captions or if these are more likely than labels; else ()."""
    if asked:
        column = _named(frame, asked, "--labels")
        named = is_caption_name(plain(column))
        return (column,) if kind or are_captions(frame[column].to_list(), named=named) else ()
    if kind:
        labels = [free[name] for name in (*LABEL, *LABELS) if name in free]
        found = likeliest(frame, free, [*labels, *free.values()])
        if not found:
            raise DataError(f"none of its other columns ({shorten(map(repr, frame.columns))}) holds captions")
        return found
    label = _known(free, (*LABEL, *LABELS))
    if label and frame[label].str.strip_chars().ne("").any():
        return tuple(prose_columns(frame, [label]))
    found = caption_columns(frame, free)
    if not found or is_sure(found, free):
        return found
    others = [column for column in free.values() if column not in found]
    likely = (column for column in others if _tells_classes(frame[column]))
    return found if all(_counts_rows(frame, path, column) for column in likely) else ()


def _only(prose: Sequence[str]) -> tuple[str]:
    """Return the only column of texts.

    Raises:
        UnclearError: there are several.
    """
    if len(prose) > 1:
        several = f"its captions could stand in {' or '.join(map(repr, prose[:4]))}"
        raise UnclearError(f"{several}: name the column (--labels TABLE:{prose[0]})")
    return (prose[0],)


def unread_captions(frame: pl.DataFrame, columns: Columns) -> str:
    """Return a note on a column of captions in a table whose labels are read, or ""."""
    if columns.captions:
        return ""
    used = {columns.path, columns.label, columns.split, columns.group, *columns.hot}
    free = {plain(column): column for column in reversed(frame.columns) if column not in used}
    found = caption_columns(frame, free)
    return (
        f"{found[0]!r} holds captions, which are not used; to learn from them: --task retrieve"
        if found
        else ""
    )


def split_column(frame: pl.DataFrame, wanted: LayoutOptions) -> tuple[str, dict[str, str]]:
    """Return the split column and the meaning of its words; empty if none is recognised."""
    by_name = {plain(column): column for column in reversed(frame.columns)}
    asked = wanted.splits
    if asked == "none":
        return "", {}
    if asked and not wanted.split_words:
        column = _named(frame, asked, "--splits")
        return column, _split_words(frame[column], wanted)
    for name in SPLIT:
        column = by_name.get(name, "")
        if column and (words := _split_words(frame[column], wanted)):
            return column, words
    return next(_flags(frame, by_name), ("", {}))


def _flags(frame: pl.DataFrame, by_name: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield columns such as is_valid or training, whose values yes and no are splits."""
    for name, column in by_name.items():
        found = next(
            (
                split
                for word, split in SPLITS.items()
                if name in {f"is{word}", f"is{word}image", word, f"is{word}ing"}
            ),
            "",
        )
        cells = {cell.strip().casefold() for cell in frame[column].unique().to_list()}
        if found and len(cells) == 2 and cells <= _YES | _NO:
            other = "test" if found == "train" else "train"
            yield column, {cell: found if cell in _YES else other for cell in cells}


def _split_words(column: pl.Series, wanted: LayoutOptions) -> dict[str, str]:
    """Return word in lower case → split; empty if no word of the column is a split."""
    words = [cell for cell in column.str.strip_chars().unique().to_list() if cell]
    told = wanted.splits_among(words)
    return {word.casefold(): split for word, split in told.items()}


def unread_splits(frame: pl.DataFrame, columns: Columns) -> str:
    """Return a note on a column with the name of a split column but other words, or ""."""
    for column in frame.columns:
        words = sorted({cell.strip() for cell in frame[column].unique().to_list()} - {""}, key=natural)
        if (
            plain(column) in SPLIT
            and column not in {columns.split, columns.label}
            and 1 < len(words) <= _FEWEST_PLACES
        ):
            means = ["train", "test", "val"] + ["train"] * len(words)
            example = ",".join(f"{word}={split}" for word, split in zip(words, means, strict=False))
            return (
                f"the column {column!r} has the words {shorten(words)}, which are no splits: not used. Say what they "
                f"mean: --splits {example}"
            )
    return ""


def unread_places(frame: pl.DataFrame, columns: Columns) -> str:
    """Return a note on a column that may contain groups but has too few values, or ""."""
    for column in frame.columns:
        if plain(column) in PLACES and column not in {
            columns.group,
            columns.label,
            columns.path,
            columns.split,
        }:
            number = frame[column].n_unique()
            return (
                f"{column!r} has {count(number, 'value')} only and is not taken for groups that stay together; to "
                f"take it: --groups {column}"
            )
    return ""


def group_column(frame: pl.DataFrame, wanted: LayoutOptions) -> str:
    """Return the group column: the named one, one with a known name, or none."""
    by_name = {plain(column): column for column in reversed(frame.columns)}
    if wanted.groups == "none":
        return ""
    if wanted.groups:
        return _named(frame, wanted.groups, "--groups")
    places = [
        column
        for name in PLACES
        if (column := by_name.get(name)) and frame[column].n_unique() >= _FEWEST_PLACES
    ]
    return _known(by_name, GROUP) or next(iter(places), "")


def _named(frame: pl.DataFrame, name: str, option: str) -> str:
    by_name = {plain(column): column for column in frame.columns}
    if plain(name) not in by_name:
        raise UnknownNameError(
            f"column for {option}", name, frame.columns, f"There are: {', '.join(frame.columns)}."
        )
    return by_name[plain(name)]


def _tells_classes(column: pl.Series) -> bool:
    """Return whether a column contains classes: a few words that repeat, no measurements."""
    cells = [cell for cell in column.str.strip_chars().to_list() if cell]
    kinds = set(cells)
    fractions = sum("." in cell and cell.replace(".", "").lstrip("-").isdigit() for cell in kinds)
    return (
        len(kinds) > 1
        and (len(cells) < _ENOUGH or 2 * len(kinds) <= len(cells))
        and 2 * fractions < len(kinds)
    )


def _counts_rows(frame: pl.DataFrame, path: str, column: str) -> bool:
    """Return whether a column numbers the rows of each image, as Flickr's lists do with its captions."""
    several = 2 * frame[path].n_unique() <= len(frame)
    if not several or not all(cell.strip().isdigit() for cell in frame[column]):
        return False
    return frame.select(path, column).n_unique() == len(frame)


def labels_of(frame: pl.DataFrame, columns: Columns) -> list[str]:
    """Return the label cell of every row in the format of a manifest, or its captions."""
    if columns.captions:
        texts = zip(*(frame[column].to_list() for column in columns.captions), strict=True)
        return [join_captions(one for cell in row for one in captions_in(cell)) for row in texts]
    if columns.hot:
        marks = [frame[column].str.strip_chars().str.to_lowercase().to_list() for column in columns.hot]
        names = [label(column) for column in columns.hot]
        return [
            join_labels(name for name, mark in zip(names, row, strict=True) if mark in _YES)
            for row in zip(*marks, strict=True)
        ]
    cells = [cell.strip() for cell in frame[columns.label].to_list()]
    if not columns.separator:
        return [join_labels([cell]) if cell else "" for cell in cells]
    known = {cell: join_labels(one for one in _pieces(cell, columns.separator)) for cell in set(cells)}
    return [known[cell] for cell in cells]


def code_of(data: bytes) -> str:
    """Return the encoding of a text file: UTF-16, UTF-8, GB 18030 (GBK), or Windows-1252."""
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    zeros = data[:400].count(0)
    if (
        zeros > len(data[:400]) / 4
    ):  # UTF-16 without a byte order mark: every second byte of Latin text is zero
        return "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
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
    if any(_is_file(cell.strip()) for cell in header):  # a table without a header: its first row is a file
        header = [f"column {i + 1}" for i in range(len(header))]
        rows.insert(0, header)
    if is_caption_name(plain(header[-1])):  # marks in captions without quotes are parts of them
        rows = [
            [*row[: len(header) - 1], separator.join(row[len(header) - 1 :])]
            if len(row) > len(header)
            else row
            for row in rows
        ]
    ragged = [i + 2 for i, row in enumerate(rows[1:]) if len(row) > len(header)]
    if ragged:
        raise ValueError(f"more cells than the header in row {shorten(map(str, ragged))}")
    names = [name.strip() or f"column {i + 1}" for i, name in enumerate(header)]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise ValueError(f"the column {twice[0]!r} stands there twice")
    filled = [row + [""] * (len(header) - len(row)) for row in rows[1:]]
    return pl.DataFrame(filled, schema=dict.fromkeys(names, pl.String), orient="row")


def _records(data: bytes) -> pl.DataFrame:
    """Read a list of records, or image → label; ValueError for any other JSON."""
    content = json.loads(data)
    if isinstance(content, dict) and content and all(isinstance(one, str | int) for one in content.values()):
        return pl.DataFrame({"image": list(content), "label": [str(one) for one in content.values()]})
    if not (isinstance(content, list) and content and all(isinstance(one, dict) for one in content)):
        raise ValueError("it is no list of records")
    flat = [{key: _cell(value, key) for key, value in one.items()} for one in content]
    return pl.DataFrame(flat, infer_schema_length=None)


def _cell(value: Any, name: str) -> str | None:
    """Return a value of a record as a cell; nested values are dropped, except lists of words."""
    if isinstance(value, dict):
        value = value.get("choices")
    if isinstance(value, list):
        return _joined([str(one) for one in value], name)
    return None if value is None else str(value)


def _columns(lines: Sequence[str], mark: str) -> tuple[bool, int]:
    """Return the rank of a separator: first equal numbers of cells per line, then many cells."""
    widths = [len(row) for row in csv.reader(lines, delimiter=mark)]
    usual, times = Counter(widths).most_common(1)[0]
    return usual > 1 and times >= 0.8 * len(widths) and widths[0] == usual, widths[0]


def _as_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List):
        cells = [
            _joined([str(one) for one in cell], column.name) if cell is not None else ""
            for cell in column.to_list()
        ]
        return pl.Series(column.name, cells, pl.String)
    if isinstance(column.dtype, pl.Struct | pl.Binary):
        return pl.Series(column.name, [""] * len(column), pl.String)
    if column.dtype.is_float() and column.drop_nulls().is_finite().all():
        whole = column.drop_nulls()
        if (whole == whole.round()).all():  # Excel has no integers: 1.0 is the label 1
            column = column.cast(pl.Int64)
    return column.cast(pl.String).fill_null("")


def _joined(words: Sequence[str], name: str) -> str:
    """Return a list of words as a cell of the column called `name`: captions keep their order and their bars."""
    return dump_target(words) if is_caption_name(plain(name)) else join_labels(words)


def _known(by_name: Mapping[str, str], names: Sequence[str]) -> str:
    return next((by_name[name] for name in names if name in by_name), "")


def path_columns(frame: pl.DataFrame) -> list[str]:
    """Return the columns that may contain images: by name first, then by cells that look like image files."""
    by_name = {plain(column): column for column in reversed(frame.columns)}
    known = [by_name[name] for name in PATH if name in by_name]
    looks = [
        column
        for column in frame.columns
        if sum(_is_file(cell) for cell in frame[column].head(50)) > min(50, len(frame)) / 2
    ]
    return list(dict.fromkeys([*known, *looks]))


def _separator(column: pl.Series, plural: bool) -> str:
    """Return the separator of several labels in a cell: splitting by it must reduce the number of labels."""
    cells = {cell.strip() for cell in column.unique().to_list() if cell.strip()}
    for mark in "|;," + (" " if plural else ""):
        parted = [cell for cell in cells if len(_pieces(cell, mark)) > 1]
        pieces = {piece for cell in cells for piece in _pieces(cell, mark)}
        if parted and (len(pieces) < len(cells) + (mark == " ") or (plural and mark != " ")):
            return mark
    return ""


def _pieces(cell: str, mark: str) -> list[str]:
    return [piece.strip().strip("'\"[]") for piece in cell.split(mark) if piece.strip().strip("'\"[]")]


def _is_file(cell: str) -> bool:
    return is_image(cell) or is_video(cell)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
