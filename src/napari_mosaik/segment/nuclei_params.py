"""Settings of the nuclei segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from napari_mosaik.core.params import Params, setting

__all__ = ["NETWORK_PROBABILITY", "NETWORK_SPACING_UM", "NucleiParams"]

NETWORK_SPACING_UM = 0.5
"""Pixel size of StarDist's networks for H&E, µm."""


NETWORK_PROBABILITY = 0.65
"""Probability from which the network that comes with the program takes a nucleus."""


class NucleiParams(Params):
    """Settings of the nuclei segmentation; all but the first three are of the classical method."""

    method: Literal["stardist", "classical"] = setting(
        "stardist",
        "Segmentation by a StarDist network, or by haematoxylin density and watershed.",
        choices={"stardist": "StarDist network", "classical": "Haematoxylin and watershed"},
    )
    weights: str = setting(
        "",
        "Hash of other StarDist weights ('napari-mosaik weights' lists, downloads and imports "
        "them); empty for the weights that come with the program.",
        label="StarDist weights",
        advanced=True,
        only_with={"method": "stardist"},
    )
    probability: float = setting(
        0.0,
        "Minimum probability of a nucleus for the network; 0 uses the network's own. A lower value "
        "finds more nuclei and more false positives.",
        label="Probability",
        ge=0,
        lt=1,
        only_with={"method": "stardist"},
    )
    spacing_um: float = setting(
        1.0,
        "Pixel size of the classical method; a network has its own.",
        label="Pixel size",
        unit="µm",
        gt=0,
        only_with={"method": "classical"},
    )
    smoothing_um: float = setting(
        0.5,
        "Standard deviation of the first smoothing.",
        label="Smoothing (SD)",
        unit="µm",
        ge=0,
        le=5,
        only_with={"method": "classical"},
    )
    sensitivity: float = setting(
        1.2,
        "Factor by which the slide's threshold (Otsu) is divided; higher finds paler nuclei.",
        gt=0.2,
        le=5,
        only_with={"method": "classical"},
    )
    min_threshold_od: float = setting(
        0.15,
        "Minimum haematoxylin threshold.",
        label="Minimum threshold",
        unit="OD",
        ge=0,
        le=3,
        advanced=True,
        only_with={"method": "classical"},
    )
    edge_fraction: float = setting(
        0.35,
        "Position of the edge between the surroundings (0) and the nucleus (1).",
        label="Edge position",
        ge=0,
        lt=1,
        advanced=True,
        only_with={"method": "classical"},
    )
    surroundings_um: float = setting(
        20.0,
        "Half width of the surroundings of a nucleus.",
        label="Width of surroundings",
        unit="µm",
        gt=0,
        le=200,
        advanced=True,
        only_with={"method": "classical"},
    )
    separation_um: float = setting(
        3.0,
        "Minimum distance between the centres of two nuclei.",
        label="Minimum separation",
        unit="µm",
        gt=0,
        le=50,
        only_with={"method": "classical"},
    )
    seed_smoothing_um: float = setting(
        1.5,
        "Standard deviation of the smoothing before centres are detected.",
        label="Seed smoothing (SD)",
        unit="µm",
        ge=0,
        le=10,
        advanced=True,
        only_with={"method": "classical"},
    )
    opening_um: float = setting(
        0.5,
        "Radius of the opening that removes thin bridges between nuclei.",
        label="Opening radius",
        unit="µm",
        ge=0,
        le=5,
        only_with={"method": "classical"},
    )
    max_hole_um2: float = setting(
        20.0,
        "Maximum area of a pale hole in a nucleus that is filled.",
        label="Maximum hole area",
        unit="µm²",
        ge=0,
        only_with={"method": "classical"},
    )
    min_area_um2: float = setting(
        7.0,
        "Minimum area of a nucleus; smaller objects are excluded.",
        label="Minimum nucleus area",
        unit="µm²",
        ge=0,
        only_with={"method": "classical"},
    )

    def lowest_in_words(self) -> Mapping[str, str]:
        """A probability of 0 is the network's own, which is known of the one of the program."""
        own = "" if self.weights else f" ({NETWORK_PROBABILITY:g})"
        return {"probability": f"the network's own{own}"}

    @property
    def read_spacing_um(self) -> float:
        """Pixel size at which a slide is read, µm: that of the network, or the setting."""
        return self.spacing_um if self.method == "classical" else NETWORK_SPACING_UM

    @property
    def preview_margin_um(self) -> float:
        """How far beyond a region its nuclei depend on the pixels, µm: the halo of the method."""
        return 40.0 if self.method == "classical" else 176 * NETWORK_SPACING_UM
