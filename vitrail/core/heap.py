"""The memory that the C library keeps for itself after it was freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def trim() -> None:
    """Return freed memory to the system, where the C library can: glibc does not do so by itself."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
