"""The scripts of texts: Latin, Chinese, Cyrillic, as Unicode names their letters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
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
    words = dict.fromkeys(
        unicodedata.name(sign, "").split(" ")[0] for sign in dict.fromkeys(text) if sign.isalpha()
    )
    return tuple(
        dict.fromkeys(
            _SCRIPTS.get(word, word.title()) for word in words if word and not _NO_SCRIPT.fullmatch(word)
        )
    )
