"""Nothing is converted in silence: what decoding did to an image is said, and what it cannot do, too."""

from __future__ import annotations

import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encode, put, scene
from PIL import Image, PngImagePlugin
from profiles import (
    P3,
    SRGB,
    cmyk_profile,
    grey_profile,
    heic,
    matrix_profile,
    srgb,
    srgb_curve,
)
from tiffs import tiff

from vitrail.core.errors import DataError, MissingExtraError
from vitrail.data import colour_profile, png
from vitrail.data import decode as d
from vitrail.data.decode import as_array, decode, glance
from vitrail.data.image_facts import Memory, look
from vitrail.data.open_image import load
from vitrail.data.prepare import prepare

INFRARED = np.dstack([scene(1), scene(2)[..., :1]])


@pytest.mark.parametrize("extra", [(), (0,)])
@pytest.mark.parametrize("packed", [False, True])
def test_infrared_is_no_transparency(extra: tuple[int, ...], packed: bool) -> None:
    data = tiff(INFRARED, meaning=2, extra=extra, packed=packed)
    shown = decode(data)
    np.testing.assert_array_equal(shown.image, scene(1))
    assert shown.notes == (d.bands_left_out(4, 3),)
    assert glance(data, "field.tif", 256)[0].notes == shown.notes
    np.testing.assert_array_equal(decode(data, channels=4).image, INFRARED)
    assert decode(data, channels=4).notes == ()


def test_transparency_of_a_tiff_stays_what_it_is() -> None:
    pixels = np.dstack([scene(1), np.full((53, 71), 255, np.uint8)])
    shown = decode(tiff(pixels, meaning=2, extra=(2,)))
    assert shown.notes == (d.ALPHA,)
    np.testing.assert_array_equal(shown.image, scene(1))
    both = decode(tiff(np.dstack([pixels, scene(2)[..., :1]]), meaning=2, extra=(2, 0)))
    assert both.notes == (d.bands_left_out(5, 4), d.ALPHA)


def test_bands_beside_grey_and_of_sixteen_bits_are_left_out_and_said() -> None:
    grey = decode(tiff(scene(1)[..., :2], meaning=1, extra=(0,)), channels=1)
    assert grey.notes == (d.bands_left_out(2, 1),)
    deep = INFRARED.astype(np.uint16) * 257
    shown = decode(tiff(deep, meaning=2, extra=(0,)))
    np.testing.assert_array_equal(shown.image, scene(1))
    assert set(shown.notes) == {d.DEEP, d.bands_left_out(4, 3)}
    np.testing.assert_array_equal(decode(tiff(deep, meaning=2, extra=(0,)), channels=4).image, INFRARED)


def test_bands_of_no_photograph_are_refused_by_their_number() -> None:
    with pytest.raises(DataError, match=r"a\.tif is a TIFF of 8 bands .* take"):
        decode(tiff(np.zeros((5, 7, 8), np.uint16)), name="a.tif")


def test_a_page_keeps_what_pillow_would_drop(tmp_path: Path) -> None:
    one, two = Image.fromarray(scene(3)), Image.fromarray(scene(4))
    put(tmp_path / "plain.tif", encode(one, "TIFF", save_all=True, append_images=[two]))
    assert load(tmp_path, "plain.tif", part="page=1").notes == ()
    put(tmp_path / "bands.tif", tiff(INFRARED, meaning=2, extra=(0,)))
    found = load(tmp_path, "bands.tif", part="page=0")
    assert found.notes == (d.bands_left_out(4, 3),)
    pages = encode(one, "TIFF", save_all=True, append_images=[two], tiffinfo={274: 3})
    put(tmp_path / "turned.tif", pages)
    found = load(tmp_path, "turned.tif", part="page=1")
    assert found.notes == (d.EXIF,)
    np.testing.assert_array_equal(found.image, scene(4)[::-1, ::-1])


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("packed", ["raw", "tiff_lzw"])
def test_a_tiff_that_is_turned_says_so(turn: int, packed: str) -> None:
    data = encode(scene(1), "TIFF", tiffinfo={274: turn}, compression=packed)
    shown, size = glance(data, "a.tif", 256)
    assert shown.notes == (() if turn == 1 else (d.EXIF,))
    assert size == shown.image.shape[:2] == ((71, 53) if turn >= 5 else (53, 71))
    np.testing.assert_array_equal(shown.image, decode(data).image)


