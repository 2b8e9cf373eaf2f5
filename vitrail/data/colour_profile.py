"""Convert the colours of a file to sRGB, with which networks are trained, by its ICC profile.

A profile is compared with sRGB by its effect on colours, not by its bytes, because dozens of sRGB profiles are in use.
A profile with the effect of sRGB is not applied and not reported.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms

PROFILE = "colours brought to sRGB by its colour profile"
OTHER_PROFILE = "its colour profile is of other colours than its own: taken as sRGB"
BROKEN_PROFILE = "its colour profile is broken: taken as sRGB"
ADOBE_RGB = "its EXIF tags say Adobe RGB without a profile: taken as sRGB"
NOT_APPLIED = "its colour profile is not applied: numbers as they are"
GAMMA = "the gamma that it states is not applied: taken as sRGB"

NEAR = 3
"""Largest difference in levels (of 255) of a profile that counts as sRGB: curves are tables, values are rounded."""

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_USUAL_GAMMA = (0.43, 0.48)  # 1 / 2.2, as files state sRGB
_LATTICE = 18  # steps of 15 from 0 to 255


class _Profile(NamedTuple):
    """A profile: the mode of its colours ("" if it is broken), and whether it is sRGB."""

    mode: str
    plain: bool


def profile_note(image: Image.Image) -> list[str]:
    """Return the note for an image whose colour profile is not applied; no note for sRGB."""
    data = image.info.get("icc_profile")
    return [] if not data or _profile(data).plain else [NOT_APPLIED]


def in_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return a loaded image in sRGB, and notes on the conversion; the same image if it already is in sRGB."""
    data = image.info.get("icc_profile")
    if not data:
        return image, []
    profile = _profile(data)
    if profile.plain or image.mode == "1":
        return image, []
    if not profile.mode:
        return image, [BROKEN_PROFILE]
    if profile.mode != _base(image.mode):
        return image, [OTHER_PROFILE]
    return _applied(image, data, profile.mode), [PROFILE]


def stated_otherwise(image: Image.Image) -> list[str]:
    """Return notes on colour information other than sRGB in an opened file without a profile."""
    if image.info.get("icc_profile"):
        return []
    if image.format == "PNG":
        gamma = image.info.get("gamma")
        usual = gamma is None or "srgb" in image.info or _USUAL_GAMMA[0] <= gamma <= _USUAL_GAMMA[1]
        return [] if usual else [GAMMA]
    if image.format not in {"JPEG", "MPO"} or "exif" not in image.info:
        return []
    try:
        adobe = image.getexif().get_ifd(ExifTags.IFD.Interop).get(1) == "R03"
    except Exception:  # the reader can raise any exception for broken tags, which are reported elsewhere
        return []
    return [ADOBE_RGB] if adobe else []


def _base(mode: str) -> str:
    """Return the mode of an image's colours, without transparency or a palette; "" if no profile applies."""
    bases = {"L": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "LAB": "", "HSV": ""}
    return bases.get(mode, "RGB")


def _applied(image: Image.Image, data: bytes, base: str) -> Image.Image:
    if base == "L":
        whole = image.convert("LA") if image.mode == "La" or "transparency" in image.info else image
        bands = whole.split()
        return Image.merge(whole.mode, [bands[0].point(_grey_curve(data)), *bands[1:]])
    if base == "CMYK":
        return _through(_transform(data, "CMYK", "RGB"), image)
    clear = image.mode in {"RGBA", "RGBa", "PA"} or "transparency" in image.info
    mode = "RGBA" if clear else "RGB"
    colour = image if image.mode == mode else image.convert(mode)
    return _through(_transform(data, mode, mode), colour)


def _through(transform: Any, image: Image.Image) -> Image.Image:
    changed: Image.Image = transform.apply(image)
    return changed


@lru_cache(maxsize=16)
def _transform(data: bytes, source: str, target: str) -> Any:
    srgb = ImageCms.createProfile("sRGB")
    profile = ImageCms.ImageCmsProfile(BytesIO(data))
    # The tables that Little CMS precomputes are coarse; a grey image needs only 256 values, so they are exact.
    exact = ImageCms.Flags.NOOPTIMIZE if source == "L" else ImageCms.Flags.HIGHRESPRECALC
    return ImageCms.buildTransform(profile, srgb, source, target, flags=exact)


@lru_cache(maxsize=16)
def _grey_curve(data: bytes) -> list[int]:
    """Return the converted value of each of the 256 grey levels."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return [int(grey) for grey in np.asarray(_through(_transform(data, "L", "RGB"), ramp))[0, :, 1]]


@lru_cache(maxsize=64)
def _profile(data: bytes) -> _Profile:
    try:
        mode = _SPACES.get(ImageCms.ImageCmsProfile(BytesIO(data)).profile.xcolor_space.strip(), "other")
        if mode == "other":
            return _Profile(mode, plain=False)
        if mode == "L":
            return _Profile(mode, plain=_is_near(np.asarray(_grey_curve(data)), np.arange(256)))
        transform = _transform(data, mode, "RGB")
    except (OSError, ValueError, ImageCms.PyCMSError):
        return _Profile("", plain=False)
    if mode == "CMYK":
        return _Profile(mode, plain=False)
    steps = np.linspace(0, 255, _LATTICE).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(_LATTICE, -1, 3)
    return _Profile(mode, _is_near(np.asarray(_through(transform, Image.fromarray(colours))), colours))


def _is_near(one: Any, other: Any) -> bool:
    return bool(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max() <= NEAR)
