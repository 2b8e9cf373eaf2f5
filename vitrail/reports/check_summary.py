"""The words for what a check found: the titles of findings, and the result in a sentence."""

from __future__ import annotations

from vitrail.data.labels import count
from vitrail.data.prepare import Prepared

TITLES = {
    "unreadable": "Cannot be used",
    "conflict": "One image, several labels",
    "doubtful": "Almost equal, but labelled differently",
    "leak": "Duplicates in two splits",
    "group leak": "Groups in two splits",
    "flat": "Almost one colour",
    "empty class": "Empty classes",
    "missing class": "Classes missing in a split",
    "spelling": "Classes with almost the same name",
    "twins": "Duplicates",
    "similar": "Near duplicates",
    "alike": "Large groups of similar images",
    "converted": "Converted",
    "odd size": "Unusual size",
    "tiny class": "Very small classes",
    "no label": "Without a label",
    "no caption": "Without a caption",
    "long caption": "Captions that are cut",
    "file name as caption": "File names as captions",
    "shared caption": "Captions of several images",
    "caption leak": "Captions in two splits",
    "captions of copies": "Duplicates with other captions",
    "script": "Scripts of the captions",
    "several labels": "Several labels, but the task needs one",
    "unreadable truth": "Labels that cannot be read",
    "imbalance": "Classes of unequal size",
    "no mask": "Without a mask",
    "mask size": "Masks of another size",
    "mask values": "Masks with unknown values",
    "unknown values": "Values or colours that belong to no class",
    "lossy mask": "Masks in JPEG",
    "void mask": "Masks with only void pixels",
    "mask turn": "Masks with another orientation",
    "mask turn kept": "EXIF orientation in only one of image and mask",
    "absent class": "Classes that are in no mask",
    "class areas": "Areas of the classes",
    "no data": "Windows without data",
    "bands": "Bands",
    "grid": "Grid",
    "covered": "What the labels cover",
    "unit": "Units of the bands",
    "scale": "Scale of the bands",
    "space": "Split in space",
    "flat box": "Boxes of no size",
    "box outside": "Boxes beyond the border",
    "box lost": "Boxes outside the image",
    "doubled box": "Boxes that are there twice",
    "box turn": "Boxes for another orientation",
    "box size": "Boxes for an image of another size",
    "boxless class": "Classes without boxes",
    "few boxes": "Classes with few boxes",
    "box classes": "Boxes of each class",
    "box sizes": "Sizes of the boxes",
    "objects": "Objects in an image",
    "background": "Images of background",
    "no outline": "Objects without an outline",
    "few corners": "Polygons with too few corners",
    "many objects": "More objects than a model answers",
    "empty mask": "Masks without a pixel",
    "mask outside": "Outlines beyond the border",
    "box apart": "Boxes apart from their masks",
    "doubled mask": "Masks that are there twice",
    "masks overlap": "Masks inside others",
    "few objects": "Classes with few objects",
    "object classes": "Objects of each class",
    "mask sizes": "Sizes of the masks",
    "void image": "Without a segment",
    "segments overlap": "Segments that overlap",
}
"""Kind of finding → its title."""


def verdict(prepared: Prepared) -> str:
    """Return the result of a check in two sentences: what can be used, and what is to be looked at."""
    serious = sum(finding.grave for finding in prepared.report.findings)
    todo = f" {count(serious, 'finding')} to look at." if serious else " Nothing to do."
    return usable(prepared) + todo


def usable(prepared: Prepared) -> str:
    """Return a sentence: how many images can be used, and how many are left out."""
    states = prepared.manifest.states()
    out = states["quarantined"] + states["dropped"]
    used = f"{count(states['kept'], prepared.noun)}{prepared.in_classes()} can be used for training"
    kept_out = f"; {out:,} {'is' if out == 1 else 'are'} left out" if out else ""
    return f"{used}{kept_out}."
