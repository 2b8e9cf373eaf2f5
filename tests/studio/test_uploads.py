"""Files that arrive: names that cannot leave the folder, archives, a resume, a full disk."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import anyio
import pytest
from data.pictures import encode, folders, scene
from image_studio import SCRIPT, checked, images_of, send, studio

from vitrail.core.errors import DataError, RunError
from vitrail.studio.database import Database
from vitrail.studio.datasets import Datasets
from vitrail.studio.uploads import Incoming, Uploads, safe_path
from vitrail.studio.workspace import Workspace

PNG = encode(scene(1, (24, 24)))


@pytest.fixture
def uploads(tmp_path):
    workspace = Workspace(tmp_path / "ws")
    workspace.make()
    return Uploads(Datasets(workspace, Database(workspace.database)), reserve=0)


def everything(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())


async def pieces(*some: bytes):
    for one in some:
        yield one


@pytest.mark.parametrize(
    "path",
    ["../x.png", "a/../../x.png", "/etc/x.png", "a//x.png", "a/./x.png", "", "a\\..\\x.png", "a\0.png", "a\n.png",
     "n" * 300 + ".png", ".ssh/x.png", "cat/.hidden.png", "d/" * 40 + "x.png"],
)  # fmt: skip
def test_a_path_that_is_not_plainly_inside_is_refused(path):
    with pytest.raises(DataError):
        safe_path(path)


@pytest.mark.parametrize(
    "path", ["1.jpg", "cat/1.jpg", "猫/猫 1.jpg", "<img src=x onerror=alert(1)>/a&b'\".png", "a..b/c.png"]
)
def test_any_other_name_is_kept_as_it_is(path):
    assert safe_path(path).as_posix() == path


def test_a_request_cannot_write_outside_of_its_data_set(tmp_path):
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": "photos"}, headers=SCRIPT)
        for path in (
            "..%2F..%2Fevil.png",
            "%2Ftmp%2Fevil.png",
            "a%5C..%5C..%5Cevil.png",
            "cat%2F..%2F..%2Fevil.png",
        ):
            reply = client.put(f"/data/photos/files/{path}", content=PNG, headers=SCRIPT)
            assert reply.status_code == 422, path
            assert reply.json()["sentence"]
        assert not list(tmp_path.rglob("*evil*"))


def test_a_link_that_leads_out_is_neither_written_through_nor_shown(tmp_path):
    outside = folders(tmp_path / "private", {"cat": 1, "dog": 1}, (24, 24))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": "photos"}, headers=SCRIPT)
        inside = tmp_path / "ws" / "data" / "photos"
        send(client, "photos", {"dog/1.png": PNG})
        (inside / "cat").symlink_to(outside / "cat")
        reply = client.put("/data/photos/files/cat/new.png", content=PNG, headers=SCRIPT)
        assert "through a link" in reply.json()["sentence"]
        assert everything(outside) == ["cat/0.png", "dog/0.png"]
        shown = client.get("/data/photos/thumb", params={"id": "cat/0.png"})
        assert "through a link" in shown.text
        assert shown.status_code == 422
        (tmp_path / "ws" / "data" / "whole").symlink_to(outside)
        assert "whole" not in [one.name for one in images_of(client).datasets.all()]
        assert client.get("/data/whole").status_code == 422


def test_a_zip_that_would_leave_its_folder_is_read_in_place_and_its_bad_member_named(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil.png", PNG)
        for number in range(8):
            for kind in ("cat", "dog"):
                archive.writestr(
                    f"{kind}/{number}.png", encode(scene(number + 50 * (kind == "dog"), (24, 24)))
                )
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": "photos"}, headers=SCRIPT)
        assert send(client, "photos", {"photos.zip": packed.getvalue()}) == [{"path": "photos.zip"}]
        page = checked(client, "photos")
        assert "leads out of the archive" in page
        assert "16 images in 2 classes" in page
        thumb = client.get("/data/photos/thumb", params={"id": "photos.zip!cat/1.png"})
        assert thumb.headers["content-type"] == "image/webp"
    assert not [one for one in everything(tmp_path) if "evil" in one]


def test_a_bomb_and_a_torn_zip_are_refused_when_they_arrive(tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.png", PNG)
        for info in archive.infolist():
            info.file_size = 230 << 20  # as its directory states it
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": "photos"}, headers=SCRIPT)
        for data, why in ((bomb.getvalue(), "bomb"), (b"PK torn", "no whole archive")):
            assert why in send(client, "photos", {"x.zip": data})[0]["sentence"]
        assert everything(tmp_path / "ws" / "data") == []
        assert everything(tmp_path / "ws" / ".vitrail" / "uploads") == []


def test_what_has_arrived_is_not_sent_again_and_nothing_is_overwritten(tmp_path):
    files = {f"cat/{number}.png": encode(scene(number, (24, 24))) for number in range(5)}
    told = {"files": [[path, len(data), 1700000000000] for path, data in files.items()]}
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": "photos"}, headers=SCRIPT)
        send(client, "photos", dict(list(files.items())[:3]))
    with studio(tmp_path / "ws") as client:  # closed and opened again in the middle
        left = client.post("/data/photos/missing", json=told).json()
        assert left == {"missing": [3, 4], "refused": {}}
        send(client, "photos", files)
        assert client.post("/data/photos/missing", json=told).json()["missing"] == []
        (other,) = send(client, "photos", {"cat/0.png": PNG + b"other"})
        assert other == {"path": "cat/0 (2).png"}
    stored = tmp_path / "ws" / "data" / "photos"
    assert everything(stored) == ["cat/0 (2).png", *files]
    assert (stored / "cat/0.png").read_bytes() == files["cat/0.png"]


def test_names_and_sizes_that_are_refused_are_told_before_anything_is_sent(tmp_path):
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": "photos"}, headers=SCRIPT)
        told = {"files": [["cat/1.png", 5, 0], ["../1.png", 5, 0], ["cat/2.png", 1 << 30, 0]]}
        answer = client.post("/data/photos/missing", json=told).json()
    assert answer["missing"] == [0]
    assert set(answer["refused"]) == {"1", "2"}
    assert "1,024 MB" in answer["refused"]["2"]


@pytest.mark.parametrize("some", [(b"12",), (b"1234", b"5678", b"9")])
def test_a_file_that_is_cut_off_or_too_long_leaves_nothing(uploads, some):
    dataset = uploads.datasets.create("photos")
    with pytest.raises(DataError, match="cut off"):
        anyio.run(uploads.receive, dataset, Incoming("cat/1.png", 8, 0), pieces(*some))
    assert everything(uploads.datasets.workspace.folder) == [".vitrail/studio.db"]


def test_a_full_disk_is_a_sentence_and_nothing_is_half_written(small_disk):
    workspace = Workspace(small_disk / "ws")
    workspace.make()
    uploads = Uploads(Datasets(workspace, Database(workspace.database)), reserve=0)
    dataset = uploads.datasets.create("photos")
    with pytest.raises(RunError, match="Free some disk space"):
        anyio.run(uploads.receive, dataset, Incoming("cat/1.png", 4 << 20, 0), pieces(bytes(4 << 20)))
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    size = free - 4096
    (small_disk / "other").write_bytes(bytes(free // 2))  # another program fills the disk meanwhile
    uploads.reserve = -size
    with pytest.raises(RunError, match="could not be written"):
        anyio.run(
            uploads.receive,
            dataset,
            Incoming("cat/1.png", size, 0),
            pieces(*[bytes(1 << 16)] * (size // (1 << 16) + 1)),
        )
    assert everything(workspace.data) == []
    assert everything(workspace.own / "uploads") == []


def test_small_files_arrive_together_and_each_is_told_apart(tmp_path):
    files = [("cat/1.png", PNG), ("../out.png", PNG), ("cat/2.png", PNG), ("dog/1.png", PNG)]
    line = json.dumps([[path, len(content), 1000] for path, content in files]).encode() + b"\n"
    whole = line + b"".join(content for _, content in files)
    with studio(tmp_path) as client:
        client.post("/data/new", data={"name": "pets"}, headers=SCRIPT)
        told = client.post("/data/pets/files", content=whole, headers=SCRIPT).json()
        assert list(told["refused"]) == ["1"]
        assert "no path of a file" in told["refused"]["1"]
        place = tmp_path / "data" / "pets"
        assert everything(place) == ["cat/1.png", "cat/2.png", "dog/1.png"]
        assert all((place / path).read_bytes() == PNG for path, _ in files if ".." not in path)
        assert not (tmp_path / "data" / "out.png").exists()
        again = client.post("/data/pets/files", content=whole[:-5], headers=SCRIPT).json()
        assert list(again["refused"]) == ["1"], "what is here is not written again"
        short = json.dumps([["fox/1.png", len(PNG), 1000]]).encode() + b"\n" + PNG[:-3]
        told = client.post("/data/pets/files", content=short, headers=SCRIPT).json()
        assert "cut off" in told["refused"]["0"]
        assert not (place / "fox" / "1.png").exists()
        for torn in (b"", b"no line", b"[1]\n", b"{}x\n", b'[["a.png", -1, 0]]\n', b'[["a.png"]]\n'):
            answer = client.post("/data/pets/files", content=torn, headers=SCRIPT)
            assert answer.status_code == 422
            assert "not sent whole" in answer.json()["sentence"]


def packed(*numbers: int) -> bytes:
    """Return a tar.gz with some images of cats."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in numbers:
            info = tarfile.TarInfo(f"cat/{number}.png")
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    return buffer.getvalue()


