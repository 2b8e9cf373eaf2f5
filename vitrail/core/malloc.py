"""Keep freed memory in the process while the same sizes are allocated again and again, or return it (glibc)."""

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
    """Keep freed memory inside the context and release it afterwards; must not be nested."""
    hold_memory()
    try:
        yield
    finally:
        release_memory()


def hold_memory() -> None:
    """Let the C library keep freed memory instead of returning it to the system.

    glibc returns every large block at once, and the next training step waits while the system clears the same pages
    again (docs/benchmarks.md). This has an effect only on Linux with glibc.
    """
    if libc := _glibc():
        libc.mallopt(
            _MMAP_MAX, 0
        )  # no separate mapping for a block, because it is returned when the block is freed
        libc.mallopt(_TRIM_THRESHOLD, _MOST)


def release_memory() -> None:
    """Return the kept memory, and restore the behaviour of glibc in a process that frees large blocks."""
    if libc := _glibc():
        libc.mallopt(_MMAP_MAX, 65_536)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def trim_memory() -> None:
    """Return freed memory to the system: blocks between others stay in the process otherwise."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> Any:
    """Return the C library if it has mallopt and malloc_trim, else None."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
