"""What the reports of objects, their masks and panoptic maps say is told in Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from coco_oracle import SIDE, mask_pictures

from vitrail.data.instances import Instances
from vitrail.data.manifest import Row
from vitrail.data.panoptic import PanopticMap, true_map
from vitrail.studio.language import translations
from vitrail.studio.sentences import told
from vitrail.tasks.detect.evaluation import BoxEvaluation
from vitrail.tasks.instances.evaluation import InstanceEvaluation
from vitrail.tasks.panoptic.evaluation import PanopticEvaluation
from vitrail.tasks.result import Result

ZH = translations("zh")
LABELS = ("ant", "bee", "cow", "dodo")


def given(output, at):
    return output["found"]


def results() -> Iterator[Result]:
    truths, found = mask_pictures(7, count=20)
    rows = [Row(f"{i:03}.png", f"{i:03}.png") for i in range(20)]
    boxes = BoxEvaluation(LABELS, given, 0.4)
    boxes.update(rows, {"found": [one.boxes for one in found]}, [one.boxes for one in truths], [])
    objects = InstanceEvaluation(LABELS, given, 0.4)
    objects.update(rows, {"found": found}, truths, [])
    things, area = np.array([True, True, True, False]), np.full((SIDE, SIDE), 3, np.uint8)
    maps = [
        true_map(Instances(one.boxes._replace(crowd=np.zeros(len(one.masks), bool)), one.masks), area, things)
        for one in truths
    ]
    panoptic = PanopticEvaluation(LABELS, things, given)
    moved: list[PanopticMap] = [one._replace(ids=np.roll(one.ids, 12, 1)) for one in maps]
    panoptic.update(rows, {"found": moved}, [(one, area) for one in truths], [])
    empty = InstanceEvaluation(LABELS, given)
    empty.update(rows[4:5], {"found": found[4:5]}, truths[4:5], [])
    return iter((boxes.result(), objects.result(), panoptic.result(), empty.result()))


def texts(result: Result) -> Iterator[str]:
    """Yield what the page of a result shows in the language of its reader."""
    yield result.verdict
    yield from (number.fact for number in result.numbers.values())
    for section in result.sections:
        yield section.heading
        yield from (getattr(section, name) for name in ("note", "hint") if hasattr(section, name))
        if section.kind == "table":
            yield from (column.name for column in section.table.columns)


@pytest.fixture(scope="module")
def every() -> list[Result]:
    return list(results())


def test_results_of_objects_are_told_in_chinese(every: list[Result]) -> None:
    english = [
        part
        for result in every
        for text in texts(result)
        for part in re.findall(r'<span lang="en">(.+?)</span>', told(text, ZH))
    ]
    assert not english


def test_the_sentences_say_the_same(every: list[Result]) -> None:
    boxes, objects, panoptic, empty = (told(result.verdict, ZH) for result in every)
    assert "上 mAP50-95 " in boxes
    assert "找到真值框的 " in boxes
    assert "上掩码 mAP50-95 " in objects
    assert "找到真值物体的 " in objects
    assert "上 PQ " in panoptic
    assert empty == "1 张它从未见过的图片中没有真值物体，无法评分。"
