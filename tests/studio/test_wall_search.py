"""The search of the wall beside names: mistakes, doubtful labels, similar images; and what it says without any."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from data.pictures import folders
from fastapi.testclient import TestClient
from image_studio import checked, images_of, studio
from safetensors.numpy import save_file
from trained_studio import RUN

from vitrail.core.environment import cache_dir
from vitrail.data.own_outputs import FIX
from vitrail.studio.search import found_by, name_in
from vitrail.studio.similar_images import similar
from vitrail.studio.workspace import Workspace


def ids_of(client: TestClient, name: str, **query: str) -> list[str]:
    return [one["id"] for one in client.get(f"/data/{name}/tiles", params=query).json()]


def test_wrong_are_the_mistakes_of_the_newest_model(client: TestClient, workspace: Workspace) -> None:
    result = client.app.state.studio.run(RUN).result()
    wrong = {
        one.id
        for part in result.sections
        for one in getattr(part, "shots", ())
        if getattr(one, "right", 1) is False
    }
    assert wrong
    found = ids_of(client, RUN, q="wrong")
    assert set(found) >= wrong
    truths = client.app.state.studio.run(RUN).rows()
    assert {truths[one].split for one in found} == {"test"}
    plan = client.get(f"/data/{RUN}/wall.json", params={"q": "wrong"}).json()
    assert plan["groups"] == [["", len(found)]]
    page = client.get(f"/data/{RUN}", params={"q": "wrong"}).text
    assert f"{len(found)} mistakes of the model" in page
    assert ids_of(client, RUN, q='"wrong"') == []  # in quotes it is a name


def test_doubtful_labels_come_from_a_draft_or_from_fix(client: TestClient, workspace: Workspace) -> None:
    rows = list(client.app.state.studio.run(RUN).rows())
    page = client.get(f"/data/{RUN}", params={"q": "doubt > 0.8"}).text
    assert "No labels have been judged yet" in page
    assert f'href="../data/{RUN}/train"' in page
    run = workspace.runs / RUN
    lines = [f"{rows[i]},1,2,{share}" for i, share in enumerate((0.99, 0.7, 0.85))]
    (run / "doubts.csv").write_text("id,label,looks_like,probability\n" + "\n".join(lines) + "\n")
    assert ids_of(client, RUN, q="doubt > 0.8") == [rows[0], rows[2]]
    assert ids_of(client, RUN, q="doubt > 60%") == [rows[0], rows[2], rows[1]]
    (run / "fix").mkdir()
    cells = [dict.fromkeys(FIX, "") | {"id": rows[i], "confidence": str(c)} for i, c in ((4, 0.05), (5, 0.5))]
    table = [",".join(FIX), *(",".join(one.values()) for one in cells)]
    (run / "fix" / "fix.csv").write_text("\n".join(table) + "\n")
    assert ids_of(client, RUN, q="doubt") == [rows[4]]  # the newer list, by the network itself
    assert "1 label that may be wrong, judged by" in client.get(f"/data/{RUN}", params={"q": "doubt"}).text


def test_similar_images_by_cached_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    root = folders(tmp_path / "photos", {"fern": 6, "moss": 6}, (16, 16))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        checked(client, "photos")
        like = "/data/photos?like=" + quote("fern/2.png")
        assert "Nothing is known of what this image looks like" in client.get(like).text
        rows = images_of(client).checks.listing(images_of(client).datasets.get("photos")).rows
        angles = {row.id: 0.1 * i for i, row in enumerate(rows)}
        write_features({row.hash: (np.cos(angles[row.id]), np.sin(angles[row.id])) for row in rows})
        found = ids_of(client, "photos", like="fern/2.png")
        nearest = sorted(
            angles, key=lambda name: (name != "fern/2.png", abs(angles[name] - angles["fern/2.png"]))
        )
        assert found[0] == "fern/2.png"
        assert set(found[:3]) == set(nearest[:3])
        assert found[-1] == nearest[-1]
        assert len(found) == 12
        page = client.get(like).text
        assert "12 images similar to" in page
        assert ids_of(client, "photos", like="fern/2.png", group="moss") == [
            one for one in found if one[0] == "m"
        ]
        assert client.get("/data/photos/tiles?like=gone.png").status_code == 422


def write_features(vectors: dict[str, Sequence[float]], name: str = "a", extra: str = "") -> None:
    folder = cache_dir() / "features"
    folder.mkdir(parents=True, exist_ok=True)
    table = np.array(list(vectors.values()), np.float32)
    save_file({"vectors": table, "vectors.middle": table[:, :1].copy()}, folder / f"{name}.safetensors",
              {"hashes": json.dumps(list(vectors)) + extra})  # fmt: skip


def test_a_cache_that_is_broken_or_of_patches_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    rows = [row(f"{i}", f"h{i}") for i in range(5000)]
    assert similar(rows[3], rows) == ()
    points = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    write_features(dict(zip((one.hash for one in rows), points, strict=True)))
    whole = (tmp_path / "features" / "a.safetensors").read_bytes()
    (tmp_path / "features" / "b.safetensors").write_bytes(whole[:-9])
    (tmp_path / "features" / "c.safetensors").write_bytes(b"\xff" * 40)
    patches = {"vectors": np.zeros((1, 4, 2), np.float16)}
    save_file(patches, tmp_path / "features" / "d.safetensors", {"hashes": json.dumps(["h3"])})
    write_features({"h3": points[0]}, "e")  # knows this image, but fewer of the others
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit[4500]))[:5]
    assert list(similar(rows[4500], rows, 5)) == [str(place) for place in nearest]
    assert similar(rows[3], rows, 1) == ("3",)


def row(name: str, content: str):
    from vitrail.data.manifest import Row

    return Row(name, name, hash=content)


def test_words_of_the_search() -> None:
    assert found_by("fern", list) is None
    assert found_by("wrong fern", list) is None
    assert found_by("doubt > 0.9", list).least == 0.9
    assert found_by("doubt>=90 %", list).least == 0.9
    assert found_by("doubt", list).problem == "no list"
    assert found_by("wrong", list).problem == "no model"
    assert name_in('"wrong"') == "wrong"
    assert name_in("“doubt”") == "doubt"
    assert name_in('"') == '"'
