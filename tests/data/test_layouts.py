from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pictures import encode, folders, put, scene

from vitrail.core.errors import DataError, SettingError
from vitrail.data.layouts import Entry, Layout, sniff
from vitrail.data.open_image import load
from vitrail.data.prepare import prepare


def found(layout: Layout) -> dict[str, tuple[str, str]]:
    return {entry.id: (entry.target, entry.split) for entry in layout.entries() if not entry.trouble}


def troubled(layout: Layout) -> dict[str, str]:
    return {entry.id: entry.trouble for entry in layout.entries() if entry.trouble}


def all_load(layout: Layout) -> None:
    for entry in layout.entries():
        if not entry.trouble:
            assert load(layout.root, entry.path).image.shape == (53, 71, 3), entry.path


# Class folders


def test_class_folders(tmp_path: Path) -> None:
    layout = sniff(folders(tmp_path, {"class 10": 2, "class 2": 2, "花 🌸": 1}))
    assert layout.name == "folders"
    assert layout.why == "class folders, because 3 folders hold the images: class 2, class 10, 花 🌸."
    assert [e.id for e in layout.entries()] == [
        "class 2/0.png", "class 2/1.png", "class 10/0.png", "class 10/1.png", "花 🌸/0.png",
    ]  # fmt: skip
    all_load(layout)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev", "Val"])
def test_split_folders_and_a_class_missing_in_one(tmp_path: Path, val: str) -> None:
    layout = sniff(
        folders(
            tmp_path, {"train/a": 2, "train/b": 2, "train/c": 2, f"{val}/b": 1, f"{val}/c": 1, "test/a": 1}
        )
    )
    assert found(layout)[f"{val}/b/0.png"] == ("b", "val")
    assert {label for label, _ in found(layout).values()} == {"a", "b", "c"}
    assert "split of their own (train, val, test)" in layout.why


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    layout = sniff(folders(tmp_path, {"bus": 2, "car": 2, "train": 2}))
    assert found(layout)["train/0.png"] == ("train", "")


def test_a_folder_around_everything_is_no_class(tmp_path: Path) -> None:
    layout = sniff(folders(tmp_path, {"photos/set/cat": 2, "photos/set/dog": 2}))
    assert found(layout)["photos/set/cat/0.png"] == ("cat", "")


def test_what_lies_beside_is_said(tmp_path: Path) -> None:
    folders(tmp_path, {"cat": 2, "dog/puppies": 2})
    put(tmp_path / "lone.png", encode(scene(99)))
    put(tmp_path / "cat/notes.docx", b"x")
    put(tmp_path / "cat/.DS_Store", b"x")
    layout = sniff(tmp_path)
    assert found(layout)["dog/puppies/0.png"] == ("dog", "")
    said = " ".join(layout.notes)
    assert "1 file that is no image left aside" in said
    assert "1 image outside any class folder left aside: lone.png" in said
    assert "2 images in folders inside class folders" in said


def test_a_stray_folder_beside_splits_is_no_class(tmp_path: Path) -> None:
    layout = sniff(folders(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1, "extra": 3}))
    assert {label for label, _ in found(layout).values()} == {"a", "b"}
    assert "extra/0.png" in " ".join(layout.notes)


def test_one_spelling_a_class(tmp_path: Path) -> None:
    layout = sniff(folders(tmp_path, {"train/e\u0301te\u0301": 1, "train/b": 1, "test/\u00e9t\u00e9": 1}))
    assert {label for label, _ in found(layout).values()} == {"b", "\u00e9t\u00e9"}


def test_link_loops_end(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "c").symlink_to(tmp_path / "b", target_is_directory=True)
    layout = sniff(tmp_path)
    assert "1 link leading back upwards not followed: a/again" in " ".join(layout.notes)
    assert found(layout)["c/0.png"] == ("c", "")


