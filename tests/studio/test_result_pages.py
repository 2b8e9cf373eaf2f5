"""The result of a run in the studio: its sections, the images behind them, and corrections of their labels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from io import BytesIO

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from trained_studio import RUN, TOKEN

from vitrail.data.decisions import History
from vitrail.reports.robustness import robustness_of_run
from vitrail.robustness.options import RobustnessOptions
from vitrail.runs.run import Run
from vitrail.studio.app_parts import Studio
from vitrail.studio.result_view import confusions, matrix_rows
from vitrail.studio.run_files import RunFiles
from vitrail.tasks.result import Matrix, Shot

AT = f"/runs/{RUN}"


@pytest.fixture
def studio(client: TestClient) -> Studio:
    return client.app.state.studio


@pytest.fixture
def wrong(studio) -> Shot:
    """A test image whose answer is wrong."""
    result = studio.run(RUN).result()
    matrix = next(one for one in result.sections if isinstance(one, Matrix))
    return next(shot for (i, j), shots in matrix.shots.items() if i != j for shot in shots)


def decisions(workspace):
    return History.read(workspace.data / f"{RUN}.vitrail.jsonl").decisions


def test_the_page_shows_the_verdict_and_every_section(client, studio):
    text = unescape(client.get(f"{AT}/result").text)
    report = studio.run(RUN).report()
    assert report["verdict"] in text
    for section in studio.run(RUN).result().sections:
        if section.kind in ("table", "gallery"):
            assert section.heading in text
    assert "?cell=" in text
    assert f"vitrail eval runs/{RUN}" in text


@pytest.fixture
def measured(studio):
    """The run with its robustness measured; afterwards its files are as before."""
    run = studio.run(RUN)
    kept = {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    few = RobustnessOptions(robustness=True, sample=3, attacked=2, epsilons="4")
    robustness_of_run(str(run.folder), few, say=lambda _: None)
    yield run.result()
    for path, content in kept.items():
        path.write_bytes(content)


def test_robustness_is_shown_as_any_other_section(client, measured):
    text = unescape(client.get(f"{AT}/result").text)
    numbers = [i for i, one in enumerate(measured.sections) if one.heading.startswith("Robustness")]
    assert len(numbers) == 9
    for number in numbers:
        section = measured.sections[number]
        assert section.heading in text
        if section.kind == "curve":
            assert f"figure/{number}.png" in text
            image = client.get(f"{AT}/result/figure/{number}.png")
            assert Image.open(BytesIO(image.content)).size[0] > 300


def test_the_page_needs_no_torch(workspace):
    script = f"""
import sys
from fastapi.testclient import TestClient
from vitrail.studio.app import create_app
from vitrail.studio.workspace import Workspace
from pathlib import Path
app = create_app(Workspace(Path({str(workspace.folder)!r})), {TOKEN!r}, hosts=("testserver",))
client = TestClient(app, cookies={{"vitrail": {TOKEN!r}}})
for page in ("result", "result?cell=0-0", "predict", "export"):
    assert client.get({AT!r} + "/" + page).status_code == 200, page
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_cell_opens_its_images(client, studio, wrong):
    matrix = next(one for one in studio.run(RUN).result().sections if isinstance(one, Matrix))
    i, j = matrix.labels.index(wrong.truth), matrix.labels.index(wrong.answer)
    text = unescape(client.get(f"{AT}/result?cell={i}-{j}").text)
    opened = text[text.index('id="cell"') :]
    assert all(shot.id in opened for shot in matrix.shots[i, j])
    image = client.get(f"{AT}/image", params={"id": wrong.id})
    assert image.headers["content-type"] == "image/png"
    assert max(Image.open(BytesIO(image.content)).size) >= 128


@pytest.mark.parametrize("cell", ["9-9", "a-b", "1", "-1-0", "0-0-0"])
def test_a_cell_that_is_not_there_opens_nothing(client, cell):
    answer = client.get(f"{AT}/result", params={"cell": cell})
    assert answer.status_code == 200
    assert 'id="cell"' not in answer.text


def test_figures_and_heat_maps_are_images(client, studio, wrong):
    sections = studio.run(RUN).result().sections
    number = next(i for i, one in enumerate(sections) if one.kind == "reliability")
    assert client.get(f"{AT}/result/figure/{number}.png").headers["content-type"] == "image/png"
    assert client.get(f"{AT}/result/figure/99.png").status_code == 404
    looked = client.get(f"{AT}/result/looked", params={"id": wrong.id})
    assert looked.headers["content-type"].startswith("image/")
    assert looked.status_code == 200


