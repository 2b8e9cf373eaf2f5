"""Sources of images with captions: which are recognised, what becomes of them, and what is never taken for captions."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import polars as pl
import pytest
from pictures import encode, folders, put, scene
from test_layouts import workbook

from vitrail.cli.main import run
from vitrail.core.errors import DataError
from vitrail.data.captions import are_captions, join_captions, split_captions
from vitrail.data.layouts import Layout, sniff
from vitrail.data.manifest import Manifest, Row
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.data.truth import Truth

TEXTS = [
    f"a {colour} {thing} in the {place}, seen from {side}"
    for colour in ("red", "green")
    for thing in ("bus", "tree")
    for place in ("rain", "sun")
    for side in ("above", "below")
][:12]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of twelve images in the folder images."""
    for i in range(len(TEXTS)):
        put(tmp_path / "set" / "images" / f"{i}.png", encode(scene(i)))
    return tmp_path / "set"


def captions(layout: Layout) -> dict[str, tuple[str, ...]]:
    assert layout.truth == Truth("caption"), layout.why
    return {
        entry.path.rpartition("/")[2]: split_captions(entry.target)
        for entry in layout.entries()
        if not entry.trouble
    }


ONE = {f"{i}.png": (text,) for i, text in enumerate(TEXTS)}
TWO = {f"{i}.png": (text, f"here is {text}") for i, text in enumerate(TEXTS)}


def csv(header: str, row: str) -> str:
    return f"{header}\n" + "".join(row.format(i=i, text=text) + "\n" for i, text in enumerate(TEXTS))


# Tables


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("pairs.csv", "image,caption", '{i}.png,"{text}"'),
        ("pairs.csv", "image,caption", "{i}.png,{text}"),  # commas without quotes
        ("pairs.csv", "image;Caption", "{i}.png;{text}"),
        ("pairs.tsv", "text\tfile_name", "{text}\timages/{i}.png"),
        ("pairs.csv", "filename,what is here", '{i},"{text}"'),
        ("captions.txt", "image,caption", "{i}.png,{text}"),
        ("pairs.csv", "image,label", '{i}.png,"{text}"'),  # they cannot be classes
        ("pairs.csv", "图片,描述", '{i}.png,"{text}"'),
    ],
)
def test_tables_of_one_caption(photos: Path, name: str, header: str, row: str) -> None:
    put(photos / name, csv(header, row))
    for source in (photos, photos / name):
        layout = sniff(source)
        assert captions(layout) == ONE
        assert "the captions in" in layout.why
        assert layout.question is None


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("pairs.csv", "image,caption_1,caption_2", '{i}.png,"{text}","here is {text}"'),
        ("pairs.csv", "image,caption10,caption9", '{i}.png,"here is {text}","{text}"'),
        ("pairs.csv", "image,caption", '{i}.png,"{text}"\n{i}.png,"here is {text}"'),
        ("results.csv", "image| number| comment", "{i}.png| 0| {text}\n{i}.png| 1| here is {text}"),
        ("pairs.csv", "image,captions", '{i}.png,"[""{text}"", ""here is {text}""]"'),
        ("pairs.csv", "image,captions", "{i}.png,\"['{text}', 'here is {text}']\""),
    ],
)
def test_several_captions_of_an_image(photos: Path, name: str, header: str, row: str) -> None:
    put(photos / name, csv(header, row))
    assert captions(sniff(photos)) == TWO


def test_other_files_of_tables(photos: Path) -> None:
    names, two = [f"{i}.png" for i in range(len(TEXTS))], [list(own) for own in TWO.values()]
    frame = pl.DataFrame({"image": names, "caption": TEXTS})
    frame.write_parquet(photos / "a.parquet")
    assert captions(sniff(photos)) == ONE
    (photos / "a.parquet").unlink()
    put(photos / "a.xlsx", workbook(frame))
    assert captions(sniff(photos)) == ONE
    for file in photos.glob("a.*"):
        file.unlink()
    pl.DataFrame({"image": names, "sentences": two}).write_parquet(photos / "a.parquet")
    assert captions(sniff(photos)) == TWO
    (photos / "a.parquet").unlink()
    records = [{"file_name": name, "text": own} for name, own in zip(names, two, strict=True)]
    put(photos / "metadata.jsonl", "".join(json.dumps(one) + "\n" for one in records))
    assert captions(sniff(photos)) == TWO
    (photos / "metadata.jsonl").unlink()
    put(photos / "pairs.json", json.dumps(records))
    assert captions(sniff(photos)) == TWO