def test_a_closed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path, {"a": 2, "b": 2, "c": 2})
    scandir = os.scandir

    def closed(path: str | Path) -> object:
        if Path(path).name == "c":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert troubled(sniff(tmp_path)) == {"c": "is a folder that may not be opened"}
    with pytest.raises(DataError, match="chmod"):
        sniff(tmp_path / "c")


def test_what_cannot_be_used_says_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, says in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "empty", "holds no images"),
        (folders(tmp_path / "one", {"cat": 3}), "one class only, 'cat'"),
        (folders(tmp_path / "flat", {"": 3}), "no labels"),
        (put(tmp_path / "a.7z", b"x"), "Pack it as .zip"),
        (put(tmp_path / "a.docx", b"x"), "a single file that holds no data set"),
    ):
        with pytest.raises(DataError, match=says) as error:
            sniff(source)
        assert str(error.value).endswith((".", "jpg."))
    with pytest.raises(SettingError, match="folders"):
        sniff(tmp_path, layout="folder")
    with pytest.raises(DataError, match="Leave --layout out"):
        sniff(folders(tmp_path / "two", {"a": 2, "b": 2}), layout="table")


# Labels in file names


def test_labels_in_file_names(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / "train" / f"cat.{i}.jpg", encode(scene(i), "JPEG"))
        put(tmp_path / "train" / f"big dog ({i}).jpg", encode(scene(9 + i), "JPEG"))
        put(tmp_path / "test1" / f"{i}.jpg", encode(scene(20 + i), "JPEG"))
    layout = sniff(tmp_path)
    assert layout.name == "filenames"
    assert found(layout)["train/big dog (0).jpg"] == ("big dog", "train")
    assert found(layout)["train/cat.2.jpg"] == ("cat", "train")
    assert "3 images without a label in the name left aside" in " ".join(layout.notes)


def test_cameras_name_no_classes(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"IMG_{i:04}.jpg", encode(scene(i), "JPEG"))
        put(tmp_path / f"DSC{i:04}.jpg", encode(scene(9 + i), "JPEG"))
    with pytest.raises(DataError, match="no labels"):
        sniff(tmp_path)


# Archives


