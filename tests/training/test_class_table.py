"""Networks that are told the class: their table follows from the data, and published rows from names."""

from __future__ import annotations

import pytest
import torch

from vitrail.core.errors import SettingError
from vitrail.models.dit import DiTConfig
from vitrail.models.factory import build
from vitrail.runs.recipe import ModelSettings
from vitrail.training.class_table import fit_classes, with_classes
from vitrail.weights.pretrained import Pretrained


def test_the_number_of_classes_follows_from_the_data():
    model = ModelSettings(name="dit_digits", imgsz=(32, 32))
    assert with_classes(model, ("cat", "dog", "owl")).settings == {"classes": 3}
    assert with_classes(model, ()).settings == {}
    other = ModelSettings(name="vit_digits", imgsz=(32, 32))
    assert with_classes(other, ("cat", "dog")) == other
    with pytest.raises(SettingError, match="classes=5: the data have 2 classes"):
        with_classes(model.model_copy(update={"settings": {"classes": 5}}), ("cat", "dog"))


def published(labels: tuple[str, ...]) -> Pretrained:
    torch.manual_seed(3)
    config = DiTConfig(image=8, width=44, depth=1, heads=4, classes=len(labels))
    encoder = build(config)
    return Pretrained("one", config, encoder.state_dict(), {}, "vitrail", labels=labels, task="generate")


def test_rows_go_by_name_and_new_classes_begin_as_no_class():
    before = published(("cat", "dog", "owl"))
    found, lines = fit_classes(before, ("Owl", "yak", "cat", "emu"))
    was, now = before.encoder["label.weight"], found.encoder["label.weight"]
    assert torch.equal(now, was[[2, 3, 0, 3, 3]])
    assert lines == ("classes of one: 2 classes by name (Owl, cat); 2 new classes with its row of no class",)
    assert (found.config.classes, found.labels) == (4, ("Owl", "yak", "cat", "emu"))
    assert found.build().config.classes == 4
    assert all(torch.equal(found.encoder[n], t) for n, t in before.encoder.items() if n != "label.weight")


def test_the_same_classes_stay_as_they_are():
    before = published(("cat", "dog"))
    assert fit_classes(before, ("cat", "dog")) == (before, ())
    assert fit_classes(before, ()) == (before, ())