@pytest.mark.parametrize(("mode", "note"), [("LAB", d.LAB), ("YCbCr", d.YCBCR), ("CMYK", d.CMYK)])
@pytest.mark.parametrize("packed", ["raw", "tiff_lzw"])
def test_other_colours_of_a_tiff_become_rgb_and_are_said(mode: str, note: str, packed: str) -> None:
    data = encode(Image.fromarray(scene(1)).convert(mode), "TIFF", compression=packed)
    shown = decode(data)
    assert shown.notes == (note,)
    assert np.abs(shown.image.astype(int) - scene(1)).mean() < 3
    assert decode(data, channels=1).notes == (note, d.COLOUR)


def test_colour_that_pixels_share_is_refused_in_words() -> None:
    data = tiff(scene(1), meaning=6)  # its tags name no subsampling, which stands for 2 x 2
    with pytest.raises(DataError, match="share their colour"):
        decode(data)


def test_white_may_be_zero_in_sixteen_bits() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16, 1)
    shown = decode(tiff(values, meaning=0), channels=1)
    np.testing.assert_array_equal(shown.image[..., 0].ravel(), np.arange(256)[::-1])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("profile", [srgb(), matrix_profile(SRGB, srgb_curve())])
def test_a_profile_of_srgb_changes_nothing(kind: str, profile: bytes) -> None:
    shown = decode(encode(scene(1), kind, icc_profile=profile))
    np.testing.assert_array_equal(shown.image, decode(encode(scene(1), kind)).image)
    assert shown.notes == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "AVIF"])
def test_colours_of_another_profile_are_brought_to_srgb(kind: str) -> None:
    grey = np.full((16, 16, 3), 120, np.uint8)
    red = np.zeros((16, 16, 3), np.uint8) + np.array([180, 90, 90], np.uint8)
    wide = {"icc_profile": matrix_profile(P3, srgb_curve())}
    shown = decode(encode(red, kind, **wide))
    assert shown.notes == (colour_profile.PROFILE,)
    # Computed by hand: linear Display P3 -> XYZ -> linear sRGB -> its curve.
    assert np.abs(shown.image[8, 8].astype(int) - [191, 86, 87]).max() <= 4
    neutral = decode(encode(grey, kind, **wide)).image[8, 8].astype(int)
    assert np.abs(neutral - 120).max() <= 3  # greys stay grey
    assert glance(encode(red, kind, **wide), "a", 8)[0].notes == shown.notes
    held = as_array(Image.open(BytesIO(encode(red, kind, **wide))))
    np.testing.assert_array_equal(held, shown.image)


def test_greys_inks_palettes_and_transparency_follow_their_profiles() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    shown = decode(encode(ramp, icc_profile=grey_profile(1.0)), channels=1)
    assert shown.notes == (colour_profile.PROFILE,)
    light = np.arange(256) / 255
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(shown.image.ravel(), 255 * curve, atol=1.5)
    inks = Image.fromarray(scene(4)).convert("CMYK")
    printed = decode(encode(inks, "JPEG", icc_profile=cmyk_profile()))
    assert printed.notes == (d.CMYK, colour_profile.PROFILE)
    assert printed.image.mean() > decode(encode(inks, "JPEG")).image.mean() + 50
    wide = matrix_profile(P3, srgb_curve())
    whole = decode(encode(Image.fromarray(scene(4)).quantize(16), icc_profile=wide))
    assert whole.notes == (d.PALETTE, colour_profile.PROFILE)
    clear = np.dstack([scene(5), np.full((53, 71), 255, np.uint8)])
    clear[:9, :, 3] = 0
    laid = decode(encode(clear, icc_profile=wide))
    assert laid.notes == (colour_profile.PROFILE, d.ALPHA)
    assert (laid.image[:9] == 255).all()
    np.testing.assert_array_equal(laid.image[9:], decode(encode(scene(5), icc_profile=wide)).image[9:])


