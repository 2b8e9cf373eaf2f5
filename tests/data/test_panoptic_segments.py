"""Panoptic segments for other tasks, on top of each other, and refusals that name the tasks that fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scenes import paneled

from vitrail.core.errors import DataError
from vitrail.data.layouts import sniff
from vitrail.data.manifest import Row
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.data.truth import Truth
from vitrail.tasks.detect.targets import DetectTargets
from vitrail.tasks.instances.targets import InstanceTargets
from vitrail.tasks.panoptic.targets import PanopticTargets
from vitrail.tasks.segment.targets import SegmentTargets

ALL = "disc,square,sky,ground"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return paneled(tmp_path / "set", 4)


def test_things_are_objects_and_all_segments_are_a_mask(root: Path) -> None:
    whole, objects, masks = (sniff(root, task=name) for name in ("panoptic", "instances", "segment"))
    assert objects == whole
    assert masks.truth == Truth("mask", whole.truth.names)
    for one, things, areas in zip(whole.found, objects.found, masks.found, strict=True):
        true = PanopticTargets(whole.truth).read(Row(one.id, one.path, target=one.target), root)
        found = InstanceTargets(InstanceTargets.gather(objects.truth, [])).read(
            Row(one.id, one.path, target=things.target), root
        )
        assert found.masks == true.things.masks
        painted = SegmentTargets(masks.truth).read(Row(one.id, one.path, target=areas.target), root)
        np.testing.assert_array_equal(painted, true.areas)


def test_other_things_are_objects(root: Path) -> None:
    prepared = prepare(root, LayoutOptions(things="ground"), task="instances")
    assert prepared.manifest.truth.names == ("ground",)
    assert sniff(root, task="detect").truth == Truth("instances", ("disc", "square"))


def test_things_alone_are_refused_before_a_training(root: Path) -> None:
    with pytest.raises(DataError, match="all of one kind"):
        prepare(root, LayoutOptions(things=ALL), task="panoptic")


def test_things_lie_on_areas_and_the_smaller_one_on_top() -> None:
    def square(name: str, side: int) -> dict[str, object]:
        corners = [0, 0, side, 0, side, side, 0, side]
        return {"class": name, "box": [0, 0, side, side], "polygons": [corners], "of": [8, 8]}

    stated = [square("car", 2), square("bus", 4), square("hole", 3), square("road", 6)]
    targets = PanopticTargets(Truth("panoptic", ("car", "bus", "road", "hole"), things=("car", "bus")))
    areas = targets.read(Row("a.png", "a.png", target=json.dumps(stated)), Path()).areas
    assert np.diag(areas).tolist() == [0, 0, 1, 1, 2, 2, 255, 255]


@pytest.mark.parametrize(
    ("targets", "kind", "way"),
    [
        (PanopticTargets, "boxes", "--task detect, or --task instances"),
        (InstanceTargets, "mask", "--task segment"),
        (DetectTargets, "class", "--task classify"),
        (SegmentTargets, "panoptic", "--task panoptic"),
    ],
)
def test_a_refused_kind_names_the_tasks_that_fit(targets: type[DetectTargets], kind: str, way: str) -> None:
    with pytest.raises(DataError, match=way):
        targets.gather(Truth(kind, ("a", "b")), [])
