"""A text file beside each image, of the same name, that holds its class: cat.jpg, cat.txt."""

from __future__ import annotations

from vitrail.data.labels import count, label
from vitrail.data.layouts.base import Layout, Tree


def look(tree: Tree) -> Layout | None:
    """Take the words beside an image as its class; None where an image has none, or a number stands in front."""
    entries = []
    for name in tree.pictures:
        beside = f"{name.rpartition('.')[0]}.txt"
        words = label(tree.read(beside).decode("utf-8", "replace")) if beside in tree.files else ""
        if not words or words[0].isdigit():  # numbers in front are boxes
            return None
        entries.append(tree.of_class(name, words))
    if not entries:
        return None
    why = f"text files beside the images, because each of {count(len(entries), 'image')} has one of its name."
    return Layout("sidecar", tree.root, why, (*entries, *tree.refused), tree.notes)
