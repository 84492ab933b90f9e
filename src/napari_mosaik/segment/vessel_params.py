"""Settings of the vessel segmentation and of its false positive filter."""

from __future__ import annotations

from typing import Literal

from napari_mosaik.core.params import Params, setting
from napari_mosaik.segment.stain_vectors import StainVector

__all__ = ["FalsePositiveFilter", "VesselParams"]


class FalsePositiveFilter(Params):
    """Which DAB objects are not vessels, and by which limits."""

    exclude_pigment: bool = setting(
        True,
        "Exclude objects that are more yellow than DAB: red blood cells, golden pigment such as "
        "haemosiderin.",
        label="Exclude pigment and red cells",
        advanced=True,
    )
    yellow_deg: float = setting(
        6.0,
        "Angle beyond DAB, as seen from haematoxylin, from which a pixel counts as yellow.",
        label="Yellow angle",
        unit="°",
        advanced=True,
        gt=0,
        le=45,
        only_with={"exclude_pigment": True},
    )
    min_dab_fraction: float = setting(
        0.3,
        "Minimum fraction of an object's staining that has the colour of DAB.",
        label="Minimum DAB fraction",
        advanced=True,
        ge=0,
        le=1,
        only_with={"exclude_pigment": True},
    )
    exclude_black: bool = setting(
        True,
        "Exclude black objects: melanin, formalin pigment, dirt, black ink.",
        label="Exclude black deposits",
        advanced=True,
    )
    black_od: float = setting(
        1.0,
        "Red optical density (natural) from which a colourless pixel is black; an object of "
        "which half is black is excluded.",
        label="Black threshold",
        unit="OD",
        advanced=True,
        gt=0,
        le=5,
        only_with={"exclude_black": True},
    )
    exclude_foreign_dye: bool = setting(
        True,
        "Exclude objects of a colour that no mixture of haematoxylin and DAB has: ink, other dyes.",
        label="Exclude foreign dyes",
        advanced=True,
    )
    dye_deg: float = setting(
        12.0,
        "Angle between an object's mean colour and the plane of both stains from which it is a "
        "foreign dye.",
        label="Foreign dye angle",
        unit="°",
        advanced=True,
        gt=0,
        le=90,
        only_with={"exclude_foreign_dye": True},
    )
    exclude_edge_staining: bool = setting(
        True,
        "Exclude large DAB objects along the edge of the tissue.",
        label="Exclude edge staining",
        advanced=True,
    )
    edge_um: float = setting(
        75.0,
        "Distance to the outline of the tissue within which an object counts as edge staining, if "
        "70 % of it lies there.",
        label="Edge width",
        unit="µm",
        advanced=True,
        ge=0,
        le=1000,
        only_with={"exclude_edge_staining": True},
    )
    edge_area_um2: float = setting(
        1000.0,
        "Minimum area of edge staining; smaller objects are kept as vessels of the capsule.",
        label="Minimum edge staining area",
        unit="µm²",
        advanced=True,
        ge=0,
        only_with={"exclude_edge_staining": True},
    )
    exclude_folds: bool = setting(
        True,
        "Exclude large, evenly stained objects without a lumen: folds, smears.",
        label="Exclude folds and smears",
        advanced=True,
    )
    fold_area_um2: float = setting(
        2000.0,
        "Minimum area of a fold.",
        label="Minimum fold area",
        unit="µm²",
        advanced=True,
        ge=0,
        only_with={"exclude_folds": True},
    )
    fold_variation: float = setting(
        0.35,
        "Maximum coefficient of variation of DAB within a fold; vessel walls have 0.4 and more.",
        label="Maximum fold variation",
        advanced=True,
        ge=0,
        le=2,
        only_with={"exclude_folds": True},
    )

    def reason_descriptions(self) -> dict[str, str]:
        """What each reason of exclusion means, with its limits."""
        return {
            "yellow": f"less than {self.min_dab_fraction:.0%} of the staining within "
            f"{self.yellow_deg:g}° of DAB, more yellow: red blood cells, golden pigment",
            "black": f"black (red OD of {self.black_od:g} or more): melanin, formalin pigment, ink",
            "dye": f"a colour {self.dye_deg:g}° or more off both stains: ink, foreign dye",
            "edge": f"{self.edge_area_um2:g} µm² or more within {self.edge_um:g} µm of the edge of "
            "the tissue: edge staining",
            "fold": f"{self.fold_area_um2:g} µm² or more, evenly stained, no lumen: fold or smear",
        }


