"""Named augmentation recipes from torchvision's transforms. A random draw depends only on its key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    from torchvision.transforms import v2

RECIPES = (
    "none", "light", "flip_crop", "trivial", "rand", "three", "scene", "flip_scale", "turns", "large_crop", "square",
)  # fmt: skip
MOVING_TRUTH = ("none", "light", "flip_crop", "three", "scene", "flip_scale", "turns", "large_crop", "square")
"""The recipes that move masks, points and boxes together with the image."""

ZOOM, SLIGHT_ZOOM = (0.5, 2.0), (0.75, 4 / 3)
"""Range of scales for `scene`, and for `flip_scale`."""

LARGE = 0.2
"""Smallest share of an image that `large_crop` shows."""
SQUARE = (0.9**0.5, 1.0)
"""Range of the sides of `square`, as shares of the short side: nine tenths of the largest square, or more."""

_SEED_BITS = 63


@contextmanager
def drawn_from(key: int) -> Iterator[None]:
    """Seed torch's default generator with `key` inside the block, and restore its state afterwards.

    Transforms use torch's default generator, so two threads of one process must not be inside at the same time.
    """
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(
        key % (1 << _SEED_BITS)
    )  # not torch.manual_seed: it reseeds every device
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


@contextmanager
def drawn_on(state: Tensor) -> Iterator[None]:
    """Set torch's default generator to `state` inside the block, and restore its own state afterwards."""
    before = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


