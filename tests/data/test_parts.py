"""Rows that mean a part of their file: a window, a page, a slice."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, put, scene
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data.doctor import examine
from vitrail.data.layouts import Entry
from vitrail.data.loader import ImageDataset, Share, evaluation
from vitrail.data.manifest import Row
from vitrail.data.open_image import load
from vitrail.data.preprocess import Preprocess
from vitrail.data.truth import Truth
from vitrail.tasks.classify.targets import ClassTargets


def paged(kind: str, pages: list[np.ndarray]) -> bytes:
    data = BytesIO()
    first, *rest = (Image.fromarray(page) for page in pages)
    first.save(data, kind, save_all=True, append_images=rest)
    return data.getvalue()


def test_a_window_is_cut_out_of_its_picture(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encode(scene(1)))
    np.testing.assert_array_equal(
        load(tmp_path, "a.png", part="window=3,5,20,30").image, scene(1)[5:30, 3:20]
    )
    np.testing.assert_array_equal(
        load(tmp_path, "a.png!10,10,60,50", part="window=3,5,20,30").image, scene(1)[15:40, 13:30]
    )
    with pytest.raises(DataError, match="box outside its image"):
        load(tmp_path, "a.png", part="window=200,0,220,9")


def test_a_page_is_read_as_a_picture_of_its_own(tmp_path: Path) -> None:
    pages = [scene(i) for i in range(3)]
    put(tmp_path / "a.tif", paged("TIFF", pages))
    for i, page in enumerate(pages):
        shown = load(tmp_path, "a.tif", part=f"page={i}")
        np.testing.assert_array_equal(shown.image, page)
        assert shown.notes == ()  # no "first of several frames"
    deep = np.arange(53 * 71, dtype=np.uint16).reshape(53, 71) * 17
    put(tmp_path / "deep.tif", paged("TIFF", [deep // 2, deep]))
    put(tmp_path / "one.png", encode(Image.fromarray(deep)))
    np.testing.assert_array_equal(
        load(tmp_path, "deep.tif", part="page=1").image, load(tmp_path, "one.png").image
    )
    greys = [np.full((20, 20), 40 * i, np.uint8) for i in range(3)]
    put(tmp_path / "a.gif", paged("GIF", greys))
    assert [int(load(tmp_path, "a.gif", part=f"page={i}").image.max()) for i in range(3)] == [0, 40, 80]
    with pytest.raises(DataError, match="has 3 pages, counted from 0, and no page 3"):
        load(tmp_path, "a.tif", part="page=3")
    put(tmp_path / "broken.tif", paged("TIFF", pages)[:200])
    with pytest.raises(DataError, match="no page 1 that can be read"):
        load(tmp_path, "broken.tif", part="page=1")


def test_a_slice_is_read_from_its_volume(tmp_path: Path) -> None:
    import nibabel as nib

    volume = np.arange(10 * 12 * 4, dtype=np.int16).reshape(10, 12, 4)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    for i in range(4):
        np.testing.assert_array_equal(
            load(tmp_path, "a.nii.gz", part=f"slice={i}").image, load(tmp_path, f"a.nii.gz!{i}").image
        )
    with pytest.raises(DataError, match="has no image called 9"):
        load(tmp_path, "a.nii.gz", part="slice=9")
    put(tmp_path / "a.png", encode(scene(1)))
    with pytest.raises(DataError, match="has no slices"):
        load(tmp_path, "a.png", part="slice=0")


def test_a_slice_is_read_from_a_dicom_file_of_several(tmp_path: Path) -> None:
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    values = np.arange(3 * 9 * 7, dtype=np.int16).reshape(3, 9, 7)
    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.Rows, file.Columns, file.NumberOfFrames = 9, 7, 3
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.WindowCenter, file.WindowWidth = 94, 188
    file.PixelData = values.tobytes()
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match="name it: slice=0"):
        load(tmp_path, "a.dcm")
    for i in range(3):
        expected = np.clip(values[i] * (255 / 188), 0, 255).round()
        np.testing.assert_allclose(load(tmp_path, "a.dcm", part=f"slice={i}").image[..., 0], expected, atol=1)
    with pytest.raises(DataError, match="holds 3 slices"):
        load(tmp_path, "a.dcm", part="slice=3")


@pytest.mark.parametrize("part", ["tile=1", "page", "page=a", "window=1,2,3", "slice=-1", "=3", "page=1,2"])
def test_other_parts_are_refused_in_words(tmp_path: Path, part: str) -> None:
    put(tmp_path / "a.png", encode(scene(1)))
    with pytest.raises(DataError, match=r"a\.png asks for the part .*window"):
        load(tmp_path, "a.png", part=part)


def test_parts_are_checked_and_trained_on_as_rows(tmp_path: Path) -> None:
    put(tmp_path / "a.tif", paged("TIFF", [scene(i, (120, 160)) for i in range(3)]))
    put(tmp_path / "b.png", encode(scene(0, (120, 160))))
    parts = ["page=0", "page=1", "page=2", "page=7"]
    entries = [Entry(f"a {part}", "a.tif", "ab"[i % 2], "", "", "", part) for i, part in enumerate(parts)]
    windows = ("window=0,0,80,80", "window=20,20,140,110")
    entries += [Entry(f"b {part}", "b.png", "a", "", "", "", part) for part in windows]
    entries.append(Entry("b", "b.png", "a"))
    report = examine(entries, tmp_path, cache=tmp_path / "facts.sqlite")
    rows = {row.id: row for row in report.rows}
    assert len({row.hash for row in rows.values() if row.hash}) == 6
    assert "has 3 pages" in rows["a page=7"].reason
    assert report.of("similar") == ("a page=0", "b")  # the same page in another file
    assert rows["a page=1"].group == ""
    again = examine(entries, tmp_path, cache=tmp_path / "facts.sqlite")
    assert again.rows == report.rows
    kept: list[Row] = [row for row in report.rows if row.state == "kept"]
    targets = ClassTargets(Truth("class", ("a", "b")))
    pictures = ImageDataset(kept, tmp_path, Preprocess.for_size((32, 32), 3), targets)
    (batch,) = evaluation(pictures, 16, Share())
    assert batch.geometry[kept.index(rows["b window=0,0,80,80"])].original == (80, 80)
    assert batch.targets == [0, 1, 0, 0, 0, 0]
