"""What the truths of a data set are: the header of a manifest and of a model file. No NumPy, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Truth:
    """The kind of the truths, and what their numbers and names mean.

    A mask holds numbers or colours: `values` and `colours` are those of each name, () where class i is number i; what
    stands beyond the names counts nowhere, as `void` does.

    class: one name an image; classes: any number of names; mask: an image of class numbers, by its path;
    boxes: a list of classes with corners, as JSON; caption: a text; none: images alone.
    """

    kind: str
    names: tuple[str, ...] = ()  # classes, in the order of a network's outputs
    colours: tuple[tuple[int, int, int], ...] = ()
    void: int | None = None  # the value of a mask that counts nowhere
    bands: tuple[str, ...] = ()
    unit: str = ""
    values: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what says nothing is left out."""
        values = {
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "void": self.void,
            "bands": list(self.bands),
            "unit": self.unit,
            "values": list(self.values),
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
        )
