"""Data sets that need no download, written as class folders and read like a user's images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from vitrail.core.errors import DataError, RunError, UnknownNameError
from vitrail.core.files import replace_folder
from vitrail.data import moving_digits
from vitrail.data.labels import natural


class Fault(NamedTuple):
    """One planted fault: its kind, its file and a description."""

    kind: str
    path: str
    detail: str


def names() -> tuple[str, ...]:
    """Return the names that can be used in place of a folder."""
    return tuple(_WRITERS)


def materialise(name: str, folder: Path) -> Path:
    """Write a built-in data set as class folders below `folder`, once, and return its root.

    `digits` is scikit-learn's copy of the UCI optical digits: 1,797 real scans, 8 × 8, 17 greys.
    `moving_digits` are 3,000 clips of 1,500 of them that move to the left or to the right, which is the class.

    Raises:
        UnknownNameError: there is no such data set.
        MissingExtraError: it is one of videos, and PyAV is not installed.
        RunError: the folder cannot be written.
    """
    if name not in names():
        raise UnknownNameError("built-in data set", name, names())
    root = folder / name
    if not root.exists():
        try:
            replace_folder(root, _WRITERS[name])
        except RunError:
            if not root.exists():  # otherwise another process wrote it first
                raise
    return root


def _write_digits(root: Path) -> None:
    from sklearn.datasets import load_digits  # the import takes half a second

    digits = load_digits()
    for number, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = root / str(target) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).save(file)


_WRITERS: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {"digits": _write_digits, "moving_digits": moving_digits.write}
)


class _Planter:
    """Draws untouched images of a class-folder data set and writes faults beside them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self._rng = np.random.default_rng(seed)
        self.classes = sorted((p.name for p in root.iterdir() if p.is_dir()), key=natural)
        files = sorted((p for p in root.rglob("*") if p.is_file()), key=lambda p: natural(p.as_posix()))
        if len(self.classes) < 2 or len(files) < 40:
            raise DataError(f"{root} is too small to plant faults in: 2 classes and 40 images are needed.")
        self._fresh = [files[i] for i in self._rng.permutation(len(files))]

    def take(self) -> Path:
        """Return an image that no fault uses yet."""
        file: Path = self._fresh.pop()
        return file

    def other(self, label: str) -> str:
        """Draw another class."""
        return str(self._rng.choice([name for name in self.classes if name != label]))

    def put(self, kind: str, detail: str, data: bytes, label: str, suffix: str) -> Fault:
        """Write a new file into a class folder."""
        file = self.root / label / f"planted-{kind.replace(' ', '-')}{suffix}"
        for number in range(2, 1000):
            if not file.exists():
                break
            file = file.with_name(f"planted-{kind.replace(' ', '-')}-{number}{suffix}")
        file.write_bytes(data)
        return Fault(kind, file.relative_to(self.root).as_posix(), detail)


def plant_faults(folder: Path, seed: int) -> list[Fault]:
    """Add every fault that the check must find to class folders, and return the faults.

    This changes `folder`, so pass a copy. Swapped labels are included, although only a trained network finds them.
    """
    planter = _Planter(folder, seed)
    faults = [plant(planter) for plant in _PLANTS for _ in range(2)]
    faults += [_swapped_label(planter) for _ in range(6)]
    return faults


def _duplicate_in_other_class(p: _Planter) -> Fault:
    file = p.take()
    label = p.other(file.parent.name)
    return p.put(
        "conflict", f"equal to {file.parent.name}/{file.name}", file.read_bytes(), label, file.suffix
    )


def _duplicate_in_same_class(p: _Planter) -> Fault:
    file = p.take()
    label = file.parent.name
    return p.put("twins", f"equal to {label}/{file.name}", file.read_bytes(), label, file.suffix)


def _truncated(p: _Planter) -> Fault:
    file = p.take()
    data = _encoded(_scene(p, file), "JPEG")
    return p.put("truncated", "second half missing", data[: len(data) // 2], file.parent.name, ".jpg")


def _text(p: _Planter) -> Fault:
    return p.put("text", "a line of text", b"not an image\n", p.take().parent.name, ".jpg")


def _empty(p: _Planter) -> Fault:
    return p.put("empty", "0 bytes", b"", p.take().parent.name, ".png")


def _exif(p: _Planter) -> Fault:
    file = p.take()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = _scene(p, file).transpose(Image.Transpose.ROTATE_90)
    return p.put(
        "exif", "orientation 6", _encoded(turned, "JPEG", exif=exif.tobytes()), file.parent.name, ".jpg"
    )


def _cmyk(p: _Planter) -> Fault:
    file = p.take()
    return p.put(
        "cmyk", "four inks", _encoded(_scene(p, file).convert("CMYK"), "JPEG"), file.parent.name, ".jpg"
    )


def _deep(p: _Planter) -> Fault:
    file = p.take()
    values = np.asarray(_scene(p, file).convert("L")).astype(np.uint16) * 257
    return p.put(
        "16-bit", "16 bits a value", _encoded(Image.fromarray(values), "PNG"), file.parent.name, ".png"
    )


def _alpha(p: _Planter) -> Fault:
    file = p.take()
    image = _scene(p, file).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return p.put("alpha", "a transparent edge", _encoded(image, "PNG"), file.parent.name, ".png")


def _animated(p: _Planter) -> Fault:
    file = p.take()
    first = _scene(p, file).convert("L")
    data = BytesIO()
    first.save(data, "GIF", save_all=True, append_images=[Image.eval(first, lambda v: 255 - v)])
    return p.put("animated", "two frames", data.getvalue(), file.parent.name, ".gif")


def _flat(p: _Planter) -> Fault:
    level = int(p._rng.integers(0, 256))
    return p.put(
        "flat", f"all {level}", _encoded(Image.new("L", (8, 8), level), "PNG"), p.take().parent.name, ".png"
    )


def _swapped_label(p: _Planter) -> Fault:
    file = p.take()
    label = p.other(file.parent.name)
    moved = p.root / label / f"moved-{file.parent.name}-{file.name}"
    file.rename(moved)
    return Fault("swapped label", moved.relative_to(p.root).as_posix(), f"really {file.parent.name!r}")


_PLANTS: tuple[Callable[[_Planter], Fault], ...] = (
    _duplicate_in_other_class, _duplicate_in_same_class, _truncated, _text, _empty, _exif, _cmyk, _deep, _alpha,
    _animated, _flat,
)  # fmt: skip


def _scene(p: _Planter, file: Path) -> Image.Image:
    """Return the image enlarged and with noise, so that all planted files are different."""
    image = Image.open(file).convert("RGB").resize((64, 48), Image.Resampling.BICUBIC)
    noise = p._rng.integers(-8, 9, (48, 64, 3))
    return Image.fromarray(np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, exif: bytes = b"") -> bytes:
    data = BytesIO()
    image.save(data, kind, exif=exif)
    return data.getvalue()