class VesselParams(FalsePositiveFilter):
    """Settings of the vessel segmentation."""

    method: Literal["dab", "hsv"] = setting(
        "dab",
        "How the vessel wall is detected: by DAB density after stain separation, or by the hue "
        "range of the MOSAIK paper, which misses wall that lies over nuclei.",
        label="Wall detection",
        choices={"dab": "DAB density", "hsv": "Hue (paper)"},
    )
    spacing_um: float = setting(
        1.0, "Pixel size of the vessel segmentation.", label="Pixel size", unit="µm", gt=0
    )
    stains: Literal["slide", "ruifrok", "manual"] = setting(
        "slide",
        "Stain vectors of haematoxylin and DAB: estimated from the slide (Ruifrok and Johnston "
        "where that fails, with a warning), fixed, or entered manually.",
        label="Stain vectors",
        choices={
            "slide": "From the slide",
            "ruifrok": "Ruifrok and Johnston",
            "manual": "Manual",
        },
    )
    haematoxylin_vector: StainVector = setting(
        (0.650, 0.704, 0.286),
        "Manual stain vector of haematoxylin: optical density in red, green and blue of a purely "
        "blue area; only the ratio counts.",
        advanced=True,
        only_with={"stains": "manual"},
    )
    dab_vector: StainVector = setting(
        (0.268, 0.570, 0.776),
        "Manual stain vector of DAB: optical density in red, green and blue of a purely brown "
        "area; only the ratio counts.",
        advanced=True,
        only_with={"stains": "manual"},
    )
    threshold: Literal["otsu", "fixed"] = setting(
        "otsu",
        "DAB threshold: from the slide's histogram (Otsu), or fixed.",
        label="DAB threshold",
        choices={"otsu": "From the slide (Otsu)", "fixed": "Fixed"},
        only_with={"method": "dab"},
    )
    dab_od: float = setting(
        0.6,
        "Fixed DAB threshold.",
        label="Fixed DAB threshold",
        unit="OD",
        gt=0,
        le=3,
        only_with={"method": "dab", "threshold": "fixed"},
    )
    min_threshold_od: float = setting(
        0.3,
        "Minimum of the threshold from the slide, so that a slide without vessels gives none.",
        label="Minimum DAB threshold",
        unit="OD",
        gt=0,
        le=3,
        advanced=True,
        only_with={"method": "dab", "threshold": "otsu"},
    )
    smoothing_um: float = setting(
        0.5,
        "Standard deviation of the smoothing before the threshold.",
        label="Smoothing (SD)",
        unit="µm",
        ge=0,
        le=5,
        only_with={"method": "dab"},
    )
    closing_um: float = setting(
        1.5,
        "Radius of the closing that bridges gaps in the wall.",
        label="Closing radius",
        unit="µm",
        ge=0,
        le=20,
    )
    max_lumen_um2: float = setting(
        5000.0,
        "Maximum area of a hole that is filled as a lumen.",
        label="Maximum lumen area",
        unit="µm²",
        ge=0,
        le=100_000,
    )
    min_area_um2: float = setting(
        25.0,
        "Minimum area of a vessel; smaller objects are excluded, single sprouts are kept.",
        label="Minimum vessel area",
        unit="µm²",
        ge=0,
    )

    @property
    def preview_margin_um(self) -> float:
        """How far beyond a region a preview looks, so that the vessels in it are whole, µm."""
        return 100.0
