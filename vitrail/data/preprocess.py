"""Preprocessing from a decoded image to a network input. It is saved with the model and used everywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.data.augment import Augment, drawn_from
from vitrail.data.batch import Geometry
from vitrail.data.decode import preview
from vitrail.data.rasters.bands import Band
from vitrail.data.rasters.preview import preview_of
from vitrail.data.resize import INTERPOLATIONS, Interpolation
from vitrail.data.view import Drawn, Plan, View, geometry_of

Fit = Literal["squash", "crop", "pad"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
EIGHT_BITS = 255.0

STRIP = 4
"""Frames of a clip that are shown side by side where an image stands on a page."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From an array (height, width, channels) to float32 (channels, *size), with mean about 0 and deviation about 1.

    `fit` is how an image of another shape is fitted to `size`: `squash` stretches it, `crop` fills the input and cuts
    off the rest, `pad` keeps the shape and pads with a colour that normalises to zero. All three resize for
    int(size / `crop_fraction`) and then take the centre, like DeiT's int(224 / 0.875) and timm's `crop_pct`; the
    default is 0.875 for `crop` and 1, no margin, for the others.
    With a `zoom` nothing is fitted: one image pixel becomes `zoom` input pixels, the input shows the centre of the
    image, and `whole` shows all of it.
    `scale` is the value that counts as 1, 255 for 8-bit images; `mean` and `std` are relative to it, one number per
    channel. Missing data (NaN) becomes zero in the input.
    `rounded`, for images of 8 bits: resized pixels are whole numbers from 0 to 255, as Pillow leaves them.
    `bands` are the named bands of the channels: files are then read by these names, in the units of the bands, whatever
    their order. `window` is the side in pixels of the windows of a raster that inputs show (0: whole images), `pixel`
    the side of such a pixel in metres (0: unknown).
    With `frames`, an input is a clip (frames, channels, *size): so many frames, evenly spaced in time, all through the
    same view.
    """

    size: tuple[int, int] = (224, 224)
    fit: Fit = "crop"
    crop_fraction: float = cast(float, None)  # replaced by the default of the fit when it is built
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3
    interpolation: Interpolation = "bicubic"
    scale: float = EIGHT_BITS
    zoom: float | None = None
    rounded: bool = False
    bands: tuple[Band, ...] = ()
    window: int = 0
    pixel: float = 0.0
    frames: int = 0

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
        if self.bands and len(self.bands) != self.channels:
            raise SettingError(f"{self.channels} channels have as many bands, not {len(self.bands)}.")
        if not 0 < self.scale < float("inf"):
            raise SettingError(f"The value that counts as 1 is a positive number, not {self.scale}.")

    @classmethod
    def for_size(
        cls, size: int | tuple[int, int], channels: int = 3, scale: float = EIGHT_BITS
    ) -> Preprocess:
        """Return the default steps: crop the margin of a photograph, but squash for inputs of 64 px or fewer."""
        wanted = (size, size) if isinstance(size, int) else size
        tiny = max(wanted) <= 64  # the margin of a tiny image is content
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
        fit: Fit = "squash" if tiny else "crop"
        return cls(wanted, fit, usual_fraction(fit), mean, std, channels, scale=scale)

    @property
    def raw(self) -> bool:
        """Whether images keep the values of their files, instead of 8-bit grey or colour."""
        return bool(self.bands) or self.scale != EIGHT_BITS or self.channels not in {1, 3, 4}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input: (channels, *size), of a clip (frames, channels, *size)."""
        return (self.frames, self.channels, *self.size) if self.frames else (self.channels, *self.size)

    @property
    def band_names(self) -> tuple[str, ...]:
        """The names of the bands, () without names."""
        return tuple(band.name for band in self.bands)

    @property
    def dtype(self) -> type[np.uint8 | np.float32]:
        """The input type of an exported graph: float32 for raw images, which can also contain NaN."""
        return np.float32 if self.raw else np.uint8

    def visible(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return an image that these steps take for display, uint8 (height, width, 1, 3 or 4).

        Named bands are shown as red, green and blue in their range in training, other raw values as by `preview`. Of a
        clip, at most `STRIP` frames are shown side by side.
        """
        if image.ndim == 4:
            return strip_of(image)
        if self.bands:
            return preview_of(image, self.bands)
        return preview(image) if self.raw else image

    def view(self, shape: tuple[int, int], augment: Augment | None = None, key: int = -1) -> View:
        """Return the view of an image (height, width): as in prediction, or augmented with the seed `key`.

        Raises:
            SettingError: the augmentation does not support raw images.
        """
        height, width = shape
        if augment is None:
            plan = self._plan(height, width)
            return View(self, geometry_of((height, width), self.size, plan), plan)
        if self.raw and augment.change is not None:
            raise SettingError(f"The augmentation {augment.name!r} needs numbers of 8 bits. Use flip_crop.")
        with drawn_from(key):
            zoomed = augment.zoomed(self._plan(height, width).resized, self.size)
            region = augment.region(height, width)
            move = augment.move(*self.size)
            drawn = Drawn(augment, region, move, torch.random.get_rng_state())
        plan = self._plan(height, width) if region is None else Plan(self.size, (0, 0))
        plan = plan if zoomed is None else Plan(*zoomed)
        return View(self, geometry_of((height, width), self.size, plan, drawn), plan, drawn)

    def eval(self, image: NDArray[Any]) -> tuple[Tensor, Geometry]:
        """Return the input (channels, *size) and its position in the original; of a clip (frames, channels, *size)."""
        self._check(image)
        view = self.view(shape_of(image))
        return view.image(image), view.geometry

    def geometry(self, height: int, width: int) -> Geometry:
        """Return the position of the input in an image of this size."""
        return self.view((height, width)).geometry

    def train(self, image: NDArray[Any], augment: Augment, key: int) -> Tensor:
        """Return an augmented input (channels, *size); the random draw depends only on `key`."""
        self._check(image)
        return self.view(shape_of(image), augment, key).image(image)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise 0..scale (c, h, w) to mean 0 and deviation 1."""
        mean = torch.tensor(self.mean).view(-1, 1, 1) * self.scale
        std = torch.tensor(self.std).view(-1, 1, 1) * self.scale
        return (pixels - mean).div_(std)

    def restore(self, images: Tensor) -> Tensor:
        """Undo `normalise`: back to 0..scale."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1) * self.scale
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1) * self.scale
        return images * std + mean

    @property
    def ground(self) -> tuple[float, ...]:
        """The padding colour (0..scale), which normalises to zero."""
        return tuple(self.scale * mean for mean in self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        unset: dict[str, Any] = {
            "zoom": None,
            "rounded": False,
            "bands": [],
            "window": 0,
            "pixel": 0.0,
            "frames": 0,
        }
        values["bands"] = [list(band) for band in self.bands]
        return {key: value for key, value in values.items() if key not in unset or value != unset[key]}

    def whole(self, shape: tuple[int, int]) -> Preprocess:
        """Return steps that show a whole image (height, width): these, or with a `zoom` those of a larger input.

        Its sides are those of the input, or longer by whole quarters of it (halves, if quarters are not whole pixels).
        """
        if self.zoom is None:
            return self
        sides = []
        for length, side in zip(shape, self.size, strict=True):
            part = next(side // n for n in (4, 2, 1) if side % n == 0)
            over = max(0, round(length * self.zoom) - side)
            sides.append(side + -(-over // part) * part)
        return replace(self, size=(sides[0], sides[1]))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Read a result of `to_dict`, also of versions without interpolation, where only `crop` had a margin.

        Raises:
            SettingError: a key is missing or unknown.
        """
        try:
            plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            plain["bands"] = tuple(Band(*band) for band in plain.get("bands", ()))
            if "interpolation" not in plain and plain.get("fit", "crop") != "crop":
                plain["crop_fraction"] = 1.0
            return cls(**plain)
        except TypeError as error:
            raise SettingError(f"These are no preprocessing steps: {values}.") from error

    def _check(self, image: NDArray[Any]) -> None:
        if self.frames and (image.ndim != 4 or len(image) != self.frames):
            raise SettingError(f"The network wants a clip of {self.frames} frames, not {image.shape}.")
        if image.ndim != (4 if self.frames else 3) or image.shape[-1] != self.channels:
            raise SettingError(
                f"The network wants {self.channels} channels, the image has shape {image.shape}. "
                f"Decode it with channels={self.channels}."
            )

    def _plan(self, height: int, width: int) -> Plan:
        tall, wide = (int(side / self.crop_fraction) for side in self.size)
        if self.zoom is not None:
            new = (max(1, round(height * self.zoom)), max(1, round(width * self.zoom)))
        elif self.fit == "squash":
            new = (tall, wide)
        elif self.fit == "pad":
            if (
                tall * width <= wide * height
            ):  # in integers, so that exported graphs round halves in the same way
                new = (tall, max(1, round(width * tall / height)))
            else:
                new = (max(1, round(height * wide / width)), wide)
        elif tall * width >= wide * height:  # the height must be covered
            new = (tall, max(wide, int(tall * width / height)))
        else:
            new = (max(tall, int(wide * height / width)), wide)
        return Plan(new, (_corner(new[0] - self.size[0]), _corner(new[1] - self.size[1])))


def shape_of(image: NDArray[Any]) -> tuple[int, int]:
    """Return (height, width) of an image (height, width, channels), or of a clip with its frames in front."""
    return image.shape[-3], image.shape[-2]


def strip_of(frames: NDArray[Any], most: int = STRIP) -> NDArray[Any]:
    """Return at most so many frames of a clip (t, height, width, channels), evenly chosen, side by side."""
    return np.concatenate([frames[at] for at in strip_numbers(len(frames), most)], 1)


def strip_numbers(frames: int, most: int = STRIP) -> list[int]:
    """Return which of so many frames `strip_of` shows."""
    count = min(frames, most)
    return [(2 * turn + 1) * frames // (2 * count) for turn in range(count)]


def usual_fraction(fit: Fit) -> float:
    """Return the default crop fraction of a fit."""
    return 0.875 if fit == "crop" else 1.0


def _corner(over: int) -> int:
    """Return the start of the input on a side that is `over` pixels longer: half of it, rounded like torchvision."""
    return round(over / 2) if over > 0 else over // 2
