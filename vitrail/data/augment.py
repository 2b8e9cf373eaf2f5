"""Named augmentation recipes on torchvision's transforms; a draw depends on its key, never on who draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    from torchvision.transforms import v2

RECIPES = ("none", "light", "flip_crop", "trivial", "rand", "three")

_SEED_BITS = 63


@contextmanager
def drawn_from(key: int) -> Iterator[None]:
    """Let every draw inside depend on `key` alone, and leave torch's own generator as it was.

    Transforms draw from torch's default generator: two threads of one process must not be in here at once.
    """
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(
        key % (1 << _SEED_BITS)
    )  # not torch.manual_seed: it reseeds every device
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


@dataclass(frozen=True)
class Augment:
    """What training does to a picture: which region is shown, what happens to its pixels, what is erased.

    `crop` draws a region of the original (None: the picture is fitted as at prediction); `change` works on
    uint8 pixels at the input's size, `erase` on the normalised input.
    """

    name: str
    crop: v2.RandomResizedCrop | None = None
    change: nn.Module | None = None
    erase: nn.Module | None = None

    def region(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """Draw the region to show as (top, left, height, width) in original pixels."""
        if self.crop is None:
            return None
        drawn = self.crop.make_params([torch.empty(1, height, width, device="meta")])
        return drawn["top"], drawn["left"], drawn["height"], drawn["width"]

    def pixels(self, image: Tensor) -> Tensor:
        """Change 0..255 float32 (c, h, w); without a change nothing is rounded."""
        if self.change is None:
            return image
        changed: Tensor = self.change(image.round().clamp(0, 255).to(torch.uint8))
        return changed.to(torch.float32)

    def finish(self, image: Tensor) -> Tensor:
        """Erase a patch of the normalised input (c, h, w)."""
        if self.erase is None:
            return image
        erased: Tensor = self.erase(image)
        return erased


def build(name: str, *, channels: int = 3, erasing: float = 0.0, least_area: float = 0.08) -> Augment:
    """Return a named recipe; `erasing` is the chance of an erased patch, `least_area` the smallest crop.

    `none` · `light` (small turn, shift and scale, no flip: for digits and letters) · `flip_crop` (random
    resized crop and flip) · `trivial` (flip_crop + TrivialAugment, arXiv:2103.10158) · `rand` (flip_crop +
    RandAugment with 2 operations at 9/10 of their range, arXiv:1909.13719, as in DeiT's recipe) · `three`
    (flip_crop, one of grey, inverted highlights and blur, and a colour jitter of 0.3: DeiT III,
    arXiv:2204.07118, §3).

    Raises:
        SettingError: the name is unknown, or the recipe cannot work on so many channels.
    """
    if name not in RECIPES:
        raise UnknownNameError("augmentation", name, RECIPES, f"Choose one of {', '.join(RECIPES)}.")
    if name in {"trivial", "rand", "three"} and channels not in {1, 3}:
        raise SettingError(
            f"The augmentation {name!r} needs grey or colour, not {channels} channels. Use flip_crop."
        )
    from torchvision.transforms import v2  # two seconds: only who trains pays for them

    erase = v2.RandomErasing(p=erasing, value=0) if erasing else None
    if name == "none":
        return Augment(name, erase=erase)
    if name == "light":
        shift = v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)
        return Augment(name, change=shift, erase=erase)
    size = (1, 1)  # only its draw of a region is used; the resize is ours
    crop = v2.RandomResizedCrop(size, scale=(least_area, 1.0))
    return Augment(name, crop, _colours(name), erase)


def _colours(name: str) -> nn.Module:
    from torchvision.transforms import v2

    then: dict[str, list[nn.Module]] = {
        "trivial": [v2.TrivialAugmentWide()],
        "rand": [v2.RandAugment(num_ops=2, magnitude=9, num_magnitude_bins=11)],
        "three": [
            v2.RandomChoice(
                [
                    v2.RandomGrayscale(p=1),
                    v2.RandomSolarize(threshold=128, p=1),
                    v2.GaussianBlur(5, (0.1, 2.0)),
                ]
            ),
            v2.ColorJitter(0.3, 0.3, 0.3),
        ],
    }
    return nn.Sequential(v2.RandomHorizontalFlip(), *then.get(name, []))
