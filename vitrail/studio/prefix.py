"""A studio below a path of a proxy, such as /studio: the same whether the proxy passes the path on or takes it off."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class Prefix:
    """Serves an application below a path; requests that name the path and those that do not are answered alike."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app, self.path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its whole path."""
        if self.path and scope["type"] == "http":
            asked: str = scope["path"]
            whole = asked if asked == self.path or asked.startswith(f"{self.path}/") else self.path + asked
            scope = {**scope, "path": whole, "root_path": self.path}
        await self.app(scope, receive, send)
