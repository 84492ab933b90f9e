"""The colours of everything that is drawn: the same in layers, plots and reports.

The categorical colours are those of Okabe and Ito (2008), which people with colour-vision
deficiency can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from napari_mosaik.annotate import DEFAULT_CLASSES
from napari_mosaik.core.catalogue import CLASS_NAMES, CLUSTER_NAMES

__all__ = [
    "ANNOTATION_ACCENT",
    "CLASS_COLOURS",
    "CLUSTER_COLOURS",
    "CORRELATION_COLORMAP",
    "DIFFERENCE_COLORMAP",
    "EXCLUDED",
    "MEASURED",
    "NOT_TESTABLE",
    "NUCLEUS",
    "OWN_CLASS_COLOURS",
    "PARAMETER_COLORMAP",
    "PREDICTED",
    "QUALITY_COLOURS",
    "RULER",
    "STATUS_COLOURS",
    "TILE",
    "TISSUE",
    "UPTAKE_COLORMAP",
    "VESSEL",
    "code_colours",
    "one_colour",
    "rgba",
]

_BY_NAME: Final = {known.name: known.colour for known in DEFAULT_CLASSES}
CLASS_COLOURS: Final = {
    code: _BY_NAME[name] for code, name in CLASS_NAMES.items() if name in _BY_NAME
}
"""Colour of each tissue class code: neoplastic pink, non-neoplastic green, background grey."""
OWN_CLASS_COLOURS: Final = ("#E69F00", "#0072B2", "#F0E442", "#56B4E9", "#D55E00")
"""Colours of further classes of the user's own, in turn."""
VESSEL: Final = "#D55E00"
EXCLUDED: Final = "#CC79A7"
NUCLEUS: Final = "#56B4E9"
TISSUE: Final = "#F0E442"
QUALITY_COLOURS: Final = {1: "#009E73", 2: "#D55E00", 3: "#0072B2", 4: "#56B4E9", 5: "#CC79A7"}
"""Colour of each code of the quality mask: pen, fold, blur, air bubble, other."""
TILE: Final = "#888888"
ANNOTATION_ACCENT: Final = "#0072B2"
RULER: Final = "#00A83C"
"""Green: stands out on pink, purple, brown and blue tissue alike."""
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
UPTAKE_COLORMAP: Final = "magma"
PARAMETER_COLORMAP: Final = "viridis"
DIFFERENCE_COLORMAP: Final = "RdBu_r"
"""Blue for negative, white for 0, red for positive differences."""
CORRELATION_COLORMAP: Final = "RdBu_r"
"""Red for positive, blue for negative correlation: the reverse of the MOSAIK paper's figures."""
MEASURED: Final = "#0072B2"
PREDICTED: Final = "#D55E00"
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
