"""Settings of the vessel segmentation."""

from __future__ import annotations

from typing import Literal

from napari_mosaik.core.params import setting
from napari_mosaik.segment.false_positive_params import FalsePositiveFilter
from napari_mosaik.segment.stain_vectors import StainVector

__all__ = ["VesselParams"]


class VesselParams(FalsePositiveFilter):
    """Settings of the vessel segmentation."""

    method: Literal["dab", "hsv"] = setting(
        "dab",
        "How brown is recognised: amount of DAB after stain separation, or the paper's hue range "
        "(loses vessel wall that lies over nuclei).",
        choices={"dab": "DAB density", "hsv": "Hue (paper)"},
    )
    spacing_um: float = setting(1.0, "Pixel size at which vessels are found.", unit="µm", gt=0)
    stains: Literal["slide", "ruifrok", "manual"] = setting(
        "slide",
        "The colours of haematoxylin and DAB: the slide's own, found among its pixels (those of "
        "Ruifrok and Johnston where that fails, which the result says), or given by hand.",
        choices={
            "slide": "From the slide",
            "ruifrok": "Ruifrok and Johnston",
            "manual": "Given by hand",
        },
    )
    haematoxylin_vector: StainVector = setting(
        (0.650, 0.704, 0.286),
        "Colour of haematoxylin given by hand: optical density in red, green and blue of a pure "
        "blue place on the slide; only their ratio counts.",
        advanced=True,
    )
    dab_vector: StainVector = setting(
        (0.268, 0.570, 0.776),
        "Colour of DAB given by hand: optical density in red, green and blue of a pure brown place "
        "on the slide; only their ratio counts.",
        advanced=True,
    )
    threshold: Literal["otsu", "fixed"] = setting(
        "otsu",
        "Take the DAB threshold from the slide's own histogram, or use the fixed value.",
        choices={"otsu": "From the slide (Otsu)", "fixed": "Fixed"},
    )
    dab_od: float = setting(
        0.6, "Fixed threshold: amount of DAB, natural optical density.", unit="OD", gt=0, le=3
    )
    min_threshold_od: float = setting(
        0.3,
        "The threshold from the slide never falls below this amount of DAB, so that a slide "
        "without vessels gives none.",
        unit="OD",
        gt=0,
        le=3,
        advanced=True,
    )
    smoothing_um: float = setting(
        0.5, "Standard deviation of the smoothing before the threshold.", unit="µm", ge=0, le=5
    )
    closing_um: float = setting(
        1.5, "Radius of the closing that joins gaps in a wall.", unit="µm", ge=0, le=20
    )
    max_lumen_um2: float = setting(
        5000.0, "Largest hole that is filled as a lumen.", unit="µm²", ge=0, le=100_000
    )
    min_area_um2: float = setting(
        25.0, "Smaller objects are left out; single sprouts count.", unit="µm²", ge=0
    )
