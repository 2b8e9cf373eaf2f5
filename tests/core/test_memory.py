"""What is freed stays with the process while it is held, and goes back afterwards."""

import ctypes
import resource
import sys
from pathlib import Path

import pytest
import torch

from vitrail.core.memory import holding_memory

MB = 1 << 20


def glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


def faults(times: int) -> int:
    """Return the page faults of taking, filling and freeing 48 MB again and again."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(12 * MB)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not glibc(), reason="only glibc can be told to keep memory")
def test_pages_are_cleared_once_while_memory_is_held():
    usual = faults(5)
    with holding_memory():
        faults(20)  # aligned blocks find their places after a few turns
        held = faults(5)
        many = [torch.ones(MB) for _ in range(64)]
        del many
        before = resident()
    assert held < usual / 10
    assert before - resident() > 200 * MB
    assert faults(5) > usual / 2


def test_an_error_within_releases_too():
    usual = faults(5)
    with pytest.raises(ValueError), holding_memory():
        raise ValueError
    assert faults(5) >= usual / 2
