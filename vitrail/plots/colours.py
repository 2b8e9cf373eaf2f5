"""Colours of text, ground, series and frames, alike in every drawing."""

from __future__ import annotations

INK, PAPER, ACCENT, SECOND, FRAME = "#1d2530", "#ffffff", "#0072b2", "#e69f00", "#d55e00"
"""Colours of text, ground, first and second series, and of a frame (Okabe and Ito's colour-blind-safe set)."""

FAINT = "#8a94a0"
"""Colour of what is guessed more than measured."""
