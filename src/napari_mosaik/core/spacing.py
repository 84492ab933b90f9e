"""The pixel size of a slide: who gave it, and which sizes are plausible."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["MAX_SPACING_UM", "MIN_SPACING_UM", "SpacingSource"]

MIN_SPACING_UM: Final = 0.05
"""Smallest pixel size of a slide scanner, µm."""
MAX_SPACING_UM: Final = 20.0
"""Largest pixel size of a slide scanner, µm."""
SpacingSource = Literal["header", "user", "profile", "ruler"]
"""Who gave a slide's pixel size: the file, a typed number, a scanner profile, or the ruler."""
