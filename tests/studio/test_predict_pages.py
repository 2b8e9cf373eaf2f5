"""Pictures that a model looks at in the studio: answers, attention, heat maps, tables."""

from __future__ import annotations

import csv
import io
import zipfile

import pytest
from PIL import Image
from trained_studio import RUN, ended

from vitrail.infer.predictor import Predictor
from vitrail.studio.predictors import Predictors

AT = f"/runs/{RUN}"


@pytest.fixture
def picture(workspace):
    return sorted((workspace.data / RUN / "3").iterdir())[0]


def given(client, *pictures):
    files = [("pictures", (name, data, "image/png")) for name, data in pictures]
    return client.post(f"{AT}/predict", files=files, follow_redirects=False)


def test_a_picture_has_a_page_with_the_answer_of_the_model(client, workspace, picture):
    answer = given(client, ("three.png", picture.read_bytes()))
    assert answer.status_code == 303
    page = client.get(f"{AT}/{answer.headers['location']}")
    said = Predictor(workspace.runs / RUN)(picture)[0]
    assert f'<h2 class="said" translate="no">{said.label}</h2>' in page.text
    assert f"{100 * said.probability:.1f} %" in page.text
    assert "three.png" in page.text
    assert f"vitrail explain runs/{RUN} three.png" in page.text
    assert client.get(f"{AT}/{answer.headers['location']}").text == page.text


def test_attention_and_heat_maps_of_a_picture(client, picture):
    at = f"{AT}/{given(client, ('three.png', picture.read_bytes())).headers['location']}"
    data = client.get(f"{at}/attention").json()
    assert {"prefix", "layers", "box", "colours"} == set(data)
    assert len(data["colours"]) == 256
    for method in ("rollout", "relevance"):
        heat = client.get(f"{at}/heat/{method}", params={"of": "2"})
        assert heat.headers["content-type"].startswith("image/"), method
        assert heat.status_code == 200
    assert client.get(f"{at}/heat/nonsense").status_code == 404
    tested = client.get(at, params={"test": "rollout"}).text
    assert "alike with shuffled weights" in tested


def test_several_pictures_are_answered_together_and_a_broken_one_is_named(client, picture):
    other = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(other, "PNG")
    answer = given(
        client, ("a.png", picture.read_bytes()), ("b.png", other.getvalue()), ("c.png", b"no image")
    )
    page = client.get(f"{AT}/{answer.headers['location']}").text
    assert "2 answers" in page
    assert 'role="alert"><p>c.png' in page


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("../../escape.png", b"nothing"),
        ("empty.png", b""),
    ],
)
def test_what_is_no_image_is_refused_and_not_kept(client, workspace, name, data):
    page = client.get(f"{AT}/{given(client, (name, data)).headers['location']}").text
    assert 'role="alert"' in page
    assert (
        not list((workspace.own / "pictures").glob("*/*")) if (workspace.own / "pictures").exists() else True
    )
    assert "Traceback" not in page


def test_the_name_of_a_picture_stays_in_its_folder_and_is_never_markup(client, workspace, picture):
    answer = given(client, ("../../<b>x</b>.png", picture.read_bytes()))
    [kept] = (workspace.own / "pictures").glob("*/*")
    assert kept.parent.parent == workspace.own / "pictures"
    assert "<b>x" not in client.get(f"{AT}/{answer.headers['location']}").text


def test_an_image_of_the_run_can_be_tried(client, workspace):
    page = client.get(f"{AT}/predict").text
    assert "/predict/of?id=" in page
    row = next(iter(client.app.state.studio.run(RUN).rows()))
    answer = client.get(f"{AT}/predict/of", params={"id": row})
    assert answer.status_code == 200
    assert 'class="said"' in answer.text


@pytest.mark.parametrize("key", ["0" * 24, "..", "a" * 23, "%2e%2e%2f%2e%2e"])
def test_a_picture_that_is_not_kept_is_a_sentence(client, key):
    answer = client.get(f"{AT}/predict/{key}/picture")
    assert answer.status_code in (404, 422)
    assert "Traceback" not in answer.text


def test_a_zip_becomes_a_table(client, workspace, picture):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("new/a.png", picture.read_bytes())
        archive.writestr("new/b.png", b"no image")
    started = client.post(
        f"{AT}/table", files={"files": ("new.zip", packed.getvalue())}, follow_redirects=False
    )
    at = f"{AT}/{started.headers['location']}".replace(f"{AT}/../..", "")
    page = ended(client, at)
    rows = list(csv.DictReader(io.StringIO(client.get(f"{at}/files/{RUN}.csv").text)))
    said = Predictor(workspace.runs / RUN)(picture)[0]
    assert len(rows) == 2, page
    assert rows[0]["label"] == said.label
    assert rows[1]["error"]
    assert client.get(f"{at}/files/..%2f..%2fcommand.json").status_code == 422
    assert "new.zip" in client.get(f"{AT}/predict").text


def test_a_folder_that_is_not_there_is_refused(client):
    answer = client.post(f"{AT}/table", data={"place": "/no/such/folder"})
    assert answer.status_code == 422
    assert "does not exist on this computer" in answer.text


def test_only_the_last_models_stay_in_memory(workspace):
    import shutil

    for number in (2, 3):
        shutil.copytree(workspace.runs / RUN, workspace.runs / f"{RUN}-{number}")
    models = Predictors(most=2)
    folders = [workspace.runs / name for name in (RUN, f"{RUN}-2", f"{RUN}-3")]
    loaded = []
    for folder in (*folders, folders[2]):
        with models.model(folder) as model:
            loaded.append(model)
    assert models.folders() == folders[1:]
    assert loaded[3] is loaded[2]
