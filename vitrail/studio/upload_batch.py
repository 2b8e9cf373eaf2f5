"""Many small files in one request: a line of JSON that announces them, then their bytes one after the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from vitrail.core.errors import DataError
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.uploads import LATEST, Incoming, Uploads

LONGEST_LINE = 1 << 20
"""Largest length of the announcement in bytes."""

TORN = "The files were not sent whole. Drop them again: what has arrived is not sent twice."


class Pieces:
    """The bytes of a request, handed out in parts of known length."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._rest = b""

    async def line(self) -> bytes:
        """Return the bytes up to the first line break. DataError if it does not come."""
        while b"\n" not in self._rest:
            more = await anext(self._body, b"")
            if not more or len(self._rest) > LONGEST_LINE:
                raise DataError(TORN)
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def take(self, size: int) -> AsyncIterator[bytes]:
        """Yield the next `size` bytes, fewer if the request ends before."""
        while size > 0:
            piece = self._rest or await anext(self._body, b"")
            if not piece:
                return
            part, self._rest = piece[:size], piece[size:]
            size -= len(part)
            yield part


async def receive_batch(uploads: Uploads, dataset: Dataset, body: AsyncIterator[bytes]) -> dict[int, str]:
    """Take in the files of a request; return the sentences about those that are refused, by their number.

    Raises:
        DataError: the announcement cannot be read.
        RunError: the disk is full; the files before have arrived.
    """
    pieces = Pieces(body)
    refused: dict[int, str] = {}
    for number, one in enumerate(_announced(await pieces.line())):
        content = pieces.take(one.size)
        try:
            await uploads.receive(dataset, one, content)
        except DataError as error:
            refused[number] = str(error)
        async for _ in content:  # the bytes of a file that is refused, or here already
            pass
    return refused


def _announced(line: bytes) -> list[Incoming]:
    try:
        files = [Incoming(str(path), int(size), int(modified)) for path, size, modified in json.loads(line)]
    except (ValueError, TypeError, OverflowError):
        raise DataError(TORN) from None
    if any(one.size < 0 or not 0 <= one.modified <= LATEST for one in files):
        raise DataError(TORN)
    return files
