"""Render the templates of the studio; every value is escaped, every text goes through the catalogue."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

from babel.support import NullTranslations
from jinja2 import Environment, PackageLoader, StrictUndefined

from vitrail.core.text import clock, span
from vitrail.pages import percent
from vitrail.studio.sentences import told


@lru_cache(maxsize=8)
def _environment(language: NullTranslations) -> Environment:
    """Return the environment of a language: templates are compiled with its texts."""
    environment = Environment(
        loader=PackageLoader("vitrail.studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.filters |= {"clock": clock, "span": span, "percent": percent, "moment": moment, "age": age}
    english = type(language) is NullTranslations
    environment.filters["told"] = partial(told, language=language, english=english)
    environment.install_gettext_translations(language, newstyle=True)  # type: ignore[attr-defined]
    return environment


def moment(seconds: float) -> str:
    """Return a time, in seconds since 1970, as machines read it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def age(seconds: float) -> str:
    """Return how long ago a time was: 45 s, 12 min, 3 h, 5 d."""
    past = max(0.0, time.time() - seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if past >= length:
            return f"{past // length:.0f} {unit}"
    return f"{past:.0f} s"


def render_page(template: str, values: Mapping[str, Any], language: NullTranslations) -> str:
    """Return a template rendered in a language. A missing value is an error."""
    return _environment(language).get_template(template).render(dict(values))
