"""Names of the classes of published weights: as they state them, or those of ImageNet by WordNet, or of COCO."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from vitrail.core.errors import WeightsError
from vitrail.data.labels import count as amount
from vitrail.data.labels import is_no_class, label

SAME = 0.9
"""Smallest share of stated names that begin as ImageNet's in the same place, for names of ImageNet."""

GIST = 6
"""Largest number of words that tell two classes of the same name apart."""


NAMELESS = "it does not name its classes"


class ClassNames(NamedTuple):
    """Unique names in the order of the outputs, their WordNet ids if known, and an assumption about them or ""."""

    names: tuple[str, ...]
    ids: tuple[str, ...] = ()
    assumed: str = ""


def class_names(stated: Sequence[str], count: int) -> ClassNames:
    """Return the names of `count` classes; `stated` are the names in the weights, () without any."""
    if stated and all(re.fullmatch(r"n\d{8}", name) for name in stated) and (found := _of_ids(stated)):
        return found
    known = _imagenet(count)
    if stated:
        return known if known and _alike(stated, known.names) else ClassNames(_unique(stated))
    if known:
        return known._replace(assumed=f"the names of ImageNet are used for its {count} classes")
    return ClassNames(tuple(f"class {number}" for number in range(count)), (), NAMELESS)


class ObjectNames(NamedTuple):
    """Unique names in the order of the outputs, the numbers of outputs without a class, and an assumption or ""."""

    names: tuple[str, ...]
    unused: tuple[int, ...] = ()
    assumed: str = ""


def object_names(stated: Sequence[str], count: int) -> ObjectNames:
    """Return the names of the `count` classes of a detector or segmenter; `stated` are those in the weights.

    Outputs that stand for no class, such as "N/A" in COCO's list of 91, are called "unused 12" by their number.
    """
    known = tuple(stated) if len(stated) == count else ()
    coco = () if known else _coco(count)
    others = f"it names {amount(len(stated), 'class', 'classes')} for {amount(count, 'output')}, which are numbered"
    unnamed = (
        f"the names of COCO are used for its {count} classes" if coco else others if stated else NAMELESS
    )
    named = known or coco or [f"class {number}" for number in range(count)]
    unused = tuple(number for number, name in enumerate(named) if is_no_class(name))
    names = _unique([f"unused {number}" if number in unused else name for number, name in enumerate(named)])
    return ObjectNames(names, unused, "" if known else unnamed)


FIRST_THINGS: Mapping[int, int] = MappingProxyType({133: 80, 201: 91, 250: 91})
"""Number of outputs of a panoptic head for COCO → the first ones that are things: its 80 things then 53 areas, or by
COCO's own numbers, of which those up to 90 are things (Kirillov et al. 2019, arXiv:1801.00868; DETR)."""


def things_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a published panoptic head that are things, by their number; () if that is not known."""
    return tuple(names[: FIRST_THINGS.get(len(names), 0)])


def _coco(count: int) -> tuple[str, ...]:
    """Return the names of COCO's 91 numbers, or of its 80 classes alone; () for another count."""
    if count not in (80, 91):
        return ()
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names: list[str] = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return tuple(name for name in names if count == len(names) or not is_no_class(name))


def _imagenet(count: int) -> ClassNames | None:
    """Return the names of the ImageNet with this number of classes, or None if there is none."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return None
    info: Any = ImageNetInfo(subset)
    return _of_ids(info.label_names())


def _of_ids(ids: Sequence[str]) -> ClassNames | None:
    """Return the shortest unique name of each WordNet id: its first word, with its meaning if others share it."""
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo()
    try:
        said = [info.label_name_to_description(one, detailed=True).partition(": ") for one in ids]
    except KeyError:
        return None
    short = [_first(words) for words, _, _ in said]
    several = Counter(short)
    clear = [
        name if several[name] == 1 else f"{name} ({_gist(meaning)})"
        for name, (_, _, meaning) in zip(short, said, strict=True)
    ]
    several = Counter(clear)
    names = [
        name if several[name] == 1 else f"{first} ({one})"
        for name, first, one in zip(clear, short, ids, strict=True)
    ]
    if len(set(names)) < len(names):
        raise WeightsError("The weights name two of their classes by the same WordNet id; mend config.json.")
    return ClassNames(tuple(names), tuple(ids))


def _first(words: str) -> str:
    return label(words.partition(",")[0])


def _gist(meaning: str) -> str:
    """Return the beginning of a definition: lifts and moves heavy objects."""
    part = re.split(r"[;:,()]| of | that | which ", meaning.strip())[0]
    return " ".join(part.split()[:GIST])


def _alike(stated: Sequence[str], known: Sequence[str]) -> bool:
    """Return whether names are those of ImageNet in its order, such as "tench, Tinca tinca"."""
    pairs = zip(stated, known, strict=True)
    return sum(_first(a).casefold() == b.partition(" (")[0].casefold() for a, b in pairs) >= SAME * len(known)


def _unique(stated: Sequence[str]) -> tuple[str, ...]:
    names = [label(name) or f"class {number}" for number, name in enumerate(stated)]
    several = Counter(names)
    return tuple(
        name if several[name] == 1 else f"{name} (class {number})" for number, name in enumerate(names)
    )
