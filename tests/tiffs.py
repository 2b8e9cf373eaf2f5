"""TIFF files of any bands, written here so that what reads them is not proven on itself."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np


def tiff(
    values: np.ndarray[Any, Any],
    *,
    order: str = "<",
    tile: int = 0,
    apart: bool = False,
    packed: bool = False,
    big: bool = False,
    names: tuple[str, ...] = (),
    no_data: str = "",
    turn: int = 1,
    meaning: int = 1,
    extra: tuple[int, ...] = (),
) -> bytes:
    """Return a TIFF file of an array (height, width, bands), as GDAL writes one.

    Strips of 7 rows or tiles; one plane a band, or all bands of a pixel together; plain, or deflated differences.
    `meaning` says what the bands are (1: grey, 2: colour), `extra` what those above them are.
    """
    height, width, bands = values.shape
    values = values.astype(values.dtype.newbyteorder(order))
    rows, cols = (tile, tile) if tile else (7, width)
    planes = [values[..., i : i + 1] for i in range(bands)] if apart else [values]
    pieces = [
        _piece(plane[top : top + rows, left : left + cols], (rows, cols) if tile else None, packed)
        for plane in planes
        for top in range(0, height, rows)
        for left in range(0, width, cols)
    ]
    head = 16 if big else 8
    starts = np.cumsum([head, *map(len, pieces)])[:-1].tolist()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    marks = "".join(
        f'<Item name="DESCRIPTION" sample="{i}" role="description">{name}</Item>'
        for i, name in enumerate(names)
    )
    entries: list[tuple[int, str, Any]] = [
        (256, "I", [width]), (257, "I", [height]), (258, "H", [8 * values.itemsize] * bands),
        (259, "H", [8 if packed else 1]), (262, "H", [meaning]), (274, "H", [turn]), (277, "H", [bands]),
        (284, "H", [2 if apart else 1]), (317, "H", [2 if packed else 1]), (339, "H", [kind] * bands),
        (324 if tile else 273, "I", starts), (325 if tile else 279, "I", [len(one) for one in pieces]),
        *([(322, "I", [tile]), (323, "I", [tile])] if tile else [(278, "I", [rows])]),
        *([(338, "H", list(extra))] if extra else []),
        *([(42112, "s", f"<GDALMetadata>{marks}</GDALMetadata>")] if names else []),
        *([(42113, "s", no_data)] if no_data else []),
    ]  # fmt: skip
    body = b"".join(pieces)
    return _file(body, sorted(entries, key=lambda entry: entry[0]), order, big)


def _piece(part: np.ndarray[Any, Any], size: tuple[int, int] | None, packed: bool) -> bytes:
    if size:
        part = np.pad(part, ((0, size[0] - part.shape[0]), (0, size[1] - part.shape[1]), (0, 0)))
    if not packed:
        return part.tobytes()
    return zlib.compress(np.diff(part, axis=1, prepend=part.dtype.type(0)).astype(part.dtype).tobytes())


def _file(body: bytes, entries: list[tuple[int, str, Any]], order: str, big: bool) -> bytes:
    place, count, code = ("Q", "Q", 43) if big else ("I", "I", 42)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", code)
    start = (16 if big else 8) + len(body)
    head += struct.pack(order + "HHQ", 8, 0, start) if big else struct.pack(order + "I", start)
    table, long, room = b"", b"", 8 if big else 4
    after = start + (8 if big else 2) + len(entries) * (20 if big else 12) + struct.calcsize(place)
    for tag, kind, found in entries:
        data = found.encode() + b"\0" if kind == "s" else struct.pack(f"{order}{len(found)}{kind}", *found)
        number = {"s": 2, "H": 3, "I": 4}[kind]
        table += struct.pack(order + "HH" + count, tag, number, len(data) if kind == "s" else len(found))
        if len(data) <= room:
            table += data.ljust(room, b"\0")
        else:
            table += struct.pack(order + place, after + len(long))
            long += data
    many = struct.pack(order + ("Q" if big else "H"), len(entries))
    return head + body + many + table + struct.pack(order + place, 0) + long
