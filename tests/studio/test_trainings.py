"""Pages of trainings: lists, the page of a run, the form, the queue. No training runs here."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from dataclasses import fields
from html import unescape
from urllib.parse import urljoin

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from fastapi.testclient import TestClient
from studio_runs import write_run

from vitrail.core.errors import RunError, SettingError
from vitrail.runs.train_options import TrainOptions, words_of
from vitrail.studio.app import create_app
from vitrail.studio.commands import training
from vitrail.studio.curves import additions, curves
from vitrail.studio.database import Database
from vitrail.studio.events import events_from
from vitrail.studio.jobs import Queue
from vitrail.studio.output import says
from vitrail.studio.run_list import RunList, summary
from vitrail.studio.run_news import news
from vitrail.studio.train_form import ELSEWHERE, groups, help_of, options_of
from vitrail.studio.workspace import Workspace

NUMBERS = " ·,()–.%0123456789"
"""What stands in a page beside its words."""


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.make()
    return workspace


@pytest.fixture
def client(workspace):
    """A browser with the key. The queue does not work: what is queued stays there."""
    app = create_app(workspace, "key", ("testserver",))
    with_key = TestClient(app, cookies={"vitrail": "key"})
    with_key.studio = app.state.studio
    return with_key


@pytest.fixture
def pictures(workspace):
    folder = workspace.data / "leaves"
    (folder / "fern").mkdir(parents=True)
    (folder / "fern" / "1.jpg").touch()
    return folder


def test_a_run_that_trains_says_its_score_first(client, workspace):
    write_run(workspace.runs, "mine", steps=40)
    text = client.get("/runs/mine").text
    assert text.index("54.0 %") < text.index("How it learns") < text.index("Every setting")
    assert "44.0 – 64.0" in text
    assert "epoch 4.0 of 8" in text
    assert "started from a terminal" in text


def test_a_run_that_is_ready_says_its_verdict_and_the_next_step(client, workspace):
    write_run(workspace.runs, "mine", steps=80, end="finished")
    text = client.get("/runs/mine").text
    assert "right (79 to 85) on images it never saw" in text
    assert "../runs/mine/result" in text


def test_a_reload_shows_the_same_curve(client, workspace):
    """Complaint 2: what a page drew from events, a page that is opened later draws from the history."""
    folder = write_run(workspace.runs, "mine", steps=40)
    told = events_from(folder / "history.jsonl", 0)
    middle = told[30].offset
    before = curves([one.event for one in told if one.offset <= middle])
    added = additions([one.event for one in events_from(folder / "history.jsonl", middle)])
    whole = client.get("/runs/mine/curves").json()
    assert before["score"] + added["score"] == whole["score"]
    assert before["loss"] + added["loss"] == whole["loss"]
    assert whole["offset"] == told[-1].offset


def test_a_resumed_run_fetches_its_curves_again(workspace):
    folder = write_run(workspace.runs, "mine", steps=40, end="stopped")
    with (folder / "history.jsonl").open("a") as history:
        history.write(json.dumps({"event": "resumed", "step": 20, "time": 2.0}) + "\n")
    told = [one.event for one in events_from(folder / "history.jsonl", 0)]
    assert additions(told[-1:])["again"]
    assert curves(told)["loss"][-1][0] == 2.0


def test_a_tick_is_small_whatever_the_history_holds(client, workspace):
    """Complaint 7: 50 runs of 2,000 steps; only what is new is sent, whatever page is open."""
    first = write_run(workspace.runs, "run-0", steps=2000)
    for number in range(1, 50):
        shutil.copytree(first, workspace.runs / f"run-{number}")
    everything = news(client.studio, "run-0", 0)
    assert len(json.dumps(everything.values)) < 5000
    assert news(client.studio, "run-0", everything.offset, everything.mark).values is None
    with (first / "history.jsonl").open("a") as history:
        step = {"event": "step", "step": 2001, "loss": 0.1, "epoch": 200.1, "seconds": 0.5}
        history.write(json.dumps(step) + "\n")
    tick = news(client.studio, "run-0", everything.offset, everything.mark)
    assert tick.values["loss"] == [[200.1, 0.1]]
    assert len(json.dumps(tick.values)) < 200
    assert len(client.get(f"/runs/run-0/news?offset={everything.offset}").content) < 5000
    assert len(client.get("/runs/run-0/words").content) < 5000
    assert len(client.get("/queue/list").content) < 5000
    assert len(client.get("/runs/run-0/curves").content) < 20_000


def test_a_list_reads_only_what_changed(client, workspace, monkeypatch):
    for number in range(3):
        write_run(workspace.runs, f"run-{number}", end="finished")
    assert client.get("/runs").text.count("82.0 %") == 3
    read = []
    monkeypatch.setattr(
        "vitrail.studio.run_list.summary", lambda folder: read.append(folder.name) or summary(folder)
    )
    with (workspace.runs / "run-1" / "history.jsonl").open("a") as history:
        history.write(json.dumps({"event": "resumed", "step": 40, "time": 2.0}) + "\n")
    assert client.get("/runs").status_code == 200
    assert read == ["run-1"]


def test_the_list_goes_on_behind_the_last_run(client, workspace):
    for number in range(60):
        folder = write_run(workspace.runs, f"run-{number:02}", steps=1)
        for file in folder.iterdir():
            os.utime(file, (1000 + number, 1000 + number))
    first = client.get("/runs").text
    names = re.findall(r"runs/(run-\d\d)", first)
    assert names == [f"run-{number:02}" for number in range(59, 11, -1)]
    older = re.search(r'href="\./(runs\?before=[^"]+)"', first)[1]
    assert re.findall(r"runs/(run-\d\d)", client.get("/" + older).text)[:2] == ["run-11", "run-10"]


def test_models_of_a_data_set_say_which_decisions_they_saw(client, workspace, pictures):
    """The same images named in two ways; one run began before the decisions, one after them."""
    datasets = client.studio.images.datasets
    leaves = datasets.get("leaves")
    for label in ("moss", "fern"):
        datasets.decide(leaves, "relabel", ["fern/1.jpg"], label)
    write_run(workspace.runs, "before", end="finished", source="data/leaves")
    after = write_run(workspace.runs, "after", end="finished", source=str(pictures)) / "history.jsonl"
    after.write_text(after.read_text().replace('"time": 0.0', f'"time": 0.0, "looked": {time.time() + 1}', 1))
    write_run(workspace.runs, "other")
    text = client.get("/runs", params={"dataset": "leaves"}).text
    assert re.findall(r"runs/(\w+)\"", text) == ["after", "before"]
    assert re.findall(r"saw (\d of \d) decisions", text) == ["2 of 2", "0 of 2"]
    assert "2 decisions were made about these images" in text
    for address in (
        "/data/leaves",
        "/data/leaves/check",
        "/data/leaves/train",
        "/data/leaves/image?id=fern/1.jpg",
    ):
        text = client.get(address).text
        assert "2 models from these images" in text, address
        assert "runs?dataset=leaves" in text, address
    assert "other" not in client.get("/runs?dataset=leaves").text
    assert client.get("/runs?dataset=gone").status_code == 422
    assert datasets.revision_at(leaves, time.time() - 3600) == 0


def test_models_of_a_data_set_go_on_behind_the_last_one(client, workspace, pictures):
    for number in range(50):
        folder = write_run(workspace.runs, f"run-{number:02}", steps=1, source="data/leaves")
        for file in folder.iterdir():
            os.utime(file, (1000 + number, 1000 + number))
    client.post("/data/leaves/train", data={"tune": "draft"})
    first = client.get("/runs?dataset=leaves").text
    assert "runs/leaves" in first
    older = re.search(r'href="\./(runs\?before=[^"]+)"', first)[1].replace("&amp;", "&")
    assert re.findall(r"runs/(run-\d\d)", client.get("/" + older).text) == ["run-01", "run-00"]


def test_every_kind_of_page_is_reached_from_the_bar(client, workspace, pictures):
    """Links and forms alone lead everywhere: a comparison and a packed model too."""
    write_run(workspace.runs, "mine", end="finished", source="data/leaves")
    seen, waiting = set(), ["/"]
    while waiting:
        address = waiting.pop()
        if address in seen or address.startswith("/style"):
            continue
        seen.add(address)
        answer = client.get(address)
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        assert answer.status_code == 200, address
        links = re.findall(r'<a\b[^>]*href="([^"#]*)"', answer.text)
        waiting += [urljoin(address, unescape(link)) for link in links]
    pages = {one.partition("?")[0] for one in seen}
    assert {"/", "/data", "/data/new", "/runs", "/queue", "/compare", "/import"} <= pages
    assert {f"/data/leaves{one}" for one in ("", "/check", "/train", "/image")} <= pages
    assert {f"/runs/mine{one}" for one in ("", "/result", "/predict", "/export")} <= pages


def test_runs_appear_again_without_their_database(client, workspace):
    """Complaint 4, and the database is rebuilt: what is on disk is what there is."""
    write_run(workspace.runs, "mine", end="finished")
    assert "mine" in client.get("/runs").text
    for file in workspace.own.glob("studio.db*"):
        file.unlink()
    again = TestClient(create_app(workspace, "key", ("testserver",)), cookies={"vitrail": "key"})
    assert "82.0 %" in again.get("/runs").text
    assert "82 % right" in again.get("/runs/mine").text


def test_a_run_that_is_not_there_is_a_sentence(client):
    """Complaints 5 and 6."""
    answer = client.get("/runs/gone")
    assert answer.status_code == 422
    assert "There is no run called" in answer.text
    assert "Traceback" not in answer.text


def test_a_link_out_of_the_workspace_is_no_run(client, workspace, tmp_path_factory):
    elsewhere = write_run(tmp_path_factory.mktemp("elsewhere"), "secret", end="finished")
    (workspace.runs / "link").symlink_to(elsewhere)
    assert "82.0 %" not in client.get("/runs").text
    assert client.get("/runs/link").status_code == 422
    assert client.get("/runs/link/curves").status_code == 422


def test_one_click_is_a_draft_and_the_full_training_behind_it(client, workspace, pictures):
    """Complaint 15: the click answers with the page of the run, at once."""
    answer = client.post("/data/leaves/train", data={}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "../../runs/leaves-draft")
    first, second = client.studio.queue.active()
    assert first.words == ("train", "data/leaves", "--tune", "draft", "--out", "runs/leaves-draft")
    assert second.words == ("train", "data/leaves", "--tune", "full", "--out", "runs/leaves")
    assert second.after == first.id
    assert "begins in a moment" in client.get("/runs/leaves-draft").text
    assert "Waits for 1 training" in client.get("/runs/leaves").text
    assert client.get("/").text.count("waiting") == 2


def test_settings_of_the_form_are_options_of_the_command(client, pictures):
    form = {
        "tune": "scratch",
        "weights": "none",
        "epochs": "3",
        "set.dropout": "0.1",
        "compile": "no",
        "lr": "",
    }
    client.post("/data/leaves/train", data=form)
    (job,) = client.studio.queue.active()
    assert job.words == (
        "train", "data/leaves", "--weights", "none", "--tune", "scratch", "--set", "dropout=0.1", "--epochs", "3",
        "--no-compile", "--out", "runs/leaves",
    )  # fmt: skip


def test_a_wrong_value_is_a_sentence_and_the_form_keeps_all_values(client, pictures):
    answer = client.post("/data/leaves/train", data={"epochs": "many", "lr": "0.1"})
    assert answer.status_code == 422
    assert "“epochs” must be a whole number" in answer.text
    assert 'value="many"' in answer.text
    assert 'value="0.1"' in answer.text
    assert client.studio.queue.active() == []


def test_the_form_is_filled_from_the_address(client, pictures):
    text = client.get("/data/leaves/train", params={"weights": "none", "task": "classify"}).text
    assert 'value="none"' in text
    assert 'name="set.temperature"' in text
    assert "vitrail train data/leaves --weights none" in text


def test_every_option_has_an_input_with_its_help():
    inputs = {one.name: one for group in groups({}, "classify") for one in group.inputs}
    for field in fields(TrainOptions):
        assert (field.name in inputs) != (field.name in ELSEWHERE)
    assert all(inputs[name].help for name in inputs if "." not in name)
    assert inputs["tune"].choices == ("draft", "head", "full", "scratch")
    assert inputs["epochs"].kind == "number"
    assert set(help_of(TrainOptions)) == {field.name for field in fields(TrainOptions)}


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(SettingError, match="must be one of draft, head"):
        options_of({"tune": "magic"}, {})


def test_a_command_is_also_python():
    options = TrainOptions(epochs=3, lr=0.1, compile=False, tune="full")
    shown = training(("train", "my leaves", *words_of(options)))
    assert shown.line == "vitrail train 'my leaves' --tune full --epochs 3 --lr 0.1 --no-compile"
    assert shown.python.endswith(
        "vitrail.train('my leaves', vitrail.TrainOptions(tune='full', epochs=3, lr=0.1, compile=False))"
    )
    resumed = training(("train", "--resume", "runs/x", "--epochs", "10"))
    assert "resume('runs/x', more=10)" in resumed.python


def test_names_of_new_runs_are_free(client, workspace, pictures):
    write_run(workspace.runs, "leaves-draft", end="drafted")
    client.post("/data/leaves/train")
    client.post("/data/leaves/train")
    assert [job.run for job in client.studio.queue.active()] == [
        "leaves-draft-2",
        "leaves",
        "leaves-draft-3",
        "leaves-2",
    ]


def test_a_stopped_run_goes_on_and_a_ready_one_takes_more_epochs(client, workspace):
    for name, end in (("half", "stopped"), ("whole", "finished")):
        state = write_run(workspace.runs, name, end=end) / "state"
        state.mkdir()
        (state / "last.safetensors").touch()
    assert "Go on" in client.get("/runs/half").text
    assert client.post("/runs/half/continue", follow_redirects=False).headers["location"] == "../half"
    client.post("/runs/whole/continue?more=10")
    assert [job.words for job in client.studio.queue.active()] == [
        ("train", "--resume", "runs/half"),
        ("train", "--resume", "runs/whole", "--epochs", "10"),
    ]
    answer = client.post("/runs/half/continue")
    assert "in the queue already" in answer.text


def test_a_job_that_waits_is_taken_out(client, pictures):
    client.post("/data/leaves/train", data={"tune": "draft"})
    (job,) = client.studio.queue.active()
    assert client.post("/runs/leaves/stop", follow_redirects=False).headers["location"] == "../leaves"
    assert client.studio.queue.job(job.id).state == "stopped"
    assert "Nothing waits" in client.get("/queue").text
    answer = client.post("/runs/leaves/stop")
    assert answer.status_code == 422
    assert "Ctrl-C" in answer.text


def test_a_job_behind_one_that_failed_is_not_begun(workspace):
    queue = Queue(workspace, Database(workspace.database))
    first = queue.add("", ("train", str(workspace.folder / "nothing")), "First model", "a")
    second = queue.add("", ("train", "digits"), "Training", "b", after=first)
    queue.start()
    try:
        limit = time.monotonic() + 60
        while queue.active() and time.monotonic() < limit:
            time.sleep(0.1)
    finally:
        queue.close()
    assert queue.job(first).state == "failed"
    assert "does not exist" in queue.job(first).error
    assert "Traceback" not in queue.job(first).error
    assert queue.job(second).state == "stopped"
    assert "before it failed" in queue.job(second).error


UNTIL_TOLD = """
import sys, time
from pathlib import Path
with open(sys.argv[1] + ".begun", "a") as file:
    file.write("x")
