"""The grid of a raster: where each pixel lies on the Earth."""

from __future__ import annotations

from dataclasses import dataclass

Window = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of a grid; it may reach outside."""

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The pixels of a raster: `transform` (a, b, c, d, e, f) maps (column, row) to x = a·column + b·row + c and
    y = d·column + e·row + f in the coordinates of `crs` (WKT; "" without georeference).
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    height: int
    width: int

    @property
    def located(self) -> bool:
        """Whether the pixels have a place on the Earth."""
        return bool(self.crs)

    @property
    def whole(self) -> Window:
        """The window of all pixels."""
        return (0, 0, self.width, self.height)

    @property
    def pixel(self) -> tuple[float, float]:
        """The (width, height) of a pixel in units of the coordinates."""
        a, b, _, d, e, _ = self.transform
        return (a * a + d * d) ** 0.5, (b * b + e * e) ** 0.5

    def shifted(self, window: Window) -> Grid:
        """Return the grid of a window."""
        left, top, right, bottom = window
        a, b, c, d, e, f = self.transform
        corner = (a, b, a * left + b * top + c, d, e, d * left + e * top + f)
        return Grid(self.crs, corner, bottom - top, right - left)
