"""Sentences that vitrail writes in English for every place, found by their templates and told in another language.

The command line, reports and files speak English. A page in another language looks a sentence up here: as it stands, by
a template with placeholders, or part by part. What is not found stays English, and is marked so for screen readers. In
a template `{n}` is a number, `{count}` a number with its noun, `{what}` words that are looked up themselves, and any
other placeholder a name; `[is|are]` stands for either word, and a digit tells placeholders of one kind apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from babel.support import NullTranslations
from markupsafe import Markup, escape

from vitrail.studio.sentence_list import BETWEEN, PHRASES, SEMICOLON, STOP, TEMPLATES

_KINDS = {
    "n": r"[-+−±]?[\d.,]+(?:e[-+]\d+)?(?: [–%]| – [\d.,]+)*",
    "count": r"[\d,]+ [A-Za-z]+(?: [a-z]+)?",
}
_ENDS = re.compile(r"(?<=[.!?]) (?=[A-Z“0-9])")
_PLACE = re.compile(r"\{([a-z]+)(\d*)\}|\[([^\]|]+(?:\|[^\]|]*)+)\]")


def told(sentence: object, language: NullTranslations, english: bool = False) -> Markup:
    """Return a sentence in a language, as HTML; what is not found is marked as English, unless the page is English."""
    text = str(sentence)
    found = text if english else _found(text, language)
    if found is not None:
        return escape(found)
    for parts, mark, end in _cuts(text, language):
        return escape(mark).join(told(one, language) for one in parts) + escape(end)
    return Markup('<span lang="en">{}</span>').format(text)


def plain(sentence: str, language: NullTranslations) -> str:
    """Return a sentence in a language as text; English where it is not found."""
    found = _found(sentence, language)
    return sentence if found is None else found


def _cuts(text: str, language: NullTranslations) -> Iterator[tuple[list[str], str, str]]:
    """Yield how a text can be cut: its sentences or their parts, with the marks of a language between and behind."""
    sentences = _ENDS.split(text)
    if len(sentences) > 1:
        yield sentences, language.gettext(BETWEEN).replace("{one}", "").replace("{other}", ""), ""
    parts = text.removesuffix(STOP).split(SEMICOLON)
    if len(parts) > 1:
        yield parts, language.gettext(SEMICOLON), language.gettext(STOP) if text.endswith(STOP) else ""


def _found(text: str, language: NullTranslations) -> str | None:
    """Return a sentence in a language; None if not all of it is a phrase or made by a template.

    Parts come first: the last placeholder of a template would take the sentences that follow for a name.
    """
    if text in PHRASES:
        return str(language.gettext(text))
    if (title := text[:1].upper() + text[1:]) in _titles():  # as the reason of a decision, it begins small
        return str(language.gettext(title))
    for parts, mark, end in _cuts(text, language):
        found = [_found(one, language) for one in parts]
        if None not in found:
            return mark.join(str(one) for one in found) + end
    for template, pattern in _patterns():
        match = pattern.fullmatch(text)
        values = _values(match.groupdict(), language) if match else None
        if values is not None:
            return filled(language.gettext(template), values)
    return None


def _values(given: dict[str, str], language: NullTranslations) -> dict[str, str] | None:
    """Return the values of a template, with words looked up; None if one of these is not found."""
    values: dict[str, str] = {}
    for name, value in given.items():
        words = _found(value, language) if name.startswith(("what", "count")) else value
        if words is None:
            return None
        values[name] = words
    return values


def filled(text: str, values: dict[str, str]) -> str:
    """Return a template with its values; of words in brackets the first."""

    def value(match: re.Match[str]) -> str:
        return match[3].partition("|")[0] if match[3] else values.get(f"{match[1]}{match[2]}", match[0])

    return _PLACE.sub(value, text)


@lru_cache(maxsize=1)
def _titles() -> frozenset[str]:
    from vitrail.reports.check_summary import TITLES

    return frozenset(TITLES.values())


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((one, pattern_of(one)) for one in TEMPLATES)


def pattern_of(template: str) -> re.Pattern[str]:
    """Return the regular expression of the sentences that a template makes."""
    parts, end = [], 0
    for match in _PLACE.finditer(template):
        parts.append(re.escape(template[end : match.start()]))
        if match[3]:
            parts.append(f"(?:{'|'.join(re.escape(one) for one in match[3].split('|'))})")
        else:
            parts.append(f"(?P<{match[1]}{match[2]}>{_KINDS.get(match[1], '.+?')})")
        end = match.end()
    return re.compile("".join(parts) + re.escape(template[end:]), re.DOTALL)