while not Path(sys.argv[1] + ".go").exists():
    time.sleep(0.01)
"""


@pytest.fixture
def stuck(workspace, monkeypatch, caplog):
    """A queue on a disk too full to write that a job runs; its processes wait for a file."""
    monkeypatch.setattr("vitrail.studio.jobs.PAUSE", 0.01)
    monkeypatch.setattr(
        "vitrail.studio.jobs.watched",
        lambda path, words: [sys.executable, "-c", UNTIL_TOLD, str(workspace.folder / words[-1])],
    )
    queue = Queue(workspace, Database(workspace.database))
    with queue.database.transaction() as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON jobs WHEN NEW.state = 'running' "
            "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
    queue.add("", ("train", "one"), "Training", "one")
    queue.start()
    until(lambda: caplog.text.count("The queue waits") > 3 and (workspace.folder / "one.begun").exists())
    yield queue
    for name in ("one", "two"):
        (workspace.folder / f"{name}.go").touch()
    queue.close()


def room(queue):
    with queue.database.transaction() as connection:
        connection.execute("DROP TRIGGER full")


def until(true):
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_job_whose_start_cannot_be_written_is_begun_once(stuck, workspace):
    (job,) = stuck.active()
    assert job.state == "queued"
    room(stuck)
    until(lambda: stuck.job(job.id).state == "running")
    (workspace.folder / "one.go").touch()
    until(lambda: not stuck.active())
    assert stuck.job(job.id).state == "done"
    assert (workspace.folder / "one.begun").read_text() == "x"


def test_a_job_whose_start_cannot_be_written_ends_when_it_is_taken_out(stuck, workspace):
    (job,) = stuck.active()
    second = stuck.add("", ("train", "two"), "Training", "two")
    stuck.cancel(job.id)
    room(stuck)
    until(lambda: (workspace.folder / "two.begun").exists())
    assert "KeyboardInterrupt" in stuck.log(job.id).read_text()
    (workspace.folder / "two.go").touch()
    until(lambda: not stuck.active())
    assert [stuck.job(number).state for number in (job.id, second)] == ["stopped", "done"]
    assert not stuck.stopping(job.id)


def test_a_job_that_has_said_nothing_yet_is_not_said_to_have_ended(tmp_path):
    log = tmp_path / "log"
    assert says(log) == ""
    log.touch()
    assert says(log) == ""
    log.write_text("260 images\nepoch 1 of 6\n")
    assert says(log) == "epoch 1 of 6"


def test_a_job_that_ended_while_nobody_watched_goes_on(workspace):
    """After a reboot no process is there: a training with a saved state is continued, one that is over is done."""
    queue = Queue(workspace, Database(workspace.database))
    for name, end, saved in (
        ("half", "", True),
        ("over", "finished", False),
        ("lost", "", False),
        ("new", None, False),
    ):
        number = queue.add("", ("train", "digits", "--out", f"runs/{name}"), "Training", name)
        with queue.database.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'running', pid = 999999999, started = 1 WHERE id = ?", (number,)
            )
        if end is not None:
            folder = write_run(workspace.runs, name, end=end)
            (folder / "state").mkdir()
            if saved:
                (folder / "state" / "last.safetensors").touch()
        queue.log(number).write_text("epoch 1 of 6\n")
    queue._turn()
    jobs = {job.run: job for job in queue.jobs()}
    assert (jobs["half"].state, jobs["half"].words) == ("queued", ("train", "--resume", "runs/half"))
    assert jobs["over"].state == "done"
    assert jobs["lost"].state == "failed"
    assert jobs["lost"].error.endswith("Train again. Its last line: epoch 1 of 6")
    assert (jobs["new"].state, jobs["new"].words[-1]) == ("queued", "runs/new")


def test_addresses_work_behind_a_prefix(workspace):
    write_run(workspace.runs, "mine", end="finished")
    app = create_app(workspace, "key", ("testserver",))
    behind = TestClient(app, root_path="/lab/studio", cookies={"vitrail": "key"})
    for path in ("/", "/runs", "/runs/mine", "/queue"):
        text = behind.get(path).text
        assert not re.findall(r'(?:href|src|action)="/', text), path
        depth = path.count("/") - 1
        assert f'href="{"../" * depth or "./"}style.css"' in text, path


def test_pages_have_no_forgotten_words(client, workspace, pictures):
    """The pseudo-language puts brackets around every text of a catalogue; what shows without was forgotten."""
    write_run(workspace.runs, "mine", end="finished", source="data/leaves")
    for path in ("/", "/runs", "/runs/mine", "/queue", "/data/leaves/train"):
        text = client.get(path, headers={"accept-language": "x-pseudo"}).text
        body = re.sub(
            r"<(script|style|option|pre|table|label|details)\b.*?</\1>",
            "",
            text[text.index("<body") :],
            flags=re.DOTALL,
        )
        while "⟦" in body:  # a text may stand in another one
            body = re.sub(r"⟦[^⟦⟧]*⟧", "", body)
        body = re.sub(r"<[^>]*>", "\n", body)
        left = {word for line in body.splitlines() if (word := line.strip(NUMBERS))}
        known = {
            "vitrail",
            *("data", "model", "task", "training"),  # sections of a recipe
            "mine",
            *("leaves", "/ leaves", "/"),  # a path of pages
            "vit_digits",
            "vit_digits · scratch",
            "scratch",
            "right (79 to 85) on images it never saw",
        }
        assert left - known == set(), path


def test_a_new_studio_has_a_sample_and_an_old_one_keeps_its_runs(tmp_path):
    from vitrail.studio.sample import add_sample

    workspace = Workspace(tmp_path / "new")
    workspace.make()
    database = Database(workspace.database)
    add_sample(workspace, database)
    (found,) = RunList(workspace, database).all()
    assert (found.name, found.source, found.ended) == ("sample", "digits", "finished")
    assert found.value > 0.9
    used = Workspace(tmp_path / "used")
    used.make()
    write_run(used.runs, "mine")
    add_sample(used, Database(used.database))
    assert [run.name for run in RunList(used, Database(used.database)).all()] == ["mine"]


def test_the_sample_predicts(tmp_path):
    """Its model file proves itself, and it is small."""
    from importlib.resources import files

    from vitrail.infer.predictor import Predictor
    from vitrail.studio.sample import add_sample

    workspace = Workspace(tmp_path)
    workspace.make()
    add_sample(workspace, Database(workspace.database))
    assert len(Predictor(workspace.runs / "sample").labels) == 10
    assert (files("vitrail.studio") / "sample" / "run.zip").stat().st_size < 300_000


def test_the_result_of_the_sample_is_whole(client, workspace):
    """Its sections, and behind each cell of the matrix its images."""
    from vitrail.studio.sample import add_sample
    from vitrail.tasks.result import Matrix

    add_sample(workspace, Database(workspace.database))
    run = client.studio.run("sample")
    assert {"matrix", "gallery", "reliability"} <= {one.kind for one in run.result().sections}
    matrix = next(one for one in run.result().sections if isinstance(one, Matrix))
    (i, j), shots = next((at, shots) for at, shots in matrix.shots.items() if at[0] != at[1])
    text = client.get(f"/runs/sample/result?cell={i}-{j}").text
    assert shots[0].id in text[text.index('id="cell"') :]
    assert f"It is {shots[0].answer}" in text
    client.studio.images.datasets.place(client.studio.images.datasets.get("digits"))  # its images are written
    image = client.get("/runs/sample/image", params={"id": shots[0].id})
    assert (image.status_code, image.headers["content-type"]) == (200, "image/png")
    assert "1 model from these images" in client.get("/data/digits/train").text


def test_one_studio_serves_a_folder(workspace):
    import psutil

    from vitrail.studio.serve import Address, listen, refuse_second, token_of

    present = {"pid": os.getpid(), "started": psutil.Process().create_time(), "link": "http://127.0.0.1:1/"}
    (workspace.own / "studio.json").write_text(json.dumps(present))
    with pytest.raises(RunError, match="already runs at http"):
        refuse_second(workspace)
    (workspace.own / "studio.json").write_text(json.dumps({**present, "started": 1.0}))
    refuse_second(workspace)
    key = token_of(workspace)
    assert token_of(workspace) == key
    assert (workspace.own / "key").stat().st_mode & 0o077 == 0
    first = listen(Address(port=0))
    taken = first.getsockname()[1]
    first.listen()
    with pytest.raises(RunError, match=f"Port {taken} .* is not free"):
        listen(Address(port=taken))
    first.close()
