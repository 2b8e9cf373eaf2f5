"""What a check of rasters says, and what a report of a model on them adds, is told in Chinese."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("babel", reason="the studio's extra is not installed")
pytest.importorskip("rasterio")

import shapely
from data.rasters import NORTH, WEST, box, geojson, layer, scene, write

from vitrail.core.errors import VitrailError
from vitrail.data.layouts import sniff
from vitrail.data.manifest import Row
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared, prepare
from vitrail.data.rasters.sentinel2 import Product
from vitrail.evaluate.band_importance import BandImportance, Drop
from vitrail.metrics.intervals import Interval
from vitrail.models.factory import create_encoder
from vitrail.reports.raster_map import raster_map
from vitrail.studio.language import translations
from vitrail.studio.sentences import told
from vitrail.tasks.resampling import warnings
from vitrail.tasks.result import Matrix, Result, Shot
from vitrail.training.network_choice import NamedNetwork, NetworkChoice
from vitrail.training.raster_recipe import at_window, raster_line

ZH = translations("zh")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def english(sentence: str) -> str:
    """Return what of a sentence stays English in Chinese."""
    return " ".join(re.findall(r'<span lang="en">(.*?)</span>', told(sentence, ZH), re.DOTALL))


def texts(done: Prepared) -> list[str]:
    """Return what the pages of a check show: findings, notes, names of columns, reasons of rows."""
    why = f"{done.layout.why[0].upper()}{done.layout.why[1:]}"
    columns = {key for one in done.report.findings for row in one.table for key in row}
    reasons = {row.reason for row in done.manifest.rows(state=None) if row.reason}
    found = [one.text for one in done.report.findings]
    return [done.about(), why, *found, *done.layout.notes, *done.notes, *sorted(columns), *sorted(reasons)]


def all_told(done: Prepared) -> str:
    """Assert that all that a check says is told in Chinese; return it."""
    assert not [one for one in texts(done) if english(one)]
    return unescape("\n".join(told(one, ZH) for one in texts(done)))


def labelled(folder: Path, **options: object) -> Prepared:
    path = layer(folder / "t.gpkg", [box(0, 0, 40, 60), box(40, 0, 80, 60)], name=["bog", "wood"])
    return prepare(folder / "scene.tif", LayoutOptions(labels=str(path), **options))


def test_a_check_of_a_scene(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    said = all_told(labelled(tmp_path))
    assert "80 x 60 像素，每个像素 10 米，坐标系 EPSG:32620，48 公顷。" in said
    assert "占栅格的 100.0%：bog 2,400（50.0%，24.0 公顷）、wood 2,400（50.0%，24.0 公顷）。" in said
    assert re.search(r"3 个波段，第 1 至第 99 百分位的数值：B01 [\d.]+ 至 \d+、B02 [\d.]+ 至 \d+、B03", said)
    assert "16 位：数值最大为 8,99" in said
    assert "随机森林在它从未见过的区块上得分" in said
    assert re.search(r"4,800 处有标签的位置中有 [\d,]+ 处距另一划分的标签不足 8 像素", said)
    assert "个区块含标签；每个区块整块归入同一划分，可用 --block 更改。" in said
    assert "距另一划分的标签不足 8 像素" in said


def test_many_bands_with_large_values_and_without_data(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(9_000, 60_000, (18, 60, 80)).astype(np.uint16)
    values[:, :, 50:] = 0
    values[1] = 0
    write(tmp_path / "scene.tif", values, nodata=0, units=["counts"] * 18)
    done = labelled(tmp_path, block=20, buffer=0)
    assert "nan to nan" in " ".join(texts(done))
    said = all_told(done)
    assert "个窗口未采用，因为那里没有任何波段有数据" in said
    assert "每个区块整块归入同一划分，按要求。" in said


def test_large_values_are_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(9_000, 60_000, (18, 60, 80)).astype(np.uint16)
    write(tmp_path / "scene.tif", values, units=["counts"] * 18)
    said = all_told(labelled(tmp_path))
    assert re.search(r"band 1 9\d+ 至 \d\.\d+e\+04 counts、band 2 ", said)
    assert "，另有 2 个。" in said


@pytest.mark.parametrize(
    ("low", "high", "unit", "wanted"),
    [
        ((-22, -12), (-16, -6), "", "VH, VV 看起来是以 dB 为单位；没有标明单位。只应预测单位相同的栅格。"),
        ((0.001, 0.1), (0.01, 0.6), "", "VH, VV 看起来是线性值；没有标明单位。"),
        ((-22, -12), (0.01, 0.6), "", "VH 看起来是以 dB 为单位、VV 看起来是线性值。请换算其中一个。"),
        (
            (-22, -12),
            (-16, -6),
            "linear",
            "VH 标明 linear，而数值看起来是以 dB 为单位；VV 标明 linear，而数值看起来是以 dB 为单位。",
        ),
        ((-22, -12), (0.01, 0.6), "dB", "VV 标明 dB，而数值看起来是线性值。请更正单位，或换算数值。"),
    ],
)
def test_units_of_radar(
    tmp_path: Path, low: tuple[float, float], high: tuple[float, float], unit: str, wanted: str
) -> None:
    draw = np.random.default_rng(0)
    values = np.stack([draw.uniform(*low, (60, 80)), draw.uniform(*high, (60, 80))]).astype(np.float32)
    write(tmp_path / "scene.tif", values, names=["VH", "VV"], units=(unit, unit))
    assert wanted in all_told(labelled(tmp_path))


def test_labels_of_every_kind(tmp_path: Path) -> None:
    """Polygons that overlap, lie outside, are too small or no areas, in degrees, with splits and rows without one."""
    scene(tmp_path / "scene.tif")
    small = shapely.box(WEST + 1, NORTH - 2, WEST + 2, NORTH - 1)
    line = shapely.LineString([(WEST, NORTH), (WEST + 90, NORTH)])
    shapes = [
        box(0, 0, 30, 60),
        box(29, 0, 60, 60),
        box(60, 0, 80, 60),
        box(500, 0, 510, 9),
        small,
        line,
        small,
    ]
    names = ["bog", "wood", "bog", "bog", "wood", "bog", ""]
    splits = ["train", "test", "val", "train", "train", "train", "train"]
    path = layer(tmp_path / "t.gpkg", shapes, **{"class": names, "split": splits})
    said = all_told(prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path))))
    for wanted in (
        "t.gpkg：划分取自它的列 'split'。", "略过 t.gpkg 中没有位置或类别的 1 行。", "略过 t.gpkg 中的 1 条线：",
        "t.gpkg 中有 60 个像素因多边形或点重叠而有两个类别", "略过 t.gpkg 中位于栅格之外的 1 处位置。",
        "t.gpkg 中有 1 个多边形太小", "都在标签给定的划分之内", "区块包含 wood：",
    ):  # fmt: skip
        assert wanted in said, wanted
    degrees = [
        shapely.box(-65.5385, 45.1165, -65.533, 45.1240),
        shapely.box(-65.533, 45.1165, -65.5290, 45.1240),
    ]
    path = geojson(tmp_path / "d.geojson", degrees, ["bog", "wood"])
    assert "d.geojson 已从坐标系 WGS 84 转换到栅格的坐标系 WGS 84 / UTM zone 20N。" in all_told(
        prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path)))
    )


def test_tiles_and_labels_that_are_rasters(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    write(
        tmp_path / "coarse.tif",
        np.random.default_rng(0).uniform(1, 9, (1, 30, 40)).astype(np.float32),
        pixel=20,
    )
    classes = np.ones((1, 60, 80), np.uint8)
    classes[:, :, 40:] = 2
    path = write(tmp_path / "c.tif", classes[:, ::2, ::2], pixel=20)
    options = LayoutOptions(labels=str(path), window=16)
    done = prepare(f"{tmp_path / 'scene.tif'}|{tmp_path / 'coarse.tif'}", options, task="segment")
    said = all_told(done)
    assert "coarse.tif 从 20 x 20 米（EPSG:32620）重采样（双线性）为 10 x 10 米（EPSG:32620）。" in said
    assert "c.tif 的网格不同，已重采样到该栅格的网格（最近邻）。" in said
    assert "c.tif 没有为数值 1, 2 命名" in said
    assert "个图块，大小为 16 x 16 像素" in said
    assert "没有标签的像素不计入得分，也不参与训练。" in said


def test_rasters_without_a_place(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    values = np.random.default_rng(0).uniform(1, 9, (1, 60, 80)).astype(np.float32)
    write(tmp_path / "bare.tif", values, crs=None)
    classes = (values > 5).astype(np.uint8) + 1
    classes[:, :, 30:] = 0
    path = write(tmp_path / "c.tif", classes)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("scene_TCI.tif", "scene.tif"):
        scene(folder / name)
    done = prepare(tmp_path / "bare.tif", LayoutOptions(labels=str(path)))
    said = all_told(done)
    assert "80 x 60 像素，没有地理位置" in said
    assert "c.tif 与栅格大小相同，因此逐像素对应。" in said
    said = all_told(prepare(folder, LayoutOptions(labels=str(path))))
    assert "略过 1 个栅格：scene_TCI.tif。" in said


def test_many_labels_are_thinned(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif", 260, 260, 1)
    classes = np.ones((1, 260, 260), np.uint8)
    classes[:, :, 40:] = 2
    path = write(tmp_path / "c.tif", classes)
    notes = sniff(tmp_path / "scene.tif", LayoutOptions(labels=str(path))).notes
    assert not [one for one in notes if english(one)]
    assert "取用 67,600 个有标签的像素中的 60,000 个：" in " ".join(told(one, ZH) for one in notes)


def test_windows_that_are_broken(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif", 200, 80)
    path = layer(tmp_path / "t.gpkg", [box(0, 0, 20, 20), box(0, 150, 20, 190)], name=["bog", "wood"])
    data = (tmp_path / "scene.tif").read_bytes()
    (tmp_path / "scene.tif").write_bytes(data[: int(0.9 * len(data))])
    done = prepare(tmp_path / "scene.tif", LayoutOptions(labels=str(path), block=20))
    said = [one.text for one in done.report.findings if one.kind == "unreadable"]
    assert not [
        one for one in (*said, *(row.reason for row in done.report.rows if row.reason)) if english(one)
    ]
    assert "个窗口无法使用，未采用：" in told(said[0], ZH)


def refusals(folder: Path) -> dict[str, LayoutOptions]:
    """Return labels that are refused, by what is wrong with them; the scene lies beside them."""
    areas = [box(0, 0, 40, 60), box(40, 0, 80, 60)]
    far = [box(900, 0, 940, 60), box(940, 0, 980, 60)]
    two = ["bog", "wood"]
    fractions = np.full((1, 60, 80), 1.5, np.float32)
    (folder / "places.csv").write_text("here,there,class\n1,2,bog\n", encoding="utf-8")
    (folder / "broken.gpkg").write_bytes(b"no layer")
    (folder / "broken.tif").write_bytes(b"no raster")
    files = {
        "none": Path(),
        "missing": folder / "nowhere.gpkg",
        "far": layer(folder / "far.gpkg", far, name=two),
        "no crs": layer(folder / "bare.gpkg", areas, crs=None, name=two),
        "lines": layer(
            folder / "l.gpkg", [shapely.LineString([(WEST, NORTH), (WEST + 9, NORTH)])], name=["bog"]
        ),
        "empty": layer(folder / "e.gpkg", areas, name=["", ""]),
        "which": layer(folder / "w.gpkg", areas, one=two, other=two),
        "split": layer(folder / "s.gpkg", areas, name=two, split=["train", "perhaps"]),
        "small": layer(
            folder / "tiny.gpkg", [shapely.box(WEST + 1, NORTH - 2, WEST + 2, NORTH - 1)], name=["bog"]
        ),
        "places": folder / "places.csv",
        "broken": folder / "broken.gpkg",
        "no raster": folder / "broken.tif",
        "fractions": write(folder / "f.tif", fractions),
        "nothing": write(folder / "n.tif", np.zeros((1, 60, 80), np.uint8)),
        "size": write(folder / "size.tif", np.ones((1, 30, 80), np.uint8), crs=None),
        "beside": write(folder / "beside.tif", np.ones((1, 60, 80), np.uint8), shift=9_000),
    }
    named = {key: LayoutOptions(labels=str(path) if path.name else "") for key, path in files.items()}
    return {**named, "column": LayoutOptions(labels=f"{files['far']}:nam")}


def test_refusals_and_their_ways_out(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    said = {}
    for wrong, options in refusals(tmp_path).items():
        with pytest.raises(VitrailError) as error:
            prepare(tmp_path / "scene.tif", options)
        said[wrong] = str(error.value)
    assert len(set(said.values())) == len(said)
    assert not {wrong: one for wrong, one in said.items() if english(one)}
    assert "far.gpkg 有：name。" in told(said["column"], ZH)
    assert "far.gpkg 不在栅格范围内：标签位于 x 309,000 至 309,800" in told(said["far"], ZH)


def test_stacks_that_are_refused(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    write(tmp_path / "far.tif", np.ones((1, 30, 40), np.uint8), pixel=20, shift=90_000)
    write(tmp_path / "bare.tif", np.ones((1, 30, 40), np.uint8), crs=None)
    layer(tmp_path / "t.gpkg", [box(0, 0, 40, 60)], name=["bog"])
    options = LayoutOptions(labels=str(tmp_path / "t.gpkg"))
    for other in ("far", "bare"):
        with pytest.raises(VitrailError) as error:
            prepare(f"{tmp_path / 'scene.tif'}|{tmp_path / other}.tif", options)
        assert not english(str(error.value))


def test_sentinel_2(tmp_path: Path) -> None:
    with_clouds = Product(tmp_path / "S2.SAFE", 1e4, {}, Path("MSK_CLDPRB_20m.jp2")).note()
    without = Product(tmp_path / "S2.SAFE", 1e4, {}, None).note()
    assert told(with_clouds, ZH) == (
        "S2.SAFE：存储的数值按其头文件换算为反射率；MSK_CLDPRB_20m.jp2 标为云或阴影的位置视为无数据。"
    )
    assert told(without, ZH) == "S2.SAFE：存储的数值按其头文件换算为反射率；没有文件说明哪里有云。"


def test_lines_of_a_training(tmp_path: Path) -> None:
    scene(tmp_path / "scene.tif")
    done, named = labelled(tmp_path, buffer=0), NamedNetwork(None, {}, None)
    lines = raster_line(done)
    for name, side in (("wetmapformer", 8), ("vit_s16", 32)):
        encoder = create_encoder(name, image=side)
        lines += at_window(done, NetworkChoice(name, "none", encoder, (32, 32)), named)[1]
    assert len(lines) == 3
    assert not [one for one in lines if english(one)]
    assert told(lines[0], ZH) == "3 个波段：B01, B02, B03"


def test_which_bands_a_model_needs() -> None:
    """The sentences of the report, also those about blocks."""
    blocks = {"units": 12, "groups": 12, "called": "block", "few": ["bog"]}
    drops = (Drop("B01", ("B01",), Interval(0.1, -0.1, 0.2)), Drop("B02", ("B02",), Interval(0.2, 0.1, 0.3)))
    for groups, whole in ((blocks, 40), ({**blocks, "units": 4, "groups": 3, "called": "group"}, 5_000)):
        one = BandImportance(drops, 0.831, 40, whole, groups).section()
        assert not [text for text in (one.heading, one.x, one.note) if english(text)]
        assert not [text for text in warnings(groups) if english(text)]
    note = told(BandImportance(drops, 0.831, 40, 5_000, blocks).section().note, ZH)
    assert (
        "在 5,000 张测试图片中的 40 张上，在图片之间交换某个波段（3 次）时损失的正确率；不交换时正确率为 83.1 %。"
        in note
    )
    assert "区间包含“没有损失”：B01。" in note
    assert "区间对 12 个区块重抽样，因为同一区块内的内容并不独立。" in note


def test_the_map_of_a_report() -> None:
    rows = [
        Row(f"{n}.tif {x}", f"{n}.tif", f"raster={x},0,{x + 8},8", "bog") for n in range(6) for x in range(3)
    ]
    shots = {(0, 0): [Shot(row.id, "bog", "bog") for row in rows]}
    result = Result("", {}, "", sections=(Matrix("Confusion matrix", ("bog",), ((18,),), shots),))
    laid = raster_map(rows, (), result)
    assert laid is not None
    assert told(laid["heading"], ZH) == "地图"
    assert (
        told(laid["note"], ZH)
        == "18 处测试位置，各在其像素上；灰色处未测试。未包括位置较少的影像：4.tif, 5.tif。"
    )
