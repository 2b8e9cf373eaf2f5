"""The languages of the studio: catalogues in `locale/`, and a pseudo-language that finds forgotten strings."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from io import BytesIO

from babel.core import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

ENGLISH = "en"
"""The language of all texts in the code."""

NAMES = {ENGLISH: "English", "zh": "中文"}
"""Language → its own name for itself."""

PSEUDO = "x-pseudo"
"""A language of which every string is longer and in brackets: what shows without brackets was forgotten."""


class Pseudo(NullTranslations):
    """Translations into the pseudo-language."""

    def gettext(self, message: str) -> str:
        """Return a text in brackets, longer by 40 %."""
        return f"⟦{message}{'~' * (2 * len(message) // 5)}⟧"

    ugettext = gettext

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """Return one of two texts in brackets."""
        return self.gettext(msgid1 if n == 1 else msgid2)

    ungettext = ngettext


def languages() -> list[str]:
    """Return the languages that there are catalogues of, besides English."""
    folder = files("vitrail.studio") / "locale"
    if not folder.is_dir():
        return []
    return sorted(one.name.removesuffix(".po") for one in folder.iterdir() if one.name.endswith(".po"))


def chosen(accepted: str, stated: str = "") -> str:
    """Return the language of a page: the one that was chosen, else by a browser's Accept-Language, else English."""
    known = [ENGLISH, *languages()]
    wanted = [part.partition(";")[0].strip() for part in accepted.split(",")]
    if stated in known:
        return stated
    if wanted[0] == PSEUDO:
        return PSEUDO
    return negotiate_locale([one.replace("-", "_") for one in wanted if one], known) or ENGLISH


def translations(language: str) -> NullTranslations:
    """Return the translations into a language; English for one without a catalogue."""
    if language == PSEUDO:
        return _pseudo()
    return _catalogue(language) if language in languages() else _english()


@lru_cache
def _pseudo() -> Pseudo:
    return Pseudo()


@lru_cache
def _english() -> NullTranslations:
    return NullTranslations()


@lru_cache
def _catalogue(language: str) -> Translations:
    source = files("vitrail.studio") / "locale" / f"{language}.po"
    with source.open("rb") as handle:
        catalogue = read_po(handle, locale=language)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled)
