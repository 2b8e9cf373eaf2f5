"""Remove text chunks from PNG files: Pillow refuses a file with much text, even if its image is valid."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MUCH = 1 << 16
"""Bytes of text above which it is removed; Pillow refuses 64 MB, and any text that unpacks to more than 1 MB."""

_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_XMP = b"XML:com.adobe.xmp\0\0"  # an uncompressed text that may contain the orientation
_LONG = 1 << 20
_LONGEST_PROFILE = 16 << 20


class _Chunk(NamedTuple):
    """A chunk of a file: its kind, its content, and its start and end in the file."""

    kind: bytes
    body: bytes
    start: int
    end: int


def without_texts(data: bytes) -> tuple[bytes, bytes | None]:
    """Return a PNG file without long texts, and its colour profile if Pillow would refuse it.

    Other files and damaged files are returned unchanged.
    """
    if not data.startswith(SIGNATURE):
        return data, None
    chunks = list(_ancillary(data))
    texts = [one for one in chunks if one.kind in _TEXTS and not _is_tags(one)]
    packed = any(one.kind != b"tEXt" for one in texts)
    left_out = texts if packed or sum(len(one.body) for one in texts) > MUCH else []
    profile = next((_unpacked(one.body) for one in chunks if one.kind == b"iCCP"), b"")
    if len(profile) > _LONG:
        left_out = [*left_out, *(one for one in chunks if one.kind == b"iCCP")]
    if not left_out:
        return data, None
    kept, at = [], 0
    for one in sorted(left_out, key=lambda chunk: chunk.start):
        kept.append(data[at : one.start])
        at = one.end
    return b"".join([*kept, data[at:]]), profile if len(profile) > _LONG else None


def _ancillary(data: bytes) -> Iterator[_Chunk]:
    """Yield the chunks with texts and the colour profile, up to the first damaged chunk."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        if kind in _TEXTS or kind == b"iCCP":
            yield _Chunk(kind, data[at + 8 : end - 4], at, end)
        at = end


def _is_tags(chunk: _Chunk) -> bool:
    return chunk.body.startswith(_XMP) and len(chunk.body) < _LONG


def _unpacked(body: bytes) -> bytes:
    """Return the unpacked profile; Pillow handles one that cannot be unpacked."""
    try:
        return zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], _LONGEST_PROFILE)
    except zlib.error:
        return b""
