"""Palettes of published data sets of masks: Pascal VOC, Oxford-IIIT Pet, Cityscapes."""

from __future__ import annotations

from vitrail.data.layouts.mask_files import VOID, Seen
from vitrail.data.layouts.mask_tables import Colour, Kind, Table


def known(words: frozenset[str], seen: Seen) -> Table | None:
    """Return the classes of well-known sets without a table, by the names of their folders and their values."""
    if words & {"gtfine", "gtcoarse"}:
        return _CITYSCAPES
    if words & {"trimaps", "trimap"} and set(seen.values) <= {1, 2, 3}:
        return _PETS
    of_voc = any(word.startswith("segmentationclass") for word in words)
    table = _voc_palette()
    fits = set(seen.colours) <= {*table[:21], _VOC_RIM} and set(seen.values) <= {*range(21), VOID}
    own = not seen.palette or seen.palette[:21] == table[:21]
    return _voc() if of_voc and fits and own and (seen.colours or seen.palette) else None


_VOC_RIM = (224, 224, 192)


_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _voc_palette() -> tuple[Colour, ...]:
    """Return the colours of Pascal VOC: the bits of a number, three by three, from the highest of each colour down."""

    def part(value: int, bit: int) -> int:
        return sum((value >> (3 * i + bit) & 1) << (7 - i) for i in range(8))

    return tuple((part(value, 0), part(value, 1), part(value, 2)) for value in range(256))


def _voc() -> Table:
    kinds = [
        Kind(name, i, colour) for i, (name, colour) in enumerate(zip(_VOC, _voc_palette(), strict=False))
    ]
    return Table("Pascal VOC", (*kinds, Kind("void", VOID, _VOC_RIM)))


_PETS = Table("Oxford-IIIT Pet", (Kind("pet", 1), Kind("background", 2), Kind("not classified", 3)))


_CITYSCAPES = Table(
    "Cityscapes",
    (
        Kind("road", 7, (128, 64, 128)), Kind("sidewalk", 8, (244, 35, 232)), Kind("building", 11, (70, 70, 70)),
        Kind("wall", 12, (102, 102, 156)), Kind("fence", 13, (190, 153, 153)), Kind("pole", 17, (153, 153, 153)),
        Kind("traffic light", 19, (250, 170, 30)), Kind("traffic sign", 20, (220, 220, 0)),
        Kind("vegetation", 21, (107, 142, 35)), Kind("terrain", 22, (152, 251, 152)),
        Kind("sky", 23, (70, 130, 180)), Kind("person", 24, (220, 20, 60)), Kind("rider", 25, (255, 0, 0)),
        Kind("car", 26, (0, 0, 142)), Kind("truck", 27, (0, 0, 70)), Kind("bus", 28, (0, 60, 100)),
        Kind("train", 31, (0, 80, 100)), Kind("motorcycle", 32, (0, 0, 230)), Kind("bicycle", 33, (119, 11, 32)),
        *(Kind("void", value) for value in (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)),
    ),
)  # fmt: skip
