"""Write made images: a PNG each that says how it was made, a sheet of all, and a file that lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from PIL import Image as images
from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from vitrail import __version__, plots
from vitrail.core.errors import DataError
from vitrail.core.files import make_folder, replace, write_json
from vitrail.core.text import printable

MADE = "vitrail made"
"""The name of the text in a PNG that says how it was made."""

SMALL = 96
"""Least side of an image on the sheet, in pixels."""

SHOWN = 100
"""Images on a sheet at most."""


@dataclass(frozen=True)
class Recipe:
    """How a series of images is made, as the files say it, and the beginning of their names."""

    stem: str
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, model: Path, name: str, seed: int, how: Mapping[str, Any], image: str = "") -> Recipe:
        """Return the recipe of images of a class; `how` are steps, sampler, guidance and so on."""
        source = {"image": Path(image).name} if image else {}
        facts = {"model": _hash(model), "class": name, "seed": seed, **how, **source, "vitrail": __version__}
        parts = [Path(image).stem if image not in ("", "-") else image.replace("-", "image"), name, str(seed)]
        stem = "-".join(_safe(part) for part in parts if part)
        return cls(stem, facts)


def write_made(folder: Path, recipe: Recipe, made: Iterable[Image], count: int) -> list[Path]:
    """Write `count` images as they come, then their sheet and list; return the paths of the images.

    Files of the same recipe are written again, equal.

    Raises:
        DataError: a file with such a name is there that is not of this recipe; nothing is made or overwritten.
    """
    make_folder(folder)
    names = [folder / f"{recipe.stem}-{number:04}.png" for number in range(count)]
    sheet, table = folder / f"{recipe.stem}-sheet.png", folder / f"{recipe.stem}.json"
    _refuse_others(recipe, names, sheet, table)
    paths: list[Path] = []
    shown: list[Image] = []
    for number, (path, one) in enumerate(zip(names, made, strict=True)):
        _write(path, one, {**recipe.facts, "number": number})
        paths.append(path)
        if len(shown) < SHOWN:
            shown.append(plots.shown(one, SMALL))
    across = max(1, ceil(sqrt(len(shown))))
    rows = [plots.beside(*shown[i : i + across], gap=2) for i in range(0, len(shown), across)]
    if rows:
        plots.write_image(sheet, plots.below(*rows, gap=2))
    write_json(table, {**recipe.facts, "files": [path.name for path in paths]})
    return paths


def facts_of(path: Path) -> dict[str, Any] | None:
    """Return how an image was made, or None for a file that vitrail did not make."""
    try:
        with images.open(path) as image:
            text = image.info.get(MADE)
    except (OSError, SyntaxError, ValueError):
        return None
    facts: dict[str, Any] | None = json.loads(text) if text else None
    return facts


def _refuse_others(recipe: Recipe, names: Sequence[Path], sheet: Path, table: Path) -> None:
    """Raise a DataError for a file that is not of this recipe: somebody else's, or made in another way."""
    for path in names:
        if path.exists() and (facts := facts_of(path)) is None:
            raise DataError(
                f"{path} is there and was not made by vitrail, so it is kept. Name another folder: --out"
            )
        if path.exists() and {**(facts or {}), "number": None} != {**recipe.facts, "number": None}:
            raise DataError(f"{path} was made in another way, so it is kept. Name another folder: --out")
    listed = _listed(table) if table.exists() else recipe.facts
    if listed != recipe.facts or (sheet.exists() and not table.exists()):
        other = table if listed != recipe.facts else sheet
        raise DataError(
            f"{other} is there and is not of these images, so it is kept. Name another folder: --out"
        )


def _listed(table: Path) -> Mapping[str, Any] | None:
    """Return the recipe that a list of made images states; None for another file."""
    try:
        found = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {key: value for key, value in found.items() if key != "files"} if isinstance(found, dict) else None


def _write(path: Path, image: Image, facts: Mapping[str, Any]) -> None:
    told, buffer = PngInfo(), BytesIO()
    told.add_text(MADE, json.dumps(facts))
    image.save(buffer, format="PNG", pnginfo=told)
    replace(path, partial(_pour, buffer.getvalue()))


def _pour(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _safe(name: str) -> str:
    """Return a name as a part of a file name; one that has to be changed ends in a part of its hash."""
    safe = "".join(one if one.isalnum() or one in "_.+" else "_" for one in printable(name))[:60]
    return safe if safe == name else f"{safe}~{sha256(name.encode()).hexdigest()[:6]}"


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    found = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