def test_columns_of_splits_and_groups_are_read(photos: Path) -> None:
    put(photos / "pairs.csv", csv("image,caption,split,patient", '{i}.png,"{text}",train,p{i}'))
    entries = list(sniff(photos).entries())
    assert {entry.split for entry in entries} == {"train"}
    assert entries[3].group == "p3"


@pytest.mark.parametrize("column", ["caption", "text", "description", "what"])
def test_a_column_of_few_names_is_never_captions(photos: Path, column: str) -> None:
    put(
        photos / "t.csv",
        f"image,{column}\n" + "".join(f"{i}.png,{('a red bus', 'a tree')[i % 2]}\n" for i in range(12)),
    )
    layout = sniff(photos)
    assert layout.truth.kind == "class"
    assert layout.classes == ["a red bus", "a tree"]
    assert captions(sniff(photos, task="retrieve"))["1.png"] == ("a tree",)


def test_labels_come_before_captions_and_either_can_be_named(photos: Path) -> None:
    rows = "".join(f'{i}.png,{"ab"[i % 2]},"{text}"\n' for i, text in enumerate(TEXTS))
    put(photos / "t.csv", f"image,label,caption\n{rows}")
    layout = sniff(photos)
    assert layout.classes == ["a", "b"]
    note = "t.csv: 'caption' holds captions, which are not used; to learn from them: --task retrieve."
    assert note in layout.notes
    assert captions(sniff(photos, task="retrieve")) == ONE
    assert captions(sniff(photos, LayoutOptions(labels="t.csv:caption"))) == ONE
    named = sniff(photos, LayoutOptions(labels="t.csv:label"), task="retrieve")
    assert captions(named)["1.png"] == ("b",)
    assert "the captions in 'label'" in named.why


def test_two_columns_of_texts_are_a_question(photos: Path) -> None:
    put(photos / "t.csv", csv("image,english,other", '{i}.png,"{text}","so to say {text}"'))
    with pytest.raises(
        DataError, match=r"captions could stand in 'english' or 'other'.*--labels t.csv:english"
    ):
        sniff(photos)
    assert captions(sniff(photos, LayoutOptions(labels="t.csv:english"))) == ONE


def test_a_table_without_texts_is_refused_in_a_sentence(photos: Path) -> None:
    put(photos / "t.csv", csv("image,number", "{i}.png,{i}"))
    with pytest.raises(DataError, match=r"none of its other columns .* holds captions"):
        sniff(photos / "t.csv", task="retrieve")


@pytest.mark.parametrize(
    ("cells", "named", "right"),
    [
        (["a red bus in the rain", "two dogs on a green meadow"], False, True),
        ([f"a red bus number {i}" for i in range(50)], False, True),
        ([f"https://a.b/{i}.jpg?x=1 2 3" for i in range(50)], False, False),
        ([f"DSC 00{i}.JPG" for i in range(50)], False, False),
        ([str(i) for i in range(50)], True, False),
        (["great white shark of the sea", "small red fox of the wood"] * 25, False, False),
        (["great white shark of the sea", "small red fox of the wood"] * 25, True, False),
        ([f"一辆红色的公共汽车在雨里{i}" for i in range(20)], False, True),
        ([f"狗{i}" for i in range(20)], False, False),
        (["", "", "", "a red bus in the rain"], True, False),
        ([], True, False),
    ],
)
def test_what_captions_are(cells: list[str], named: bool, right: bool) -> None:
    assert are_captions(cells, named=named) is right


# Lists, texts, shards


