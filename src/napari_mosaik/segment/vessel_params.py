"""Settings of the vessel segmentation and of its false positive filter."""

from __future__ import annotations

from typing import Literal

from napari_mosaik.core.params import Params, setting
from napari_mosaik.segment.stain_vectors import StainVector

__all__ = ["FalsePositiveFilter", "VesselParams"]


class FalsePositiveFilter(Params):
    """Which brown objects are no vessels, and by which limits."""

    exclude_pigment: bool = setting(
        True,
        "Leave out objects that are more yellow than DAB (red cells, golden pigment such as "
        "haemosiderin).",
        label="Leave out yellow",
        advanced=True,
    )
    yellow_deg: float = setting(
        6.0,
        "A pixel is yellow if its colour lies farther than this beyond DAB, seen from "
        "haematoxylin.",
        unit="°",
        advanced=True,
        gt=0,
        le=45,
    )
    min_dab_fraction: float = setting(
        0.3,
        "An object of which less than this share of the stain has the colour of DAB is yellow.",
        label="Least brown share",
        advanced=True,
        ge=0,
        le=1,
    )
    exclude_black: bool = setting(
        True,
        "Leave out black objects (melanin, formalin pigment, dirt, black ink).",
        label="Leave out black",
        advanced=True,
    )
    black_od: float = setting(
        1.0,
        "Natural optical density in red from which a pixel without colour is black; an object of "
        "which half is black is left out.",
        unit="OD",
        advanced=True,
        gt=0,
        le=5,
    )
    exclude_foreign_dye: bool = setting(
        True,
        "Leave out objects of a colour that no mixture of both stains has (ink, other dyes).",
        label="Leave out other dyes",
        advanced=True,
    )
    dye_deg: float = setting(
        12.0,
        "Angle between the mean colour of an object and the plane of both stains from which it is "
        "another dye.",
        unit="°",
        advanced=True,
        gt=0,
        le=90,
    )
    exclude_edge_staining: bool = setting(
        True,
        "Leave out large brown objects along the edge of the tissue (edge staining).",
        label="Leave out stained edges",
        advanced=True,
    )
    edge_um: float = setting(
        75.0,
        "An object lies at the edge if most of it (70 %) is nearer than this to the outline of the "
        "tissue.",
        unit="µm",
        advanced=True,
        ge=0,
        le=1000,
    )
    edge_area_um2: float = setting(
        1000.0,
        "Smaller objects at the edge stay: vessels of the capsule.",
        unit="µm²",
        advanced=True,
        ge=0,
    )
    exclude_folds: bool = setting(
        True,
        "Leave out large objects that are evenly brown and without lumen (folds, smears).",
        label="Leave out folds and smears",
        advanced=True,
    )
    fold_area_um2: float = setting(
        2000.0, "Smaller objects are no folds.", unit="µm²", advanced=True, ge=0
    )
    fold_variation: float = setting(
        0.35,
        "Standard deviation of DAB over its mean within an object, up to which it is even; the "
        "walls of vessels have 0.4 and more.",
        advanced=True,
        ge=0,
        le=2,
    )

    def reason_descriptions(self) -> dict[str, str]:
        """What each reason means, in words, with its limits."""
        return {
            "yellow": f"less than {self.min_dab_fraction:.0%} of the stain within "
            f"{self.yellow_deg:g}° of DAB, more yellow: red cells, golden pigment",
            "black": f"black (red OD of {self.black_od:g} or more): melanin, formalin pigment, ink",
            "dye": f"a colour {self.dye_deg:g}° or more off both stains: ink, another dye",
            "edge": f"{self.edge_area_um2:g} µm² or more within {self.edge_um:g} µm of the edge of "
            "the tissue: edge staining",
            "fold": f"{self.fold_area_um2:g} µm² or more, evenly brown, no lumen: fold or smear",
        }


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
