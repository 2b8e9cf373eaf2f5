"""Where a row's picture lies: the one way from a manifest's path to its bytes and its pixels."""

from __future__ import annotations

from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.decode import Decoded, decode


def read(root: Path, path: str) -> bytes:
    """Return the bytes of one row's file; `path` is relative to `root`.

    Raises:
        DataError: the file is missing or may not be read.
    """
    try:
        return (root / path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist under {root}. Put it back, or check the data again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error


def load(root: Path, path: str, channels: int = 3) -> Decoded:
    """Return the picture of one row, decoded.

    Raises:
        DataError: missing, unreadable or no picture.
    """
    return decode(read(root, path), channels, name=path)
