"""What a check says of rasters: bands, units, the grid, what labels cover, and leaks in space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import box, layer, scene, write
from scipy.ndimage import gaussian_filter

from vitrail.data.decisions import History
from vitrail.data.findings import Finding
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared, prepare
from vitrail.reports.data_page import data_page


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def checked(folder: Path, **options: object) -> Prepared:
    path = layer(folder / "t.gpkg", [box(0, 0, 40, 60), box(40, 0, 80, 60)], name=["bog", "wood"])
    return prepare(folder / "scene.tif", LayoutOptions(labels=str(path), **options))


def finding(done: Prepared, kind: str) -> Finding:
    return next(one for one in done.report.findings if one.kind == kind)


def kinds(done: Prepared) -> set[str]:
    return {one.kind for one in done.report.findings}


def test_bands_grid_and_labels_are_described(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 101, (2, 60, 80)).astype(np.uint8)
    values[1, :30] = 0
    write(tmp_path / "scene.tif", values, nodata=0, names=["red", "nir"])
    done = checked(tmp_path, buffer=0)
    bands = finding(done, "bands")
    assert bands.text == "2 bands, values from 1 % to 99 %: red 1 to 100, nir 1 to 99 (50.0% without data)."
    assert bands.table[1] == {"band": "nir", "unit": "", "1 %": 1.0, "99 %": 99.0, "no data": 0.5}
    assert finding(done, "grid").text == "80 x 60 pixels of 10 m in EPSG:32620, 48 ha."
    covered = finding(done, "covered")
    assert covered.text.startswith(
        "4,800 pixels have a label, 100.0% of the raster: bog 2,400 (50.0%, 24.0 ha)"
    )
    assert covered.table[0] == {"class": "bog", "pixels": 2400, "share": 0.5, "hectares": 24.0}


@pytest.mark.parametrize(
    ("low", "high", "unit", "said"),
    [
        ((-22, -12), (-16, -6), "", "look like dB; no unit is stated"),
        ((0.001, 0.1), (0.01, 0.6), "", "look linear; no unit is stated"),
        ((-22, -12), (0.01, 0.6), "", "differ in their unit"),
        ((-22, -12), (-16, -6), "linear", "VH says linear, and its values look like dB"),
        ((-22, -12), (-16, -6), "dB", None),
    ],
)
def test_radar_in_db_and_linear_are_told_apart(
    tmp_path: Path, low: tuple[float, float], high: tuple[float, float], unit: str, said: str | None
) -> None:
    draw = np.random.default_rng(0)
    values = np.stack([draw.uniform(*low, (60, 80)), draw.uniform(*high, (60, 80))]).astype(np.float32)
    write(tmp_path / "scene.tif", values, names=["VH", "VV"], units=(unit, unit))
    done = checked(tmp_path)
    assert (said is None) == ("unit" not in kinds(done))
    if said is not None:
        one = finding(done, "unit")
        assert said in one.text
        assert one.grave == ("no unit" not in said)


def test_reflectance_as_whole_numbers_is_said(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    assert "16 bits: values up to 8,99" in finding(checked(tmp_path), "scale").text


def test_a_random_split_would_pretend_what_blocks_deny(tmp_path: Path) -> None:
    """Classes are patches without any relation to the bands, which are smooth: neighbours alone tell the class."""
    draw = np.random.default_rng(3)
    bands = np.stack([gaussian_filter(draw.normal(size=(96, 96)), 3) for _ in range(3)]).astype(np.float32)
    write(tmp_path / "scene.tif", bands, names=["a", "b", "c"])
    patches = draw.integers(1, 3, (8, 8)).astype(np.uint8).repeat(12, 0).repeat(12, 1)[None]
    labels = write(tmp_path / "l.tif", patches)
    done = prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(labels), block=12, window=4))
    space = finding(done, "space")
    blocks, drawn = (row["share"] for row in space.table)
    assert blocks < 0.7 < drawn
    assert space.text.startswith(
        f"A random forest scores {blocks:.0%} on blocks it never saw, {drawn:.0%} had"
    )
    assert finding(done, "space") == next(
        one for one in checked_again(tmp_path).report.findings if one.kind == "space"
    )


def checked_again(folder: Path) -> Prepared:
    return prepare(
        folder / "scene.tif", LayoutOptions(labels=str(folder / "l.tif"), block=12, window=4), seed=5
    )


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_the_page_of_a_check_shows_bands_and_windows(tmp_path: Path, task: str) -> None:
    scene(tmp_path / "scene.tif")
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 40, 60), box(40, 0, 80, 60)], name=["bog", "wood"])
    options = LayoutOptions(labels=str(path), window=8, block=16)
    page = data_page("scene.tif", prepare(tmp_path / "scene.tif", options, task=task), History())
    assert "Bands" in page
    assert "What the labels cover" in page
    assert page.count("<img") > 5
