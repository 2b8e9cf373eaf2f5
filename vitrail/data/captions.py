"""Captions of images: how a row of a manifest holds them, and which texts of a data set are captions. No torch."""

from __future__ import annotations

import json
import unicodedata
from ast import literal_eval
from collections.abc import Iterable, Sequence
from typing import Any

from vitrail.core.text import printable
from vitrail.data.labels import is_image
from vitrail.data.manifest import dump_target
from vitrail.data.scripts import script_of, scripts_of

NAMES = (
    "caption", "captions", "imagecaption", "captiontext", "textcaption", "rawcaption", "sentence", "sentences",
    "alttext", "图片描述", "描述", "字幕",
)  # fmt: skip
"""Names of columns that hold captions, as letters and digits in lower case; a number may follow, as in caption_2."""
WEAK_NAMES = (
    "text", "description", "descriptions", "comment", "comments", "title", "prompt", "alt", "txt", "texts",
    "说明", "标题",
)  # fmt: skip
"""Names of columns that hold captions or something else."""

SAMPLE = 500
_MANY = 100  # so many different texts are captions, however often they come again
_SHARE, _SHARE_UNNAMED = 0.2, 0.5
_WORDS, _WORDS_UNNAMED = 2, 4
_ENOUGH = 10
_LETTERS_OF_A_WORD = 2
_WITHOUT_SPACES = frozenset(("Chinese", "Japanese", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"))


def join_captions(captions: Iterable[str]) -> str:
    """Return the captions of one image as the truth of a row: one as it is, several as a JSON list; "" for none."""
    own = list(dict.fromkeys(cleaned for one in captions if (cleaned := clean(one))))
    if len(own) == 1 and not own[0].startswith(("[", "{")):
        return own[0]
    return dump_target(own) if own else ""


def split_captions(target: str) -> tuple[str, ...]:
    """Return the captions in the truth of a row, which `join_captions` or a user wrote."""
    listed = _listed(target)
    texts = [target] if listed is None else listed
    return tuple(cleaned for one in texts if (cleaned := clean(one)))


def captions_in(cell: str) -> list[str]:
    """Return the captions in the cell of a table: one, or those of a list as JSON or Python writes it."""
    listed = _listed(cell)
    if listed is None and cell.strip()[:2] in {"['", '["'}:
        try:
            listed = _texts(literal_eval(cell.strip()))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
    return [cell] if listed is None else listed


def clean(caption: str) -> str:
    """Return a caption without surrounding blanks, in the normal form of Unicode."""
    return unicodedata.normalize("NFC", printable(caption)).replace("\0", "").strip()


def shown(captions: Sequence[str], most: int = 60) -> str:
    """Return captions as a short text in one line: the first one, and the number of others."""
    if not captions:
        return ""
    line = " ".join(captions[0].split())
    if len(line) > most:
        line = f"{line[: most - 1].rstrip()}…"
    return f"{line} (+{len(captions) - 1})" if len(captions) > 1 else line


def words_in(text: str) -> int:
    """Return about how many words a text has; in scripts without spaces, two letters are a word."""
    if not _WITHOUT_SPACES & set(scripts_of(text)):
        return sum(any(map(str.isalpha, word)) for word in text.split())
    letters = [script_of(sign) in _WITHOUT_SPACES for sign in text]
    spaced = "".join(" " if dense else sign for sign, dense in zip(text, letters, strict=True))
    return words_in(spaced) - (-sum(letters) // _LETTERS_OF_A_WORD)


def are_captions(cells: Sequence[str], *, named: bool) -> bool:
    """Return whether texts of images are captions, not classes, names, numbers or addresses.

    `named`: their column or file already says that they are texts, so shorter ones count, and ones that come again.
    """
    texts = [cell.strip() for cell in cells if cell.strip()]
    if not texts or 2 * len(texts) < len(cells):
        return False
    distinct = len(set(texts))
    few = len(cells) < _ENOUGH
    share = _SHARE if named else _SHARE_UNNAMED
    if (distinct < 2 and len(texts) > 1) or (
        distinct < share * len(texts) and not (named and distinct >= _MANY)
    ):
        return False
    if few and not named and distinct < len(texts):
        return False
    sample = texts[:: max(1, len(texts) // SAMPLE)]
    least = _WORDS if named else _WORDS_UNNAMED
    prose = sum(words_in(one) >= least and not _is_address(one) for one in sample)
    return prose > len(sample) / 2


def is_file_name(caption: str) -> bool:
    """Return whether a caption is the name of an image file: DSC_0042.JPG, IMG_20240102, photos/7.png."""
    line = caption.strip()
    stem = line.rpartition("/")[2]
    camera = stem.casefold().startswith(("img", "dsc", "pxl", "dcim", "image", "photo"))
    return (
        bool(line)
        and not any(sign.isspace() for sign in line)
        and (is_image(line) or (camera and any(sign.isdigit() for sign in stem)))
    )


def _is_address(text: str) -> bool:
    return "://" in text.split(" ", 1)[0] or (is_image(text) and " " not in text)


def _listed(text: str) -> list[str] | None:
    """Return the texts of a JSON list; None for other texts."""
    if not text.lstrip().startswith("["):
        return None
    try:
        return _texts(json.loads(text))
    except ValueError:
        return None


def _texts(value: Any) -> list[str] | None:
    right = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    return list(value) if right else None
