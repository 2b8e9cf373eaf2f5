"""Networks as a command names several of them: NAME, NAME=WEIGHTS, or weights alone."""

from __future__ import annotations

from typing import NamedTuple

from vitrail.core.environment import expanded
from vitrail.core.errors import UsageError
from vitrail.models.factory import config_of
from vitrail.weights.local_registry import known


class ModelChoice(NamedTuple):
    """A network and the weights that it starts from, as training options have them."""

    text: str
    model: str | None
    weights: str | None


def choices(models: str | None, weights: str | None) -> list[ModelChoice]:
    """Return the networks of a list such as vit_s16,resnet50=file.safetensors; without one, that of the weights.

    Raises:
        UsageError: no name, or weights for several networks at once.
        UnknownNameError: neither a network, nor weights, nor a file.
    """
    if models is None:
        return [ModelChoice(weights or "auto", None, weights)]
    words = [word.strip() for word in models.split(",")]
    if not all(words):
        raise UsageError(f"--models {models!r} names no network. Write them like vit_s16,resnet50.")
    if weights is not None and len(words) > 1:
        raise UsageError(
            "--weights goes with one network. Say whose they are: --models NAME=WEIGHTS,NAME=WEIGHTS"
        )
    return [_choice(word, weights) for word in words]


def _choice(word: str, weights: str | None) -> ModelChoice:
    if expanded(word).exists():
        return ModelChoice(word, None, word)
    name, equals, own = word.partition("=")
    if equals:
        config_of(name)
        return ModelChoice(word, name, own)
    if {"/", "\\"} & set(word) or word.endswith((".safetensors", ".pth", ".pt", ".bin")):
        return ModelChoice(word, None, word)  # whoever opens weights says best what is missing
    if word in {one.name for one in known()}:
        return ModelChoice(word, None, word)
    config_of(word)
    return ModelChoice(word, word, weights or "auto")
