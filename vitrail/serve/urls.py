"""Fetch an image by URL, for hosts that the operator of a server allowed by name: none by default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from vitrail.core.text import printable
from vitrail.serve.front import Limits

SECONDS = 10.0
"""Longest time for fetching one image."""


async def fetched(url: str, limits: Limits) -> bytes:
    """Return the bytes behind a URL.

    Only http and https, only hosts that were allowed, and no redirects: they would lead anywhere.

    Raises:
        HTTPException: it is not allowed, not there, or too large.
    """
    shown = printable(url[:200])
    refuse_foreign(url, limits)
    import httpx

    try:
        async with (
            asyncio.timeout(SECONDS),
            httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise HTTPException(
                    422, f"{shown} answered with {response.status_code}. Send the file itself."
                )
            return await _limited(response.aiter_bytes(), limits, shown)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise HTTPException(422, f"{shown} cannot be fetched ({why}). Send the file itself.") from error


def refuse_foreign(url: str, limits: Limits) -> None:
    """Raise an HTTPException for a URL of a host that was not allowed, or of another kind than http."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host, parts = "", urlsplit("")
    allowed = {one.lower() for one in limits.hosts}
    if not allowed:
        raise HTTPException(
            403, "This server fetches no URLs. Send the file, or start it with --allow-urls HOST."
        )
    if parts.scheme not in ("http", "https") or host.lower() not in allowed or parts.username is not None:
        hosts = ", ".join(limits.hosts)
        raise HTTPException(
            403, f"This server fetches images from {hosts} only, by http or https. Send the file."
        )


async def _limited(parts: AsyncIterator[bytes], limits: Limits, shown: str) -> bytes:
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > limits.data:
            raise HTTPException(413, f"{shown} has more than {limits.data:,} bytes. Send it smaller.")
    return bytes(data)
