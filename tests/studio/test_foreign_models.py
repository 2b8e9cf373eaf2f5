"""A saved model from elsewhere: a broken or hostile file leaves nothing behind, and the gallery goes on."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from vitrail.core.errors import VitrailError
from vitrail.studio.own_models import OwnModels
from vitrail.studio.workspace import Workspace

GOOD = "model: {name: vit_s16}\n"


def packed(place: Path, files: dict[str, str | bytes]) -> Path:
    file = place / "sent.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"sent/{name}", data)
    return file


@pytest.fixture
def own(tmp_path: Path) -> OwnModels:
    workspace = Workspace(tmp_path / "studio")
    workspace.make()
    return OwnModels(workspace)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"recipe.yaml": "model: vit_s16\n"}, "names no network"),
        ({"recipe.yaml": "model: {name: 3}\n"}, "names no network"),
        ({"recipe.yaml": "a: [\n"}, "cannot be read"),
        ({"recipe.yaml": f"task: os:system\n{GOOD}"}, "code of its own"),
        ({"recipe.yaml": "model: {name: 'os:system'}\n"}, "code of its own"),
        ({"recipe.yaml": GOOD, "model.safetensors": "no weights"}, "not a complete model file"),
        ({"recipe.yaml": GOOD, "model.safetensors": bytes(65 << 20)}, "zip bomb"),
    ],
)
def test_a_bad_file_is_refused_and_leaves_nothing(own, tmp_path, files, reason):
    own.save_network("vit_b16", "mine")
    with pytest.raises(VitrailError, match=reason):
        own.unpack(packed(tmp_path, files), "sent")
    assert [path.name for path in own.place.iterdir()] == ["mine"]
    assert [one.name for one in own.all()] == ["mine"]


@pytest.mark.parametrize("about", ["[]", '{"saved": "yesterday"}', '{"saved": null}', "{"])
def test_words_about_a_model_that_make_no_sense_are_left_out(own, tmp_path, about):
    one = own.unpack(packed(tmp_path, {"recipe.yaml": GOOD, "about.json": about}), "sent")
    assert (one.network, one.made_of) == ("vit_s16", "")
    assert own.all() == [one]


def test_a_broken_folder_does_not_hide_the_others(own):
    own.save_network("vit_b16", "mine")
    (own.place / "broken").mkdir()
    (own.place / "broken" / "recipe.yaml").write_text("model: text\n")
    assert [one.name for one in own.all()] == ["mine"]
    with pytest.raises(VitrailError, match="names no network"):
        own.get("broken")
