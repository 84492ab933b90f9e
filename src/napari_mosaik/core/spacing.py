"""The pixel size of a slide: who gave it, and which sizes are plausible."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final, Literal

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import typed_number

__all__ = ["MAX_SPACING_UM", "MIN_SPACING_UM", "SpacingSource", "check_spacing", "typed_spacing"]

MIN_SPACING_UM: Final = 0.05
"""Smallest pixel size of a slide scanner, µm."""
MAX_SPACING_UM: Final = 20.0
"""Largest pixel size of a slide scanner, µm."""
SpacingSource = Literal["header", "user", "profile", "ruler"]
"""Who gave a slide's pixel size: the file, a typed number, a scanner profile, or the ruler."""


def check_spacing(spacing_um: float | Sequence[float], what: str = "") -> tuple[float, float]:
    """A given pixel size (row, column), µm; one number stands for both.

    Raises
    ------
    InputError
        If it is outside 0.05 to 20 µm; *what* names the slide.  Nanometres are recognised.
    """
    pair = spacing_um if isinstance(spacing_um, Sequence) else (spacing_um, spacing_um)
    low, high = MIN_SPACING_UM, MAX_SPACING_UM
    if len(pair) == 2 and all(math.isfinite(size) and low <= size <= high for size in pair):
        return float(pair[0]), float(pair[1])
    shown = " x ".join(f"{size:g}" for size in dict.fromkeys(pair))
    in_nm = all(math.isfinite(size) and low <= size / 1000 <= high for size in pair)
    meant = " x ".join(f"{size / 1000:g}" for size in dict.fromkeys(pair))
    raise InputError(
        f"{what}{': ' * bool(what)}a pixel size of {shown} µm is not valid; "
        + (f"did you mean {meant} µm ({shown} nm)? Give" if in_nm else "give")
        + f" a number between {low:g} and {high:g} µm"
    )


def typed_spacing(text: str) -> tuple[float, float]:
    """A pixel size (row, column) in µm as people type it: "0.25", "0,25", "0.25 x 0.26 µm".

    Raises
    ------
    InputError
        If it is not one number or two, or not possible.
    """
    plain = re.sub(r"\s*([µμ]m|um|microns?)?(/px|/pixel)?\s*$", "", text.strip().lower())
    try:
        sizes = [typed_number(part) for part in re.split(r"\s*[x×*]\s*", plain)]
    except InputError:
        sizes = []
    if len(sizes) not in (1, 2):
        raise InputError(
            f"pixel size '{text}' is not valid; give µm, for example 0.25, or 0.25x0.26 for row x "
            "column"
        )
    return check_spacing((sizes[0], sizes[-1]))
