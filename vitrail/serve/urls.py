"""Fetch an image by URL, for hosts that the operator of a server allowed by name: none by default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException

from vitrail.core.text import printable
from vitrail.serve.front import Limits

SECONDS = 10.0
"""Longest time for fetching one image."""


async def fetched(url: str, limits: Limits, most: int) -> bytes:
    """Return the bytes behind a URL, at most so many.

    Only http and https, only hosts that were allowed, and no redirects: they would lead anywhere.

    Raises:
        HTTPException: it is not allowed, not there, or too large.
    """
    shown = printable(url[:200])
    if not limits.hosts:
        raise HTTPException(
            403, "This server fetches no URLs. Send the file, or start it with --allow-urls HOST."
        )
    import httpx

    refuse_foreign(url, limits)
    try:
        async with (
            asyncio.timeout(SECONDS),
            httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
            # As it is: a few packed bytes could become gigabytes before they are counted.
            client.stream("GET", url, headers={"accept-encoding": "identity"}) as response,
        ):
            if response.status_code != 200:
                raise HTTPException(
                    422, f"{shown} answered with {response.status_code}. Send the file itself."
                )
            return await _limited(response.aiter_raw(), most, shown)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise HTTPException(422, f"{shown} cannot be fetched ({why}). Send the file itself.") from error


def refuse_foreign(url: str, limits: Limits) -> None:
    """Raise an HTTPException for a URL of a host that was not allowed, or of another kind than http."""
    import httpx

    try:  # read by whoever fetches it: two readers may see two hosts in one URL
        read = httpx.URL(url)
        host, kind, user = read.host, read.scheme, read.userinfo
    except (httpx.InvalidURL, ValueError, TypeError):
        host, kind, user = "", "", b""
    allowed = {one.lower() for one in limits.hosts}
    if kind not in ("http", "https") or host.lower() not in allowed or user:
        hosts = ", ".join(limits.hosts)
        raise HTTPException(
            403, f"This server fetches images from {hosts} only, by http or https. Send the file."
        )


async def _limited(parts: AsyncIterator[bytes], most: int, shown: str) -> bytes:
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > most:
            raise HTTPException(413, f"{shown} has more than {most:,} bytes. Send it smaller.")
    return bytes(data)
