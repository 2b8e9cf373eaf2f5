"""Raw images keep the numbers of their files: other depths, other bands, no data."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encode, put, scene
from PIL import Image
from tiffs import tiff
from torch.nn.functional import interpolate

from vitrail.core.errors import DataError, SettingError
from vitrail.data import decode as d
from vitrail.data.augment import build
from vitrail.data.decode import as_array, decode, glance, preview
from vitrail.data.open_image import load
from vitrail.data.preprocess import Preprocess
from vitrail.data.resize import Span, resize

BANDS = tuple(f"B{i:02}" for i in range(1, 13))


def bands(dtype: str = "uint16", size: tuple[int, int] = (37, 53), many: int = 12) -> np.ndarray:
    """Return numbers (height, width, bands) over the whole range that matters."""
    draw = np.random.default_rng(0)
    if dtype.startswith("f"):
        return draw.normal(0, 3000, (*size, many)).astype(dtype)
    return draw.integers(0, min(10_000, np.iinfo(dtype).max), (*size, many)).astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("tile", "apart"), [(0, False), (0, True), (16, False), (16, True)])
def test_bands_of_a_tiff_are_what_was_written(
    order: str, big: bool, packed: bool, tile: int, apart: bool
) -> None:
    values = bands()
    data = tiff(values, order=order, big=big, packed=packed, tile=tile, apart=apart, names=BANDS)
    shown = decode(data, 12, raw=True)
    assert shown.image.dtype == np.uint16
    np.testing.assert_array_equal(shown.image, values)
    assert (shown.bands, shown.scale, shown.notes) == (BANDS, 65535.0, ())
    assert shown.data.all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
def test_numbers_of_every_kind_are_kept(dtype: str) -> None:
    values = bands(dtype, many=2)
    image = decode(tiff(values), 2, raw=True).image
    assert image.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    np.testing.assert_array_equal(image, values.astype(image.dtype))


@pytest.mark.parametrize("packing", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
@pytest.mark.parametrize(("mode", "predictor"), [("I;16", 1), ("I;16", 2), ("F", 1), ("F", 3)])
def test_what_libtiff_packs_is_unpacked(packing: str, mode: str, predictor: int) -> None:
    if packing == "packbits" and predictor > 1:
        pytest.skip("packbits knows no predictor")
    values = bands("uint16" if mode == "I;16" else "float32", many=1)[..., 0]
    data = encode(Image.fromarray(values), "TIFF", compression=packing, tiffinfo={317: predictor})
    np.testing.assert_array_equal(decode(data, 1, raw=True).image[..., 0], values)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_tiff_is_turned_as_pillow_turns_it(turn: int) -> None:
    values = bands("uint8", many=1)
    data = tiff(values, turn=turn)
    np.testing.assert_array_equal(decode(data, 1, raw=True).image, decode(data, 1).image)
    assert (d.EXIF in decode(data, 1, raw=True).notes) == (turn > 1)


@pytest.mark.parametrize(("dtype", "nothing"), [("uint16", "0"), ("int16", "-9999"), ("float32", "nan")])
def test_where_there_are_no_data_it_is_said(dtype: str, nothing: str) -> None:
    values = bands(dtype, many=3)
    values[5:9, 7:11, 1] = float(nothing)
    values[values == 0] = 1 if nothing != "0" else values[values == 0]
    shown = decode(tiff(values, no_data=nothing), 3, raw=True)
    missing = np.isnan(values) if nothing == "nan" else values == float(nothing)
    assert missing.any()
    assert shown.image.dtype == np.float32
    np.testing.assert_array_equal(shown.data, ~missing)
    np.testing.assert_array_equal(shown.image[~missing], values[~missing])
    whole = decode(tiff(np.maximum(values, 1), no_data="0"), 3, raw=True)
    assert whole.data.all() == (nothing != "nan")


def test_pictures_of_sixteen_bits_keep_them() -> None:
    grey = bands("uint16", many=1)[..., 0]
    shown = decode(encode(grey), 1, raw=True)
    np.testing.assert_array_equal(shown.image[..., 0], grey)
    assert (shown.image.dtype, shown.scale, shown.notes) == (np.uint16, 65535.0, ())
    colour = np.random.default_rng(1).integers(0, 1 << 16, (5, 7, 3), dtype=np.uint16)
    for many in (3, 4):
        deep = np.concatenate([colour, colour[..., :1]], 2)[..., :many]
        shown = decode(_deep_png(deep), many, raw=True)
        np.testing.assert_array_equal(shown.image, deep)
        assert shown.notes == ()


def test_pictures_of_eight_bits_stay_what_they_are() -> None:
    colour = scene(1)
    for data in (encode(colour), encode(Image.fromarray(colour).quantize(256, dither=Image.Dither.NONE))):
        assert decode(data, 3, raw=True).image.dtype == np.uint8
        np.testing.assert_array_equal(decode(data, 3, raw=True).image, decode(data, 3).image)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.fromarray(colour).transpose(Image.Transpose.ROTATE_90), exif=exif)
    np.testing.assert_array_equal(decode(turned, 3, raw=True).image, colour)


def test_a_picture_of_other_bands_is_refused_by_their_names() -> None:
    with pytest.raises(DataError, match=r"a\.tif holds 12 bands \(B01, B02.* takes 3 channels"):
        decode(tiff(bands(), names=BANDS), 3, "a.tif", raw=True)
    with pytest.raises(DataError, match="1 band of uint8"):
        decode(encode(scene(1)[..., 0]), 3, "a.png", raw=True)
    with pytest.raises(DataError, match=r"a\.tif"):
        decode(tiff(bands()), 3, "a.tif")


@pytest.mark.parametrize("share", [0.002, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_that_is_cut_off_is_refused(share: float, packed: bool) -> None:
    data = tiff(bands(), packed=packed)
    with pytest.raises(DataError, match=r"a\.tif"):
        decode(data[: int(len(data) * share)], 12, "a.tif", raw=True)


def test_a_damaged_directory_is_refused() -> None:
    data = bytearray(tiff(bands()))
    start = struct.unpack("<I", data[4:8])[0]
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        spoilt = bytearray(data)
        spoilt[start + int(draw.integers(0, 190))] = int(draw.integers(0, 256))
        try:
            decode(bytes(spoilt), 12, "a.tif", raw=True)
        except DataError:
            refused += 1
    assert refused


def test_a_tiff_too_large_is_not_opened() -> None:
    small, huge = (struct.pack("<HHII", 256, 4, 1, width) for width in (53, 100_000_000))
    with pytest.raises(DataError, match="100,000,000 pixels of 12 bands and is not opened"):
        decode(tiff(bands()).replace(small, huge), 12, raw=True)


def test_arrays_of_npz_and_npy_keep_their_numbers(tmp_path: Path) -> None:
    images = bands("float32", (4, 9), 7 * 5).reshape(4, 9, 7, 5)
    images[1, 2, 3, 4] = np.inf
    np.savez(tmp_path / "set.npz", images=images, deep=(images[..., 0] > 0).astype(np.uint16) * 40_000)
    shown = load(tmp_path, "set.npz!images!1", 5, raw=True)
    np.testing.assert_array_equal(shown.image[shown.data], images[1][np.isfinite(images[1])])
    assert (~shown.data).sum() == 1
    assert load(tmp_path, "set.npz!deep!0", 1, raw=True).image.max() == 40_000
    assert load(tmp_path, "set.npz!images!1!1,2,4,5", 5, raw=True).image.shape == (3, 3, 5)
    data = BytesIO()
    np.save(data, images[0])
    np.testing.assert_array_equal(decode(data.getvalue(), 5, raw=True).image, images[0])
    for wrong in (images, np.array(["a"])):
        put(tmp_path / "wrong.npy", _npy(wrong))
        with pytest.raises(DataError, match=r"wrong\.npy"):
            decode(tmp_path / "wrong.npy", 5, raw=True)


def test_pictures_in_memory_keep_their_numbers() -> None:
    values = bands("float32", many=5)
    np.testing.assert_array_equal(as_array(values, 5, raw=True), values)
    np.testing.assert_array_equal(as_array(torch.from_numpy(values).permute(2, 0, 1), 5, raw=True), values)
    deep = bands("uint16", many=1)[..., 0]
    np.testing.assert_array_equal(as_array(Image.fromarray(deep), 1, raw=True)[..., 0], deep)
    with pytest.raises(DataError, match="5 bands"):
        as_array(values, 3, raw=True)


def test_scans_come_in_their_own_units(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: DICOM is not tested")
    nib = pytest.importorskip("nibabel", reason="nibabel is not installed: NIfTI is not tested")
    hounsfield = np.random.default_rng(0).integers(-1000, 2000, (9, 11)).astype(np.int16)
    hounsfield[0, :3] = -2000
    shown = decode(_dicom(pydicom, hounsfield + 1024, padding=-976), 1, raw=True)
    assert shown.scale == 1.0
    assert np.isnan(shown.image[0, :3, 0]).all()
    np.testing.assert_array_equal(shown.image[1:, :, 0], hounsfield[1:])
    assert decode(_dicom(pydicom, hounsfield + 1024, padding=-976), 1).image.dtype == np.uint8
    volume = np.random.default_rng(0).normal(0, 500, (7, 9, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    found = load(tmp_path, "a.nii.gz!2", 1, raw=True).image[..., 0]
    np.testing.assert_array_equal(found, np.rot90(volume[:, :, 2]))
    assert load(tmp_path, "a.nii.gz!2", 1).image.dtype == np.uint8


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_deep_numbers_are_resized_as_exactly(dtype: str, mode: str) -> None:
    values = bands(dtype, (97, 61), 5)
    pixels = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)
    for whole in ((31, 43), (200, 150), (97, 61)):
        theirs = interpolate(pixels[None], whole, mode=mode, antialias=True)[0]
        ours = resize(values, *(Span(side, 0, side) for side in whole), mode)
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0)  # of ten thousand


@pytest.mark.parametrize("whole", [(31, 43), (120, 90), (97, 61)])
def test_no_data_do_not_bleed(whole: tuple[int, int]) -> None:
    """Numbers of one level with a hole stay at that level, whatever stood in the hole; the hole stays one."""
    values = np.full((97, 61, 2), 7000.0, np.float32)
    values[30:60, 20:45, 0] = np.nan
    found = resize(values, *(Span(side, 0, side) for side in whole))
    hole = torch.isnan(found[0])
    assert float(hole.float().mean()) == pytest.approx(30 * 25 / (97 * 61), abs=0.03)
    assert not torch.isnan(found[1]).any()
    torch.testing.assert_close(found[0][~hole], torch.full_like(found[0][~hole], 7000.0), atol=0.01, rtol=0)
    part = resize(values, Span(whole[0], 5, 20), Span(whole[1], 7, 20))
    torch.testing.assert_close(part, found[:, 5:25, 7:27], atol=0.01, rtol=0, equal_nan=True)


def test_where_nothing_is_known_the_input_is_zero() -> None:
    steps = Preprocess((16, 16), "squash", 1.0, (0.3, 0.6), (0.2, 0.1), 2, scale=10_000)
    values = np.full((32, 32, 2), 5000.0, np.float32)
    values[:8] = np.nan
    for shown in (steps.eval(values)[0], steps.train(values, build("none", channels=2, raw=True), 1)):
        assert float(shown[:, :3].abs().max()) < 1e-5
        torch.testing.assert_close(shown[0, 5:], torch.full((11, 16), 1.0), atol=1e-4, rtol=0)
        torch.testing.assert_close(shown[1, 5:], torch.full((11, 16), -1.0), atol=1e-4, rtol=0)


def test_values_above_255_keep_their_difference() -> None:
    steps = Preprocess((8, 8), "squash", 1.0, (0.5,) * 12, (0.5,) * 12, 12, scale=10_000)
    low, high = (steps.eval(np.full((8, 8, 12), level, np.uint16))[0] for level in (4000, 4001))
    torch.testing.assert_close(high - low, torch.full((12, 8, 8), 2e-4), atol=1e-6, rtol=0)
    back = steps.restore(high)
    torch.testing.assert_close(back, torch.full((12, 8, 8), 4001.0), atol=1e-2, rtol=0)


def test_raw_pictures_are_moved_but_not_rounded() -> None:
    steps = Preprocess((31, 43), "pad", 1.0, (0.5,) * 5, (0.5,) * 5, 5, scale=100.0)
    values = np.random.default_rng(0).uniform(0, 100, (97, 61, 5)).astype(np.float32)
    for name in ("none", "light", "flip_crop"):
        augment = build(name, channels=5, raw=True)
        for key in range(4):
            view = steps.view((97, 61), augment, key)
            shown = view.image(values)
            fits = steps.restore(shown)
            assert not torch.equal(fits, fits.round())
            if name == "light":
                void = torch.from_numpy(view.mask(np.zeros((97, 61), np.uint8), 1) == 1)
                around = torch.nn.functional.max_pool2d((~void)[None].float(), 5, 1, 2)[0] == 0
                assert float(shown[:, around].abs().max()) < 1e-5  # the ground, not black
    with pytest.raises(SettingError, match="flip_crop"):
        build("three", channels=3, raw=True)
    with pytest.raises(SettingError, match="flip_crop"):
        Preprocess((31, 43), scale=65535).view((97, 61), build("trivial"), 1)


def test_which_pictures_are_raw() -> None:
    assert [Preprocess.for_size(32, channels).raw for channels in (1, 3, 4, 12)] == [
        False,
        False,
        False,
        True,
    ]
    deep = Preprocess.for_size(32, 1, 65535)
    assert deep.raw
    assert Preprocess.from_dict(deep.to_dict()) == deep
    old = {key: value for key, value in Preprocess.for_size(32).to_dict().items() if key != "scale"}
    assert Preprocess.from_dict(old) == Preprocess.for_size(32)
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(SettingError, match="positive"):
            Preprocess((32, 32), scale=scale)


def test_bands_can_be_looked_at() -> None:
    values = bands("float32")
    values[:5] = np.nan
    shown = preview(values)
    assert (shown.shape, shown.dtype) == ((37, 53, 3), np.uint8)
    assert (shown[:5] == 0).all()
    assert shown[5:].std() > 50
    np.testing.assert_array_equal(preview(scene(1)), scene(1))
    assert preview(np.full((3, 4, 12), np.nan, np.float32)).max() == 0
    seen, size = glance(tiff(bands()), "a.tif", 256, raw=True)
    assert (seen.image.shape, size) == ((37, 53, 3), (37, 53))


def _npy(array: np.ndarray) -> bytes:
    data = BytesIO()
    np.save(data, array)
    return data.getvalue()


def _deep_png(values: np.ndarray) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(
        ">IIBBBBB", values.shape[1], values.shape[0], 16, {3: 2, 4: 6}[values.shape[2]], 0, 0, 0
    )
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _dicom(pydicom: Any, stored: np.ndarray, padding: int) -> bytes:
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = pydicom.uid.CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = pydicom.uid.generate_uid()
    file.Rows, file.Columns = stored.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    file.PixelPaddingValue = padding
    file.PixelData = stored.astype(np.int16).tobytes()
    data = BytesIO()
    file.save_as(data, enforce_file_format=True)
    return data.getvalue()
