"""Every text of the studio has its translation, and sentences that vitrail's code makes are found again."""

from __future__ import annotations

import json
import re
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("babel", reason="the studio's extra is not installed")

from data.pictures import encode, folders, put
from image_studio import checked, studio

from bench.messages import catalogue, missing, texts, updated
from vitrail.metrics.calibration import Calibration
from vitrail.metrics.paired_difference import Verdict
from vitrail.studies.compare.outcome import said
from vitrail.studio.language import PSEUDO, chosen, languages, translations
from vitrail.studio.sentence_list import PHRASES, TEMPLATES
from vitrail.studio.sentences import filled, pattern_of, plain, told

ZH = translations("zh")


@pytest.mark.parametrize("language", languages())
def test_a_catalogue_is_complete(language: str) -> None:
    """What is missing is printed by `python -m bench.messages`, which also adds the new texts."""
    found = catalogue(language)
    assert not missing(found), "\n".join(missing(found))
    assert {one.id for one in found} == {one.id for one in updated(language, found)}, (
        "python -m bench.messages"
    )


def test_what_is_wrong_with_a_catalogue_is_named() -> None:
    found = catalogue("zh")
    found.get("Undo").string = ""
    found.get("Test it").flags.add("fuzzy")
    found.get("%(number)s left out").string = "排除 %(count)s 张"
    found.get("%(num)s image").string = ("",)
    found.get("95 per cent interval").string = "95% 区间"
    faults = missing(found)
    assert len(faults) == 5
    assert {one.partition(":")[0] for one in faults} == {
        "fuzzy", "other placeholders", "write %% for a per cent sign", "not translated (templates/check.html)",
        "not translated (templates/partials/data_card.html)",
    }  # fmt: skip


def test_texts_are_found_in_templates_and_in_python() -> None:
    found = texts()
    assert found["Undo"] == "templates/check.html"
    assert ("%(num)s image", "%(num)s images") in found
    assert found["Near duplicates"] == "Python"
    assert found["highest learning rate"] == "Python"


def test_the_language_is_that_of_the_choice_then_of_the_browser() -> None:
    assert chosen("zh-CN,zh;q=0.9,en;q=0.8") == "zh"
    assert chosen("zh-TW") == "zh"
    assert chosen("fr-FR, en;q=0.5") == "en"
    assert chosen("fr") == "en"
    assert chosen("zh-CN", "en") == "en"
    assert chosen("en-GB", "zh") == "zh"
    assert chosen("en-GB", "<script>") == "en"
    assert chosen(PSEUDO) == PSEUDO


def test_every_template_fits_what_it_makes_and_no_phrase() -> None:
    for template in TEMPLATES:
        values = {"n": "1,234", "count": "12 images", "what": "test images"}
        names = re.findall(r"\{([a-z]+)(\d*)\}", template)
        made = filled(template, {kind + digit: values.get(kind, "fern = moss") for kind, digit in names})
        assert pattern_of(template).fullmatch(made), template
    assert len(set(TEMPLATES)) == len(TEMPLATES)
    assert len(set(PHRASES)) == len(PHRASES)


def english(sentence: str) -> str:
    """Return what of a sentence stays English in Chinese."""
    return " ".join(re.findall(r'<span lang="en">(.*?)</span>', told(sentence, ZH)))


def test_the_findings_of_a_check_are_told_in_chinese(tmp_path: Path) -> None:
    """Each sentence is one that the check of faulty images makes."""
    root = folders(tmp_path / "photos", {"fern": 12, "moss": 12, "Moss": 4}, (40, 40))
    put(root / "moss" / "same.png", (root / "fern" / "1.png").read_bytes())
    put(root / "fern" / "copy.png", (root / "fern" / "2.png").read_bytes())
    put(root / "fern" / "grey.png", encode(np.full((40, 40, 3), 90, np.uint8)))
    put(root / "moss" / "broken.png", b"no image")
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        checked(client, "photos")
        images = client.app.state.studio.images
        prepared = images.checks.prepared(images.datasets.get("photos"))
        client.cookies.set("vitrail-language", "zh")
        page = client.get("/data/photos/check").text
    said = [finding.text for finding in prepared.report.findings]
    assert {one.kind for one in prepared.report.findings} >= {
        "twins",
        "conflict",
        "flat",
        "unreadable",
        "spelling",
    }
    for one in (*said, prepared.about(), prepared.layout.why.capitalize()):
        assert not english(one), one
    assert '<html lang="zh-Hans"' in page
    assert "重复图片" in page
    assert not re.findall(r'<p><span lang="en">', page)


def test_the_verdict_of_a_training_is_told_in_chinese() -> None:
    """That of the run which every studio has as its sample."""
    with zipfile.ZipFile(str(files("vitrail.studio") / "sample" / "run.zip")) as archive:
        result = json.loads(archive.read("result.json"))
    assert not english(result["verdict"])
    assert "在 269 张它从未见过的图片上正确率 95.5 %" in told(result["verdict"], ZH)
    assert plain("calibration error; 2.2 % expected by chance", ZH) == "校准误差；偶然预期 2.2 %"
    words = Calibration(0.03, 0.02, 0.01, 1.1, 100, ()).words()
    assert not english(words)


@pytest.mark.parametrize("kind", ["better", "same", "unknown"])
def test_the_verdict_of_a_comparison_is_told_in_chinese(kind: str) -> None:
    found = Verdict(kind, 0.031, 0.01, 0.05, 0.01, 0.95, 2, True, 400)
    assert not english(said(found, "vit small", "deit")), said(found, "vit small", "deit")


def test_the_reason_of_a_decision_is_the_title_of_its_finding() -> None:
    assert plain("one image, several labels", ZH) == "同一图片，多个标签"
    assert plain("100% fern renamed", ZH) == "100% fern 已重命名"


def test_names_stay_as_they_are_and_are_escaped() -> None:
    shown = told("There is no run called '<b>x</b>' here. It may have been renamed or moved away.", ZH)
    assert "<b>" not in shown
    assert "&lt;b&gt;x&lt;/b&gt;" in shown
    unknown = told("Nobody wrote this <i>sentence</i>", ZH)
    assert unknown == '<span lang="en">Nobody wrote this &lt;i&gt;sentence&lt;/i&gt;</span>'
    assert told("Nothing to do.", translations("en"), english=True) == "Nothing to do."
