"""Labels in file names: cat.1.jpg, dog_0012.png, cat (3).jpg; with or without split folders above."""

from __future__ import annotations

import re

from vitrail.data.labels import count, label, natural, shorten, split_of
from vitrail.data.layouts.base import Entry, Layout, Tree

_RULE = re.compile(r"(?P<label>.*?[^\W\d_].*?)[ ._-]*[(\[]?\d+[)\]]?$")
_NO_LABELS = frozenset((
    "img", "image", "dsc", "dscn", "dscf", "pic", "picture", "photo", "frame", "screenshot", "p", "i", "scan",
    "wp", "pxl", "mvimg", "snap", "test", "train", "val", "file", "untitled", "copy",
))  # fmt: skip
"""Words that cameras and programs write in front of a number."""


def look(tree: Tree) -> Layout | None:
    """Use the words before the number as the label; None if this gives no plausible classes.

    Words of cameras (IMG_0001) are not labels, and a label must have two images on average.
    """
    entries: list[Entry] = []
    words: set[str] = set()
    stray = []
    for name in tree.pictures:
        *folders, file = name.split("/")
        match = _RULE.fullmatch(file.rsplit(".", 1)[0])
        word = label(match["label"]).rstrip(" ._-([") if match else ""
        if not word or word.casefold() in _NO_LABELS:
            stray.append(name)
        else:
            split = next((found for folder in folders if (found := split_of(folder))), "")
            words.add(word)
            entries.append(tree.of_class(name, word, split))
    classes = sorted(words, key=natural)
    if len(classes) < 2 or len(entries) < 2 * len(classes) or len(entries) < len(stray):
        return None
    why = (
        f"labels in the file names, because {count(len(classes), 'word')} stand before the numbers: "
        f"{shorten(classes)}."
    )
    notes = [f"{count(len(stray), tree.noun)} without a label in the name left aside: {shorten(stray)}."]
    return Layout("filenames", tree.root, why, (*entries, *tree.refused), tuple(notes if stray else ()))
