"""What is freed stays with the process while it is held, and goes back afterwards."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

MEASURED = """
import json, resource
from contextlib import suppress
from pathlib import Path
import torch
from vitrail.core.memory import holding_memory

def faults(times):  # of taking, filling and freeing 48 MB again and again
    began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(12 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

found = {"usual": faults(5)}
with suppress(ValueError), holding_memory():
    faults(20)  # aligned blocks find their places after a few turns
    found["held"] = faults(5)
    many = [torch.ones(1 << 20) for _ in range(64)]
    del many
    before = resident()
    raise ValueError("is no reason to go on holding")
found |= {"released": before - resident(), "afterwards": faults(5)}
print(json.dumps(found))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="only glibc can be told to keep memory",
)
def test_pages_are_cleared_once_while_memory_is_held():
    """In a process of its own: where its blocks lie is nobody else's doing."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["held"] < found["usual"] / 10
    assert found["released"] > 200  # MB, of 256
    assert found["afterwards"] > found["usual"] / 2
