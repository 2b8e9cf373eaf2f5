"""Robust standard streams: a closed or full output never stops the work of a command."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TextIO


class Outlet(io.RawIOBase):
    """A file descriptor to write to; after the first error, which is kept, all further output is discarded.

    `error` is that error; `lost` says whether output was discarded.
    """

    def __init__(self, descriptor: int, error: OSError | None = None) -> None:
        self.descriptor, self.error = descriptor, error
        self.lost = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self.descriptor)

    def write(self, data: object) -> int:
        """Write some of the bytes and return how many; after an error, pretend that all were written."""
        view = memoryview(data)  # type: ignore[arg-type]
        while self.error is None:
            try:
                return os.write(self.descriptor, view)
            except BlockingIOError:  # another program set the terminal to non-blocking mode
                select.select((), (self.descriptor,), ())
            except OSError as error:
                self.error = error
        self.lost = True
        return view.nbytes


def prepare() -> Outlet | None:
    """Open standard streams that the caller has closed, and make output errors harmless.

    Returns the outlet of standard output, or None if it is not a stream of this process (in a notebook).
    """
    for descriptor in range(3):  # otherwise the next opened file gets this descriptor, and all output
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
    """Return a stream like the given one that records errors instead of raising; also if it was closed."""
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
        "backslashreplace",  # a file name may contain bytes that are not valid text
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return tolerant, outlet
