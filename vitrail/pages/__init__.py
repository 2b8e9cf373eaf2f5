"""HTML pages: each is one self-contained file in the same style, rendered from the templates in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound

from vitrail.core.text import clock, span


class _Packaged(BaseLoader):
    """Load templates from the package, also when it is installed as a zip."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Any]:
        source = files(__package__).joinpath("templates", template)
        if not source.is_file():
            raise TemplateNotFound(template)
        return source.read_text(encoding="utf-8"), template, lambda: True


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render the file `template` of pages/templates; every value is escaped, a missing value is an error."""
    return _environment().get_template(template).render(dict(values))


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=_Packaged(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "clock": clock, "span": span}
    return environment


def percent(share: float, digits: int = 1) -> str:
    """Return a share as text: 91.3 %."""
    return f"{100 * share:.{digits}f} %"
