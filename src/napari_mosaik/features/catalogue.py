"""The catalogue of tile parameters: name, unit, group, formula and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.table import Table

__all__ = ["GROUPS", "PARAMETERS", "Group", "TileParameter", "parameter_table", "parameters_of"]

Group = Literal["vascular", "nuclear", "caix", "tissue"]
GROUPS: Final[tuple[Group, ...]] = ("vascular", "nuclear", "caix", "tissue")


@dataclass(frozen=True, slots=True)
class TileParameter:
    """One parameter of a tile.

    Parameters
    ----------
    name
        Column of the parameter table.
    title
        The words shown to a reader.
    unit
        Unit; "1" for pure numbers.
    group
        Which stain or structure it belongs to.
    formula
        How it is computed.
    meaning
        One sentence for the reader.
    """

    name: str
    title: str
    unit: str
    group: Group
    formula: str
    meaning: str


def _all() -> tuple[TileParameter, ...]:
    p = TileParameter
    mean = "mean over the {} whose centroid lies in the tile"
    vessel, nucleus = mean.format("vessels"), mean.format("nuclei")
    return (
        p("vessel_density_per_mm2", "Vessel density", "1/mm²", "vascular",
          "vessels with centroid in the tile / tissue area of the tile",
          "Microvessel density: number of vessels per square millimetre of tissue."),
        p("vessel_area_fraction", "Vessel area fraction", "1", "vascular",
          "area of vessels with lumen / tissue area, by pixels",
          "Fraction of the tissue that is vessel, lumen included."),
        p("vessel_equivalent_diameter_um", "Vessel equivalent diameter", "µm", "vascular",
          f"2·sqrt(area/π), lumen filled; {vessel}",
          "Typical calibre: diameter of the circle of the same area."),
        p("vessel_area_um2", "Vessel area", "µm²", "vascular", vessel,
          "Typical size of a vessel, lumen included."),
        p("vessel_eccentricity", "Vessel eccentricity", "1", "vascular",
          f"sqrt(1 - l2/l1); {vessel}",
          "0 for round profiles, near 1 for elongated ones."),
        p("vessel_solidity", "Vessel solidity", "1", "vascular",
          f"area / area of the convex hull; {vessel}",
          "1 for convex vessels, lower for branched or bent ones."),
        p("vessel_perimeter_density_per_um", "Vessel perimeter density", "1/µm", "vascular",
          "perimeters of the vessels with centroid in the tile / tissue area",
          "Length of vessel wall per tissue area: the exchange surface S/V."),
        p("vessel_distance_um", "Distance to the nearest vessel", "µm", "vascular",
          "mean over the tile's tissue of the distance to the nearest vessel's border",
          "Distance of the tissue from its blood supply."),
        p("nucleus_density_per_mm2", "Nuclear density", "1/mm²", "nuclear",
          "nuclei with centroid in the tile / tissue area of the tile",
          "Cellularity: number of nuclei per square millimetre of tissue."),
        p("nucleus_area_um2", "Nuclear area", "µm²", "nuclear", nucleus,
          "Typical size of a nucleus."),
        p("nucleus_eccentricity", "Nuclear eccentricity", "1", "nuclear",
          f"sqrt(1 - l2/l1); {nucleus}",
          "0 for round nuclei, near 1 for spindle-shaped ones."),
        p("nucleus_solidity", "Nuclear solidity", "1", "nuclear",
          f"area / area of the convex hull; {nucleus}",
          "1 for smooth nuclei, lower for indented ones."),
        p("nucleus_haematoxylin_od", "Nuclear haematoxylin", "OD", "nuclear",
          f"mean haematoxylin density of the nucleus (natural OD); {nucleus}",
          "Staining intensity of the nuclei (hyperchromasia)."),
        p("nucleus_difference_entropy_bits", "Nuclear difference entropy", "bit", "nuclear",
          f"-Σ p_d(k)·log2 p_d(k), mean of 4 angles; {nucleus}",
          "Irregularity of the chromatin texture."),
        p("nucleus_contrast", "Nuclear contrast", "1", "nuclear",
          f"Σ k²·p_d(k), mean of 4 angles; {nucleus}",
          "Difference between neighbouring grey levels within the nuclei."),
        p("nucleus_angular_second_moment", "Nuclear angular second moment", "1", "nuclear",
          f"Σ p(i,j)², mean of 4 angles; {nucleus}",
          "High for homogeneous chromatin, low for heterogeneous chromatin."),
        p("nucleus_inverse_difference_moment", "Nuclear inverse difference moment", "1", "nuclear",
          f"Σ p(i,j)/(1+(i-j)²), mean of 4 angles; {nucleus}",
          "Local homogeneity of the chromatin."),
        p("nucleus_entropy_bits", "Nuclear entropy", "bit", "nuclear",
          f"-Σ p(i,j)·log2 p(i,j), mean of 4 angles; {nucleus}",
          "Diversity of the pairs of grey levels within the nuclei."),
        p("nucleus_sum_entropy_bits", "Nuclear sum entropy", "bit", "nuclear",
          f"-Σ p_s(k)·log2 p_s(k), k = i + j, mean of 4 angles; {nucleus}",
          "Diversity of the local brightness within the nuclei."),
        p("caix_h_score", "CAIX H-score", "1", "caix",
          "1·%(1+) + 2·%(2+) + 3·%(3+) of the cells with centroid in the tile, 0 to 300",
          "Staining intensity combined with the fraction of positive cells."),
        p("caix_positive_fraction", "CAIX-positive cells", "1", "caix",
          "cells with grade 1+ or more / cells with centroid in the tile",
          "Fraction of the cells that express the target."),
        p("caix_intensity_fraction", "CAIX intensity × fraction", "OD10", "caix",
          "mean membrane density of the positive cells × their fraction",
          "Mean staining of the positive cells weighted by their fraction."),
        p("caix_membrane_od10", "CAIX membrane density", "OD10", "caix",
          "mean DAB density (base 10) in the ring of the cells with centroid in the tile",
          "Mean membrane staining of the cells."),
        p("neoplastic_fraction", "Neoplastic fraction", "1", "tissue",
          "area classified neoplastic / classified tissue area",
          "Fraction of the tissue that is tumour."),
        p("non_neoplastic_fraction", "Non-neoplastic fraction", "1", "tissue",
          "area classified non-neoplastic / classified tissue area",
          "Fraction of the tissue that is stroma, vessel or other normal tissue."),
    )  # fmt: skip


PARAMETERS: Final[dict[str, TileParameter]] = {p.name: p for p in _all()}
"""Name to parameter, in the order in which they are shown."""


def parameters_of(group: Group) -> tuple[str, ...]:
    """Names of a group's parameters, in the order in which they are shown."""
    return tuple(name for name, parameter in PARAMETERS.items() if parameter.group == group)


def parameter_table(columns: dict[str, FloatArray], frame: str = "") -> Table:
    """A table of tile parameters with the catalogue's units and meanings.

    Raises
    ------
    InputError
        If a column is not in the catalogue.
    """
    unknown = [name for name in columns if name not in PARAMETERS]
    if unknown:
        raise InputError(f"no such tile parameter: {', '.join(unknown)}")
    data: dict[str, NDArray[np.float64]] = dict(columns)
    return Table(
        data,
        {name: PARAMETERS[name].unit for name in columns},
        {name: f"{PARAMETERS[name].meaning} {PARAMETERS[name].formula}" for name in columns},
        frame,
    )
