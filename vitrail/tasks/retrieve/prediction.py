"""The prediction of retrieval: the captions that lie nearest to an image, among those that the model knows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

NOTHING_KNOWN = (
    "no captions to choose from: name texts with vitrail predict --zero-shot, or search images by a text with "
    "vitrail search"
)


@dataclass(frozen=True, slots=True)
class Captioned:
    """The captions nearest to an image, the nearest first, with the cosines of their vectors and the image's.

    `text` is what an explanation is about, by default the nearest caption, and `vector` its unit vector (e,); both are
    empty if the model knows no captions.
    """

    captions: tuple[str, ...]
    cosines: tuple[float, ...]
    text: str = ""
    vector: tuple[float, ...] = field(default=(), repr=False, compare=False)

    def rows(self) -> list[dict[str, Any]]:
        """Return the row of a table of predictions."""
        first = self.cosines[0] if self.cosines else None
        return [
            {
                "caption": self.captions[0] if self.captions else "",
                "cosine": None if first is None else round(first, 6),
            }
        ]

    def top(self) -> list[tuple[str, float]]:
        """Return the captions with their cosines."""
        return list(zip(self.captions, self.cosines, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the nearest caption, and all that are given, with cosines."""
        found = [{"caption": caption, "cosine": round(cosine, 6)} for caption, cosine in self.top()]
        return {**(found[0] if found else {"caption": "", "cosine": None}), "top": found}

    def __str__(self) -> str:
        return f"“{self.captions[0]}” {self.cosines[0]:.3f}" if self.captions else NOTHING_KNOWN


@dataclass(frozen=True, slots=True)
class KnownTexts:
    """Texts with their unit vectors (n, e), among which an image's nearest are its prediction."""

    texts: tuple[str, ...]
    vectors: Vectors = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the header of a model file; vectors as base64 of little-endian float32."""
        raw = np.ascontiguousarray(self.vectors, dtype="<f4").tobytes()
        return {"texts": list(self.texts), "vectors": base64.b64encode(raw).decode("ascii")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KnownTexts:
        """Read what `to_dict` wrote."""
        texts: Sequence[str] = values["texts"]
        flat = np.frombuffer(base64.b64decode(values["vectors"]), dtype="<f4")
        return cls(tuple(texts), flat.reshape(len(texts), -1).astype(np.float32))