def pack_zip(target: Path, root: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    return target


def pack_tar(target: Path, root: Path) -> Path:
    with tarfile.open(target, "w:gz" if target.name.endswith("gz") else "w") as archive:
        archive.add(root, ".")
    return target


@pytest.mark.parametrize(
    "name", ["photos.zip", "photos.tar", "photos.tar.gz", "photos.tgz", "ph!otos 雪.zip"]
)
def test_archives_are_read_in_place(tmp_path: Path, name: str) -> None:
    root = folders(tmp_path / "photos", {"train/a": 2, "train/b b": 2, "val/a": 1})
    (tmp_path / "packed").mkdir()
    packed = (pack_zip if name.endswith("zip") else pack_tar)(tmp_path / "packed" / name, root)
    layout = sniff(packed)
    assert found(layout) == {f"{name}!{key}": value for key, value in found(sniff(root)).items()}
    all_load(layout)
    assert [p.name for p in packed.parent.iterdir()] == [name]  # nothing was unpacked


def test_a_folder_of_archives_is_one_tree(tmp_path: Path) -> None:
    pack_zip(tmp_path / "train.zip", folders(tmp_path / "x" / "t", {"a": 2, "b": 2}))
    pack_tar(tmp_path / "val.tar", folders(tmp_path / "x" / "v", {"a": 1, "b": 1}, seed=1))
    for file in (tmp_path / "x").rglob("*.png"):
        file.unlink()
    layout = sniff(tmp_path)
    assert found(layout)["val.tar!b/0.png"] == ("b", "val")
    assert found(layout)["train.zip!a/1.png"] == ("a", "train")
    all_load(layout)


def test_names_of_old_chinese_zips_are_read(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in ("AAAA/1.png", "BBBB/1.png"):
            archive.writestr(name, encode(scene(len(name))))
    raw = data.getvalue().replace(b"AAAA", "猫狗".encode("gbk")).replace(b"BBBB", "鸟鱼".encode("gbk"))
    layout = sniff(put(tmp_path / "old.zip", raw))
    assert {label for label, _ in found(layout).values()} == {"猫狗", "鸟鱼"}
    all_load(layout)


def test_members_that_lead_outside_are_named_and_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as archive:
        for name in ("a/1.png", "b/1.png", "../../evil.png", "/etc/evil.png", "C:/evil.png"):
            archive.writestr(name, encode(scene(1)))
    assert (
        sorted(troubled(sniff(tmp_path / "slip.zip")).values())
        == ["has a name that leads out of the archive"] * 3
    )


def test_a_member_that_swells_is_named_and_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", encode(scene(1)))
        archive.writestr("b/1.png", encode(scene(2)))
        archive.writestr("b/bomb.png", b"\0" * (20 << 20))
    assert "zip bomb" in troubled(sniff(tmp_path / "bomb.zip"))["bomb.zip!b/bomb.png"]


def test_an_archive_that_is_a_bomb_as_a_whole_is_refused(tmp_path: Path) -> None:
    big = tarfile.TarInfo("a/1.png")
    big.size = 300 << 30
    put(tmp_path / "bomb.tar.gz", gzip.compress(big.tobuf() + b"\0" * 4096))
    with pytest.raises(DataError, match="bomb"):
        sniff(tmp_path / "bomb.tar.gz")


def test_broken_encrypted_and_linked_members_are_named(tmp_path: Path) -> None:
    root = folders(tmp_path / "r", {"a": 1, "b": 1})
    whole = pack_zip(tmp_path / "a.zip", root).read_bytes()
    with pytest.raises(DataError, match="no whole archive"):
        sniff(put(tmp_path / "cut.zip", whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="no whole archive"):
        sniff(put(tmp_path / "no.tar", b"not a tar" * 100))
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        archive.add(root, ".")
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert troubled(sniff(tmp_path / "link.tar")) == {"link.tar!a/link.png": "is a link"}


# WebDataset


@pytest.mark.parametrize("kind", ["cls", "json", "txt"])
def test_webdataset_shards(tmp_path: Path, kind: str) -> None:
    for shard in ("set-train-0000.tar", "set-val-0000.tar"):
        with tarfile.open(tmp_path / shard, "w") as archive:
            for i in range(4):
                for name, data in (
                    (f"{i:04}.png", encode(scene(i))),
                    (
                        f"{i:04}.{kind}",
                        json.dumps({"label": "ab"[i % 2]}).encode() if kind == "json" else b"ab"[i % 2 :][:1],
                    ),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    layout = sniff(tmp_path)
    assert layout.name == "webdataset"
    assert found(layout)["set-val-0000.tar!0001.png"] == ("b", "val")
    all_load(layout)
    assert found(sniff(tmp_path / "set-train-0000.tar"))["set-train-0000.tar!0002.png"] == ("a", "train")


# Tables


def table(root: Path, text: str | bytes, name: str = "labels.csv", pictures: int = 4) -> Path:
    for i in range(pictures):
        put(root / "images" / f"{i}.png", encode(scene(i)))
    return put(root / name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "image,label\nimages/0.png,cat\nimages/1.png,dog\n"),
        ("labels.csv", "image;label\nimages/0.png;cat\nimages/1.png;dog\n"),
        ("labels.csv", "\ufeffFile,Category\r\n0.png,cat\r\n1.png,dog\r\n"),
        ("labels.tsv", "label\tpath\ncat\timages\\0.png\ndog\t./images/1.png\n"),
        ("labels.csv", "id,breed\n0,cat\n1,dog\n"),
        ("labels.csv", "images/0.png,cat\nimages/1.png,dog\n"),
        ("labels.csv", 'weight,photo,label,notes\n1,0.png,cat,"a, b"\n2,1.png,dog,\n'),
        ("labels.csv", "image|label\n0.png|cat\n1.png|dog\n"),
        ("labels.jsonl", '{"file": "images/0.png", "label": "cat"}\n{"file": "images/1.png", "label": "dog"}\n'),
        ("labels.csv", "图片,标签\n0.png,cat\n1.png,dog\n".encode("gbk")),
        ("labels.csv", "/elsewhere/images/0.png,cat\n/elsewhere/images/1.png,dog\n"),
        ("labels.csv", "images/0.png cat\nimages/1.png dog\n"),
    ],
)  # fmt: skip
def test_tables_of_every_kind(tmp_path: Path, name: str, text: str | bytes) -> None:
    file = table(tmp_path, text, name, pictures=3)
    for source in (tmp_path, file):
        layout = sniff(source)
        assert layout.name == "table", layout.why
        assert found(layout) == {"images/0.png": ("cat", ""), "images/1.png": ("dog", "")}
        all_load(layout)
    assert "1 image that no table names left aside: images/2.png." in sniff(tmp_path).notes


@pytest.mark.parametrize("name", ["labels.parquet", "labels.xlsx"])
def test_binary_tables(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"image": ["0.png", "1.png"], "label": [1, 2], "split": ["train", "test"]})
    data = io.BytesIO(workbook(frame) if name.endswith("xlsx") else b"")
    if name.endswith("parquet"):
        frame.write_parquet(data)
    table(tmp_path, data.getvalue(), name)
    assert found(sniff(tmp_path)) == {"images/0.png": ("1", "train"), "images/1.png": ("2", "test")}


def workbook(frame: pl.DataFrame) -> bytes:
    """Write the smallest workbook that Excel would open: a zip of five XML files."""

    def cell(value: object) -> str:
        return (
            f'<c t="inlineStr"><is><t>{value}</t></is></c>'
            if isinstance(value, str)
            else f"<c><v>{value}</v></c>"
        )

    def related(kind: str, target: str) -> str:
        link = f'<Relationship Id="r1" Type="{office}/{kind}" Target="{target}"/>'
        return f'<Relationships xmlns="{package}/relationships">{link}</Relationships>'

    rows = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in (frame.columns, *frame.rows()))
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    kinds = '<Default Extension="xml" ContentType="application/xml"/>'
    sheet = '<sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets>'
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">{kinds}</Types>',
        "_rels/.rels": related("officeDocument", "xl/workbook.xml"),
        "xl/_rels/workbook.xml.rels": related("worksheet", "worksheets/sheet1.xml"),
        "xl/workbook.xml": f'<workbook {main} xmlns:r="{office}">{sheet}</workbook>',
        "xl/worksheets/sheet1.xml": f"<worksheet {main}><sheetData>{rows}</sheetData></worksheet>",
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return data.getvalue()


def test_split_and_group_columns(tmp_path: Path) -> None:
    table(
        tmp_path,
        "image,label,split,patient\n0.png,a,train,p1\n1.png,b,train,p1\n2.png,a,validation,p2\n3.png,b,,p3\n",
    )
    layout = sniff(tmp_path)
    assert [(e.split, e.group) for e in layout.entries()] == [
        ("train", "p1"),
        ("train", "p1"),
        ("val", "p2"),
        ("", "p3"),
    ]
    assert "the split in 'split', the group in 'patient'" in layout.why


@pytest.mark.parametrize(
    "text",
    [
        "image,labels\n0.png,a b|c\n1.png,c\n2.png,\n3.png,a b\n",
        'image,labels\n0.png,"a b, c"\n1.png,c\n2.png,\n3.png,a b\n',
        "image,labels\n0.png,a b;c\n1.png,c\n2.png,\n3.png,a b\n",
        "image,a b,c\n0.png,1,1\n1.png,0,1\n2.png,0,0\n3.png,1,0\n",
        "image,labels\n0.png,\"['a b', 'c']\"\n1.png,['c']\n2.png,[]\n3.png,['a b']\n",
    ],
)
def test_several_labels_a_picture(tmp_path: Path, text: str) -> None:
    table(tmp_path, text)
    assert [label for label, _ in found(sniff(tmp_path)).values()] == ["a b|c", "c", "", "a b"]


def test_one_label_a_row_is_several_labels(tmp_path: Path) -> None:
    table(tmp_path, "image,label\n0.png,a\n0.png,b\n1.png,b\n1.png,a\n2.png,c\n3.png,c\n3.png,c\n")
    layout = sniff(tmp_path)
    assert [label for label, _ in found(layout).values()] == ["a|b", "a|b", "c", "c"]
    assert any("labels of all of them" in note for note in layout.notes)


def test_tags_parted_by_spaces(tmp_path: Path) -> None:
    table(tmp_path, "image_name,tags\n0,haze primary\n1,primary road\n2,clear primary road\n3,haze road\n")
    assert [label for label, _ in found(sniff(tmp_path)).values()][2] == "clear|primary|road"


def test_a_label_with_a_comma_stays_whole(tmp_path: Path) -> None:
    table(tmp_path, 'image,label\n0.png,"Fern, royal"\n1.png,"Moss, common"\n2.png,"Fern, royal"\n')
    assert {label for label, _ in found(sniff(tmp_path)).values()} == {"Fern, royal", "Moss, common"}


def test_kaggle(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / "train_images" / f"x{i}.jpg", encode(scene(i), "JPEG"))
        put(tmp_path / "test_images" / f"y{i}.jpg", encode(scene(9 + i), "JPEG"))
    put(tmp_path / "train.csv", "image_id,label\n" + "".join(f"x{i}.jpg,{i % 2}\n" for i in range(4)))
    put(tmp_path / "sample_submission.csv", "image_id,label\n" + "".join(f"y{i}.jpg,0\n" for i in range(4)))
    layout = sniff(tmp_path)
    assert found(layout)["train_images/x1.jpg"] == ("1", "train")
    assert len(found(layout)) == 4
    assert "4 images that no table names left aside: test_images/y0.jpg" in " ".join(layout.notes)


