"""The page of a server: what the model is, a place to try it, and every address with what it takes and answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from vitrail import __version__
from vitrail.serve.openapi_view import paths_of

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""The headers of the page and of its files."""


class PageFile(NamedTuple):
    """A file of the page."""

    data: bytes
    media_type: str


def page_file(name: str) -> PageFile | None:
    """Return what `static/name` is for the page, or None if it has no such file."""
    kinds = {"js": "text/javascript", "css": "text/css"}
    places = {
        "api.js": files("vitrail.serve") / "static",
        "api.css": files("vitrail.serve") / "static",
        "style.css": files("vitrail.pages") / "templates",
    }
    if name not in places:
        return None
    return PageFile((places[name] / name).read_bytes(), kinds[name.rpartition(".")[2]])


def api_page(document: Mapping[str, Any], model: str, token_needed: bool) -> str:
    """Return the page of a server as HTML, from its OpenAPI document and the name of its model.

    All its addresses are relative, so that it works below a path of a proxy. Its script asks `card` and `predict`.
    """
    paths = paths_of(document)
    values = {
        "model": model,
        "about": document.get("info", {}).get("description", ""),
        "paths": paths,
        "known": {one.path for one in paths},
        "token_needed": token_needed,
        "version": __version__,
    }
    return _environment().get_template("api.html").render(values)


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitrail.serve"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "coded": _coded}
    return environment


def _prose(text: str) -> Markup:
    """Return text as paragraphs, with words between backticks as code."""
    paragraphs = (one.strip() for one in re.split(r"\n\s*\n", text))
    return Markup("\n").join(Markup("<p>{}</p>").format(_coded(one)) for one in paragraphs if one)


def _coded(text: str) -> Markup:
    """Return text on one line, with words between backticks as code."""
    parts = re.split(r"`([^`]+)`", text)  # every second one stood between backticks
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )
