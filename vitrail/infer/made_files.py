"""Write made images: a PNG each that says how it was made, a sheet of all, and a file that lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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


def write_made(folder: Path, recipe: Recipe, made: Iterable[Image]) -> list[Path]:
    """Write the images as they come, then their sheet and list; return the paths of the images.

    Raises:
        DataError: a file with such a name is there that was not made by vitrail, so nothing is overwritten.
    """
    make_folder(folder)
    paths: list[Path] = []
    shown: list[Image] = []
    for number, one in enumerate(made):
        path = folder / f"{recipe.stem}-{number:04}.png"
        _refuse_other(path)
        _write(path, one, {**recipe.facts, "number": number})
        paths.append(path)
        if len(shown) < SHOWN:
            shown.append(plots.shown(one, SMALL))
    across = max(1, ceil(sqrt(len(shown))))
    rows = [plots.beside(*shown[i : i + across], gap=2) for i in range(0, len(shown), across)]
    if rows:
        sheet = folder / f"{recipe.stem}-sheet.png"
        _refuse_other(sheet)
        plots.write_image(sheet, plots.below(*rows, gap=2))
    write_json(folder / f"{recipe.stem}.json", {**recipe.facts, "files": [path.name for path in paths]})
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


def _refuse_other(path: Path) -> None:
    """Raise a DataError for a file of somebody else."""
    if path.exists() and facts_of(path) is None and not path.stem.endswith("-sheet"):
        raise DataError(
            f"{path} is there and was not made by vitrail, so it is kept. Name another folder: --out"
        )


def _write(path: Path, image: Image, facts: Mapping[str, Any]) -> None:
    told, buffer = PngInfo(), BytesIO()
    told.add_text(MADE, json.dumps(facts))
    image.save(buffer, format="PNG", pnginfo=told)
    replace(path, partial(_pour, buffer.getvalue()))


def _pour(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _safe(name: str) -> str:
    """Return a name as a part of a file name."""
    return "".join(one if one.isalnum() or one in "_.+" else "_" for one in printable(name))[:60] or "_"


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    found = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