def test_hugging_face_imagefolder(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        for i in range(2):
            put(tmp_path / split / f"{i}.png", encode(scene(i)))
        put(tmp_path / split / "metadata.csv", "file_name,label\n0.png,a\n1.png,b\n")
    assert found(sniff(tmp_path)) == {
        "train/0.png": ("a", "train"), "train/1.png": ("b", "train"),
        "validation/0.png": ("a", "val"), "validation/1.png": ("b", "val"),
    }  # fmt: skip


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    rows = "image,label\n0.png,a\n1.png,b\n2.png,\nnone.png,a\nhttps://a.b/c.png,a\n3.png,a\n"
    layout = sniff(table(tmp_path, rows))
    assert troubled(layout) == {
        "none.png": "is named in the table but does not exist",
        "https://a.b/c.png": "is named by an address. Download it first",
    }


def test_a_picture_named_in_two_splits_scores(tmp_path: Path) -> None:
    table(tmp_path, "image,label\n0.png,a\n1.png,b\n2.png,a\n", "train.csv")
    put(tmp_path / "test.csv", "image,label\n2.png,a\n3.png,b\n")
    layout = sniff(tmp_path)
    assert [split for _, split in found(layout).values()] == ["train", "train", "test", "test"]
    assert "1 image in two splits at once: they score and do not train." in layout.notes


def test_two_labels_for_one_picture_are_a_contradiction_when_rare(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(30))
    layout = sniff(table(tmp_path, f"image,label\n{rows}3.png,a\n", pictures=30))
    assert troubled(layout) == {"images/3.png": "is labelled 'a' and 'b' in two rows of the table"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,label,split\n0.png,a,train\n1.png,b,holdout\n", r"split 'holdout' in row 3"),
        ("image,label\nx.png,a\ny.png,b\n", "None of the images"),
        ("width,height,depth\n1,2,3\n4,5,6\n", "none of its columns .* names images"),
        ("image,label\n", "no rows"),
        ("", "cannot be read as a table"),
        ("image,label\n0.png,a,b\n1.png,a\n2.png,a\n3.png,a\n", "more cells than the header in row 2"),
        ("image,image\n0.png,a\n", "stands there twice"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        sniff(table(tmp_path, text))


def test_a_table_of_something_else_does_not_hide_class_folders(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 2, "b": 2})
    put(tmp_path / "sizes.csv", "width,height\n1,2\n")
    put(tmp_path / "people.csv", "name,age\nAnn,20\nBen,30\n")
    layout = sniff(tmp_path)
    assert layout.name == "folders"
    assert (
        "sizes.csv left aside: none of its columns ('width', 'height') names images that are here."
        in layout.notes
    )


def test_captions_are_no_classes(tmp_path: Path) -> None:
    folders(tmp_path, {"cat": 8, "dog": 8})
    rows = "".join(
        f"{label}/{i}.png,an image of {label} number {i}\n" for label in ("cat", "dog") for i in range(8)
    )
    put(tmp_path / "metadata.csv", f"file_name,text\n{rows}")
    layout = sniff(tmp_path)
    assert (layout.name, layout.question) == ("folders", None)
    assert any("to take it: --labels metadata.csv" in note for note in layout.notes)


def test_a_table_in_an_archive(tmp_path: Path) -> None:
    table(tmp_path / "set", "image,label\n0.png,a\n1.png,b\n", pictures=2)
    layout = sniff(pack_zip(tmp_path / "set.zip", tmp_path / "set"))
    assert found(layout) == {"set.zip!images/0.png": ("a", ""), "set.zip!images/1.png": ("b", "")}
    all_load(layout)


# Arrays


def test_npz_of_every_naming(tmp_path: Path) -> None:
    images = np.stack([scene(i) for i in range(4)])
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(["x", "y", "x", "y"]))
    np.savez(tmp_path / "b.npz", x_train=images, y_train=[0, 1, 0, 1], x_test=images, y_test=[1, 0, 1, 0])
    np.savez(
        tmp_path / "c.npz",
        train_images=images,
        train_labels=[[0], [1], [0], [1]],
        val_images=images,
        val_labels=[[1]] * 4,
    )
    np.savez(tmp_path / "d.npz", x=images, y=[[0, 0], [1, 0], [0, 1], [1, 1]])
    np.savez(tmp_path / "e.npz", x=images / 255, y=[0, 1, 0, 1], classes=["cat", "dog"])
    assert found(sniff(tmp_path / "a.npz"))["a.npz!images!1"] == ("y", "")
    assert found(sniff(tmp_path / "b.npz"))["b.npz!x_test!0"] == ("1", "test")
    assert found(sniff(tmp_path / "c.npz"))["c.npz!val_images!3"] == ("1", "val")
    assert [label for label, _ in found(sniff(tmp_path / "d.npz")).values()] == ["", "0", "1", "0|1"]
    assert found(sniff(tmp_path / "e.npz"))["e.npz!x!1"] == ("dog", "")
    for name in "abcde":
        all_load(sniff(tmp_path / f"{name}.npz"))
    np.testing.assert_array_equal(load(tmp_path, "e.npz!x!2").image, scene(2))


def test_npz_that_cannot_be_used(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", foo=[1, 2])
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 5, 5)), y=[0, 1])
    np.savez(tmp_path / "c.npz", x=np.array([{}, {}], object), y=[0, 1])
    for name, says in (("a", "Call the images images"), ("b", "do not fit"), ("c", "plain arrays")):
        with pytest.raises(DataError, match=says):
            sniff(tmp_path / f"{name}.npz")
    with pytest.raises(DataError, match="plain arrays"):
        sniff(put(tmp_path / "d.npz", b"nonsense"))


# Hugging Face


