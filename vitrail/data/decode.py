"""Decode image files to arrays. Every conversion is reported; a file that cannot be converted is refused.

Photographs become 8-bit grey or colour images. A network with raw inputs (`Preprocess.raw`) gets the values of the
file (`vitrail.data.raw`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitrail.core.errors import DataError
from vitrail.data import heif, tiff
from vitrail.data.colour_profile import PROFILE, in_srgb, profile_note, stated_otherwise
from vitrail.data.foreign_files import what_else
from vitrail.data.medical import dicom, is_dicom
from vitrail.data.png import without_texts
from vitrail.data.rasters.bands import in_order
from vitrail.data.raw import UNITS, as_numbers, deep_colour, from_dicom, from_tiff, shown, upright

Pixels = NDArray[np.uint8]

RULES = 2
"""Cache format version. Increase it when decoding gives other pixels or notes, to invalidate cached facts."""

EXIF = "turned upright by its EXIF tag"
NO_EXIF = "its EXIF tags are broken: taken as it lies"
FRAMES = "first of several frames"
DEEP = "16 bits scaled to 8"
CMYK = "CMYK converted to RGB"
LAB = "LAB converted to RGB"
YCBCR = "YCbCr converted to RGB"
ALPHA = "transparency laid on white"
PALETTE = "palette written out"
GREY = "grey repeated in every channel"
COLOUR = "colour reduced to grey"

MAX_PIXELS = 89_478_485
"""Pillow's limit for the size of an image: 256 MB after decoding."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO",
)  # fmt: skip  # no others: EPS would run a program, TGA accepts any bytes as an image
_OTHER_COLOURS: Mapping[str, str] = MappingProxyType({"CMYK": CMYK, "LAB": LAB, "YCbCr": YCBCR})
_NPY = b"\x93NUMPY"
_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoded(NamedTuple):
    """A decoded image (height, width, channels) and notes on its conversions.

    `image` is uint8, or for raw values uint8, uint16 or float32 with NaN for missing data. `bands` are the names of
    its channels, if the file states them; `scale` is the largest value of their range, 1 for values in physical units.
    """

    image: NDArray[Any]
    notes: tuple[str, ...]
    bands: tuple[str, ...] = ()
    scale: float = 255.0

    @property
    def data(self) -> NDArray[np.bool_]:
        """Mask of the values that are not missing: (height, width, channels)."""
        return ~np.isnan(self.image) if self.image.dtype.kind == "f" else np.ones(self.image.shape, np.bool_)


def decode(
    source: Path | bytes | BinaryIO,
    channels: int = 3,
    name: str = "",
    raw: bool = False,
    bands: Sequence[str] = (),
) -> Decoded:
    """Decode one image file; `name` is its name in messages if `source` is not a path.

    With `raw` the values of the file are kept, and it must have this number of channels, or the `bands` of these names;
    otherwise the image is converted to 8-bit grey or colour.

    Raises:
        DataError: not an image, broken, too large, values without a known range, or (raw) another number of bands.
    """
    name = name or (str(source) if isinstance(source, Path) else "the image")
    if raw:
        return _with_bands(_raw(_bytes(source, name), name), channels, name, bands)
    if channels not in _MODES:
        raise DataError(f"An image can be read with 1, 3 or 4 channels, not {channels}.")
    data = _bytes(source, name)
    if (plain := _without_pillow(data, channels, name)) is not None:
        return plain
    with _opened(data, name) as image:
        return _noted(_convert(image, channels, name), data)


