"""The size of a pixel is taken from its file where that states it, and from nowhere else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail.data.manifest import Row
from vitrail.data.spacing import of_row, stated


def tiff(**tags: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(buffer, "TIFF", **tags)
    return buffer.getvalue()


def test_a_resolution_counts_in_centimetres_alone(tmp_path: Path) -> None:
    found = stated(tiff(resolution_unit=3, x_resolution=100.0, y_resolution=50.0))
    assert found == pytest.approx((0.2, 0.1))
    assert stated(tiff(resolution_unit=2, x_resolution=100.0, y_resolution=50.0)) is None
    assert stated(tiff()) is None
    screen = 72 / 2.54
    assert stated(tiff(resolution_unit=3, x_resolution=screen, y_resolution=screen)) is None
    (tmp_path / "a.tif").write_bytes(tiff(resolution_unit=3, x_resolution=10.0, y_resolution=10.0))
    assert of_row(Row("a", "a.tif"), tmp_path) == pytest.approx((1.0, 1.0))
    (tmp_path / "a.png").write_bytes(tiff(resolution_unit=3, x_resolution=10.0, y_resolution=10.0))
    assert of_row(Row("a", "a.png"), tmp_path) is None  # photographs are not read a second time
    assert stated(b"nothing") is None
    assert stated(tiff(resolution_unit=3)[:20]) is None


def test_a_volume_states_its_zooms_as_its_slices_lie(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    volume = nib.Nifti1Image(np.zeros((8, 6, 4), np.int16), np.diag([0.5, 0.75, 3.0, 1.0]))
    volume.header.set_xyzt_units("mm")
    nib.save(volume, tmp_path / "a.nii.gz")
    assert of_row(Row("a", "a.nii.gz!1"), tmp_path) == (0.75, 0.5)
    assert of_row(Row("a", "a.nii.gz", "slice=1"), tmp_path) == (0.75, 0.5)
    volume.header.set_xyzt_units("unknown")
    nib.save(volume, tmp_path / "b.nii")
    assert of_row(Row("b", "b.nii!1"), tmp_path) is None


def test_dicom_states_rows_first() -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found = []
    for spacing in ([0.7, 0.4], None):
        if spacing:
            file.PixelSpacing = spacing
        else:
            del file.PixelSpacing
        data = io.BytesIO()
        file.save_as(data, enforce_file_format=True)
        found.append(stated(data.getvalue()))
    assert found == [(0.7, 0.4), None]
