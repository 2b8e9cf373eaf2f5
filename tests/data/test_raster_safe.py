"""Folders of Sentinel-2: which files are bands, their reflectance, and clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import PIXEL, box, layer, write

from vitrail.core.errors import DataError
from vitrail.data.layouts import sniff
from vitrail.data.options import LayoutOptions
from vitrail.data.rasters.safe import bands_of
from vitrail.data.rasters.sources import JOIN
from vitrail.data.rasters.stack import open_stack

GRANULE = "S2A_MSIL2A_20240601.SAFE/GRANULE/L2A_T20TLR"
HEADER = """<a><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE><BOA_ADD_OFFSET_VALUES_LIST>
<BOA_ADD_OFFSET band_id="1">-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="4">-500</BOA_ADD_OFFSET>
</BOA_ADD_OFFSET_VALUES_LIST></a>"""


def product(root: Path) -> Path:
    """Write a product of two bands of 40 and 20 pixels, previews, and a cloud; GeoTIFF stands for JPEG 2000."""
    data = root / GRANULE / "IMG_DATA"
    for size in ("R10m", "R20m"):
        (data / size).mkdir(parents=True)
    fine = np.full((1, 40, 40), 3_000, np.uint16)
    fine[0, :2] = 0
    write(data / "R10m/T20TLR_B02_10m.tif", fine)
    write(data / "R10m/T20TLR_TCI_10m.tif", np.ones((3, 40, 40), np.uint8))
    coarse = np.full((1, 20, 20), 2_500, np.uint16)
    write(data / "R20m/T20TLR_B02_20m.tif", coarse, pixel=2 * PIXEL)
    write(data / "R20m/T20TLR_B05_20m.tif", coarse, pixel=2 * PIXEL)
    clouds = np.full((1, 20, 20), 4, np.uint8)
    clouds[0, 10:12, 10:12] = 9
    write(data / "R20m/T20TLR_SCL_20m.jp2", clouds, pixel=2 * PIXEL)
    (root / "S2A_MSIL2A_20240601.SAFE/MTD_MSIL2A.xml").write_text(HEADER, encoding="utf-8")
    return root / "S2A_MSIL2A_20240601.SAFE"


def test_each_band_is_read_at_its_finest_without_previews(tmp_path: Path) -> None:
    folder = product(tmp_path)
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 10, 10), box(10, 10, 20, 20)], name=["bog", "wood"])
    layout = sniff(folder, LayoutOptions(labels=str(path)))
    names = [one.rpartition("/")[2] for one in layout.found[0].path.split(JOIN)]
    assert names == ["T20TLR_B02_10m.tif", "T20TLR_B05_20m.tif"]
    assert layout.raster is not None
    assert [band.called for band in layout.raster.bands] == ["B02 (reflectance)", "B05 (reflectance)"]
    assert any("3 rasters left aside" in note for note in layout.notes)
    with pytest.raises(DataError, match="SAFE has no labels"):
        sniff(folder)


def test_numbers_become_reflectance_and_clouds_are_missing(tmp_path: Path) -> None:
    product(tmp_path)
    data = f"{GRANULE}/IMG_DATA"
    stack = open_stack(tmp_path, f"{data}/R10m/T20TLR_B02_10m.tif|{data}/R20m/T20TLR_B05_20m.tif")
    values = stack.read((0, 0, 40, 40))
    np.testing.assert_allclose(
        values[5, 5], [0.2, 0.2], rtol=1e-6
    )  # (3000 - 1000) / 10000, (2500 - 500) / 10000
    assert np.isnan(values[:2, :, 0]).all()
    assert np.isnan(values[20:24, 20:24]).all()
    assert np.isnan(values[2:, :, 0]).sum() == 16
    assert "T20TLR_SCL_20m.jp2 calls clouds or shadows are missing data" in stack.notes[0]
    assert len(stack.notes) == 2


def test_a_product_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    folder = product(tmp_path)
    (folder / "MTD_MSIL2A.xml").write_text("<a></a>", encoding="utf-8")
    with pytest.raises(DataError, match=r"MTD_MSIL2A\.xml of .* Download the product again"):
        open_stack(tmp_path, f"{GRANULE}/IMG_DATA/R10m/T20TLR_B02_10m.tif")


def test_files_of_one_band_each_are_one_stack() -> None:
    names = ["a_B02_10m.jp2", "a_B02_20m.jp2", "a_B8A_20m.jp2", "s1_vv.tif", "a_SCL_20m.jp2"]
    assert bands_of(names) == ["a_B02_10m.jp2", "a_B8A_20m.jp2", "s1_vv.tif"]
