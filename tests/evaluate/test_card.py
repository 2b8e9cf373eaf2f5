"""The model card: what a hub reads, what a person reads, and nothing private."""

from __future__ import annotations

import yaml

from vitrail.runs.model_card import card
from vitrail.runs.model_file import Header
from vitrail.tasks.classify.evaluation import from_details
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.result import Matrix


def test_front_matter_is_what_hubs_index_and_the_licence_is_the_weights():
    header = Header(
        name="vit_s16",
        encoder={},
        task={"name": "classify", "labels": ["a|b", "c"], "settings": {}},
        preprocess={"size": [224, 224], "fit": "crop"},
        weights="google/vit",
        licence="Apache-2.0",
    )
    share = {"value": 0.9, "low": 0.8, "high": 0.95}
    row = {
        "pictures": 12, **share, "precision": share, "f1": share, "auroc": {"value": None}, "taken_for": "c"
    }  # fmt: skip
    details = {
        "test": {"accuracy": share, "per_class": {"a|b": row, "c": {**row, "pictures": 0}}},
        "calibration": {"ece_before": 0.1, "ece_after": 0.02, "ece_noise": 0.03, "temperature": 1.4},
    }
    result = from_details(details, "90.0 % right.")
    counts = Matrix("", ("a|b", "c"), ((10, 2), (0, 0)), {})
    result = result._replace(sections=(result.sections[0], counts, *result.sections[1:]))
    report = {
        "verdict": result.verdict,
        "seconds": 12.0,
        "data": {
            "splits": {"train": {"a|b": 5, "c": 4}},
            "states": {"kept": 9, "quarantined": 1, "dropped": 0},
        },
        "reproduce": "vitrail train IMAGES --recipe recipe.yaml",
    }
    task = Classify(["a|b", "c"])
    text = card(header, task, report, result)
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "vitrail"
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.9}]
    assert "a|b taken for c: 2" in text
    assert r"| a\|b | 12 | 90.0 % | 80.0 % – 95.0 % | 90.0 % | 90.0 % | – |" in text
    assert "Temperature 1.4" in text
    assert "Fewer than 30 test images" in text
    assert "dropped): 1." in text
    scratch = card(header.model_copy(update={"weights": "none", "licence": None}), task, report, result)
    assert "license" not in yaml.safe_load(scratch.split("---")[1])
