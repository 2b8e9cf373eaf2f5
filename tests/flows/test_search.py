"""Searches and classes without training, by the command line: words, images, pages, tables, and bad input."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from small_clip import small_clip

from vitrail.infer.predictor import Predictor
from vitrail.infer.words import text_vectors
from vitrail.runs.model_source import model_path

pytestmark = pytest.mark.filterwarnings("ignore:.*the weights")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small CLIP with random numbers and the whole vocabulary, as transformers writes it."""
    return small_clip(tmp_path_factory.mktemp("clip") / "net")


@pytest.fixture
def photos(tmp_path):
    """Sixty smooth pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows, cols = np.mgrid[:40, :40] / 9
    for number in range(60):
        waves = [
            np.sin((1 + number % 5) * rows + number),
            np.cos(cols * (1 + number % 3)),
            np.sin(rows + cols * number),
        ]
        Image.fromarray((127 + 90 * np.stack(waves, -1)).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def test_words_find_the_pictures_with_the_highest_cosine(vitrail, clip, photos):
    done = vitrail("search", photos, "a red bus", "two cats", "--model", clip, "--top", 4, "--json")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    predictor = Predictor(model_path(str(clip)))
    names = [f"{number}.png" for number in range(60)]
    images = predictor.outputs([predictor.ready(photos / name) for name in names])["image"].numpy()
    cosines = images @ text_vectors(predictor, ["a red bus", "two cats"]).T
    for query, column in zip(plain["queries"], cosines.T, strict=True):
        best = np.sort(column)[::-1][:4]
        found = [column[names.index(one["path"])] for one in query["matches"]]
        np.testing.assert_allclose(found, best, atol=0.02)  # vectors may be of bf16
        np.testing.assert_allclose([one["score"] for one in query["matches"]], best, atol=0.02)
        assert query["limit"] is not None
    assert any("The best match always exists" in one for one in plain["notes"])


def test_similar_pictures_leave_the_picture_itself_out(vitrail, clip, photos, tmp_path):
    (tmp_path / "asked.png").write_bytes((photos / "7.png").read_bytes())
    (photos / "copy.png").write_bytes((photos / "8.png").read_bytes())
    words = ("--like", tmp_path / "asked.png", "--model", clip, "--top", 60)
    done = vitrail("search", photos, *words, "--csv", tmp_path / "found.csv", "--out", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 59
    assert "7.png" not in {row["path"] for row in rows}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    page = (tmp_path / "page" / "search.html").read_text()
    assert page.count("data:image") >= 59
    assert "The same image, left out: 7.png" in page
    assert "also copy.png" in page
    assert "http://" not in page
    shown = vitrail("search", photos, *words[:4], "--top", 2)
    assert "the same image, left out: 7.png" in shown.stdout


def test_a_text_and_a_picture_are_averaged(vitrail, clip, photos):
    done = vitrail("search", photos, "a red bus", "--like", photos / "7.png", "--model", clip, "--json")
    [query] = json.loads(done.stdout)["queries"]
    assert query["kind"] == "both"
    assert query["limit"] is None
    assert query["the_same_image"] == ["7.png"]
    assert "For averages" in done.stderr


def test_what_cannot_be_read_is_said(vitrail, clip, photos):
    (photos / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    done = vitrail("search", photos, "word " * 500, "红色的公共汽车", "--model", clip)
    assert done.returncode == 0
    assert "left out: 3.png" in done.stderr
    assert "59 images searched" in done.stderr
    assert "The text of 500 words is longer than the 77 tokens" in done.stderr
    assert "Chinese letters" in done.stderr


def test_bad_questions_are_refused(vitrail, clip, photos, trained):
    for words, sentence in (
        ((), "Say what to search"),
        (("",), "is empty"),
        (("a bus", "--top", 0), "--top 0 lists nothing"),
        (("a bus", "--model", trained), "has no text tower"),
        (("--like", photos / "nowhere.png"), "does not exist"),
    ):
        done = vitrail("search", photos, *words)
        assert done.returncode != 0
        assert sentence in done.stderr, done.stderr
    assert vitrail("search", photos / "nowhere", "a bus").returncode != 0


def test_words_without_weights_say_how_to_get_some(vitrail, photos, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = vitrail("search", photos, "a bus")
    assert done.returncode == 1
    assert "a network is needed that has learnt from captions" in done.stderr
    assert "--task retrieve" in done.stderr


def test_any_run_compares_pictures(vitrail, trained, digits):
    done = vitrail("search", digits, "--like", next((digits / "0").iterdir()), "--model", trained, "--json")
    assert done.returncode == 0, done.stderr
    [query] = json.loads(done.stdout)["queries"]
    assert len(query["matches"]) == 10


def test_named_classes_are_predicted_with_a_limit_from_fifty_pictures_on(vitrail, clip, photos, tmp_path):
    table = tmp_path / "answers.csv"
    words = ("--zero-shot", "red bus,cat,something else", "--csv", table)
    done = vitrail("predict", clip, photos, *words)
    assert done.returncode == 0, done.stderr
    assert "fit none of the classes" in done.stderr
    with table.open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 60
    assert {row["label"] for row in rows} <= {"red bus", "cat", "something else"}
    assert {row["nearest"] for row in rows} <= {"red bus", "cat"}
    few = vitrail("predict", clip, photos / "1.png", photos / "2.png", *words[:2], "--json")
    plain = json.loads(few.stdout)
    assert [one["none_of_these"] for one in plain] == [None, None]
    assert abs(sum(one["probability"] for one in plain[0]["top"]) - 1) < 1e-5
    assert "Nothing is said of none of these" in few.stderr


def test_probabilities_are_those_of_the_scaled_cosines(vitrail, clip, photos):
    words = ("--zero-shot", "red bus,cat,house", "--template", "a {}", "--template", "one {} here", "--json")
    [one] = json.loads(vitrail("predict", clip, photos / "1.png", *words).stdout)
    predictor = Predictor(model_path(str(clip)))
    texts = [
        text_vectors(predictor, [f"a {name}", f"one {name} here"]).mean(0)
        for name in ("red bus", "cat", "house")
    ]
    classes = np.stack([text / np.linalg.norm(text) for text in texts])
    image = predictor.outputs([predictor.ready(photos / "1.png")])["image"].numpy()[0]
    logits = float(predictor.network.head.factor()) * classes @ image
    wanted = np.sort(np.exp(logits) / np.exp(logits).sum())[::-1]
    np.testing.assert_allclose([top["probability"] for top in one["top"]], wanted, atol=0.02)


def test_pictures_of_standard_input_broken_ones_and_drawings(vitrail, clip, photos, tmp_path):
    words = ("--zero-shot", "red bus,cat")
    done = vitrail(
        "predict", clip, "-", *words, "--out", tmp_path / "drawn", stdin=(photos / "1.png").read_bytes()
    )
    assert done.returncode == 0, done.stderr
    assert [one.name for one in (tmp_path / "drawn").iterdir()] == ["standard-input.png"]
    (photos / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    mixed = vitrail("predict", clip, photos / "3.png", photos / "1.png", *words, "--json")
    assert mixed.returncode == 1
    broken, good = json.loads(mixed.stdout)
    assert str(photos / "3.png") in broken["error"]
    assert good["label"] in ("red bus", "cat")


def test_what_named_classes_do_not_take(vitrail, clip, photos, trained):
    for words, sentence in (
        (("predict", clip, photos, "--zero-shot", "cat"), "at least two"),
        (("predict", clip, photos, "--zero-shot", "cat,dog", "--tiles", 8), "--tiles has no effect"),
        (("predict", clip, photos, "--zero-shot", "cat,dog", "--template", "a"), "no place for a class"),
        (("predict", trained, photos, "--zero-shot", "cat,dog"), "has no text tower"),
        (
            ("predict", clip, photos / "1.png", "--zero-shot", "cat,something else"),
            "takes 50 different images",
        ),
        (("predict", clip, "--zero-shot", "cat,dog"), "Name images"),
        (("predict", trained), "Name images"),
    ):
        done = vitrail(*words)
        assert done.returncode != 0
        assert sentence in done.stderr, done.stderr


def test_a_folder_alone_takes_the_published_model(vitrail, photos, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = vitrail("predict", photos, "--zero-shot", "cat,dog")
    assert done.returncode == 1
    assert "a network is needed that has learnt from captions" in done.stderr
