"""The header of the truths of a data set, stored in manifests and model files. No NumPy, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Truth:
    """The kind of the truths, and the meaning of their values and names.

    A mask contains values or colours: `values` and `colours` are those of each name, () if class i has the value i;
    entries after the names do not count, like `void`. `ids` are what the names are called in a public list of classes,
    such as WordNet's numbers of ImageNet, in the same order.

    class: one name per image; classes: any number of names; mask: an image of class values, by its path;
    boxes: a list of classes with corners, as JSON; instances: such a list with an outline of each; panoptic: such a
    list of areas that do not overlap, of which those of the classes `things` are single objects; caption: a text, or
    a JSON list of texts; none: only images.
    """

    kind: str
    names: tuple[str, ...] = ()  # classes, in the order of a network's outputs
    colours: tuple[tuple[int, int, int], ...] = ()
    void: int | None = None  # the mask value that does not count
    bands: tuple[str, ...] = ()
    unit: str = ""
    values: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    things: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without defaults."""
        values = {
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "void": self.void,
            "bands": list(self.bands),
            "unit": self.unit,
            "values": list(self.values),
            "ids": list(self.ids),
            "things": list(self.things),
        }
        return {
            "kind": self.kind,
            **{key: value for key, value in values.items() if value not in ([], None, "")},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Truth:
        """Read what `to_dict` wrote."""
        colours = tuple((int(r), int(g), int(b)) for r, g, b in values.get("colours", ()))
        return cls(
            str(values["kind"]),
            tuple(map(str, values.get("names", ()))),
            colours,
            values.get("void"),
            tuple(map(str, values.get("bands", ()))),
            str(values.get("unit", "")),
            tuple(map(int, values.get("values", ()))),
            tuple(map(str, values.get("ids", ()))),
            tuple(map(str, values.get("things", ()))),
        )
