"""Match the labels of new images with the classes of a model: by name, and by the ids of published classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from vitrail.data.labels import count, join_labels, same_name, split_labels
from vitrail.data.layouts import Layout
from vitrail.data.truth import Truth


def match_classes(layout: Layout, truth: Truth) -> tuple[Layout, str]:
    """Return a source with the labels of a model that knows the ids of its classes, and a note about them or "".

    n01518878, n01518878_ostrich and Ostrich are the class ostrich. Labels that fit no class, or several, are unchanged.
    """
    if not truth.ids or layout.truth.kind not in ("class", "classes"):
        return layout, ""
    by_id, by_name = dict(zip(truth.ids, truth.names, strict=True)), _names(truth)
    found = {label: by_id.get(_front(label)) or by_name.get(_spelling(label)) for label in layout.classes}
    named = {label: name for label, name in found.items() if name and label not in truth.names}
    if not named:
        return layout, ""
    entries = tuple(entry._replace(target=_renamed(entry.target, named)) for entry in layout.found)
    first, name = next(iter(named.items()))
    note = (
        f"{count(len(named), 'class', 'classes')} matched by WordNet id or spelling, such as {first}: {name}."
    )
    return replace(layout, found=entries), note


def _names(truth: Truth) -> Mapping[str, str]:
    """Return the classes by their spelling, without those that share it."""
    several = Counter(map(_spelling, truth.names))
    return {_spelling(name): name for name in truth.names if several[_spelling(name)] == 1}


def _front(label: str) -> str:
    return re.split(r"[ _-]", label, maxsplit=1)[0]


def _spelling(name: str) -> str:
    return same_name(name.replace("_", " "))


def _renamed(target: str, named: Mapping[str, str]) -> str:
    labels = split_labels(target)
    return (
        join_labels(named.get(one, one) for one in labels) if any(one in named for one in labels) else target
    )