def test_what_cannot_be_applied_is_said() -> None:
    assert decode(encode(scene(1), icc_profile=b"garbage" * 30)).notes == (colour_profile.BROKEN_PROFILE,)
    assert decode(encode(scene(1), icc_profile=grey_profile(1.0))).notes == (colour_profile.OTHER_PROFILE,)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    shown = decode(encode(scene(1), "JPEG", exif=exif))
    assert shown.notes == (colour_profile.ADOBE_RGB,)
    for stated, notes in ((100_000, (colour_profile.GAMMA,)), (45_455, ())):
        gamma = _with_chunk(encode(scene(1)), b"gAMA", struct.pack(">I", stated))
        assert decode(gamma).notes == notes
    raw = decode(encode(scene(1), icc_profile=matrix_profile(P3, srgb_curve())), raw=True)
    np.testing.assert_array_equal(raw.image, scene(1))
    assert raw.notes == (colour_profile.NOT_APPLIED,)


def test_much_text_does_not_break_a_picture() -> None:
    packed, many = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    packed.add_text("notes", "x" * 3_000_000, zip=True)
    many.add_itxt("prompt", "y" * 3_000_000, zip=True)
    for i in range(70):
        many.add_text(f"key{i}", "z" * 1_000_000)
    for texts in (packed, many):
        data = encode(scene(1), pnginfo=texts)
        shown = decode(data)
        np.testing.assert_array_equal(shown.image, scene(1))
        assert shown.notes == ()
        assert (
            decode(_with_chunk(encode(scene(1)), b"zTXt", b"a\0\0" + zlib.compress(b"b" * 2_000_000))).notes
            == ()
        )
    with pytest.raises(DataError, match=r"its end is missing|broken"):
        decode(data[: len(data) // 2])
    assert png.without_texts(encode(scene(1)))[0] == encode(scene(1))


def test_a_large_profile_is_applied_all_the_same() -> None:
    large = matrix_profile(P3, srgb_curve()) + bytes(2_000_000)
    shown = decode(encode(scene(1), icc_profile=large))
    np.testing.assert_array_equal(
        shown.image, decode(encode(scene(1), icc_profile=matrix_profile(P3, srgb_curve()))).image
    )


def test_sixteen_bits_of_jpeg_2000_are_said() -> None:
    data = encode(scene(1), "JPEG2000")
    at = data.index(b"\xff\x4f\xff\x51") + 42
    assert decode(data).notes == ()
    deep = bytearray(data)
    deep[at : at + 9 : 3] = bytes([15] * 3)
    assert d.DEEP in decode(bytes(deep)).notes


@pytest.fixture
def heif() -> Any:
    return pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: HEIC is not tested")


def test_iphone_photographs_are_read(heif: Any) -> None:
    smooth = scene(1, (64, 96))
    shown = decode(heic(smooth, heif))
    assert shown.notes == ()
    assert np.abs(shown.image.astype(int) - smooth).mean() < 8
    wide = heic(smooth, heif, icc_profile=matrix_profile(P3, srgb_curve()))
    assert decode(wide).notes == (colour_profile.PROFILE,)
    exif = Image.Exif()
    exif[274] = 6
    turned, size = glance(heic(smooth, heif, exif=exif.tobytes()), "a.heic", 16)
    assert turned.notes == (d.EXIF,)
    assert turned.image.shape == (*size, 3)


def test_a_broken_heic_is_refused(heif: Any) -> None:
    data = heic(scene(1), heif)
    with pytest.raises(DataError, match=r"a\.heic is a HEIC image and broken"):
        decode(data[: len(data) // 2], name="a.heic")


def test_the_extra_for_heic_is_named_and_its_lack_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    put(tmp_path / "a.heic", photo)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitrail\[heif\]'"):
        decode(tmp_path / "a.heic")
    memory = Memory(tmp_path / "memory.sqlite")
    facts = look(tmp_path, "a.heic", memory)
    memory.keep()
    assert "vitrail[heif]" in facts.error
    assert memory.recall(facts.hash) is None
    memory.close()


def test_check_and_the_head_of_a_training_count_conversions(tmp_path: Path) -> None:
    for number in range(6):
        label = "ab"[number % 2]
        data = tiff(np.dstack([scene(number), scene(9)[..., :1]]), meaning=2, extra=(0,))
        put(tmp_path / "fields" / label / f"{number}.tif", data)
    prepared = prepare(tmp_path / "fields")
    said = f"6 images: {d.bands_left_out(4, 3)} (all of them)."
    assert said in prepared.lines()
    assert said in prepared.opening()


def _with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Return a PNG file with a chunk more behind its head."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + chunk + data[33:]
