"""Pair images and masks by names: sibling folders, trees of the same shape, or marks in file names.

The name of a mask without its mark is the name of its image. If an image has several masks, the rests of their names
are classes, or the masks are of single objects.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from vitrail.data.labels import IMAGES, natural

_IMAGES = frozenset((
    "image", "images", "img", "imgs", "jpegimages", "leftimg8bit", "picture", "pictures", "photo", "photos",
))  # fmt: skip
"""Names of image folders."""

_MAYBE_IMAGES = _IMAGES | {
    "input",
    "inputs",
    "rgb",
    "data",
    "raw",
    "original",
    "originals",
    "source",
    "src",
    "frames",
}

_MASKS = (
    "trimaps", "trimap", "manual", "gtfine", "gtcoarse", "segmentationclassaug", "segmentationclassraw",
    "segmentationclasspng", "segmentationclass", "labels", "label", "annotations", "annotation", "annot", "annots",
    "segmentations", "segmentation", "seg", "groundtruth", "groundtruths", "gt", "gts", "semantic", "targets",
    "target", "masks", "mask",
)  # fmt: skip
"""Names of mask folders, in order of preference if an image has masks in several."""

_ASIDE = frozenset(("segmentationobject", "instances", "instance", "panoptic", "2ndmanual"))
"""Names of folders beside those of masks with other content."""

_OBJECTS = ("instances", "instance")
"""Names of folders with masks of objects, which are taken first where objects are wanted."""

_GLUED = re.compile(
    r"(train|training|val|valid|test|testing)[ _-]?(annot|annots|masks?|labels?|gt)", re.IGNORECASE
)
_MARK = r"masks?|seg|segmentation|gt|ground_?truth|labels?|annotation|annot|trimap|matte|manual"
_BEHIND = re.compile(rf"(?P<name>.+?)[ _.-](?P<mark>{_MARK})[ _.-]?(?P<number>\d*)", re.IGNORECASE)
_BEFORE = re.compile(rf"(?P<mark>{_MARK})[ _.-]?(?P<name>.+)", re.IGNORECASE)
_CITY = re.compile(r"(?P<name>.+)_(gtFine|gtCoarse)_labelIds")
_OTHER = re.compile(r".+_(gtFine|gtCoarse)_(color|instanceIds|labelTrainIds|polygons)", re.IGNORECASE)
_OF_IMAGE = re.compile(
    r"(?P<name>.+?)[ _.-](leftImg8bit|sat|img|image|training|test|0000|flair|t1|t1ce|t2|ct)", re.IGNORECASE
)
_IMAGE_BEFORE = re.compile(r"(img|image|volume)[ _.-]?(?P<name>.+)", re.IGNORECASE)
_FEW_CLASSES = 64

Key = tuple[str, ...]


class _File(NamedTuple):
    """A name taken apart: `place` are its folders without words of images and masks, `root` what ends with such."""

    name: str
    place: Key
    stem: str
    root: str
    inner: int  # folders below the root
    word: str  # for masks the word that marks them; for images that of their folder, if any


@dataclass
class Pairs:
    """Image → class → its masks (the class is "" where the names tell none); and what has no partner.

    `folders` are those that hold them, images and masks; `several` tells that masks of one image are of single
    objects; `sure` that no folder here could be a class; `words` are those that make folders ones of masks; `unused`
    are masks beside those that were taken.
    """

    masks: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)
    lonely: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)
    several: bool = False
    sure: bool = False
    words: frozenset[str] = frozenset()
    unused: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Return the masks of all images."""
        return [name for own in self.masks.values() for names in own.values() for name in names]

    @property
    def classes(self) -> list[str]:
        """Return the classes in the names of masks."""
        return sorted({one for own in self.masks.values() for one in own if one}, key=natural)


def pair(names: Sequence[str], *, objects: bool = False) -> Pairs | None:
    """Return the pairs of images and masks among these files; None if there are none.

    With `objects`, folders of masks of single objects come before those of classes.
    """
    parted = [_parted(name) for name in names]
    words = {*_MASKS, *(_OBJECTS if objects else ())}
    others = [one.name for one in parted if _is_other(one, words)]
    left = [one for one in parted if not _is_other(one, words)]
    masks = [one for one in left if one.word in words]
    pictures = _ImageIndex([one for one in left if one.word not in words])
    found = _by_folders(masks, pictures) or _beside(pictures)
    if found is None:
        return None
    _complete(found, pictures, others)
    return found


def _is_other(file: _File, words: Set[str]) -> bool:
    return file.word in _ASIDE - words or _OTHER.fullmatch(file.stem) is not None