def test_a_number_is_given_once_and_an_archive_keeps_its_suffix(tmp_path):
    files = {"cat/1.png": PNG, "photos.TAR.gz": packed(1)}
    others = {"cat/1.png": encode(scene(2, (32, 24))), "photos.TAR.gz": packed(1, 2)}
    assert all(len(files[path]) != len(others[path]) for path in files)
    told = {"files": [[path, len(content), 1700000000000] for path, content in others.items()]}
    with studio(tmp_path) as client:
        client.post("/data/new", data={"name": "pets"}, headers=SCRIPT)
        send(client, "pets", files)
        assert client.post("/data/pets/missing", json=told).json()["missing"] == [0, 1]
        for _ in range(3):  # dropped again: it is here, under its number
            assert send(client, "pets", others) == [{"path": "cat/1 (2).png"}, {"path": "photos (2).TAR.gz"}]
            assert client.post("/data/pets/missing", json=told).json()["missing"] == []
    assert sorted(everything(tmp_path / "data" / "pets")) == [
        "cat/1 (2).png", "cat/1.png", "photos (2).TAR.gz", "photos.TAR.gz"
    ]  # fmt: skip


def test_a_time_of_change_that_no_disk_can_keep_is_refused(tmp_path):
    with studio(tmp_path) as client:
        client.post("/data/new", data={"name": "pets"}, headers=SCRIPT)
        late = client.put(f"/data/pets/files/cat/1.png?modified={10**30}", content=PNG, headers=SCRIPT)
        assert late.status_code == 422
        for modified in ("1e400", 10**30):
            body = f'[["cat/1.png", {len(PNG)}, {modified}]]\n'.encode() + PNG
            answer = client.post("/data/pets/files", content=body, headers=SCRIPT)
            assert "not sent whole" in answer.json()["sentence"]
    assert everything(tmp_path / "data") == []


def test_a_form_without_script_sends_a_folder_and_single_images_of_a_class(tmp_path):
    files = [
        ("files", (f"photos/{kind}/{number}.png", PNG)) for kind in ("cat", "dog") for number in range(2)
    ]
    with studio(tmp_path / "ws") as client:
        reply = client.post("/data/new", files=files, follow_redirects=False)
        assert (reply.status_code, reply.headers["location"]) == (303, "photos")
        client.post("/data/photos/add", files=[("files", ("9.png", PNG))], data={"class": "fox"})
        nothing = client.post("/data/new", data={"path": " "})
        assert "Nothing was chosen" in nothing.text
    there = everything(tmp_path / "ws" / "data" / "photos")
    assert there == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "fox/9.png"]
