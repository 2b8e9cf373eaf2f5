"""How labels are learned and answered, each a yes or a no."""

from __future__ import annotations

from typing import Literal

from vitrail.tasks.classify.settings import ClassifySettings


class MultiLabelSettings(ClassifySettings):
    """As for one class an image, and from which probability on each label is answered."""

    loss: Literal["bce"] = "bce"  # each label is a yes or a no: there is no other
    thresholds: tuple[float, ...] | None = None