class _ImageIndex:
    """Images by the possible names of their masks."""

    def __init__(self, files: Sequence[_File]) -> None:
        self.files = files
        self.by_key: dict[tuple[Key, str], str] = {}
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        self.by_place: dict[Key, list[str]] = defaultdict(list)
        for strict in (True, False):  # whole names first
            for one in files:
                for stem in [one.stem] if strict else _image_stems(one.stem):
                    self.by_key.setdefault((one.place, stem), one.name)
        for one in files:
            self.by_place[one.place].append(one.name)
            if one.word:
                for stem in (one.stem, *_image_stems(one.stem)):
                    self.by_stem[stem].append(one.name)

    def of(self, mask: _File) -> tuple[str, str] | None:
        """Return the image of a mask in a folder of masks, and the class in its name ("#": a single object)."""
        stems = list(_mask_stems(mask.stem))
        for stem, number in stems:
            if picture := self.by_key.get((mask.place, stem)):
                return picture, number
        for stem, _ in stems:  # masks/road/1.png
            for at in range(len(mask.place) - mask.inner, len(mask.place)):
                shorter = (*mask.place[:at], *mask.place[at + 1 :])
                if picture := self.by_key.get((shorter, stem)):
                    return picture, mask.place[at]
        for cut in reversed([found.start() for found in re.finditer(r"[ _.-]", mask.stem)]):  # 1_road.png
            if picture := self.by_key.get((mask.place, mask.stem[:cut])):
                rest = mask.stem[cut + 1 :]
                return picture, "#" if rest.isdigit() else rest
        for stem, number in stems:
            if len(set(self.by_stem.get(stem, ()))) == 1:
                return self.by_stem[stem][0], number
        alone = self.by_place.get(mask.place, [])
        return (alone[0], "#") if len(alone) == 1 and mask.place else None


def _by_folders(masks: Sequence[_File], pictures: _ImageIndex) -> Pairs | None:
    """Pair the files of each mask folder; if an image has masks in several, the most probable one is used."""
    groups: dict[str, list[_File]] = defaultdict(list)
    for one in masks:
        groups[one.root].append(one)
    found = Pairs()
    taken: dict[str, str] = {}
    words = set()
    for root, files in sorted(groups.items(), key=lambda pair: _rank(pair[1][0], pair[0])):
        told = [(one, pictures.of(one)) for one in files]
        paired = [(one, two) for one, two in told if two is not None]
        reached = {picture for _, (picture, _) in paired}
        if 2 * len(paired) < len(files) and 2 * len(reached) < len(pictures.files):
            found.unused += [one.name for one in files]
            continue
        for one, two in told:
            if two is None:
                found.lonely.append(one.name)
            elif taken.setdefault(two[0], root) != root:
                found.unused.append(one.name)
            else:
                found.masks.setdefault(two[0], {}).setdefault(two[1], []).append(one.name)
                words.add(one.word)
    if not found.masks:
        return None
    found.words = frozenset(words)
    return found


def _beside(pictures: _ImageIndex) -> Pairs | None:
    """Pair files of one folder: 1.jpg and 1_mask.png, img2d.tif and mask2d.tif."""
    found = Pairs()
    stems: dict[tuple[str, str], str] = {}
    for one in pictures.files:
        folder = one.name.rpartition("/")[0]
        if not any(True for _ in _marked(one.stem)):
            for stem in (one.stem, *_image_stems(one.stem)):
                stems.setdefault((folder, stem), one.name)
    for one in pictures.files:
        folder = one.name.rpartition("/")[0]
        for stem, number in _marked(one.stem):
            picture = stems.get((folder, stem))
            if picture:
                found.masks.setdefault(picture, {}).setdefault(number, []).append(one.name)
                break
    return found if found.masks else None


def _complete(found: Pairs, pictures: _ImageIndex, others: list[str]) -> None:
    """Find images without a mask, decide between classes and objects, and collect the folders."""
    known = {*found.files, *found.lonely, *found.unused}
    roots = {one.root for one in pictures.files if one.name in found.masks}
    for one in pictures.files:
        if one.name in found.masks or one.name in known:
            continue
        (found.without if one.root in roots else found.aside).append(one.name)
    found.unused += others
    at = {one.name: one.root for one in pictures.files}
    for picture, own in found.masks.items():
        first = next(iter(own.values()))[0]
        found.folders.setdefault(at[picture], _parted(first).root)
    _tell_apart(found)
    folders = {picture.rpartition("/")[0] for picture in found.masks}
    one_each = found.several and len(folders) == len(found.masks) > 1
    found.sure = one_each or bool(found.words & {"gtfine", "gtcoarse"})


