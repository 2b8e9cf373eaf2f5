from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encode, scene
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data import decode as d
from vitrail.data.decode import as_array, decode


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_orientation_is_undone(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = Image.fromarray(scene(1))
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[turn]
    if undo is not None:
        stored = stored.transpose(Image.Transpose(undo))
    shown = decode(encode(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(shown.image, scene(1))
    assert shown.notes == (() if turn == 1 else (d.EXIF,))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_broken_exif_tags_do_not_spoil_a_whole_picture(kind: str) -> None:
    shown = decode(encode(scene(1), kind, exif=b"Exif\0\0garbage"))
    assert shown.notes == (d.NO_EXIF,)
    assert shown.image.shape == (53, 71, 3)


def test_a_turned_jpeg_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(
        Image.fromarray(scene(2)).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95
    )
    shown = decode(data)
    assert shown.notes == (d.EXIF,)
    assert shown.image.shape == (53, 71, 3)
    assert np.abs(shown.image.astype(int) - scene(2)).mean() < 5


def test_a_plain_jpeg_is_what_pillow_decodes() -> None:
    data = encode(scene(3), "JPEG")
    shown = decode(data)
    np.testing.assert_array_equal(shown.image, np.asarray(Image.open(BytesIO(data))))
    assert shown.notes == ()


def test_cmyk_palette_grey_and_bilevel_become_colour() -> None:
    rgb = Image.fromarray(scene(4))
    assert decode(encode(rgb.convert("CMYK"), "JPEG")).notes == (d.CMYK,)
    palette = decode(encode(rgb.quantize(16), "PNG"))
    assert palette.notes == (d.PALETTE,)
    assert np.unique(palette.image.reshape(-1, 3), axis=0).shape[0] <= 16
    grey = decode(encode(rgb.convert("L"), "PNG"))
    assert grey.notes == (d.GREY,)
    assert (grey.image == grey.image[..., :1]).all()
    assert set(np.unique(decode(encode(rgb.convert("1"), "PNG")).image)) <= {0, 255}


def test_transparency_is_laid_on_white() -> None:
    pixels = np.dstack([scene(5), np.full((53, 71), 255, np.uint8)])
    pixels[:10, :, 3] = 0
    shown = decode(encode(pixels))
    assert shown.notes == (d.ALPHA,)
    assert (shown.image[:10] == 255).all()
    np.testing.assert_array_equal(shown.image[10:], scene(5)[10:])
    kept = decode(encode(pixels), channels=4)
    np.testing.assert_array_equal(kept.image, pixels)
    assert kept.notes == ()


def test_a_transparent_palette_entry_is_seen() -> None:
    image = Image.fromarray(scene(6)).quantize(8)
    assert set(decode(encode(image, "GIF", transparency=0)).notes) >= {d.ALPHA}
    assert decode(encode(image, "PNG", transparency=0)).notes == (d.PALETTE, d.ALPHA)


def test_sixteen_bits_are_scaled_not_cut() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    shown = decode(encode(values), channels=1)
    np.testing.assert_array_equal(shown.image[..., 0], np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert shown.notes == (d.DEEP,)
    assert d.DEEP in decode(encode(values, "TIFF")).notes


def test_sixteen_bits_in_colour_are_noticed() -> None:
    shown = decode(_deep_colour_png(np.full((5, 7, 3), 0x8000, ">u2")))
    assert d.DEEP in shown.notes
    assert shown.image.shape == (5, 7, 3)


def test_the_first_of_several_frames_is_taken() -> None:
    first, second = Image.fromarray(scene(7)).convert("L"), Image.fromarray(scene(8)).convert("L")
    data = encode(first, "GIF", save_all=True, append_images=[second])
    shown = decode(data, channels=1)
    assert d.FRAMES in shown.notes
    np.testing.assert_array_equal(shown.image[..., 0], np.asarray(first))


def test_colour_asked_as_grey_is_said() -> None:
    shown = decode(encode(scene(9)), channels=1)
    assert shown.image.shape == (53, 71, 1)
    assert shown.notes == (d.COLOUR,)
    assert decode(encode(scene(9, channels=1).squeeze(-1)), channels=1).notes == ()


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO"]
)
def test_every_kind_is_read(kind: str) -> None:
    shown = decode(encode(scene(1, (48, 48)), kind))
    assert shown.image.shape == (48, 48, 3)
    assert np.abs(shown.image.astype(int) - scene(1, (48, 48))).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_a_cut_off_file_is_refused(kind: str, share: float) -> None:
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    with pytest.raises(DataError, match=r"a\.bin"):
        decode(data[: int(len(data) * share)], name="a.bin")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes"),
        (b"hello, this is a note", "text"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"\0" * 100, "zeros"),
        (bytes(range(128, 256)), "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
        ("第一行".encode(), "text"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        decode(data, name="photo.jpg")
    assert str(error.value).startswith("photo.jpg")
    assert str(error.value).endswith(".")


def test_a_bomb_is_not_opened() -> None:
    with pytest.raises(DataError, match="pixels"):
        decode(_flat_png(20_000, 20_000), name="bomb.png")
    with pytest.raises(DataError, match="pixels"):
        decode(_flat_png(10_000, 10_000), name="bomb.png")


def test_numbers_without_a_known_range_are_refused() -> None:
    for values in (np.linspace(-1, 1, 35, dtype=np.float32), np.arange(35, dtype=np.int32)):
        with pytest.raises(DataError, match="32 bits"):
            decode(encode(Image.fromarray(values.reshape(5, 7)), "TIFF"))


def test_maps_of_more_than_eight_bits_fill_their_range() -> None:
    values = np.arange(0, 1024, 4, dtype=">u2").reshape(16, 16)
    shown = decode(b"P5 16 16 1020\n" + values.tobytes(), channels=1)
    np.testing.assert_allclose(shown.image[..., 0], np.arange(256).reshape(16, 16), atol=1)
    assert shown.notes == (d.DEEP,)


def test_twelve_bits_fill_their_range() -> None:
    """Pillow reads such a TIFF but cannot write one: 1 x 2 pixels, 0xFFF and 0x800, in three bytes."""
    fields = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    head = b"II*\0" + struct.pack("<I", 12) + b"\xff\xf8\x00\0"
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    shown = decode(head + struct.pack("<H", len(fields)) + entries + struct.pack("<I", 0), channels=1)
    assert shown.image[..., 0].tolist() == [[255, 128]]


def test_missing_and_locked_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        decode(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="cannot be read"):
        decode(tmp_path)
    with pytest.raises(DataError, match="channels"):
        decode(encode(scene(1)), channels=5)


def test_a_path_bytes_and_an_open_file_are_one(tmp_path: Path) -> None:
    data = encode(scene(1))
    file = tmp_path / "雪 ☃ 1.png"
    file.write_bytes(data)
    for source in (file, data, BytesIO(data)):
        np.testing.assert_array_equal(decode(source).image, scene(1))


def test_pictures_in_memory_become_the_same_array() -> None:
    pixels = scene(1)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for given in (
        Image.fromarray(pixels),
        pixels,
        tensor,
        tensor.float() / 255,
        pixels.astype(np.uint16) * 257,
        pixels / 255.0,
    ):
        np.testing.assert_array_equal(as_array(given), pixels)
    assert as_array(pixels, channels=1).shape == (53, 71, 1)
    assert as_array(pixels[..., 0]).shape == (53, 71, 3)
    assert as_array(np.ones((5, 7), bool), channels=1).max() == 255


@pytest.mark.parametrize(
    "given",
    ["a string", np.zeros((3, 53, 71), np.uint8), np.full((5, 7, 3), 300.0), np.zeros((0, 7, 3), np.uint8)],
)
def test_pictures_in_memory_that_are_not_understood(given: object) -> None:
    with pytest.raises(DataError):
        as_array(given)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, depth: int, colour: int, body: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _flat_png(width: int, height: int) -> bytes:
    packer = zlib.compressobj(9)
    row = b"\0" * (width + 1)
    return _png(width, height, 8, 0, b"".join(packer.compress(row) for _ in range(height)) + packer.flush())


def _deep_colour_png(values: np.ndarray[tuple[int, int, int], np.dtype[np.uint16]]) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return _png(values.shape[1], values.shape[0], 16, 2, zlib.compress(rows))