def glance(data: bytes, name: str, least: int, raw: bool = False) -> tuple[Decoded, tuple[int, int]]:
    """Decode as strictly as `decode`, but a JPEG may be returned smaller, with at least `least` pixels per side.

    Return the image in RGB and the upright (height, width) of the full image; raw values with any number of bands are
    converted for display.

    Raises:
        DataError: as `decode`.
    """
    _bytes(data, name)
    if raw:
        full = _raw(data, name)
        return full._replace(image=preview(full.image)), (full.image.shape[0], full.image.shape[1])
    if (plain := _without_pillow(data, 3, name)) is not None:
        return plain, plain.image.shape[:2]
    with _opened(data, name) as image:
        width, height = image.size
        if image.format == "JPEG":
            image.draft(
                None, (least, least)
            )  # faster, but still reads the whole file: truncation is detected
        small = _noted(_convert(image, 3, name), data)
        rotated = EXIF in small.notes and (_orientation(image) or 1) >= 5
        return small, (width, height) if rotated else (height, width)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image; every exception inside the block becomes a DataError."""
    try:
        with _handle(data, name) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _bomb(name)
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name} {what_else(data)}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _bomb(name) from error
    except Exception as error:  # a decoder can raise any exception for a broken file
        kind = "is a HEIC image and" if heif.is_heif(data) else "is"
        raise DataError(
            f"{name} {kind} broken ({_plain(error)}). Copy it again from where it came from, or delete it."
        ) from error


def _handle(data: bytes, name: str) -> Image.Image:
    """Return the file as a Pillow image, without reading its pixels."""
    if heif.is_heif(data):
        return heif.open_heif(data, name)
    data, profile = without_texts(data)
    image = Image.open(BytesIO(data), formats=FORMATS)
    if profile is not None:
        image.info["icc_profile"] = profile
    return image


def _noted(found: Decoded, data: bytes) -> Decoded:
    """Add the notes that need the bytes of the file: more than 8 bits per value, a wide colour range."""
    bits = heif.bits_of(data)
    notes = [f"{bits} bits scaled to 8"] if bits > 8 and DEEP not in found.notes else []
    notes += [heif.WIDE] if PROFILE not in found.notes and heif.is_wide(data) else []
    return found._replace(notes=(*found.notes, *notes)) if notes else found


def _without_pillow(data: bytes, channels: int, name: str) -> Decoded | None:
    """Decode files that Pillow does not read: NumPy arrays and DICOM; None for any other file."""
    if data.startswith(_NPY):
        return Decoded(as_array(_npy(data, name), channels), ())
    if is_dicom(data):
        values, note = dicom(data, name)
        return Decoded(as_array(values, channels), (note,))
    return _four_bands(data, name) if channels == 4 and tiff.is_tiff(data) else None


def _four_bands(data: bytes, name: str) -> Decoded | None:
    """Decode a TIFF with four bands and no transparency, for a network with four channels; None for other files."""
    try:
        samples = tiff.samples(data)
    except tiff.TiffError:
        return None  # the function that reads its pixels raises the error
    if samples.bands != 4 or samples.colours != 3 or samples.clear:
        return None
    found = from_tiff(data, name, MAX_PIXELS)
    if found is None or found.values.dtype not in (np.uint8, np.uint16):
        return None
    notes = [*([FRAMES] if found.more else []), *([EXIF] if found.orientation in _TURN else [])]
    notes += [DEEP] if found.values.dtype == np.uint16 else []
    return Decoded(upright(_to_uint8(found.values), found.orientation), tuple(notes), found.names)


def preview(image: NDArray[Any]) -> Pixels:
    """Return a decoded image (height, width, channels) for display: uint8 in RGB.

    For raw values these are the first three bands, or the only one, each stretched to its range; missing data is black.
    """
    if image.dtype == np.uint8 and image.shape[2] in {1, 3}:
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    return shown(image)


def as_array(picture: Any, channels: int = 3, raw: bool = False) -> NDArray[Any]:
    """Convert an image in memory to uint8 (height, width, channels), or with `raw` to an array of its values.

    The image is a Pillow image, an array (height, width[, channels]) or a tensor ([channels,] height, width) with
    values 0..255 (uint8), 0..65535 (uint16) or 0..1 (floating); with `raw`, any values.

    Raises:
        DataError: the type, shape or range is not supported.
    """
    if isinstance(picture, Image.Image):
        if raw:
            return _with_bands(_raw_image(picture, "the image"), channels, "the image").image
        return _convert(picture, channels, "the image").image
    if type(picture).__module__.startswith("torch"):
        picture = picture.detach().cpu()
        picture = picture.movedim(0, -1).numpy() if picture.ndim == 3 else picture.numpy()
    if not isinstance(picture, np.ndarray):
        raise DataError(
            f"A {type(picture).__name__} is no image. Give a path, a Pillow image, an array or a tensor."
        )
    if raw:
        return _with_bands(_raw_array(picture, "The image"), channels, "The image").image
    array = _to_uint8(picture)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in _MODES or 0 in array.shape:
        raise DataError(
            f"An image of shape {picture.shape} is not understood. "
            "Arrays are (height, width, channels), tensors (channels, height, width); channels are 1, 3 or 4."
        )
    if array.shape[-1] == channels:
        return np.ascontiguousarray(array)
    return _convert(
        Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array), channels, "the image"
    ).image


def _raw(data: bytes, name: str) -> Decoded:
    """Return the values of a file without conversion, for any number of bands."""
    if data.startswith(_NPY):
        return _raw_array(_npy(data, name), name)
    if is_dicom(data):
        return Decoded(from_dicom(data, name), (UNITS,), scale=1.0)
    if (bands := from_tiff(data, name, MAX_PIXELS)) is not None:
        turned = bands.orientation in _TURN
        notes = [*([FRAMES] if bands.more else []), *([EXIF] if turned else [])]
        image, scale = as_numbers(bands.values, bands.no_data)
        return Decoded(upright(image, bands.orientation), tuple(notes), bands.names, scale)
    with _opened(data, name) as opened:
        return _raw_image(opened, name, data)


def _raw_array(array: NDArray[Any], name: str) -> Decoded:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "biuf":
        raise DataError(
            f"{name} is an array of shape {array.shape} and {array.dtype}, which is no image. Arrays are numbers "
            "(height, width, channels), tensors (channels, height, width)."
        )
    image, scale = as_numbers(array)
    return Decoded(image, (), scale=scale)


def _raw_image(image: Image.Image, name: str, data: bytes = b"") -> Decoded:
    """Return the values of an opened Pillow image, upright; a palette is expanded, CMYK becomes RGB."""
    notes = [FRAMES] if getattr(image, "n_frames", 1) > 1 else []
    kind, deep = _kind_of_deep(image), _is_deep(image)
    samples = _samples(image, name)
    image.load()
    values = deep_colour(data) if deep and data else None
    notes += [DEEP] if deep and values is None and not image.mode.startswith("I") else []
    orientation = _orientation(image)
    notes += _turned(image, samples)[1] + profile_note(image)
    if values is None and image.mode in {"P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "1", "La", "RGBa"}:
        clear = image.mode in {"PA", "La", "RGBa"} or "transparency" in image.info
        wanted = "L" if image.mode == "1" else "RGBA" if clear else "RGB"
        image, note = _to_mode(image, wanted)
        notes += note
    array = np.asarray(image) if values is None else values
    if kind and array.dtype == np.int32:  # 16 bits, as Pillow reads PNG and PNM
        array = array.astype(np.uint16)
    found, scale = as_numbers(array.reshape(*array.shape[:2], -1))
    return Decoded(upright(found, orientation or 1), tuple(notes), scale=4095.0 if kind == "12" else scale)


def _with_bands(found: Decoded, channels: int, name: str, wanted: Sequence[str] = ()) -> Decoded:
    """Return raw values with the wanted bands; DataError for another number of them, which cannot be guessed."""
    if wanted:
        return found._replace(image=in_order(found.image, found.bands, wanted, name), bands=tuple(wanted))
    bands = found.image.shape[2]
    if bands != channels:
        which = f" ({', '.join(found.bands)})" if found.bands else ""
        raise DataError(
            f"{name} holds {bands} {'band' if bands == 1 else 'bands'}{which} of {found.image.dtype}, the network "
            f"takes {channels} channels. Give an image of {channels} bands."
        )
    return found


def _bytes(source: Path | bytes | BinaryIO, name: str) -> bytes:
    try:
        if isinstance(source, bytes):
            data = source
        else:
            data = source.read_bytes() if isinstance(source, Path) else source.read()
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist. Check the spelling of its name.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}. Check its permissions.") from error
    if not data:
        raise DataError(f"{name} is empty (0 bytes). Copy it again from where it came from, or delete it.")
    return data


def _npy(data: bytes, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{name} is broken ({_plain(error)}). Save it again with numpy.save.") from error
    return array


def _convert(image: Image.Image, channels: int, name: str) -> Decoded:
    """Convert an opened Pillow image to the required mode, upright; the order of the steps matters."""
    photograph = image.mode == _MODES[channels] == "RGB" and image.format == "JPEG"
    if photograph and not image.info.keys() & {"exif", "icc_profile"}:
        return Decoded(np.asarray(image), ())  # an ordinary photograph needs no conversion
    notes = [FRAMES] if getattr(image, "n_frames", 1) > 1 else []
    deep, kind = _is_deep(image), _kind_of_deep(image)
    samples, stated = _samples(image, name), stated_otherwise(image)
    image.load()
    image, turned = _turned(image, samples)
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        image = _from_deep(image, kind, name, inverted=samples is not None and samples.white_is_zero)
        deep = True
    image, left_out = _colours_alone(image, samples, channels)
    left_out += [YCBCR] if samples is not None and samples.ycbcr and image.mode != "YCbCr" else []
    image, found = _to_mode(image, _MODES[channels])
    notes = [*notes, *turned, *([DEEP] if deep else []), *left_out, *found, *stated]
    return Decoded(
        np.ascontiguousarray(np.asarray(image).reshape(image.height, image.width, channels)), tuple(notes)
    )


def _samples(image: Image.Image, name: str) -> tiff.Samples | None:
    """Return the meaning of a TIFF's values, before it is loaded; None for other files."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return None
    samples = tiff.samples_of(tags)
    if samples.coarse:
        raise DataError(
            f"{name} holds YCbCr of which several pixels share their colour, not packed, which is not read here. "
            "Save it as RGB, or packed."
        )
    return samples