def test_coco_captions(photos: Path) -> None:
    images = [{"id": 7 * i, "file_name": f"{i}.png"} for i in range(len(TEXTS))]
    notes = [
        {"id": j, "image_id": 7 * i, "caption": text}
        for j, (i, text) in enumerate((i, text) for i, own in enumerate(TWO.values()) for text in own)
    ]
    put(photos / "captions_val.json", json.dumps({"images": images, "annotations": notes}))
    for source in (photos, photos / "captions_val.json"):
        layout = sniff(source)
        assert captions(layout) == TWO
        assert {entry.split for entry in layout.entries()} == {"val"}
    # Boxes of the same images come first, and the captions are named with what takes them.
    boxes = [{"id": i, "image_id": 7 * i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(len(TEXTS))]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "bus"}]}
    put(photos / "instances_val.json", json.dumps(content))
    layout = sniff(photos)
    assert layout.truth.kind == "boxes"
    assert any("--labels captions_val.json" in note for note in layout.notes)
    assert captions(sniff(photos, LayoutOptions(labels="captions_val.json"))) == TWO
    assert captions(sniff(photos, task="retrieve")) == TWO


def test_karpathys_splits(photos: Path) -> None:
    images = [
        {"filename": name, "filepath": "images", "split": split, "sentences": [{"raw": text} for text in own]}
        for (name, own), split in zip(TWO.items(), ("train", "restval", "val", "test") * 3, strict=True)
    ]
    put(photos / "dataset.json", json.dumps({"images": images, "dataset": "coco"}))
    layout = sniff(photos)
    assert captions(layout) == TWO
    assert [entry.split for entry in layout.entries()][:4] == ["train", "train", "val", "test"]


def test_flickrs_list_and_a_mapping(photos: Path) -> None:
    lines = [f"{name}#{n}\t{text}" for name, own in TWO.items() for n, text in enumerate(own)]
    file = put(photos / "Flickr8k.token.txt", "\n".join(lines))
    assert captions(sniff(photos)) == captions(sniff(file)) == TWO
    file.unlink()
    put(photos / "c.json", json.dumps(TWO))
    assert captions(sniff(photos)) == TWO


def test_a_text_beside_each_image(photos: Path) -> None:
    for i, text in enumerate(TEXTS[:-1]):
        put(photos / "images" / f"{i}.txt", f"{text}\n\nhere is {text}\n")
    layout = sniff(photos)
    assert captions(layout) == dict(list(TWO.items())[:-1])
    assert layout.notes[0] == "1 image without a text left aside: images/11.png."
    assert "11 texts of several lines: each line is a caption." in layout.notes
    for i in range(len(TEXTS)):  # boxes of YOLO are no captions
        put(photos / "images" / f"{i}.txt", f"0 0.5 0.5 0.{i + 1} 0.5\n")
    with pytest.raises(DataError):
        captions(sniff(photos))


def test_texts_in_a_folder_of_their_own(photos: Path) -> None:
    for i, text in enumerate(TEXTS):
        put(photos / "texts" / f"{i}.txt", text)
    assert captions(sniff(photos)) == ONE


def test_shards_of_texts(tmp_path: Path) -> None:
    def shard(more: dict[str, str]) -> Path:
        file = tmp_path / "set" / "train-0000.tar"
        file.parent.mkdir(exist_ok=True)
        with tarfile.open(file, "w") as tar:
            for i, text in enumerate(TEXTS):
                for kind, data in {"jpg": encode(scene(i), "JPEG"), "txt": text.encode(), **more}.items():
                    raw = data if isinstance(data, bytes) else data.format(i=i % 3).encode()
                    member = tarfile.TarInfo(f"{i:04d}.{kind}")
                    member.size = len(raw)
                    tar.addfile(member, io.BytesIO(raw))
        return file.parent

    layout = sniff(shard({}))
    assert list(captions(layout).values()) == list(ONE.values())
    assert {entry.split for entry in layout.entries()} == {"train"}
    assert list(captions(sniff(shard({"json": '{{"width": 3, "key": "a"}}'}))).values()) == list(ONE.values())
    assert sniff(shard({"cls": "{i}"})).truth.kind == "class"
    assert list(captions(sniff(shard({"cls": "{i}"}), task="retrieve")).values()) == list(ONE.values())


