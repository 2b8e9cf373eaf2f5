"""How the pages look to one browser: their language, light or dark. Two cookies, so that the first byte is right."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from vitrail.studio.language import ENGLISH, NAMES, PSEUDO, chosen, languages

LANGUAGE, THEME = "vitrail-language", "vitrail-theme"
"""The names of the cookies."""

THEMES = ("light", "dark")
"""Themes that can be chosen; without a choice a page follows the system."""

YEAR = 365 * 24 * 3600
"""Seconds that a browser keeps a choice."""


@dataclass(frozen=True)
class Looks:
    """The language of a page, and its theme; "" follows the system."""

    language: str
    theme: str

    @classmethod
    def of(cls, request: Request) -> Looks:
        """Return the looks that a browser asks for."""
        language = chosen(request.headers.get("accept-language", ""), request.cookies.get(LANGUAGE, ""))
        theme = request.cookies.get(THEME, "")
        return cls(language, theme if theme in THEMES else "")

    @property
    def lang(self) -> str:
        """The language as HTML names it."""
        return {PSEUDO: ENGLISH, "zh": "zh-Hans"}.get(self.language, self.language)

    @property
    def scheme(self) -> str:
        """What a browser draws behind a page before its style has come."""
        return self.theme or "light dark"

    @property
    def languages(self) -> dict[str, str]:
        """The languages that can be chosen, with their own names."""
        return {name: NAMES.get(name, name) for name in (ENGLISH, *languages())}