def _turned(image: Image.Image, samples: tiff.Samples | None) -> tuple[Image.Image, list[str]]:
    """Return a loaded image upright, and notes. Pillow rotates TIFF and HEIC while loading; they only get the note."""
    before = samples.orientation if samples else image.info.get("original_orientation") or 1
    orientation = _orientation(image)
    if orientation in _TURN:
        return image.transpose(_TURN[orientation]), [EXIF]
    if orientation is None:
        return image, [NO_EXIF]
    return image, [EXIF] if before in _TURN else []


def _colours_alone(
    image: Image.Image, samples: tiff.Samples | None, channels: int
) -> tuple[Image.Image, list[str]]:
    """Remove the bands of a TIFF that are neither colour nor transparency; Pillow reads a fourth as transparency."""
    if samples is None or not samples.left_out or (channels == 4 and image.mode == "RGBA"):
        return image, []
    if not samples.clear and image.mode == "RGBA":
        image = Image.merge("RGB", image.split()[:3])
    return image, [bands_left_out(samples.bands, samples.bands - samples.left_out)]


def bands_left_out(bands: int, kept: int) -> str:
    """Return the note on bands of a TIFF that do not fit into a colour image."""
    first = "the first" if kept == 1 else f"the first {kept}"
    return f"{first} of {bands} bands taken, the others (such as infrared) left out"


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 1 to 8, or None if the tags are broken: the pixels may still be intact."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the reader can raise any exception for broken tags
        return None