def test_an_image_that_moved_is_a_drawing_not_an_error(client):
    answer = client.get(f"{AT}/image", params={"id": "../../etc/passwd"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "image/svg+xml")


def test_a_label_is_corrected_and_the_correction_undone(client, workspace, wrong):
    form = {"what": "relabel", "id": wrong.id, "label": wrong.answer, "back": "#matrix"}
    answer = client.post(f"{AT}/result/correct", data=form, follow_redirects=False)
    assert answer.headers["location"] == "../result#matrix"
    [made] = decisions(workspace)
    assert (made.what, made.ids, made.value) == ("relabel", (wrong.id,), wrong.answer)
    page = client.get(f"{AT}/result").text
    assert f"now {wrong.answer}" in page
    assert "1 image corrected since this training." in page
    client.post(f"{AT}/result/undo", data={"number": made.number})
    assert decisions(workspace)[-1].what == "undo"
    assert "corrected since this training" not in client.get(f"{AT}/result").text


def test_only_images_of_the_run_are_decided_about_and_only_its_page_is_returned_to(client, workspace, wrong):
    refused = client.post(f"{AT}/result/correct", data={"what": "drop", "id": ["no such image"]})
    assert refused.status_code == 422
    assert not decisions(workspace)
    form = {"what": "drop", "id": wrong.id, "back": "https://elsewhere.example"}
    answer = client.post(f"{AT}/result/correct", data=form, follow_redirects=False)
    assert answer.headers["location"] == "../result"


def test_training_again_is_queued_with_the_same_settings_and_the_number_of_decisions(client, studio, wrong):
    studio.queue.close()  # nothing is to be trained here
    client.post(f"{AT}/result/correct", data={"what": "drop", "id": wrong.id})
    answer = client.post(f"{AT}/again", follow_redirects=False)
    assert answer.headers["location"] == f"../{RUN}-2"
    [job] = studio.queue.jobs()
    assert job.words == (
        "train", f"data/{RUN}", "--recipe", f"runs/{RUN}/recipe.yaml", "--out", f"runs/{RUN}-2"
    )  # fmt: skip
    assert (job.run, job.revision, job.dataset) == (f"{RUN}-2", 1, RUN)
    client.post(f"{AT}/again")
    assert studio.queue.jobs()[0].run == f"{RUN}-3"


def test_names_of_classes_and_files_are_never_markup(client, workspace):
    bad = "<img src=x onerror=alert(1)>"
    path = workspace.runs / RUN / "result.json"
    text = path.read_text()
    values = json.loads(text.replace('"0"', json.dumps(bad)))
    path.write_text(json.dumps(values))
    for address in ("result", "result?cell=0-0"):
        page = client.get(f"{AT}/{address}").text
        assert bad not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_a_run_of_an_earlier_vitrail_shows_its_page_and_can_be_scored_again(client, workspace):
    (workspace.runs / RUN / "result.json").unlink()
    page = client.get(f"{AT}/result").text
    assert "<iframe" in page
    sealed = client.get(f"{AT}/report.html")
    assert sealed.headers["content-security-policy"].startswith("sandbox;")
    again = client.post(f"{AT}/result/score")
    assert "?cell=" in again.text
    before, after = (RunFiles(workspace.runs / RUN), Run(workspace.runs / RUN))
    assert after.result_path.is_file()
    assert before.result().verdict == before.report()["verdict"]


def test_a_run_without_a_report_says_what_to_do(client, workspace):
    (workspace.runs / RUN / "report.json").unlink()
    answer = client.get(f"{AT}/result")
    assert answer.status_code == 200
    assert "No result yet" in answer.text


def test_label_errors_of_a_draft_are_listed(client, workspace, wrong):
    lines = f"id,label,looks_like,probability\n{wrong.id},{wrong.truth},{wrong.answer},0.9\n"
    (workspace.runs / RUN / "doubts.csv").write_text(lines)
    text = client.get(f"{AT}/result").text
    assert "1 label may be wrong" in text
    assert f"It is {wrong.answer}" in text


def test_every_string_of_the_pages_is_in_the_catalogue(client):
    for address in ("result", "result?cell=0-0", "predict", "export"):
        page = client.get(f"{AT}/{address}", headers={"accept-language": "x-pseudo"}).text
        main = page[page.index("<main") : page.index("</main>")]
        for english in re.findall(r'<(\w+)[^>]*\blang="en"[^>]*>', main):
            main = re.sub(rf'<{english}[^>]*\blang="en"[^>]*>.*?</{english}>', "", main, count=1, flags=re.S)
        for text in re.findall(r"<(?:button|h2|label|summary)\b[^>]*>([^<]*[A-Za-z][^<]*)<", main):
            assert "⟦" in text, (address, text)


def test_many_classes_are_a_list_of_confusions():
    labels = tuple(f"class {i}" for i in range(40))
    counts = tuple(tuple(int(i == j) + (3 if (i, j) == (1, 2) else 0) for j in range(40)) for i in range(40))
    shots = {(1, 2): (Shot("a", "class 1", "class 2"),) * 3, (1, 1): (Shot("b", "class 1", "class 1"),)}
    matrix = Matrix("", labels, counts, shots)
    assert matrix_rows(matrix) == []
    [only] = confusions(matrix)
    assert (only.truth, only.answer, only.images, only.share) == ("class 1", "class 2", 3, 0.75)


def test_images_are_found_in_a_workspace_that_was_moved(client, workspace, studio, wrong):
    (workspace.runs / RUN / "state" / "last.safetensors").unlink()
    (workspace.runs / RUN / "history.jsonl").write_text('{"event": "checked", "root": "/gone/from/here"}\n')
    assert studio.run(RUN).root() == workspace.data / RUN
    assert client.get(f"{AT}/image", params={"id": wrong.id}).status_code == 200


def test_the_result_and_the_wall_decide_with_one_lock_and_one_undo(client, studio, workspace, wrong):
    """A decision of either page is seen, and taken back, by the other; nothing is read from an old copy."""
    client.post(f"{AT}/result/correct", data={"what": "drop", "id": wrong.id})
    assert "Left out" in client.get(f"/data/{RUN}/image", params={"id": wrong.id}).text
    client.post(f"/data/{RUN}/undo", data={"number": 1})
    assert "corrected since this training" not in client.get(f"{AT}/result").text
    form = {"what": "relabel", "id": wrong.id, "value": wrong.answer}
    client.post(f"/data/{RUN}/decide", data=form)
    assert f"now {wrong.answer}" in client.get(f"{AT}/result").text
    client.post(f"{AT}/result/undo", data={"number": 3})
    assert [one.what for one in decisions(workspace)] == ["drop", "undo", "relabel", "undo"]
    assert studio.images.datasets.revision(studio.images.datasets.get(RUN)) == 4


def test_a_correction_needs_a_word_and_images_that_are_here(client, workspace, wrong):
    refused = client.post(f"{AT}/result/correct", data={"what": "relabel", "id": wrong.id, "label": " "})
    assert "no single label" in refused.text
    (workspace.data / RUN).rename(workspace.folder / "elsewhere")
    refused = client.post(f"{AT}/result/correct", data={"what": "drop", "id": wrong.id})
    assert refused.status_code == 422
    assert f"were in data/{RUN}, which is not here" in refused.text


def test_a_run_from_a_terminal_finds_its_images_outside_the_list(studio, tmp_path):
    datasets = studio.images.datasets
    (tmp_path / "mine").mkdir()
    found = datasets.of_source(str(tmp_path / "mine"))
    assert datasets.place(found) == tmp_path / "mine"
    assert datasets.listed(str(tmp_path / "mine")) is None
    assert datasets.of_source(f"{tmp_path}/studio/data/{RUN}/").name == RUN
    assert datasets.of_source("") is None
    assert datasets.of_source("gone") is None


def test_every_page_shows_its_click_as_a_command_and_in_python_in_one_way(client, studio):
    key = client.get(f"{AT}/predict/of", params={"id": next(iter(studio.run(RUN).rows()))}).url.path
    pages = {
        AT: f"vitrail train --resume runs/{RUN}",
        f"{AT}/result": f"vitrail eval runs/{RUN}",
        f"{AT}/predict": "--csv answers.csv",
        key: f"vitrail explain runs/{RUN}",
        f"{AT}/export": "vitrail export",
        "/import": "unzip",
        "/compare": "vitrail compare",
        f"/data/{RUN}/check": f"vitrail check data/{RUN}",
        f"/data/{RUN}/train": f"vitrail train data/{RUN}",
    }
    for address, line in pages.items():
        text = unescape(client.get(address).text)
        shown = "".join(re.findall(r'<details class="command".*?</details>', text, re.S))
        assert line in shown, address
        assert "import" in shown, address
