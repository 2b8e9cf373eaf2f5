"""The standard streams of a command, made so that work is never lost because nobody reads what it prints."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TextIO


class Outlet(io.RawIOBase):
    """A descriptor to write to; its first error is noted, and what comes after it is thrown away.

    `error` is that error; `lost` tells whether anything was thrown away.
    """

    def __init__(self, descriptor: int, error: OSError | None = None) -> None:
        self.descriptor, self.error = descriptor, error
        self.lost = False

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self.descriptor)

    def write(self, data: object) -> int:
        """Write some of the bytes and return how many; of a broken outlet, pretend that all were."""
        view = memoryview(data)  # type: ignore[arg-type]
        while self.error is None:
            try:
                return os.write(self.descriptor, view)
            except BlockingIOError:  # a terminal that another program left so
                select.select((), (self.descriptor,), ())
            except OSError as error:
                self.error = error
        self.lost = True
        return view.nbytes


def prepare() -> Outlet | None:
    """Open standard streams that the caller has closed, and let output that fails stop nothing.

    Returns what standard output goes through, or None where it is no stream of this process (a notebook's).
    """
    for descriptor in range(
        3
    ):  # else the next file that is opened takes the place, and hears what is printed
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stderr, _ = _tolerant(sys.stderr, 2)
    sys.stdout, outlet = _tolerant(sys.stdout, 1)
    return outlet


def _tolerant(stream: TextIO | None, descriptor: int) -> tuple[TextIO, Outlet | None]:
    """Return a stream as the given one, whose errors are noted; also where it was closed."""
    if stream is None:
        outlet = Outlet(descriptor, OSError(errno.EBADF, "it is closed"))
        return io.TextIOWrapper(io.BufferedWriter(outlet), "utf-8", "backslashreplace"), outlet
    if not isinstance(stream, io.TextIOWrapper) or (os.name == "nt" and stream.isatty()):
        return stream, None
    outlet = Outlet(stream.fileno())
    stream.flush()
    tolerant = io.TextIOWrapper(
        io.BufferedWriter(outlet),
        stream.encoding,
        "backslashreplace",  # a name of a file may hold bytes that are no letters
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return tolerant, outlet