def test_save_to_disk_and_parquet_with_pictures(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = {
        "info": {
            "features": {
                "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
                "image": {"_type": "Image"},
            }
        }
    }
    cells = [{"bytes": encode(scene(i)), "path": None} for i in range(5)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.table({"image": pa.array(cells, kind), "label": pa.array([0, 1, 0, 1, -1])})
    rows = rows.replace_schema_metadata({"huggingface": json.dumps(info)})
    saved, files = tmp_path / "saved" / "train", tmp_path / "hub" / "data"
    saved.mkdir(parents=True)
    files.mkdir(parents=True)
    with (
        pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, rows.schema) as writer,
    ):
        writer.write_table(rows)
    put(saved / "state.json", "{}")
    put(saved.parent / "dataset_dict.json", '{"splits": ["train"]}')
    pq.write_table(rows, files / "validation-00000-of-00001.parquet", row_group_size=2)
    for source, split in ((tmp_path / "saved", "train"), (tmp_path / "hub", "val")):
        layout = sniff(source)
        assert layout.name == "huggingface"
        assert list(found(layout).values()) == [
            ("cat", split),
            ("dog", split),
            ("cat", split),
            ("dog", split),
        ]
        assert list(troubled(layout).values()) == ["has no label"]
        all_load(layout)
        np.testing.assert_array_equal(load(layout.root, list(layout.entries())[3].path).image, scene(3))


def test_an_empty_list_of_labels_says_that_there_is_none(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": encode(scene(i)), "path": None} for i in range(3)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, lists, truth in (
        ("one", [["a"], ["b"], ["a"]], "class"),
        ("none", [["a"], [], ["b"]], "classes"),
        ("several", [["a"], ["a", "b"], ["b"]], "classes"),
    ):
        (tmp_path / name).mkdir()
        table = pa.table({"image": pa.array(cells, kind), "labels": pa.array(lists)})
        pq.write_table(table, tmp_path / name / "train.parquet")
        assert sniff(tmp_path / name).truth.kind == truth


# Boxes and masks


def test_coco_yolo_and_voc_are_named_and_their_crops_offered(tmp_path: Path) -> None:
    for name in ("coco", "yolo", "voc"):
        for i in range(2):
            put(tmp_path / name / "images" / f"{i}.png", encode(scene(i)))
    coco = {
        "images": [{"id": 7, "file_name": "0.png"}, {"id": 9, "file_name": "1.png"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 8, "bbox": [10, 20, 30, 20]},
            {"image_id": 9, "category_id": 3, "bbox": [0, 0, 5, 5]},
            {"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]},
        ],
    }
    put(tmp_path / "coco" / "annotations.json", json.dumps(coco))
    put(tmp_path / "yolo" / "data.yaml", "names: {0: cat, 1: dog}\ntrain: images\n")
    put(tmp_path / "yolo" / "labels" / "0.txt", f"1 {25 / 71} {30 / 53} {30 / 71} {20 / 53}\n")
    put(tmp_path / "yolo" / "labels" / "1.txt", f"0 0 0 {5 / 71} 0 {5 / 71} {5 / 53} 0 {5 / 53}\n")
    for i, (name, box) in enumerate((("dog", (11, 21, 40, 40)), ("cat", (1, 1, 5, 5)))):
        corners = "".join(
            f"<{side}>{n}</{side}>" for side, n in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        one = f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
        put(tmp_path / "voc" / "Annotations" / f"{i}.xml", f"<annotation>{one}</annotation>")
    for name, called in (("coco", "COCO"), ("yolo", "YOLO"), ("voc", "Pascal VOC")):
        with pytest.raises(DataError, match=f"boxes \\({called}, because.*--layout crops"):
            prepare(tmp_path / name, task="classify")
        layout = sniff(tmp_path / name, layout="crops")
        assert found(layout)["images/0.png!10,20,40,40"] == ("dog", "")
        assert found(layout)["images/1.png!0,0,5,5"] == ("cat", "")
        np.testing.assert_array_equal(
            load(layout.root, "images/0.png!10,20,40,40").image, scene(0)[20:40, 10:40]
        )
        assert {entry.group for entry in layout.entries()} == {"images/0.png", "images/1.png"}
    assert list(troubled(sniff(tmp_path / "coco", layout="crops")).values()) == [
        "is a box of fewer than two pixels"
    ]


def test_masks_are_no_classes(tmp_path: Path) -> None:
    """They are masks of pixels, whose values stand for something; these are photographs."""
    with pytest.raises(DataError, match=r"have no names.*masks in 3,738 colours.*classes\.txt"):
        prepare(folders(tmp_path, {"train/images": 2, "train/masks": 2}))


def test_real_boxes_of_blood_cells(shared: Callable[[str], Path]) -> None:
    layout = sniff(shared("data/bccd.zip"), layout="crops")
    assert {label for label, _ in found(layout).values()} == {"WBC", "RBC", "Platelets"}
    assert {split for _, split in found(layout).values()} >= {"train", "val"}
    first: Entry = next(iter(layout.entries()))
    assert load(layout.root, first.path).image.size


# Medical images


def test_dicom_and_nifti_keep_their_window(tmp_path: Path) -> None:
    import nibabel as nib
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    values = np.arange(53 * 71, dtype=np.int16).reshape(53, 71)
    for label in ("ill", "well"):
        file = pydicom.Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = (
            53,
            71,
            1,
            "MONOCHROME2",
        )
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
        file.RescaleSlope, file.RescaleIntercept = 1, -1000
        file.WindowCenter, file.WindowWidth = 1000, 1000
        file.PixelData = values.tobytes()
        (tmp_path / "dcm" / label).mkdir(parents=True)
        file.save_as(tmp_path / "dcm" / label / "1.dcm", enforce_file_format=True)
        volume = np.stack([values, values * 2, values * 3], axis=-1)
        (tmp_path / "nii" / label).mkdir(parents=True)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "nii" / label / "1.nii.gz")
    shown = load(tmp_path / "dcm", "ill/1.dcm")
    expected = np.clip((values - 1000.0 - 500) * 255 / 1000, 0, 255).round()
    np.testing.assert_allclose(shown.image[..., 0], expected, atol=1)
    assert "window" in shown.notes[0]
    layout = sniff(tmp_path / "nii")
    assert len(found(layout)) == 6
    assert {entry.group for entry in layout.entries()} == {"ill/1.nii.gz", "well/1.nii.gz"}
    middle = load(layout.root, "ill/1.nii.gz!1").image
    np.testing.assert_allclose(
        np.rot90(middle[..., 0], -1), (values * 2.0 * 255 / (values.max() * 3.0)).round(), atol=1
    )


def test_broken_annotations_and_tables_are_told_in_a_sentence(tmp_path: Path) -> None:
    for name, text in (
        ("a", '{"images": [], "categories": [], "annotations": [{"id": 1}]}'),
        ("b", '{"images"'),
    ):
        folders(tmp_path / name, {"": 2})
        put(tmp_path / name / "coco.json", text + ' "annotations" "categories"' * (name == "b"))
        with pytest.raises(DataError, match="Export the annotations again"):
            sniff(tmp_path / name, layout="crops")
    with pytest.raises(DataError, match="cannot be read as a table"):
        sniff(put(tmp_path / "t.parquet", b"PAR1 nonsense PAR1"))


def test_the_extras_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from vitrail.data import containers, medical

    def absent(name: str) -> object:
        raise ImportError(name)

    for module in (containers, medical):
        monkeypatch.setattr(module, "import_module", absent)
    put(tmp_path / "a" / "1.nii", b"x")
    put(tmp_path / "t.parquet", b"x")
    with pytest.raises(DataError, match=r"vitrail\[medical\]"):
        medical.slices(tmp_path / "a" / "1.nii")
    with pytest.raises(DataError, match=r"vitrail\[medical\]"):
        medical.dicom(b"\0" * 128 + b"DICM", "1.dcm")
    with pytest.raises(DataError, match=r"vitrail\[arrow\]"):
        containers.arrow_table(tmp_path / "t.parquet")
    assert importlib.import_module
