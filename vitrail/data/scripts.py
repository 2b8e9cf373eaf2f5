"""The scripts of texts: Latin, Chinese, Cyrillic, as Unicode names their letters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

_SCRIPTS: Mapping[str, str] = MappingProxyType(
    {
        "CJK": "Chinese",
        "BOPOMOFO": "Chinese",
        "HIRAGANA": "Japanese",
        "KATAKANA": "Japanese",
        "KATAKANA-HIRAGANA": "Japanese",
        "HANGUL": "Korean",
    }
)
_NO_SCRIPT = re.compile(
    "MASCULINE|FEMININE|MODIFIER|SUPERSCRIPT|SUBSCRIPT|MATHEMATICAL|DOUBLE-STRUCK|SCRIPT|BLACK-LETTER|INFORMATION|"
    "MICRO|OHM|KELVIN|ANGSTROM|FULLWIDTH|HALFWIDTH|ALEF|BET|GIMEL|DALET|EULER"
)
"""First words in the names of letters that are signs of no script."""


def scripts_of(text: str) -> tuple[str, ...]:
    """Return the scripts of the letters of a text, in the order of their first letter."""
    if text.isascii():
        return ("Latin",) if any(map(str.isalpha, text)) else ()
    return tuple(dict.fromkeys(script for sign in text if (script := script_of(sign))))


@lru_cache(maxsize=1 << 14)
def script_of(sign: str) -> str:
    """Return the script of a letter, "" for signs that are none or belong to no script."""
    word = unicodedata.name(sign, "").split(" ")[0] if sign.isalpha() else ""
    return "" if _NO_SCRIPT.fullmatch(word) else _SCRIPTS.get(word, word.title())
