"""vitrail predict … --out map.tif: what is written, what is refused, and what a kill leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from raster_scenes import BANDS, LABELS, model, steps, values, vit, write

from vitrail.cli.main import run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def scene(tmp_path):
    """Return the model file and a raster of its three bands."""
    return str(model(tmp_path, vit(), steps())), write(tmp_path / "big.tif", values(25, 30))


def test_a_map_its_table_and_its_files(scene, tmp_path, capsys):
    network, raster = scene
    out = tmp_path / "maps" / "map.tif"
    assert run(["predict", network, str(raster), "--out", str(out)]) == 0
    printed, said = capsys.readouterr()
    assert printed.splitlines()[0].split() == ["class", "pixels", "hectares"]
    assert "map-areas.csv" in said
    names = [
        "map-areas.csv",
        "map-entropy.tif",
        "map-probability.tif",
        "map.png",
        "map.tif",
        "map.tif.aux.xml",
    ]
    assert sorted(one.name for one in out.parent.iterdir()) == names
    rows = list(csv.DictReader((out.parent / "map-areas.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == list(LABELS)
    assert sum(int(row["pixels"]) for row in rows) == 750
    assert sum(float(row["hectares"]) for row in rows) == pytest.approx(7.5)
    assert f"{int(rows[0]['pixels']):,}" in printed


def test_several_files_are_one_stack(scene, tmp_path, capsys):
    network, raster = scene
    assert run(["predict", network, str(raster), "--out", str(tmp_path / "map.tif"), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    image = values(25, 30)
    first = write(tmp_path / "s1.tif", image[..., :1], BANDS[:1])
    parts = [first, write(tmp_path / "s2.tif", image[..., 1:], BANDS[1:])]
    assert run(["predict", network, *map(str, parts), "--out", str(tmp_path / "two.tif"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == whole["classes"]


def test_reference_points_give_intervals(scene, tmp_path, capsys):
    network, raster = scene
    draw = np.random.default_rng(0)
    lines = ["x,y,class"]
    for row in range(1, 25, 2):
        for col in range(0, 30, 2):
            lines.append(f"{500_005 + 10 * col},{4_999_995 - 10 * row},{LABELS[draw.integers(3)]}")
    (tmp_path / "points.csv").write_text("\n".join(lines))
    words = ["predict", network, str(raster), "--out", str(tmp_path / "map.tif")]
    assert run([*words, "--reference", str(tmp_path / "points.csv"), "--json"]) == 0
    printed, said = capsys.readouterr()
    rows = json.loads(printed)["classes"]
    assert sum(row["estimated_hectares"] for row in rows) == pytest.approx(7.5)
    assert all(row["low_hectares"] < row["estimated_hectares"] < row["high_hectares"] for row in rows)
    assert "drawn at random within each mapped class" in said
    assert run(words) == 0
    assert "biased as areas" in capsys.readouterr().err


def refused(words, capsys):
    assert run(["predict", *map(str, words)]) in (1, 2)
    return capsys.readouterr().err


def test_what_is_refused(scene, tmp_path, capsys):
    network, raster = scene
    other = write(tmp_path / "other.tif", values(25, 30, 1))
    out = tmp_path / "map.tif"
    assert "2 scenes" in refused([network, raster, other, "--out", out], capsys)
    assert "would be overwritten" in refused([network, raster, "--out", raster], capsys)
    assert "Remove --csv" in refused([network, raster, "--out", out, "--csv", tmp_path / "a.csv"], capsys)
    assert "--tiles has no meaning" in refused([network, raster, "--out", out, "--tiles", "8"], capsys)
    said = refused([network, raster], capsys)
    assert "30 x 25 pixels" in said
    assert "--out map.tif" in said
    assert not out.exists()


def test_a_window_is_still_an_image(scene, tmp_path, capsys):
    network, _ = scene
    small = write(tmp_path / "small.tif", values(8, 8))
    assert run(["predict", network, str(small), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in LABELS


def started(network, raster, out):
    """Start a map in a process of its own."""
    words = [sys.executable, "-m", "vitrail", "predict", network, str(raster), "--out", str(out)]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ})


def test_a_kill_leaves_the_old_map(scene, tmp_path):
    network, _ = scene
    raster = write(tmp_path / "large.tif", values(600, 600), tiled=True, blockxsize=256, blockysize=256)
    (tmp_path / "map.tif").write_bytes(b"old")
    process = started(network, raster, tmp_path / "map.tif")
    try:
        until = time.monotonic() + 120
        while not list(tmp_path.glob(".*.map/probability.draft.tif")) and time.monotonic() < until:
            assert process.poll() is None, "the process ended early"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "map.tif").read_bytes() == b"old"
    assert len(list(tmp_path.glob(".*.map"))) == 1
    small = write(tmp_path / "big.tif", values(25, 30))
    assert run(["predict", network, str(small), "--out", str(tmp_path / "map.tif")]) == 0
    assert list(tmp_path.glob(".*.map")) == []
    with rasterio.open(tmp_path / "map.tif") as opened:
        assert np.isin(opened.read(1), (1, 2, 3)).all()


def test_ctrl_c_leaves_nothing(scene, tmp_path):
    network, _ = scene
    raster = write(tmp_path / "large.tif", values(600, 600), tiled=True, blockxsize=256, blockysize=256)
    process = started(network, raster, tmp_path / "map.tif")
    until = time.monotonic() + 120
    while not list(tmp_path.glob(".*.map/entropy.draft.tif")) and time.monotonic() < until:
        assert process.poll() is None, "the process ended early"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert list(tmp_path.glob(".*.map")) + list(tmp_path.glob("map*")) == []
