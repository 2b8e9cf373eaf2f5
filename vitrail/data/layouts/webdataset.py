"""WebDataset shards: tar files in which 0001.jpg stands beside 0001.cls, 0001.json or 0001.txt.

What a file is called up to its first dot is the key of its sample; further words say what it is of it, as in
0001.input.jpg, 0001.target.cls and 0001.mask.png.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from vitrail.data.captions import are_captions, captions_in, join_captions
from vitrail.data.labels import count, join_labels, label, natural, shorten, split_labels, split_of
from vitrail.data.layouts import mask_tables
from vitrail.data.layouts.base import Entry, Layout, Tree, truth_of
from vitrail.data.layouts.mask_tables import FOREGROUND
from vitrail.data.layouts.masks import header_of as masks_of
from vitrail.data.manifest import dump_target
from vitrail.data.truth import Truth

_LABELS = ("cls", "json", "txt")
_KEYS = ("label", "cls", "class", "class_name", "category", "labels", "tags")
_CAPTIONS = ("caption", "captions", "text", "sentence", "sentences", "description", "title")
_MASKS = frozenset(("mask", "seg", "segmentation", "annotation", "target", "label", "gt", "output"))
_MOST = 0.9
"""The share of samples that must have a label for shards to be of this kind."""


class _Sample(NamedTuple):
    """The files of one key: images, images that are masks, and files that may hold a label, the likeliest first."""

    pictures: list[str]
    masks: list[str]
    labels: list[str]


def look(tree: Tree) -> Layout | None:
    """Read the label beside every image; None where fewer than nine in ten samples have one."""
    if not tree.pictures or not all("!" in tree.files[name] for name in tree.pictures):
        return None
    samples = [sample for sample in _samples(tree) if sample.pictures]
    if captioned := _captioned(tree, samples):
        return captioned
    labelled = sum(bool(sample.labels) for sample in samples)
    if labelled and labelled >= _MOST * len(samples):
        return _classes(tree, samples)
    if samples and all(sample.masks for sample in samples):
        return _with_masks(tree, samples)
    return None


def _samples(tree: Tree) -> list[_Sample]:
    found: dict[str, _Sample] = {}
    for name in tree.files:
        folder, _, file = name.rpartition("/")
        key, *words = file.split(".")
        sample = found.setdefault(f"{folder}/{key}", _Sample([], [], []))
        if name in tree.shown:
            (sample.masks if _MASKS & {word.casefold() for word in words[:-1]} else sample.pictures).append(
                name
            )
        elif words and words[-1].lower() in _LABELS:
            sample.labels.append(name)
    for sample in found.values():
        sample.labels.sort(key=lambda name: _LABELS.index(name.rsplit(".", 1)[-1].lower()))
    return list(found.values())


def _classes(tree: Tree, samples: list[_Sample]) -> Layout:
    entries = [_entry(tree, sample) for sample in samples]
    classes = sorted({one for entry in entries for one in split_labels(entry.target)}, key=natural)
    why = (
        f"WebDataset shards, because every image has a label file beside it; "
        f"{count(len(classes), 'class', 'classes')}: {shorten(classes)}."
    )
    notes = _left(samples)
    if all(one.isdigit() for one in classes):
        notes.append("The classes are numbers: their names are not in the shards.")
    found = (*entries, *tree.refused)
    return Layout("webdataset", tree.root, why, found, tuple(notes), truth_of(entries))


def _captioned(tree: Tree, samples: list[_Sample]) -> Layout | None:
    """Return shards whose images have captions; None if they have classes, or if other truths are wanted."""
    if tree.wanted not in {"", "caption"} or not samples:
        return None
    some = samples[:: max(1, len(samples) // 100)]
    stated = [name for sample in some for name in sample.labels if not name.lower().endswith(".txt")]
    if not tree.wanted and any(_read_label(tree.read(name), name) for name in stated):
        return None
    first = [_captions(tree, sample) for sample in some]
    texts = [own[0] if own else "" for own in first]
    if not are_captions(texts, named=tree.wanted == "caption") and not (tree.wanted and any(texts)):
        return None
    entries = [
        tree.entry(
            sample.pictures[0], join_captions(_captions(tree, sample)), _split(tree, sample.pictures[0])
        )
        for sample in samples
    ]
    why = f"WebDataset shards, because a caption stands beside {count(len(entries), 'image')}."
    found = (*entries, *tree.refused)
    return Layout("webdataset", tree.root, why, found, tuple(_left(samples)), Truth("caption"))


def _captions(tree: Tree, sample: _Sample) -> list[str]:
    """Return the captions of a sample: the text beside the image, else those that its JSON names."""
    for name in sorted(sample.labels, key=lambda one: not one.lower().endswith(".txt")):
        text = tree.read(name).decode("utf-8", errors="replace").strip()
        if name.lower().endswith(".txt") and text:
            return captions_in(text)
        try:
            content: Any = json.loads(text)
        except ValueError:
            continue
        found: Any = (
            next((content[key] for key in _CAPTIONS if content.get(key)), [])
            if isinstance(content, dict)
            else []
        )
        if found:
            return [str(one) for one in (found if isinstance(found, list) else [found])]
    return []


def _left(samples: list[_Sample]) -> list[str]:
    """Say how many masks, and how many second images of a sample, are left aside."""
    masks = sum(len(sample.masks) for sample in samples)
    more = [name for sample in samples for name in sample.pictures[1:]]
    notes = [f"{count(masks, 'mask')} in the samples left aside: classes need none."] if masks else []
    if more:
        notes.append(f"{count(len(more), 'further picture')} of a sample left aside: {shorten(more)}.")
    return notes


def _with_masks(tree: Tree, samples: list[_Sample]) -> Layout:
    masks = [sample.masks[0] for sample in samples]
    entries = [
        tree.entry(sample.pictures[0], tree.files[mask], _split(tree, sample.pictures[0]))
        for sample, mask in zip(samples, masks, strict=True)
    ]
    why = f"WebDataset shards, because every image has a mask beside it: {count(len(entries), 'image')}."
    tables = mask_tables.tables(tree)
    header = masks_of(tree, masks, tables[0] if tables else None)
    if header.objects:
        entries = [one._replace(target=dump_target({"classes": {FOREGROUND: one.target}})) for one in entries]
    found = (*entries, *tree.refused)
    truths = frozenset(mask for sample in samples for mask in sample.masks)
    return Layout(
        "webdataset", tree.root, why, found, header.notes, header.truth, header.refusal, truths=truths
    )


def _split(tree: Tree, name: str) -> str:
    shard = name.split("/")[0] if "/" in name else tree.files[name].split("!")[0]
    return next((found for word in re.split(r"[-_.]", shard) if (found := split_of(word))), "")


def _entry(tree: Tree, sample: _Sample) -> Entry:
    name = sample.pictures[0]
    read = (_read_label(tree.read(one), one) for one in sample.labels)
    known = next((cell for cell in read if cell), "")
    entry = tree.entry(name, known, _split(tree, name))
    return entry if known else entry._replace(trouble="has no label beside it in its shard")


def _read_label(data: bytes, name: str) -> str:
    text = data.decode("utf-8", errors="replace").strip()
    if not name.lower().endswith(".json"):
        return join_labels([label(text)]) if text else ""
    try:
        content: Any = json.loads(text)
    except ValueError:
        return ""
    if isinstance(content, dict):
        content = next((content[key] for key in _KEYS if key in content), None)
    if isinstance(content, list):
        return join_labels(str(one) for one in content)
    return join_labels([str(content)]) if content is not None and not isinstance(content, dict) else ""
