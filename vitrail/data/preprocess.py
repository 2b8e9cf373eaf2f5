"""The exact steps from a decoded picture to a network's input; saved with the model, one way everywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from vitrail.core.errors import SettingError
from vitrail.data.augment import Augment, drawn_from
from vitrail.data.resize import INTERPOLATIONS, Interpolation, Span, resize
from vitrail.data.sample import Geometry

Fit = Literal["squash", "crop", "pad"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


class _Plan(NamedTuple):
    """Resize to `resized`, then show the window of the input's size whose corner lies at `corner` in it."""

    resized: tuple[int, int]
    corner: tuple[int, int]  # negative where the input is padded


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From uint8 (height, width, channels) to float32 (channels, *size), with mean 0 and deviation 1 or so.

    `fit` says how another shape is brought to `size`: `squash` stretches it, `crop` covers the input and cuts
    off what juts out, `pad` shows the whole picture in its own shape on a ground that normalises to zero. All
    three first aim at int(size / `crop_fraction`) and then show the middle, as DeiT's int(224 / 0.875) and timm's
    `crop_pct`; what is not given is 0.875 for `crop` and 1, no margin, for the others.
    `mean` and `std` are in parts of 255, one number a channel.
    """

    size: tuple[int, int] = (224, 224)
    fit: Fit = "crop"
    crop_fraction: float = cast(float, None)  # a number as soon as it is built: the fit's usual one
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if cast(float | None, self.crop_fraction) is None:
            object.__setattr__(self, "crop_fraction", usual_fraction(self.fit))
        if min(self.size) < 1 or not 0 < self.crop_fraction <= 1:
            raise SettingError(
                f"An input of {self.size} with crop fraction {self.crop_fraction} cannot be made."
            )
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            raise SettingError(f"{self.channels} channels need as many means and positive deviations.")
        if self.fit not in ("squash", "crop", "pad"):
            raise SettingError(f"There is no fit called {self.fit!r}. Choose squash, crop or pad.")
        if self.interpolation not in INTERPOLATIONS:
            raise SettingError(
                f"There is no interpolation called {self.interpolation!r}. Choose {' or '.join(INTERPOLATIONS)}."
            )

    @classmethod
    def for_size(cls, size: int | tuple[int, int], channels: int = 3) -> Preprocess:
        """Return the usual steps: cut a photograph's margin off, but squash where 64 px or fewer remain."""
        wanted = (size, size) if isinstance(size, int) else size
        tiny = max(wanted) <= 64  # a margin of a tiny picture is content
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
        fit: Fit = "squash" if tiny else "crop"
        return cls(wanted, fit, usual_fraction(fit), mean, std, channels)

    def eval(self, image: NDArray[np.uint8]) -> tuple[Tensor, Geometry]:
        """Return the input (channels, *size), and where it lies on the original."""
        self._check(image)
        height, width = image.shape[:2]
        plan = self._plan(height, width)
        shown = self.normalise(self._shown(image, plan))
        return self._framed(shown, plan), self._geometry(height, width, plan)

    def geometry(self, height: int, width: int) -> Geometry:
        """Return where the input lies on a picture of this size."""
        return self._geometry(height, width, self._plan(height, width))

    def train(self, image: NDArray[np.uint8], augment: Augment, key: int) -> Tensor:
        """Return an augmented input (channels, *size); the draw depends on `key` alone."""
        self._check(image)
        with drawn_from(key):
            region = augment.region(image.shape[0], image.shape[1])
            if region is None:
                plan = self._plan(image.shape[0], image.shape[1])
                shown = self._framed(self._shown(image, plan), plan, self.ground)
            else:
                top, left, height, width = region
                shown = self._shown(image[top : top + height, left : left + width], _Plan(self.size, (0, 0)))
            return augment.finish(self.normalise(augment.pixels(shown)))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Bring 0..255 (c, h, w) to mean 0 and deviation 1."""
        mean = torch.tensor(self.mean).view(-1, 1, 1) * 255
        std = torch.tensor(self.std).view(-1, 1, 1) * 255
        return (pixels - mean).div_(std)

    def restore(self, images: Tensor) -> Tensor:
        """Undo `normalise`: back to 0..255, for showing an input to people."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1) * 255
        return images * std + mean

    @property
    def ground(self) -> tuple[float, ...]:
        """The colour (0..255) that normalises to zero, laid where there is no picture."""
        return tuple(255 * mean for mean in self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Read what `to_dict` wrote, now or before there was an interpolation, when only `crop` had a margin.

        Raises:
            SettingError: a key is missing or unknown.
        """
        try:
            plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            if "interpolation" not in plain and plain.get("fit", "crop") != "crop":
                plain["crop_fraction"] = 1.0
            return cls(**plain)
        except TypeError as error:
            raise SettingError(f"These are no preprocessing steps: {values}.") from error

    def _check(self, image: NDArray[np.uint8]) -> None:
        if image.ndim != 3 or image.shape[2] != self.channels:
            raise SettingError(
                f"The network wants {self.channels} channels, the picture has shape {image.shape}. "
                f"Decode it with channels={self.channels}."
            )

    def _plan(self, height: int, width: int) -> _Plan:
        tall, wide = (int(side / self.crop_fraction) for side in self.size)
        if self.fit == "squash":
            new = (tall, wide)
        elif self.fit == "pad":
            if tall * width <= wide * height:  # in whole numbers, so that exported graphs round halves alike
                new = (tall, max(1, round(width * tall / height)))
            else:
                new = (max(1, round(height * wide / width)), wide)
        elif tall * width >= wide * height:  # the height is what must be covered
            new = (tall, max(wide, int(tall * width / height)))
        else:
            new = (max(tall, int(wide * height / width)), wide)
        return _Plan(new, (_corner(new[0] - self.size[0]), _corner(new[1] - self.size[1])))

    def _shown(self, image: NDArray[np.uint8], plan: _Plan) -> Tensor:
        """Return what the input shows of a resized picture: (c, at most *size)."""
        rows, cols = map(_span, plan.resized, plan.corner, self.size)
        return resize(image, rows, cols, self.interpolation)

    def _framed(self, shown: Tensor, plan: _Plan, ground: tuple[float, ...] = ()) -> Tensor:
        """Pad to (c, *size); `ground` is zero unless colours are given."""
        (top, left), (rows, cols) = (max(0, -corner) for corner in plan.corner), self.size
        below, right = rows - top - shown.shape[1], cols - left - shown.shape[2]
        if not (top or left or below or right):
            return shown
        if not ground:
            return pad(shown, (left, right, top, below))
        shift = torch.tensor(ground).view(-1, 1, 1)
        return pad(shown - shift, (left, right, top, below)) + shift

    def _geometry(self, height: int, width: int, plan: _Plan) -> Geometry:
        tall, wide = height / plan.resized[0], width / plan.resized[1]  # original pixels a resized pixel
        top, left = plan.corner
        box = (top * tall, left * wide, (top + self.size[0]) * tall, (left + self.size[1]) * wide)
        return Geometry((height, width), self.size, box)


def usual_fraction(fit: Fit) -> float:
    """Return the crop fraction of a fit where nobody says another."""
    return 0.875 if fit == "crop" else 1.0


def _corner(over: int) -> int:
    """Return where the input begins on a side that is `over` pixels longer: half of them, as torchvision rounds it."""
    return round(over / 2) if over > 0 else over // 2


def _span(whole: int, corner: int, size: int) -> Span:
    """Return which pixels of a resized side of `whole` an input of `size` shows that begins at `corner`."""
    first = max(0, corner)
    return Span(whole, first, min(whole, corner + size) - first)