def test_hugging_face(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    images = [{"bytes": encode(scene(i)), "path": None} for i in range(len(TEXTS))]
    for column, cells, expected in (
        ("text", TEXTS, ONE),
        ("captions", [list(own) for own in TWO.values()], TWO),
    ):
        folder = tmp_path / column
        folder.mkdir()
        pl.DataFrame({"image": images, column: cells}).write_parquet(folder / "train-00000.parquet")
        layout = sniff(folder)
        assert layout.truth == Truth("caption")
        assert [split_captions(entry.target) for entry in layout.entries()] == list(expected.values())
        assert f"captions in '{column}'" in layout.why
    both = tmp_path / "both"
    both.mkdir()
    kinds = [i % 2 for i in range(len(TEXTS))]
    pl.DataFrame({"image": images, "text": TEXTS, "label": kinds}).write_parquet(both / "a.parquet")
    assert sniff(both).truth.kind == "class"
    assert sniff(both, task="retrieve").truth.kind == "caption"


# Rows and manifests


ODD = [
    'a "red", bus; with|bars\tand tabs',
    "two\nlines\r\nand a third",
    "一辆红色的公共汽车 🚌",
    "[not a list",
    '["a list", "in a caption"]x',
    '{"a": 1}',
    "'quoted'",
    "x" * 3000,
]


def test_a_row_holds_captions_of_every_kind(tmp_path: Path) -> None:
    rows = [Row(f"{i}.png", f"{i}.png", target=join_captions([text])) for i, text in enumerate(ODD)]
    rows.append(Row("all.png", "all.png", target=join_captions(ODD)))
    assert [split_captions(row.target) for row in rows[:-1]] == [(text,) for text in ODD]
    file = Manifest.of(rows, tmp_path, Truth("caption")).write(tmp_path / "manifest.csv")
    read = Manifest.read(file, tmp_path)
    assert read.truth == Truth("caption")
    by_id = {row.id: split_captions(row.target) for row in read.rows()}
    assert by_id == {**{f"{i}.png": (text,) for i, text in enumerate(ODD)}, "all.png": tuple(ODD)}


def test_captions_in_a_row() -> None:
    assert join_captions([" a bus ", "a bus", ""]) == "a bus"
    assert join_captions(["", "  "]) == ""
    assert split_captions("") == split_captions("[]") == ()
    assert join_captions(["a", "b"]) == '["a","b"]'
    assert split_captions(join_captions(["e\u0301"])) == ("é",)
    assert split_captions("[1, 2]") == ("[1, 2]",)


# The verb


def test_the_verb_and_its_page(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = " ".join(["word"] * 500)
    rows = csv("image,caption", '{i}.png,"<b>{text}</b>"').splitlines()
    rows[1:4] = ["0.png,", f'1.png,"{long}"', '2.png,"a red bus in the rain, seen"']
    put(photos / "pairs.csv", "\n".join(rows))
    page = photos.parent / "check.html"
    assert run(["check", str(photos / "pairs.csv"), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "A table (pairs.csv), because it names the images in 'image' and the captions in 'caption'."
    )
    assert "11 images with 11 captions" in said
    assert "1 image kept out, no caption: " in said
    assert "a caption of 500 words: " in said
    html = page.read_text(encoding="utf-8")
    assert "Examples of the captions" in html
    assert "&lt;b&gt;a red tree in the rain" in html
    assert re.search(r"<b>word word word [word ]+…</b>", html)
    assert long not in html
    assert run(["check", str(photos / "pairs.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["truth"], told["kept"], told["classes"]) == ("caption", 11, [])


def test_class_folders_are_no_captions(tmp_path: Path) -> None:
    source = folders(tmp_path / "set", {"cat": 3, "dog": 3})
    with pytest.raises(DataError, match=r"Retrieval needs captions.*--task classify"):
        prepare(source, task="retrieve")


def test_captions_are_no_classes_for_another_task(photos: Path) -> None:
    put(photos / "pairs.csv", csv("image,caption", '{i}.png,"{text}"'))
    with pytest.raises(DataError, match="holds classes"):
        prepare(photos, task="classify")
    assert prepare(photos).manifest.truth == Truth("caption")