def _tell_apart(found: Pairs) -> None:
    """Return whether names are those of classes, which repeat in many images, and not of objects."""
    told = Counter(one for own in found.masks.values() for one in own if one not in ("", "#"))
    classes = bool(told) and len(told) <= _FEW_CLASSES and (2 * len(told) <= told.total() or len(told) <= 3)
    numbered = bool(told) or any("#" in own for own in found.masks.values())
    for picture, own in found.masks.items():
        if classes:
            found.masks[picture] = {one: _lossless(names)[:1] for one, names in own.items() if one in told}
        else:
            found.masks[picture] = {"": _lossless([name for names in own.values() for name in names])}
    found.several = not classes and (numbered or any(len(own[""]) > 1 for own in found.masks.values()))


def _lossless(names: Sequence[str]) -> list[str]:
    """Return masks without duplicates, in natural order; a JPEG is dropped if another format exists."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names), key=natural):
        by_stem[_without_suffix(name)].append(name)
    return [
        name
        for alike in by_stem.values()
        for name in [one for one in alike if not one.lower().endswith((".jpg", ".jpeg"))] or alike
    ]


def _rank(mask: _File, root: str) -> tuple[int, tuple[tuple[int, int, str], ...]]:
    return (*_OBJECTS, *_MASKS).index(mask.word), natural(root)


@lru_cache(maxsize=4096)
def _folder(name: str) -> tuple[str, Key]:
    """Return the word that marks a folder as one of images or masks, and the rest of its name."""
    low = name.lower()
    if low in _MAYBE_IMAGES or low in _MASKS or low in _ASIDE:
        return low, ()
    if glued := _GLUED.fullmatch(name):
        return "masks", (glued[1].lower(),)
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    small = [word.lower() for word in words]
    if {"2", "nd", "manual"} <= set(small):
        return "2ndmanual", ()
    joined = "".join(small)
    if "groundtruth" in joined and "groundtruth" not in small:
        return "groundtruth", tuple(word for word in small if word not in {"ground", "truth"})
    for kinds in (_MASKS, _IMAGES, _MAYBE_IMAGES):
        if word := next((word for word in small if word in kinds), ""):
            return word, tuple(one for one in small if one != word)
    return "", (name,)


def _parted(name: str) -> _File:
    *folders, file = name.split("/")
    stem = _without_suffix(file)
    told = [_folder(folder) for folder in folders]
    words = [word for word, _ in told]
    at = [i for i, word in enumerate(words) if word in _MASKS or word in _ASIDE]
    images = [i for i, word in enumerate(words) if word in _IMAGES]
    if images and at and images[-1] < at[-1] and words[at[-1]] not in _ASIDE:
        at = [
            i for i in at if words[i] not in {"mask", "label", "target"}
        ]  # images/mask/1.jpg: a class of masks
    end = at[-1] if at else next((i for i in reversed(range(len(words))) if words[i] in _MAYBE_IMAGES), -1)
    place = tuple(part for word, rest in told for part in rest)
    inner = sum(len(rest) for _, rest in told[end + 1 :])
    root = "/".join(folders[: end + 1] if end >= 0 else folders)
    return _File(name, place, stem, root, inner, words[end] if end >= 0 else "")


def _without_suffix(file: str) -> str:
    stem = file
    for _ in range(2):  # 1.jpg.png, 1.nii.gz
        rest, dot, suffix = stem.rpartition(".")
        low = "." + suffix.lower()
        stem = rest if dot and rest and (low in IMAGES or low in {".npy", ".nii", ".gz"}) else stem
    return stem


def _image_stems(stem: str) -> Iterator[str]:
    for rule in (_OF_IMAGE, _IMAGE_BEFORE):
        if match := rule.fullmatch(stem):
            yield match["name"]


def _marked(stem: str) -> Iterator[tuple[str, str]]:
    """Yield the name of a mask without its mark, and "#" if masks are numbered."""
    if match := _CITY.fullmatch(stem):
        yield match["name"], ""
    if match := _BEHIND.fullmatch(stem):
        numbered = "#" if match["number"] and match["mark"].lower() != "manual" else ""
        yield match["name"], numbered
        yield from ((name, numbered) for name in _image_stems(match["name"]))
    if match := _BEFORE.fullmatch(stem):
        yield match["name"], ""


def stems_of_mask(file: str) -> list[str]:
    """Return the possible names of a mask's image, the whole name first."""
    return [name for name, _ in _mask_stems(_without_suffix(file))]


def _mask_stems(stem: str) -> Iterator[tuple[str, str]]:
    yield stem, ""
    yield from _marked(stem)
    yield stem.removesuffix("_L"), ""  # as CamVid calls them
    yield from ((name, "") for name in _image_stems(stem))
