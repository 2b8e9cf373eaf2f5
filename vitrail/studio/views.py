"""Render the templates of the studio; every value is escaped, every text goes through the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from babel.support import NullTranslations
from jinja2 import Environment, PackageLoader, StrictUndefined

from vitrail.core.text import clock, span
from vitrail.pages import percent


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitrail.studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.filters |= {"clock": clock, "span": span, "percent": percent}
    return environment


def render_page(template: str, values: Mapping[str, Any], language: NullTranslations) -> str:
    """Return a template rendered in a language. A missing value is an error."""
    environment = _environment().overlay()
    environment.install_gettext_translations(language, newstyle=True)  # type: ignore[attr-defined]
    return environment.get_template(template).render(dict(values))
