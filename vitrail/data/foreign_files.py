"""Describe files that are not images, with a remedy."""

from __future__ import annotations

from vitrail.data import tiff


def what_else(data: bytes) -> str:
    """Return what a file is that is not an image, as a predicate with a remedy."""
    head = data[:512]
    if tiff.is_tiff(data):
        return _what_tiff(data)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a saved web page, not an image. Download the image itself, or delete the file"
    if _is_text(head):
        return "holds text, not an image. Delete it, or give it the name of what it is"
    if not any(head):
        return "holds only zeros, not an image. Copy it again from where it came from, or delete it"
    if head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3" or head[8:12] == b"AVI ":
        return (
            "is a video, and an image is wanted. With a detector, --track follows what is in it; models of clips are "
            "trained on videos"
        )
    return "is no image of a kind that is known. Save it as JPEG or PNG, or delete it"


def no_video(head: bytes, why: str) -> str:
    """Return what a file is that cannot be opened as a video, as a predicate with a remedy; `why` is its decoder's."""
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a saved web page, not a video. Download the video itself, or delete the file"
    if _is_text(head):
        return "holds text, not a video. Delete it, or give it the name of what it is"
    if not any(head):
        return "holds only zeros, not a video. Copy it again from where it came from, or delete it"
    if head[4:8] == b"ftyp":  # the list of frames stands at the end of most mp4 files
        return "is cut off before its list of frames, so none of it can be read. Copy it again, or delete it"
    return f"is broken, or no video of a kind that is known ({why}). Save it as mp4 (H.264), or delete it"


def _what_tiff(data: bytes) -> str:
    """Return why a TIFF is not a photograph: other bands, or an unknown compression."""
    try:
        samples = tiff.samples(data)
    except tiff.TiffError as error:
        return f"is broken ({error}). Copy it again from where it came from, or delete it"
    bands = "1 band" if samples.bands == 1 else f"{samples.bands} bands"
    return (
        f"is a TIFF of {bands} that are no grey or colour of 8 or 16 bits, or packed in a way that is not known. Save "
        "it as such, or train a network that takes its bands as they are (docs/data.md, other depths and bands)"
    )


def _is_text(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise a multi-byte character was cut
            return False
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
