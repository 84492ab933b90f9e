"""The colours of everything that is drawn: the same in layers, plots, annotations and reports.

This is the only file of the package that holds a colour.  The categorical colours of figures are
those of Okabe and Ito (2008), which people with colour-vision deficiency can tell apart.  What is
drawn on a slide also stands out on its stains: tests measure the CIEDE2000 difference from eosin,
haematoxylin and DAB, also as deuteranopes and protanopes see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from napari_mosaik.core.catalogue import CLASS_NAMES, CLUSTER_NAMES

# --- tissue classes -----------------------------------------------------------------------------
_CLASSES: Final = {
    "neoplastic": "#D55E00",
    "non-neoplastic": "#009E73",
    "background": "#4D4D4D",
}
CLASS_COLOURS: Final = {
    code: _CLASSES[name] for code, name in CLASS_NAMES.items() if name in _CLASSES
}
"""Colour of each tissue class code: vermilion, green and dark grey."""
OWN_CLASS_COLOURS: Final = ("#FFE100", "#0047FF", "#66D9FF", "#5C2E00", "#000000")
"""Colours of the user's own classes, in turn."""
UNKNOWN_CLASS: Final = "#999999"
"""Colour of a class that a file names without a colour."""

# --- layers -------------------------------------------------------------------------------------
TISSUE: Final = "#F0E442"
QUALITY_COLOURS: Final = {1: "#009E73", 2: "#D55E00", 3: "#0047FF", 4: "#66D9FF", 5: "#FFE100"}
"""Colour of each artefact code: pen, fold, blur, air bubble, other."""
VESSEL: Final = "#00FF7F"
"""Spring green: stands out on brown, blue and pale tissue of a DAB slide."""
EXCLUDED: Final = "#0072B2"
NUCLEUS: Final = "#B4FF00"
"""Lime: stands out on pink and purple, also for people who do not see red or green."""
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
DOSE_COLORMAP: Final = "plasma"
DIFFERENCE_COLORMAP: Final = "RdBu_r"
"""Blue for negative, white for 0, red for positive differences."""
CORRELATION_COLORMAP: Final = "RdBu_r"
"""Red for positive, blue for negative correlation: the reverse of the MOSAIK paper's figures."""

# --- tools on the canvas ------------------------------------------------------------------------
RULER: Final = "#00A83C"
"""Green: stands out on pink, purple, brown and blue tissue alike."""
LANDMARK: Final = "#00E5FF"
REFERENCE_LANDMARK: Final = "#FF00FF"
PSF_CIRCLE: Final = "#FFFFFF"
FOOTPRINT_EDGE: Final = "#000000"
"""Beside the lines that mark a tile and the scanner's footprint on any stain."""
SELECTED_OBJECT: Final = "#FF00FF"
REMOVED_OBJECT: Final = "#E00000"

# --- figures and reports ------------------------------------------------------------------------
MEASURED: Final = "#0072B2"
PREDICTED: Final = "#D55E00"
SELECTED_TILE: Final = "#009E73"
KINETICS: Final = {
    "free": "#0072B2",
    "bound": "#009E73",
    "internalised": "#CC79A7",
    "total": "#E69F00",
}
"""Curves of the antibody by compartment."""
PLAN_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Curves of the plans of a dose what-if, in their order."""
FITTED_LINE: Final = "#0072B2"
"""Regression, bias and limits of agreement."""
REFERENCE_LINE: Final = "#555555"
"""Identity and calibration lines."""
ZERO_LINE: Final = "#999999"
GUIDE_LINE: Final = "#888888"
"""Imaging times, the best epoch, edges of legend patches."""
PALE_LINE: Final = "#BBBBBB"
"""Error bars, and points that are not significant."""
FAINT_TEXT: Final = "#777777"
MISSING_TEXT: Final = "#888888"
GREY_TEXTS: Final = ("#A6A9AD", "#5E5D5C")
"""Text of what is not known on a dark and on a light theme: 4.5 to 1 and more over its tables."""
REPORT_INK: Final = "#1D2127"
PAPER: Final = "#FFFFFF"
BANNER: Final = "#7A1F1F"
"""Behind "research use only" at the top of each page of a report."""
WARNING_PAPER: Final = "#FDF1DC"
STATUS_COLOURS: Final = {"pass": "#009E73", "fail": "#D55E00", "not available": "#888888"}


def rgba(colour: str, alpha: float = 1.0) -> tuple[float, float, float, float]:
    """Red, green, blue and alpha in [0, 1] of a "#rrggbb" colour."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, alpha


def one_colour(colour: str) -> dict[int | None, Any]:
    """One colour for every label, 0 transparent, in napari's form."""
    return {None: rgba(colour), 0: rgba(colour, 0.0)}


def code_colours(by_code: Mapping[int, str], alpha: float = 1.0) -> dict[int | None, Any]:
    """Colours of codes; every other code is transparent."""
    clear = (0.0, 0.0, 0.0, 0.0)
    return {None: clear, 0: clear, **{code: rgba(c, alpha) for code, c in by_code.items()}}
