"""Settings of instance segmentation. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from pydantic import NonNegativeFloat

from vitrail.tasks.detect.settings import DetectSettings


class InstanceSettings(DetectSettings):
    """Settings of the detector, its masks, their training and predictions: those of detection, and three more.

    `mask_weight` multiplies the losses of the masks, which would else drown those of the boxes in a short training.
    `reach` cuts masks: what lies farther outside the box than this share of its sides is left out; None leaves masks as
    they are. With `sure_masks` the confidence of an object is
    multiplied by the mean probability of the cells of its mask, as networks without boxes answer.
    """

    mask_weight: NonNegativeFloat = 0.2
    reach: NonNegativeFloat | None = 0.1
    sure_masks: bool = False
