"""Options that correct how a source is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import inf
from typing import Any

from vitrail.core.errors import SettingError
from vitrail.data.labels import SPLITS, splits_of


@dataclass(frozen=True, kw_only=True)
class LayoutOptions:
    """Options for reading a source, if the detection is wrong.

    Parameters
    ----------
    layout
        what it is, where the guess is wrong: folders, filenames, table, clips, captions, annotations, raster,
        webdataset, huggingface, npz, volumes, boxes, panoptic, masks, crops, images
    labels
        the table that holds the labels or captions, and the column: labels.csv, or labels.csv:species; for rasters
        polygons, points or a raster of classes: training.gpkg, or training.gpkg:class
    groups
        the column of what must stay on one side of the split, such as patient; none leaves out such columns, and
        what names tell of frames of videos
    splits
        the column of the splits, what its words or folders mean (0=train,1=test), or none: draw new ones
    things
        the classes of objects (instances, panoptic), such as car,pedestrian; others are no objects
    window
        side in pixels of the windows around labelled pixels of a raster, 8 by default; of tiles (segment) 64
    seconds
        cut longer videos into clips of so many seconds; the clips of a video stay in one split
    block
        side in pixels of the blocks of a raster that go to one split as a whole; by default about 40 hold labels
    buffer
        labelled pixels of a raster fewer than so many pixels from another split are left out; by default the window
    """

    layout: str = "auto"
    labels: str = ""
    groups: str = ""
    splits: str = ""
    things: str = ""
    window: int | None = None
    block: int | None = None
    buffer: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("block", 1), ("buffer", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"--{name} {value}: give a number of pixels, {least} or more.")
        if self.seconds is not None and not 0 < self.seconds < inf:
            raise SettingError(
                f"--seconds {self.seconds}: give the length of a clip in seconds, such as 2.5."
            )

    def words(self) -> tuple[str, ...]:
        """Return the options that are not defaults as words of a command."""
        given = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return tuple(
            word
            for name, value in given
            if value != getattr(DEFAULTS, name)
            for word in (f"--{name}", str(value))
        )

    def with_words(self, words: Mapping[str, str]) -> LayoutOptions:
        """Return the options with others stated as text; "" is the default.

        Raises:
            SettingError: a number is none, or too small.
        """
        given: dict[str, Any] = {}
        for name, word in words.items():
            text, usual = word.strip(), getattr(DEFAULTS, name)
            given[name] = usual if not text else _number(name, text) if usual is None else text
        return replace(self, **given)

    @cached_property
    def split_words(self) -> dict[str, str]:
        """Word → split, from the option `splits`.

        Raises:
            SettingError: the option names an unknown split.
        """
        if "=" not in self.splits:
            return {}
        pairs = [pair.rpartition("=")[::2] for pair in self.splits.split(",")]
        told = {word.strip(): SPLITS.get(split.strip().casefold(), "") for word, split in pairs}
        wrong = [split for word, split in pairs if not told[word.strip()]]
        if wrong:
            raise SettingError(
                f"--splits {self.splits}: {wrong[0]!r} is no split. Say train, val or test: --splits 0=train,1=test."
            )
        return told

    def splits_among(self, names: Iterable[str]) -> dict[str, str]:
        """Return name → split of sibling names, from the option or else from the names themselves."""
        if self.splits == "none":
            return {}
        names = list(names)
        if self.split_words:
            return {name: self.split_words[name] for name in names if name in self.split_words}
        return splits_of(names)


def _number(name: str, text: str) -> float:
    """Return the number that a word states; SettingError if it states none."""
    if text.isdigit():
        return int(text)
    if name != "seconds":
        raise SettingError(f"--{name} {text}: give a whole number of pixels.")
    try:
        return float(text)
    except ValueError as error:
        raise SettingError(f"--seconds {text}: give the length of a clip in seconds, such as 2.5.") from error


DEFAULTS = LayoutOptions()