class Move(NamedTuple):
    """A geometric augmentation of an input: a mirror, then quarter `turns`, or (`affine`) rotation, shift, scale.

    `matrix` maps (x, y, 1) before to (x, y) after, in pixels with centres at 0.5.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
    affine: Mapping[str, Any] | None = None
    mirrored: bool = True
    turns: int = 0

    def image(self, image: Tensor, ground: Sequence[float] | None = None) -> Tensor:
        """Transform an image (c, h, w); `ground` is the colour of pixels from outside, black by default."""
        if self.affine is None:
            image = image.flip(-1) if self.mirrored else image
            return image.rot90(-self.turns, (-2, -1)) if self.turns else image
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import affine

        how = {**self.affine, "interpolation": InterpolationMode.BILINEAR}
        if ground is None:
            return cast(Tensor, affine(image, **how, fill=[0.0]))
        shift = torch.tensor(ground).view(-1, 1, 1)  # torchvision's fill makes the edges too dark
        return cast(Tensor, affine(image - shift, **how) + shift)


@dataclass(frozen=True)
class Augment:
    """The augmentations of a recipe: region, geometry, colours and erased patches.

    `crop` draws a region of the original (None: the image is fitted as in prediction). `flip` mirrors and `affine`
    rotates, shifts and scales the input; `zoom` draws a scale of the whole image, of which the input shows a part, or
    which is padded; `turns` are mirrors and quarter turns; `square` draws a square region with such a share of the
    short side. A view moves masks, points and boxes in the same way.
    `change` works on uint8 pixels of the input, `erase` on the normalised input. If `moves_truth` is False, `change`
    moves pixels without moving the truth.
    """

    name: str
    crop: v2.RandomResizedCrop | None = None
    flip: bool = False
    affine: v2.RandomAffine | None = None
    change: nn.Module | None = None
    erase: nn.Module | None = None
    moves_truth: bool = True
    zoom: tuple[float, float] | None = None
    turns: bool = False
    square: tuple[float, float] | None = None

    def zoomed(
        self, resized: tuple[int, int], size: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Draw a new size for an image of size `resized`, and the corner of an input of `size`; None without zoom."""
        if self.zoom is None:
            return None
        low, high = (math.log(end) for end in self.zoom)
        scale = math.exp(low + (high - low) * float(torch.rand(1)))
        rows, cols = (max(1, round(side * scale)) for side in resized)
        top, left = (_within(whole - part) for whole, part in zip((rows, cols), size, strict=True))
        return (rows, cols), (top, left)

    def region(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """Draw the region to show as (top, left, height, width) in original pixels."""
        if self.square is not None:
            low, high = self.square
            side = max(1, round(min(height, width) * (low + (high - low) * float(torch.rand(1)))))
            return _within(height - side), _within(width - side), side, side
        if self.crop is None:
            return None
        drawn = self.crop.make_params([torch.empty(1, height, width, device="meta")])
        return drawn["top"], drawn["left"], drawn["height"], drawn["width"]

    def move(self, rows: int, cols: int) -> Move | None:
        """Draw a geometric augmentation for an input of this size; None if pixels do not move."""
        if self.turns:
            return _turned(int(torch.randint(8, (1,))), rows, cols)
        if self.flip:
            mirror = ((-1.0, 0.0, float(cols)), (0.0, 1.0, 0.0))
            return Move(mirror) if float(torch.rand(1)) < 0.5 else None
        if self.affine is None:
            return None
        drawn = self.affine.make_params([torch.empty(1, rows, cols, device="meta")])
        return Move(_about_the_middle(drawn, rows, cols), drawn)

    def pixels(self, image: Tensor, move: Move | None) -> Tensor:
        """Transform float32 (c, h, w) of 0..255 and change its colours; rounded only if something changes."""
        if not self.flip and not self.turns and self.affine is None and self.change is None:
            return image
        changed = image.round().clamp(0, 255).to(torch.uint8)
        changed = changed if move is None else move.image(changed)
        changed = changed if self.change is None else self.change(changed)
        return changed.to(torch.float32)

    def raw(self, image: Tensor, move: Move | None, ground: Sequence[float]) -> Tensor:
        """Transform float32 (c, h, w) with any values, without rounding."""
        return image if move is None else move.image(image, ground)

    def finish(self, image: Tensor) -> Tensor:
        """Erase a patch of the normalised input (c, h, w)."""
        if self.erase is None:
            return image
        erased: Tensor = self.erase(image)
        return erased


def _turned(drawn: int, rows: int, cols: int) -> Move | None:
    """Return one of the eight symmetries of a square input, or of the four of another one; None for no change."""
    mirrored, turns = bool(drawn & 4), drawn & 3
    turns = turns if rows == cols else turns & 2
    if not mirrored and not turns:
        return None
    matrix = torch.eye(3)
    if mirrored:
        matrix = torch.tensor([[-1.0, 0.0, cols], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for _ in range(turns):  # clockwise: the left column becomes the top row
        rows, cols = cols, rows
        matrix = torch.tensor([[0.0, -1.0, cols], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) @ matrix
    first, second = ((float(a), float(b), float(c)) for a, b, c in matrix[:2].tolist())
    return Move((first, second), mirrored=mirrored, turns=turns)


def _within(over: int) -> int:
    """Draw the start of an input on a side that is `over` pixels longer; negative if the side is shorter."""
    low, high = min(0, over), max(0, over)
    return low + int(torch.randint(high - low + 1, (1,)))


def _about_the_middle(
    drawn: Mapping[str, Any], rows: int, cols: int
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the matrix of torchvision's affine transform without shear: rotation and scale about the centre."""
    angle, scale = math.radians(drawn["angle"]), drawn["scale"]
    along, across = scale * math.cos(angle), scale * math.sin(angle)
    x, y = cols / 2, rows / 2
    right, down = drawn["translate"]
    return (
        (along, -across, x + right - along * x + across * y),
        (across, along, y + down - across * x - along * y),
    )


def build(
    name: str, *, channels: int = 3, raw: bool = False, erasing: float = 0.0, least_area: float = 0.08
) -> Augment:
    """Return a named recipe; `erasing` is the probability of an erased patch, `least_area` the smallest crop.

    `raw` means that images keep the values of their file (`Preprocess.raw`).

    `none` · `light` (small rotation, shift and scale, no flip: for digits and letters) · `flip_crop` (random
    resized crop and flip) · `trivial` (flip_crop + TrivialAugment, arXiv:2103.10158) · `rand` (flip_crop +
    RandAugment with 2 operations at 9/10 of their range, arXiv:1909.13719, as in DeiT's recipe) · `three`
    (flip_crop, one of grey, inverted highlights and blur, and a colour jitter of 0.3: DeiT III,
    arXiv:2204.07118, §3) · `scene` (half to twice the size, any part of it, flip, and a change of light and
    colour: for masks and boxes) · `flip_scale` (the same with three quarters to four thirds of the size: for objects
    that always have about the same size) · `turns` (mirrors and quarter turns, without any resampling: for images
    from above) · `large_crop` (flip_crop with at least a fifth of the image: masked pretraining, arXiv:2111.06377) ·
    `square` (a random square that is nearly as large as fits, and nothing else: for captions, which a mirror would make
    wrong where they say left, and other colours where they say red; CLIP, arXiv:2103.00020, §2.5).

    Raises:
        SettingError: the name is unknown, or the recipe does not support such images.
    """
    if name not in RECIPES:
        raise UnknownNameError("augmentation", name, RECIPES, f"Choose one of {', '.join(RECIPES)}.")
    if name in {"trivial", "rand", "three"} and (raw or channels not in {1, 3}):
        what = "numbers of 8 bits" if raw else f"grey or colour, not {channels} channels"
        raise SettingError(f"The augmentation {name!r} needs {what}. Use flip_crop.")
    from torchvision.transforms import v2  # the import takes two seconds: only training needs it

    erase = v2.RandomErasing(p=erasing, value=0) if erasing else None
    if name == "none":
        return Augment(name, erase=erase)
    if name == "light":
        return Augment(name, affine=v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1)), erase=erase)
    if name == "turns":
        return Augment(name, turns=True, erase=erase)
    if name == "square":
        return Augment(name, erase=erase, square=SQUARE)
    if name in {"scene", "flip_scale"}:
        light = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.05)], p=0.8)
        zoom = ZOOM if name == "scene" else SLIGHT_ZOOM
        eight_bits = channels in {1, 3} and not raw
        return Augment(name, flip=True, change=light if eight_bits else None, erase=erase, zoom=zoom)
    size = (1, 1)  # only the random region is used; `Preprocess` resizes
    least = max(LARGE, least_area) if name == "large_crop" else least_area
    crop = v2.RandomResizedCrop(size, scale=(least, 1.0))
    return Augment(name, crop, True, None, _colours(name), erase, name in MOVING_TRUTH)


def _colours(name: str) -> nn.Module | None:
    from torchvision.transforms import v2

    if name == "trivial":
        return cast(nn.Module, v2.TrivialAugmentWide())
    if name == "rand":
        return cast(nn.Module, v2.RandAugment(num_ops=2, magnitude=9, num_magnitude_bins=11))
    if name != "three":
        return None
    one_of = [
        v2.RandomGrayscale(p=1), v2.RandomSolarize(threshold=128, p=1), v2.GaussianBlur(5, (0.1, 2.0))
    ]  # fmt: skip
    return nn.Sequential(v2.RandomChoice(one_of), v2.ColorJitter(0.3, 0.3, 0.3))
