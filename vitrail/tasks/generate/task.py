"""Generation with DiT: Peebles and Xie 2023, "Scalable Diffusion Models with Transformers", arXiv:2212.09748.

An image gets noise of a drawn level. The network sees it, the level and the class, and tells the noise. An image of a
class is then made from noise alone, in many small steps. Some images are shown without their class, so that the
difference between both answers can be followed further than it was learnt (guidance).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vitrail import plots
from vitrail.core.errors import SettingError
from vitrail.core.seeds import derive
from vitrail.data.batch import Batch, Geometry
from vitrail.data.preprocess import HALF, Preprocess
from vitrail.data.truth import Truth
from vitrail.layers.encoder import Encoder
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, Task, within
from vitrail.tasks.generate.diffusion import Estimate, linear_schedule, losses
from vitrail.tasks.generate.evaluation import BOUND, ERROR, LEVEL, GenerateEvaluation
from vitrail.tasks.generate.latents import Space
from vitrail.tasks.generate.prediction import WIDE, Denoised, pixels_of
from vitrail.tasks.generate.sampling import LABEL, NOISE, SPREAD, TIME, Making, Noises, made
from vitrail.tasks.generate.settings import STEPS, GenerateSettings
from vitrail.tasks.generate.targets import GenerateTargets
from vitrail.tasks.image_makers import MakesImages

if TYPE_CHECKING:
    from PIL.Image import Image

CLEAN, NOISY, ADDED = "clean", "noisy", "added"
"""The image without noise, what the network saw, and the noise in it, all (b, channels, height, width)."""

ACROSS, DOWN, QUICK = 8, 12, 25
"""Images of a class, and classes, on the sheet of samples, and the steps in which these are made at most."""

SMALL, LETTERS = 64, 15
"""Least side of such an image, and the height of the letters above it, in pixels."""

SAME = 0.02
"""Mean difference of the noise of two outputs, in units of its deviation, up to which they agree."""


class Drawn(NamedTuple):
    """What an image gets besides itself: its level (b,), its noise (b, c, h, w) and the class that is shown (b,)."""

    level: Tensor
    noise: Tensor
    label: Tensor


class Generate(Task[int, Denoised], GenerateTargets, MakesImages):
    """The noise in images of a class. Levels and noise are drawn in every step, and fixed by the id in evaluations."""

    name = "generate"
    Settings = GenerateSettings
    outputs: Mapping[str, tuple[str, ...]] = {
        NOISE: ("channel", "height", "width"),
        SPREAD: ("channel", "height", "width"),
    }
    inputs = ("images", TIME, LABEL)
    answers = False
    fresh = True
    begins_from = ("generate",)
    networks = ((16, "dit_digits"), (64, "dit_cifar"), (inf, "dit_s8"))
    agreement = "noise is the same"

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        self.schedule = linear_schedule(STEPS)
        self.space = Space(self.settings.vae)

    # Network

    def refuse_network(self, encoder: Encoder) -> None:
        """Raise a SettingError for a network that takes no noise level and no class."""
        if not {TIME, LABEL} <= set(encoder.takes) or encoder.own_head(self.name, 0) is None:
            raise SettingError(
                "Images are made by a network that is told the noise level and the class: a DiT. Choose one: "
                f"--model {self.networks[-1][1]}"
            )

    def head(self, spec: FeatureSpec) -> Head:
        """Raise a SettingError: only networks that have a head of their own for it make images."""
        raise SettingError(f"Images are made by a DiT. Choose one: --model {self.networks[-1][1]}")

    def steps(self, preprocess: Preprocess) -> Preprocess:
        """Return the preprocessing to numbers from -1 to 1. SettingError for raw images."""
        if preprocess.raw:
            raise SettingError(
                "Images are made in 8 bits with 1 or 3 channels. These keep the numbers of their files: convert "
                "them first, or leave out --scale."
            )
        half = HALF[:1] * preprocess.channels
        return replace(preprocess, mean=half, std=half)

    def network_input(self, size: tuple[int, int], channels: int) -> tuple[tuple[int, int], int]:
        """Return size and channels of what the network sees of images: those of latents, with an autoencoder."""
        return self.space.of(size, channels)

    # Training

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the loss under levels and noise that are drawn from `rng`; some classes are dropped."""
        batch = self._entered(batch, rng)
        count = len(batch)
        level = torch.from_numpy(rng.integers(0, STEPS, count))
        noise = torch.from_numpy(rng.standard_normal(batch.images.shape, np.float32))
        dropped = torch.from_numpy(rng.random(count) < self.settings.drop)
        label = torch.as_tensor(batch.targets).cpu().masked_fill(dropped, len(self.labels))
        noisy = self.with_noise(batch, Drawn(level, noise, label))
        return self.loss(self.answer(network, noisy, Ask()), batch.targets)

    def with_noise(self, batch: Batch[Any], drawn: Drawn) -> Batch[Any]:
        """Return a batch whose images have noise, with the images as they are and their noise as inputs besides."""
        level, noise, label = (one.to(batch.images.device) for one in drawn)
        noisy = self.schedule.noisy(batch.images, level, noise)
        added = {"images": noisy, CLEAN: batch.images, ADDED: noise, TIME: level, LABEL: label}
        return replace(batch, inputs={**batch.inputs, **added})

    def answer(self, network: nn.Module, batch: Batch[Any], ask: Ask) -> Output:
        """Return noise and spread as the network tells them, with the error and the bound of each image.

        If the batch has no noise yet, level and noise follow from the ids of the images.
        """
        if TIME not in batch.inputs:
            batch = self._entered(batch)
            batch = self.with_noise(batch, self._fixed(batch))
        given = batch.inputs
        output: Output = network(given)
        told = Estimate(output[NOISE].float(), output[SPREAD].float())
        found = losses(self.schedule, told, given[CLEAN], given[TIME], given[ADDED])
        return {
            NOISE: told.noise,
            SPREAD: told.spread,
            CLEAN: given[CLEAN],
            NOISY: given["images"],
            LEVEL: given[TIME],
            ERROR: found.mse,
            BOUND: found.bound,
        }

    def _entered(self, batch: Batch[Any], rng: np.random.Generator | None = None) -> Batch[Any]:
        """Return the batch with what the network sees of its images."""
        if self.space.pixels:
            return batch
        return replace(batch, inputs={**batch.inputs, "images": self.space.enter(batch.images, rng)})

    def _fixed(self, batch: Batch[Any]) -> Drawn:
        """Return level and noise by the id of each image; without targets, no class is shown."""
        shape = tuple(batch.images.shape[1:])
        drawn = [np.random.default_rng(derive(0, "noise", one)) for one in batch.ids]
        level = torch.tensor([int(one.integers(0, STEPS)) for one in drawn])
        noise = torch.from_numpy(np.stack([one.standard_normal(shape, np.float32) for one in drawn]))
        none = torch.full((len(batch),), len(self.labels))
        return Drawn(level, noise, none if batch.targets is None else torch.as_tensor(batch.targets))

    def loss(self, output: Output, targets: Any) -> Losses:
        """Return the squared error of the noise, and the bound, which trains the spread only."""
        return Losses({"noise": output[ERROR].mean(), "bound": output[BOUND].mean()})

    # Answer

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Denoised]:
        """Return what each image with noise was taken for, for drawings."""
        guess = self.schedule.start(output[NOISY], output[LEVEL].long(), output[NOISE])
        shown = (pixels_of(self.space.leave(one)) for one in (output[NOISY], guess, output[CLEAN]))
        parts = zip(
            *shown,
            output[LEVEL].long().tolist(), output[ERROR].tolist(), strict=True,
        )  # fmt: skip
        return [Denoised(*part) for part in parts]

    def score(self, output: Output, prediction: Denoised) -> Tensor:
        """Return the negative squared error of the noise of each image: (b,)."""
        return -output[ERROR]

    def render(self, image: Image, prediction: Denoised) -> Image:
        """Return the image with noise, what the network takes it for, and the image."""
        return prediction.drawn(WIDE)

    def compare(self, image: Image, prediction: Denoised, truth: int) -> Image:
        """Return the same: the truth is the image."""
        return self.render(image, prediction)

    # Made images

    def made(
        self, network: nn.Module, label: int, seed: int, numbers: Sequence[int], making: Making, start: Tensor
    ) -> Tensor:
        """Return the images with these numbers of a class and a seed: (b, c, h, w), about -1 to 1."""
        if start.shape[0] not in (1, 3):
            raise SettingError(
                f"The network makes latents of {start.shape[0]} channels, not pixels. Put the folder of their "
                "autoencoder, in diffusers' layout, beside its file under the name vae."
            )
        device = next(network.parameters()).device
        labels = torch.full((len(numbers),), label, device=device)
        inner = self.space.enter(start.to(device)[None])[0]
        noises = Noises(seed, numbers, tuple(inner.shape), device)
        images = made(network, labels, len(self.labels), noises, making, inner, clip=self.space.pixels)
        return self.space.leave(images)

    def sheet(self, network: nn.Module, shape: tuple[int, ...]) -> Image:
        """Return images of each class in few steps, a row each; of the first classes if there are many."""
        own = Making.of(self.settings)
        making = own.changed({"sampler": "ddim", "steps": min(QUICK, own.steps), "strength": 1.0})
        rows = []
        for label, name in list(enumerate(self.labels))[:DOWN]:
            images = pixels_of(self.made(network, label, 0, range(ACROSS), making, torch.zeros(shape)))
            small = [plots.shown(plots.of_array(one), SMALL) for one in images]
            rows.append(plots.titled(plots.beside(*small, gap=2), name, LETTERS))
        return plots.below(*rows, gap=2)

    # Proof

    def fingerprint(self, output: Output) -> Tensor:
        """Return noise and spread, squeezed into 0 … 1, as means over equal spans: (b, m)."""
        squeezed = torch.cat([output[name].float().sigmoid().flatten(1) for name in (NOISE, SPREAD)], 1)
        sums = within(squeezed)
        return sums / -(-squeezed.shape[1] // sums.shape[1])

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return for which images the noise is told alike, up to `SAME` on average."""
        apart = (one[NOISE].float() - other[NOISE].float()).abs().flatten(1)
        return apart.mean(1) <= SAME + tolerance

    # Evaluation

    def evaluation(self) -> GenerateEvaluation:
        return GenerateEvaluation(self.labels)
