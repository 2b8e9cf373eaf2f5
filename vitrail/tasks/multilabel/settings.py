"""Settings of multi-label classification."""

from __future__ import annotations

from typing import Literal

from vitrail.tasks.classify.settings import ClassifySettings


class MultiLabelSettings(ClassifySettings):
    """The settings of single-label classification, and the probability threshold of each label."""

    loss: Literal["bce"] = "bce"  # each label is a yes or a no, so no other loss fits
    thresholds: tuple[float, ...] | None = None
