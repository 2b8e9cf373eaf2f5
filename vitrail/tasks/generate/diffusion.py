"""Gaussian diffusion with a learned variance: Nichol and Dhariwal 2021, arXiv:2102.09672, in the form that DiT uses.

An image x_0 gets noise in steps, x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε (Ho et al. 2020, arXiv:2006.11239, eq. 4), until
nothing is left of it. A network tells the noise ε from x_t and t, and v, where between its bounds the variance of the
step back lies (arXiv:2102.09672, eq. 15). Sampling walks back from pure noise: with new noise in each step (DDPM, Ho et
al.) or without (DDIM, Song et al. 2021, arXiv:2010.02502). It may use a part of the steps, whose β follow from the ᾱ
that are kept.

Tables are float64; an image is changed in its own type, by coefficients in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import log, pi, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.tasks.generate.settings import STEPS, Sampler

GUIDED = 3
"""Channels of the noise that guidance changes, in the official code also of four channels."""


class Estimate(NamedTuple):
    """What a network tells of x_t: the noise in it, and v, both (b, channels, height, width)."""

    noise: Tensor
    spread: Tensor


Predict = Callable[[Tensor, Tensor], Estimate]
"""From x_t (b, channels, height, width) and its times (b,), int64, to what the network tells of it."""


class Gaussian(NamedTuple):
    """Mean and logarithm of the variance."""

    mean: Tensor
    log_variance: Tensor


class Losses(NamedTuple):
    """Losses of each image, (b,): the squared error of the noise, and the variational bound in bits per number."""

    mse: Tensor
    bound: Tensor


class Schedule:
    """The tables of a diffusion, all (steps,), float64; `times` are the steps as the network knows them, int64."""

    def __init__(self, betas: Tensor, times: Tensor) -> None:
        self.betas, self.times = betas, times
        alphas = 1 - betas
        self.kept = alphas.cumprod(0)  # ᾱ: the share of x_0 in the variance of x_t
        self.kept_before = torch.cat([torch.ones(1, dtype=betas.dtype), self.kept[:-1]])
        self.posterior_variance = betas * (1 - self.kept_before) / (1 - self.kept)
        # The first variance is 0; its logarithm is that of the second.
        second = self.posterior_variance[1:2] if len(betas) > 1 else betas
        self.posterior_log_variance = torch.cat([second, self.posterior_variance[1:]]).log()
        self.of_start = betas * self.kept_before.sqrt() / (1 - self.kept)
        self.of_noisy = (1 - self.kept_before) * alphas.sqrt() / (1 - self.kept)

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.betas)

    def noisy(self, start: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Return x_t: (b, c, height, width), steps (b,), noise like the images -> (b, c, height, width)."""
        share = at(self.kept, step, start).sqrt(), at(1 - self.kept, step, start).sqrt()
        return share[0] * start + share[1] * noise

    def start(self, noisy: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Return x_0 from x_t and the noise in it."""
        factors = at((1 / self.kept).sqrt(), step, noisy), at((1 / self.kept - 1).sqrt(), step, noisy)
        return factors[0] * noisy - factors[1] * noise

    def posterior(self, start: Tensor, noisy: Tensor, step: Tensor) -> Gaussian:
        """Return the distribution of x_(t-1), given x_0 and x_t (arXiv:2006.11239, eq. 7)."""
        mean = at(self.of_start, step, noisy) * start + at(self.of_noisy, step, noisy) * noisy
        return Gaussian(mean, at(self.posterior_log_variance, step, noisy).expand_as(noisy))

    def log_variance(self, spread: Tensor, step: Tensor) -> Tensor:
        """Return the logarithm of the variance of a step back: v = -1 is the posterior's, v = 1 is β."""
        low, high = at(self.posterior_log_variance, step, spread), at(self.betas.log(), step, spread)
        share = (spread + 1) / 2
        return share * high + (1 - share) * low

    def first_step(self, strength: float) -> int:
        """Return at how many steps a chain begins that keeps something of an image; strength 1 is all of them.

        SettingError for a strength that is not above 0 and at most 1.
        """
        if not 0 < strength <= 1:
            raise SettingError(f"A strength is above 0 and at most 1, not {strength:g}. Use for example 0.5.")
        return max(1, round(strength * len(self)))


def at(table: Tensor, step: Tensor, like: Tensor) -> Tensor:
    """Return the entries of a table at the steps (b,), as (b, 1, 1, 1) on the device of `like`, in float32."""
    return table.float().to(like.device)[step].view(-1, *[1] * (like.ndim - 1))


def linear_schedule(steps: int = STEPS) -> Schedule:
    """Return the schedule whose β grow evenly, from 0.0001 to 0.02 for 1,000 steps."""
    pace = STEPS / steps
    betas = torch.linspace(pace * 0.0001, pace * 0.02, steps, dtype=torch.float64)
    return Schedule(betas, torch.arange(steps))


def respace(schedule: Schedule, times: Sequence[int]) -> Schedule:
    """Return the schedule of these steps alone, in ascending order; their β follow from the ᾱ of the whole."""
    chosen = torch.tensor(sorted(set(times)))
    kept = schedule.kept[chosen]
    before = torch.cat([torch.ones(1, dtype=kept.dtype), kept[:-1]])
    return Schedule(1 - kept / before, schedule.times[chosen])


def spaced_times(total: int, sections: Sequence[int]) -> list[int]:
    """Return so many steps of each equal section of `total` steps, evenly spaced from its first to its last.

    SettingError for more steps than a section has, or none.
    """
    size, extra = divmod(total, len(sections))
    first, times = 0, []
    for place, count in enumerate(sections):
        length = size + (place < extra)
        if not 1 <= count <= length:
            raise SettingError(f"{count} of {length} steps cannot be taken. Use 1 to {length}.")
        stride = 1.0 if count == 1 else (length - 1) / (count - 1)
        position = 0.0
        for _ in range(count):  # added up as in the official code, whose rounding this is
            times.append(first + round(position))
            position += stride
        first += length
    return times


def even_times(total: int, count: int) -> list[int]:
    """Return `count` steps with a whole number of steps between them, from 0 (DDIM's). SettingError without one."""
    for stride in range(1, total + 1):
        if len(range(0, total, stride)) == count:
            return list(range(0, total, stride))
    raise SettingError(
        f"No whole number of steps divides {total} steps into {count}. Use for example 25 or 50."
    )


def guided(network: Predict, unlabelled: Predict, scale: float) -> Predict:
    """Return estimates that are moved away from those without a class (arXiv:2207.12598): u + scale · (c - u).

    Only the first three channels of the noise are changed, as in the official code.
    """
    if scale == 1:
        return network

    def predict(noisy: Tensor, time: Tensor) -> Estimate:
        return guide(network(noisy, time), unlabelled(noisy, time), scale)

    return predict


def guide(labelled: Estimate, unlabelled: Estimate, scale: float) -> Estimate:
    """Return the estimate of a class, moved away from that of no class."""
    c, u = labelled.noise[:, :GUIDED], unlabelled.noise[:, :GUIDED]
    noise = torch.cat([u + scale * (c - u), labelled.noise[:, GUIDED:]], 1)
    return Estimate(noise, labelled.spread)


class Step(NamedTuple):
    """One step back: x_(t-1) is `mean` + `deviation` · noise; `start` is the x_0 that the network expects."""

    mean: Tensor
    deviation: Tensor
    start: Tensor


def ddpm_step(schedule: Schedule, told: Estimate, noisy: Tensor, step: Tensor, *, clip: bool = False) -> Step:
    """Return the step back with the learned variance. With `clip` the expected x_0 is kept within -1 and 1."""
    start = expected_start(schedule, told, noisy, step, clip=clip)
    mean = schedule.posterior(start, noisy, step).mean
    return Step(mean, (schedule.log_variance(told.spread, step) / 2).exp(), start)


def ddim_step(
    schedule: Schedule, told: Estimate, noisy: Tensor, step: Tensor, *, clip: bool = False, eta: float = 0.0
) -> Step:
    """Return the step back of DDIM (arXiv:2010.02502, eq. 12); with `eta` 0 it has no noise."""
    start = expected_start(schedule, told, noisy, step, clip=clip)
    factors = at((1 / schedule.kept).sqrt(), step, noisy), at((1 / schedule.kept - 1).sqrt(), step, noisy)
    noise = (factors[0] * noisy - start) / factors[1]  # that which belongs to a clipped x_0
    kept, before = at(schedule.kept, step, noisy), at(schedule.kept_before, step, noisy)
    deviation = eta * ((1 - before) / (1 - kept)).sqrt() * (1 - kept / before).sqrt()
    mean = start * before.sqrt() + (1 - before - deviation**2).sqrt() * noise
    return Step(mean, deviation.expand_as(mean), start)


def expected_start(schedule: Schedule, told: Estimate, noisy: Tensor, step: Tensor, *, clip: bool) -> Tensor:
    """Return the x_0 that the network expects, within -1 and 1 if `clip` is set."""
    start = schedule.start(noisy, step, told.noise)
    return start.clamp(-1, 1) if clip else start


class Chain(NamedTuple):
    """How images are made: the schedule, the sampler, and whether they are kept within -1 and 1."""

    schedule: Schedule
    sampler: Sampler = "ddpm"
    clip: bool = False


def sample(
    predict: Predict, chain: Chain, images: Tensor, noise: Callable[[], Tensor], *, first: int | None = None
) -> Iterator[Tensor]:
    """Yield the images after each step back, from `images` (b, channels, height, width) at step `first` or the last.

    `images` is pure noise, or an image with the noise of step `first` - 1 (`Schedule.noisy`). `noise` is called once in
    each step of DDPM but the last, and returns noise like the images.
    """
    move = ddpm_step if chain.sampler == "ddpm" else ddim_step
    for turn in reversed(range(len(chain.schedule) if first is None else first)):
        step = torch.full(images.shape[:1], turn, device=images.device)
        told = predict(images, chain.schedule.times.to(images.device)[step])
        done = move(chain.schedule, told, images, step, clip=chain.clip)
        noisy = chain.sampler == "ddpm" and turn > 0
        images = done.mean + done.deviation * noise() if noisy else done.mean
        yield images


def losses(
    schedule: Schedule, told: Estimate, start: Tensor, step: Tensor, noise: Tensor
) -> Losses:  # (b, c, height, width) -> (b,) of each
    """Return the losses of each image, whose sum is the loss of DiT; the bound trains the variance alone."""
    noisy = schedule.noisy(start, step, noise)
    mse = flat_mean((noise - told.noise) ** 2)
    told = Estimate(told.noise.detach(), told.spread)
    wanted = schedule.posterior(start, noisy, step)
    mean = schedule.posterior(schedule.start(noisy, step, told.noise), noisy, step).mean
    found = Gaussian(mean, schedule.log_variance(told.spread, step))
    last = -log_likelihood(start, found)
    bound = torch.where(step == 0, flat_mean(last), flat_mean(divergence(wanted, found)))
    return Losses(mse, bound / log(2))


def flat_mean(x: Tensor) -> Tensor:  # (b, …) -> (b,)
    """Return the mean of each image."""
    return x.flatten(1).mean(1)


def divergence(p: Gaussian, q: Gaussian) -> Tensor:
    """Return the Kullback-Leibler divergence of q from p, in nats."""
    between = (p.mean - q.mean) ** 2 * (-q.log_variance).exp()
    return 0.5 * (-1 + q.log_variance - p.log_variance + (p.log_variance - q.log_variance).exp() + between)


def log_likelihood(x: Tensor, found: Gaussian) -> Tensor:
    """Return the logarithm of the probability of numbers of 8 bits from -1 to 1, as intervals of the Gaussian."""
    centred, scale = x - found.mean, (-0.5 * found.log_variance).exp()
    above, below = _normal(scale * (centred + 1 / 255)), _normal(scale * (centred - 1 / 255))
    least = 1e-12
    inside = (above - below).clamp(min=least).log()
    last = torch.where(x > 0.999, (1 - below).clamp(min=least).log(), inside)
    return torch.where(x < -0.999, above.clamp(min=least).log(), last)


def _normal(x: Tensor) -> Tensor:
    """Return the distribution function of a normal, by the tanh approximation of the official code."""
    return 0.5 * (1 + torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
