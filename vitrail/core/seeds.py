"""Randomness without state: every draw is a function of the seed and its purpose.

No random state has to be saved for resuming a run, and one process draws the same numbers as eight.
"""

from __future__ import annotations

from hashlib import blake2b


def of_64_bits(seed: int) -> int:
    """Return a seed that torch accepts: the seed itself, or one derived from it if it has more than 64 bits."""
    return seed if -(1 << 63) <= seed < 1 << 64 else derive(seed, "64 bits")


def derive(seed: int, *what: str | int) -> int:
    """Return the 63-bit seed for one purpose, such as `derive(seed, "order", epoch)`."""
    text = "\x1f".join(map(str, (seed, *what)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
