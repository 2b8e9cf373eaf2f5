"""The switch of language and of light and dark."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse

from vitrail.studio.language import ENGLISH, languages
from vitrail.studio.looks import LANGUAGE, THEME, THEMES, YEAR

router = APIRouter()

Text = Annotated[str | None, Form()]


@router.post("/looks")
def choose(
    request: Request, language: Text = None, theme: Text = None, back: Text = None
) -> RedirectResponse:
    """Keep what was chosen in the browser, and return to the page."""
    place = (back or "").lstrip("/\\")
    answer = RedirectResponse(f"./{place}", 303)
    known = {LANGUAGE: (language, (ENGLISH, *languages())), THEME: (theme, THEMES)}
    for name, (value, choices) in known.items():
        path = request.scope.get("root_path") or "/"
        if value in choices:
            answer.set_cookie(name, value, path=path, httponly=True, samesite="lax", max_age=YEAR)
        elif value is not None:  # by the system, or by the browser
            answer.delete_cookie(name, path=path, httponly=True, samesite="lax")
    return answer
