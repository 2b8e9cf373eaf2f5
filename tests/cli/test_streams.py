"""Standard streams that are closed, full or not read to the end."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from vitrail.cli.streams import Outlet

VITRAIL = f"{sys.executable} -W error -m vitrail"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", ["--version", "--help", "train --help"])
def test_what_cannot_be_printed_is_said_and_is_no_success(words):
    for place, why in ((">&-", "it is closed"), (">/dev/full", "No space left on device")):
        done = shell(f"{VITRAIL} {words} {place}")
        assert (done.returncode, done.stderr) == (
            1,
            f"Standard output could not be written: {why}. The rest of the output is lost.\n",
        )


@pytest.mark.parametrize("words", ["--help", "nonsense"])
def test_who_reads_the_first_line_only_breaks_nothing(words):
    expected = 2 if words == "nonsense" else 0
    done = shell(f"{VITRAIL} {words} 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")


def test_closed_streams_are_not_given_to_the_next_file(tmp_path):
    script = (
        "import os, sys\n"
        "from vitrail.cli.streams import prepare\n"
        "prepare()\n"
        f"handle = open({str(tmp_path / 'file')!r}, 'w')\n"
        "print('out'); print('err', file=sys.stderr); os.write(1, b'C'); os.write(2, b'C')\n"
        "handle.write(sys.stdin.read() + str(handle.fileno() > 2))\n"
        "handle.close()\n"
    )
    code = tmp_path / "code.py"
    code.write_text(script)
    assert shell(f"{sys.executable} {code} <&- >&- 2>&-").returncode == 0
    assert (tmp_path / "file").read_text() == "True"


def test_an_outlet_notes_its_first_error_and_takes_everything():
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    stream = io.TextIOWrapper(io.BufferedWriter(outlet), "utf-8", line_buffering=True)
    stream.write("one\n")
    assert os.read(reading, 10) == b"one\n"
    assert not outlet.lost
    os.close(reading)
    for _ in range(3):
        stream.write("two\n")
    assert isinstance(outlet.error, BrokenPipeError)
    assert outlet.lost
    os.close(writing)
