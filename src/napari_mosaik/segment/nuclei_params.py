"""Settings of the nuclei: the method, and what tunes it."""

from __future__ import annotations

from typing import Literal

from napari_mosaik.core.params import Params, setting

__all__ = ["NETWORK_SPACING_UM", "NucleiParams"]

NETWORK_SPACING_UM = 0.5
"""Pixel size that StarDist's networks for H&E read."""


class NucleiParams(Params):
    """Settings of the nuclei segmentation; all but the first three are of the classical method."""

    method: Literal["stardist", "classical"] = setting(
        "stardist",
        "How nuclei are found: by a StarDist network, or by their haematoxylin alone.",
        choices={"stardist": "StarDist network", "classical": "Haematoxylin and watershed"},
    )
    weights: str = setting(
        "",
        "Hash of other weights of the StarDist network ('napari-mosaik weights' lists those that "
        "are here, fetches and takes in others); empty for those that come with the program.",
        advanced=True,
    )
    probability: float = setting(
        0.0,
        "Least probability of a nucleus for the network; 0 takes the network's own. Less finds "
        "more nuclei, and more that are none.",
        ge=0,
        lt=1,
    )
    spacing_um: float = setting(
        1.0,
        "Pixel size at which the classical method finds nuclei; a network has its own.",
        unit="µm",
        gt=0,
    )
    smoothing_um: float = setting(
        0.5, "Standard deviation of the first smoothing.", unit="µm", ge=0, le=5
    )
    sensitivity: float = setting(
        1.2, "How much below the slide's own threshold (Otsu) a nucleus may lie.", gt=0.2, le=5
    )
    min_threshold_od: float = setting(
        0.15,
        "Less haematoxylin than this (natural optical density) is never a nucleus.",
        unit="OD",
        ge=0,
        le=3,
        advanced=True,
    )
    edge_fraction: float = setting(
        0.35,
        "Where the edge lies between the surroundings (0) and the nucleus (1).",
        ge=0,
        lt=1,
        advanced=True,
    )
    surroundings_um: float = setting(
        20.0, "Half width of the surroundings.", unit="µm", gt=0, le=200, advanced=True
    )
    separation_um: float = setting(
        3.0, "Two nuclei have centres at least this far apart.", unit="µm", gt=0, le=50
    )
    seed_smoothing_um: float = setting(
        1.5,
        "Standard deviation of the smoothing that finds centres.",
        unit="µm",
        ge=0,
        le=10,
        advanced=True,
    )
    opening_um: float = setting(
        0.5, "Radius of the opening that removes thin bridges.", unit="µm", ge=0, le=5
    )
    max_hole_um2: float = setting(
        20.0, "Pale places within a nucleus up to this area are filled.", unit="µm²", ge=0
    )
    min_area_um2: float = setting(7.0, "Smaller objects are left out.", unit="µm²", ge=0)

    @property
    def read_spacing_um(self) -> float:
        """Pixel size at which a slide is read, µm: that of the usual network, or the setting."""
        return self.spacing_um if self.method == "classical" else NETWORK_SPACING_UM