def _to_mode(image: Image.Image, mode: str) -> tuple[Image.Image, list[str]]:
    notes = []
    if image.mode in {"P", "PA"}:
        notes.append(PALETTE)
    if image.mode in _OTHER_COLOURS:
        notes.append(_OTHER_COLOURS[image.mode])
    if image.mode == "LAB":
        image = image.convert("RGB")
        image.info.pop("icc_profile", None)  # the profile of LAB is no longer valid
    image, found = in_srgb(image)
    notes += found
    clear = image.mode in {"LA", "PA", "La", "RGBA", "RGBa"} or "transparency" in image.info
    if clear and mode != "RGBA":
        notes.append(ALPHA)
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode in {"1", "L", "LA", "La"} and mode != "L":
        notes.append(GREY)
    if mode == "L" and image.mode not in {"1", "L", "LA", "La"} and not _is_grey(image):
        notes.append(COLOUR)
    return (image if image.mode == mode else image.convert(mode)), notes


def _is_grey(image: Image.Image) -> bool:
    values = np.asarray(image.convert("RGB"))
    return bool((values == values[..., :1]).all())


def _is_deep(image: Image.Image) -> bool:
    """Return whether the file has 16 bits per value; in colour Pillow silently drops half of them."""
    return any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def _kind_of_deep(image: Image.Image) -> str:
    """Return the bits of a deep file's range: "16", "12", or "" if they are unknown."""
    tiles = str(getattr(image, "tile", ""))
    if "I;12" in tiles:
        return "12"
    # For PNG and PNM, Pillow scales 16 bits, or the range in the file, to 0 to 65535 in mode I.
    return "16" if ";16" in tiles or image.mode.startswith("I;16") or image.format in {"PNG", "PPM"} else ""


def _from_deep(image: Image.Image, kind: str, name: str, inverted: bool) -> Image.Image:
    values = np.asarray(image)
    if not kind or image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{name} holds numbers of 32 bits, whose black and white nobody can guess. "
            "Save it with 8 or 16 bits a value."
        )
    deep = values.astype(np.uint16)
    deep = 65535 - deep if inverted and kind == "16" else deep  # Pillow inverts only 8-bit files
    grey = Image.fromarray(_to_uint8((deep << 4) | (deep >> 8) if kind == "12" else deep))
    grey.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return grey


def _to_uint8(values: NDArray[Any]) -> Pixels:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(values.dtype, np.floating) and values.size and values.min() >= 0 and values.max() <= 1:
        return np.round(values * 255).astype(np.uint8)
    raise DataError(
        f"An image of {values.dtype} numbers is not understood. "
        "Give 0..255 as uint8, 0..65535 as uint16 or 0..1 as floats."
    )


def _bomb(name: str) -> DataError:
    return DataError(
        f"{name} has more than {MAX_PIXELS:,} pixels and is not opened. Make it smaller, or delete it."
    )


def _plain(error: Exception) -> str:
    text = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    cut_off = any(word in text.lower() for word in ("truncated", "end of", "not enough"))
    return "its end is missing" if cut_off else text
