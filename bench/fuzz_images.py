"""Broken image files from a seed: flipped bits, cuts, spliced chunks, and heads that state other sizes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from random import Random

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP")
HUGE = 40_000
"""Pixels of a side that the heads of some files state; none of these files has so many."""


def whole(seed: int, side: int = 48) -> Image.Image:
    """Return a small picture with smooth colours."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, kind: str) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def mutants(rng: Random) -> Iterator[tuple[str, bytes]]:
    """Yield names and broken files for ever; some of them are still images."""
    files = {kind: [file_of(whole(number), kind) for number in range(4)] for kind in FORMATS}
    ways = (_flipped, _cut, _inflated, _repeated, _zeroed)
    while True:
        kind = rng.choice(FORMATS)
        data = rng.choice(files[kind])
        if rng.random() < 0.2:
            yield f"spliced {kind}", _spliced(rng, data, rng.choice(files[rng.choice(FORMATS)]))
        else:
            way = rng.choice(ways)
            yield f"{way.__name__[1:]} {kind}", way(rng, data)


def huge_png(side: int = HUGE) -> bytes:
    """Return a PNG that states `side` × `side` pixels and holds one row."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 + 3 * side))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def huge_tiff(side: int = HUGE) -> bytes:
    """Return a TIFF that states `side` × `side` grey pixels and holds none."""
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side)]
    tags.append((279, min(side * side, 2**32 - 1)))
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


def zip_bomb_png(side: int = 7000) -> bytes:
    """Return a PNG of `side` × `side` black pixels: a few kilobytes that decode to many megabytes."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + side) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _flipped(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20, 200))):
        # Half of the flips meet the head, where they change what the file says of itself.
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 64)
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(1, len(data))]


def _inflated(rng: Random, data: bytes) -> bytes:
    """Write a great number over four bytes of the head."""
    at = rng.randrange(min(len(data) - 4, 60))
    number = rng.choice((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, HUGE))
    return data[:at] + struct.pack(rng.choice(("<I", ">I")), number) + data[at + 4 :]


def _repeated(rng: Random, data: bytes) -> bytes:
    """Write a part of the file a hundred times."""
    start, end = sorted(rng.sample(range(len(data)), 2))
    return data[:end] + data[start:end] * rng.choice((2, 100)) + data[end:]


def _zeroed(rng: Random, data: bytes) -> bytes:
    start, end = sorted(rng.sample(range(len(data)), 2))
    return data[:start] + bytes(end - start) + data[end:]


def _spliced(rng: Random, data: bytes, other: bytes) -> bytes:
    """Return the beginning of one file and the end of another."""
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
