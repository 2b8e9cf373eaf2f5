"""Who may use a studio: a token, an allow-list of hosts, a check of the origin, and headers for the browser.

Other users of the machine reach 127.0.0.1 too, and so does every page in the user's browser (DNS rebinding, forged
requests). The token comes once in the link that the command opens and is a cookie from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from vitrail.core.access import LOCAL, host_of, same

COOKIE = "vitrail"
"""The cookie of a studio at the usual port of its protocol; others name their port (`cookie_of`)."""

USUAL = (None, 80, 443)
"""Ports that an address need not name; None is a socket without one."""

DAYS = 30
"""Days that a browser keeps the cookie."""

CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "frame-src 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send forms with the origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}

Next = Callable[[Request], Awaitable[Response]]


class Guard:
    """Refuses requests without the token, for another host, or changes that come from another page."""

    def __init__(self, token: str, hosts: Iterable[str] = LOCAL) -> None:
        self.token, self.hosts = token, frozenset(hosts)

    async def __call__(self, request: Request, call_next: Next) -> Response:
        """Answer, or pass the request on and add the headers."""
        response = self.refusal(request) or await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def refusal(self, request: Request) -> Response | None:
        """Return why a request is refused, or the redirect that turns the token of a link into a cookie."""
        if host_of(request.headers.get("host", "")) not in self.hosts:
            return PlainTextResponse(
                "This address is not the studio's own. Open the link that it printed.", 421
            )
        if request.method in CHANGES and not self._own(request):
            return PlainTextResponse("This request came from another page and was not carried out.", 403)
        given = request.query_params.get("token", "")
        if given and request.method == "GET" and same(given, self.token):
            url = request.url.remove_query_params("token")
            answer = RedirectResponse(f"{url.path}?{url.query}".rstrip("?"), 303)
            place = request.scope.get("root_path") or "/"
            answer.set_cookie(
                cookie_of(request),
                self.token,
                path=place,
                httponly=True,
                samesite="strict",
                max_age=DAYS * 24 * 3600,
            )
            return answer
        if not same(request.cookies.get(cookie_of(request), ""), self.token):
            return PlainTextResponse("Open the link that `vitrail studio` printed: it holds the key.", 401)
        return None

    def _own(self, request: Request) -> bool:
        """Whether a change comes from a page of this studio, as the browser tells, or from no browser."""
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in {"same-origin", "none"}:
            return False
        origin = request.headers.get("origin")
        return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def cookie_of(request: Request) -> str:
    """Return the name of the cookie, with the port that the studio listens at: browsers share cookies between ports."""
    _, port = request.scope.get("server") or ("", None)
    return COOKIE if port in USUAL else f"{COOKIE}-{port}"
