"""Settings that tell vessels from other brown objects."""

from __future__ import annotations

from napari_mosaik.core.params import Params, setting

__all__ = ["FalsePositiveFilter"]


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
