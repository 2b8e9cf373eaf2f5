"""Freed memory that stays with the process while the same sizes are asked for again and again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Names and numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MOST = 2**31 - 1


@contextmanager
def holding_memory() -> Iterator[None]:
    """Hold what is freed within, and release it afterwards; not to be nested."""
    hold_memory()
    try:
        yield
    finally:
        release_memory()


def hold_memory() -> None:
    """Let the C library keep what this process frees, instead of handing it back to the system.

    glibc returns every large block at once, and the next training step waits while the system clears the same pages
    again (docs/benchmarks.md). Elsewhere than on Linux with glibc nothing changes.
    """
    if libc := _glibc():
        libc.mallopt(_MMAP_MAX, 0)  # no block has a mapping of its own, which goes when the block is freed
        libc.mallopt(_TRIM_THRESHOLD, _MOST)


def release_memory() -> None:
    """Hand back what is held, and from now on do as glibc does in a process that frees large blocks."""
    if libc := _glibc():
        libc.mallopt(_MMAP_MAX, 65_536)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def _glibc() -> Any:
    """Return the C library where it can be told what to keep, else None."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
