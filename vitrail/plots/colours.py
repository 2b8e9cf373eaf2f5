"""The colours that all drawings share: text, background, series and frames."""

from __future__ import annotations

INK, PAPER, ACCENT, SECOND, FRAME = "#1d2530", "#ffffff", "#0072b2", "#e69f00", "#d55e00"
"""Colours of text, background, first series, second series and frame (Okabe and Ito's colour-blind-safe set)."""

SERIES = (ACCENT, SECOND, "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Colours of series in figures, in this order."""

FAINT = "#8a94a0"
"""Colour of what is guessed more than measured."""
