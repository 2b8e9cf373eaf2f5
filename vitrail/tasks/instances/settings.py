"""Settings of instances. No torch, so that help and option errors appear at once."""

from __future__ import annotations

from vitrail.tasks.detect.settings import DetectSettings


class InstanceSettings(DetectSettings):
    """Settings of the detector with masks: those of detection."""
