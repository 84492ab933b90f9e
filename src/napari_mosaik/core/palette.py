"""The colours of everything that is drawn: the same in layers, plots, annotations and reports.

This is the only file of the package that holds a colour.  The categorical colours are those of
Okabe and Ito (2008), which people with colour-vision deficiency can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from napari_mosaik.core.catalogue import CLASS_NAMES, CLUSTER_NAMES

# --- tissue classes -----------------------------------------------------------------------------
_CLASSES: Final = {
    "neoplastic": "#CC79A7",
    "non-neoplastic": "#009E73",
    "background": "#999999",
}
CLASS_COLOURS: Final = {
    code: _CLASSES[name] for code, name in CLASS_NAMES.items() if name in _CLASSES
}
"""Colour of each tissue class code: neoplastic pink, non-neoplastic green, background grey."""
OWN_CLASS_COLOURS: Final = ("#E69F00", "#0072B2", "#F0E442", "#56B4E9", "#D55E00")
"""Colours of the user's own classes, in turn."""
UNKNOWN_CLASS: Final = "#999999"
"""Colour of a class that a file names without a colour."""

# --- layers -------------------------------------------------------------------------------------
TISSUE: Final = "#F0E442"
QUALITY_COLOURS: Final = {1: "#009E73", 2: "#D55E00", 3: "#0072B2", 4: "#56B4E9", 5: "#CC79A7"}
"""Colour of each artefact code: pen, fold, blur, air bubble, other."""
VESSEL: Final = "#D55E00"
EXCLUDED: Final = "#CC79A7"
NUCLEUS: Final = "#56B4E9"
INNER_TILE: Final = "#FFFFFF"
TILE: Final = "#888888"
"""Border tiles, and the voxel grid of the PET."""
NOT_TESTABLE: Final = "#999999"
_CLUSTERS: Final = {
    "hot": "#D55E00",
    "cold": "#0072B2",
    "high-low": "#E69F00",
    "low-high": "#56B4E9",
    "not testable": NOT_TESTABLE,
}
CLUSTER_COLOURS: Final = {
    code: _CLUSTERS[name] for code, name in CLUSTER_NAMES.items() if name in _CLUSTERS
}
"""Colour of each local Moran label; "average" has none and stays transparent."""
AVERAGE_TILE: Final = "#EEEEEE"
"""Tiles of the label "average" on paper, where transparent is not enough."""
UPTAKE_COLORMAP: Final = "magma"
PARAMETER_COLORMAP: Final = "viridis"
UNCERTAINTY_COLORMAP: Final = "inferno"
CHANGE_COLORMAP: Final = "cividis"
DIFFERENCE_COLORMAP: Final = "RdBu_r"
"""Blue for negative, white for 0, red for positive differences."""
CORRELATION_COLORMAP: Final = "RdBu_r"
"""Red for positive, blue for negative correlation: the reverse of the MOSAIK paper's figures."""

# --- tools on the canvas ------------------------------------------------------------------------
ANNOTATION_ACCENT: Final = "#0072B2"
RULER: Final = "#00A83C"
"""Green: stands out on pink, purple, brown and blue tissue alike."""
LANDMARK: Final = "#00E5FF"
REFERENCE_LANDMARK: Final = "#FF00FF"
PSF_CIRCLE: Final = "#FFFFFF"
SELECTED_OBJECT: Final = "#FF00FF"
REMOVED_OBJECT: Final = "#E00000"

# --- figures and reports ------------------------------------------------------------------------
MEASURED: Final = "#0072B2"
PREDICTED: Final = "#D55E00"
SELECTED_TILE: Final = "#009E73"
KINETICS: Final = {"free": "#0072B2", "bound": "#009E73", "internalised": "#CC79A7"}
"""Curves of the antibody by compartment."""
REFERENCE_LINE: Final = "#555555"
"""Identity, calibration and regression lines."""
ZERO_LINE: Final = "#999999"
GUIDE_LINE: Final = "#888888"
"""Imaging times, the best epoch, edges of legend patches."""
PALE_LINE: Final = "#BBBBBB"
"""Error bars, and points that are not significant."""
FAINT_TEXT: Final = "#777777"
MISSING_TEXT: Final = "#888888"
STATUS_COLOURS: Final = {"pass": "#009E73", "fail": "#D55E00", "not available": "#888888"}


def rgba(colour: str, alpha: float = 1.0) -> tuple[float, float, float, float]:
    """Red, green, blue and alpha in [0, 1] of a "#rrggbb" colour."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, alpha


def one_colour(colour: str) -> dict[int | None, Any]:
    """One colour for every label, 0 transparent, in napari's form."""
    return {None: rgba(colour), 0: rgba(colour, 0.0)}


def code_colours(by_code: Mapping[int, str]) -> dict[int | None, Any]:
    """Colours of codes; every other code is transparent."""
    clear = (0.0, 0.0, 0.0, 0.0)
    return {None: clear, 0: clear, **{code: rgba(c) for code, c in by_code.items()}}
