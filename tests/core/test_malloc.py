"""Freed memory stays with the process while it is held, and is returned afterwards."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

COUNTED = """
import ctypes, json
from contextlib import suppress
from pathlib import Path
import torch
from vitrail.core.malloc import holding_memory

NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"

class Counts(ctypes.Structure):  # struct mallinfo2 of glibc's malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split()]

glibc = ctypes.CDLL(None)
glibc.mallinfo2.restype = Counts

def mapped():  # MB in blocks that have a mapping of their own, which goes when they are freed
    return glibc.mallinfo2().hblkhd >> 20

def free():  # MB that were freed and stay with the process
    return glibc.mallinfo2().fordblks >> 20

def memory():  # MB that the process has of the system, swapped out or not
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "VmSwap:"))) >> 10

def mapped_by_a_block(size=12 << 20):
    before = mapped()
    block = torch.empty(size)
    return mapped() - before

found = {"usual": mapped_by_a_block()}
with suppress(ValueError), holding_memory():
    found["held"], found["stays"] = mapped_by_a_block(), free()
    many = [torch.ones(1 << 20) for _ in range(64)]
    del many
    before = memory()
    raise ValueError("is no reason to go on holding")
found["released"] = before - memory()
found["afterwards"] = mapped_by_a_block(128 << 20)  # larger than any hole that the freed blocks can have left
print(json.dumps(found))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="only glibc can be told to keep memory, and counts it since 2.33",
)
def test_what_is_freed_stays_while_memory_is_held_and_goes_back_afterwards():
    """Measured by the C library in a new process, so that other work on the machine has no influence."""
    done = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["usual"] >= 48
    assert found["held"] == 0
    assert found["stays"] >= 48
    assert found["released"] > 200  # MB, of 256
    assert found["afterwards"] >= 512
