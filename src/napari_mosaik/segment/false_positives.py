"""Non-vascular DAB: pigment, red blood cells, ink, edge staining and folds.

Every object is assessed once it is whole, by sums over the pixels of its wall.  The sums are whole
numbers that are added block by block, so the result does not depend on where the slide was cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.colour import WHITE_INTENSITY, stain_matrix
from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.frame import FloatArray, Mask
from napari_mosaik.core.table import Table
from napari_mosaik.segment.run_length import Labels, Runs
from napari_mosaik.segment.vessel_params import FalsePositiveFilter

__all__ = [
    "REASONS",
    "SUMS",
    "FalsePositiveFilter",
    "add_block_sums",
    "any_rule_enabled",
    "count_by_reason",
    "excluded_objects_table",
    "exclusion_codes",
    "wall_colours",
    "wall_sums",
]

REASONS: Final = {
    0: "vessel",
    1: "yellow",
    2: "black",
    3: "dye",
    4: "edge",
    5: "fold",
}
"""Codes of the reasons; `FalsePositiveFilter.reason_descriptions` describes them."""

SUMS: Final = ("pixels", "red", "green", "blue", "dab", "dab_squared", "brown", "black", "edge")
"""Columns of `wall_sums`: pixel count, optical densities, amount of DAB and its square, amount of
DAB in pixels of its colour, count of nearly black pixels, count of pixels at the tissue edge."""

_OD = 1024
"""Steps per unit of optical density in the sums."""
_DAB = 256
"""Steps per unit of the amount of DAB in the sums."""
_OFF_SLOPE = math.tan(math.radians(10.0))
"""A pixel more than 10 degrees off the plane of both stains does not have the colour of DAB."""
_BLACK_RATIO = 0.65
"""Red optical density beside blue from which a dark pixel is black; dark DAB reaches 0.6."""


def any_rule_enabled(params: FalsePositiveFilter) -> bool:
    """Whether any rule is enabled; without one, colours need not be summed."""
    rules = (name for name in type(params).model_fields if name.startswith("exclude_"))
    return any(getattr(params, name) for name in rules)


def wall_sums(
    rgb: NDArray[np.uint8],
    wall: Runs,
    vectors: ArrayLike,
    params: FalsePositiveFilter,
    edge: Mask | None = None,
) -> NDArray[np.int64]:
    """Sums over each object of the wall in a block, (n_objects, len(SUMS)) counts.

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels.
    wall
        Runs of the wall with the labels of its objects.
    vectors
        (3, 2) OD vectors of haematoxylin and DAB, dimensionless.
    params
        Settings; of them `yellow_deg` and `black_od`.
    edge
        (rows, columns) mask, True near the edge of the tissue; nowhere if None.
    """
    out = np.zeros((wall.n_objects, len(SUMS)), np.int64)
    if wall.n_objects == 0:
        return out
    od = -np.log((np.arange(256) + 1.0) / WHITE_INTENSITY)
    columns = np.asarray(vectors, float)
    dab = np.linalg.inv(stain_matrix(*columns.T))[1]
    near = np.zeros((1, 1), np.bool_) if edge is None else edge
    _add_up(
        rgb, wall.row, wall.start, wall.inside, wall.label, od, dab,
        _axes(columns), near, edge is not None, params.yellow_deg, params.black_od, out,
    )  # fmt: skip
    return out


def _axes(vectors: FloatArray) -> FloatArray:
    """Rows: direction of DAB, away from haematoxylin in the plane of both, and the normal."""
    blue, brown = (column / np.linalg.norm(column) for column in vectors.T)
    away = (blue @ brown) * brown - blue
    normal = np.cross(blue, brown)
    return np.stack([brown, away / np.linalg.norm(away), normal / np.linalg.norm(normal)])


@compiled
def _add_up(
    rgb: NDArray[np.uint8], row: NDArray[np.int64], start: Labels, inside: Mask, label: Labels,
    od: FloatArray, dab: FloatArray, axes: FloatArray,
    edge: Mask, has_edge: bool, yellow_deg: float, black_od: float, out: NDArray[np.int64],
) -> None:  # fmt: skip
    for i in range(row.size - 1):
        for k in range(row[i], row[i + 1]):
            if inside[k]:
                stop = start[k + 1] if k + 1 < row[i + 1] else rgb.shape[1]
                sums = out[label[k] - 1]
                for j in range(start[k], stop):
                    _add_pixel(rgb[i, j], od, dab, axes, yellow_deg, black_od, sums)
                    if has_edge and edge[i, j]:
                        sums[8] += 1


@compiled
def _add_pixel(
    pixel: NDArray[np.uint8], od: FloatArray, dab: FloatArray, axes: FloatArray,
    yellow_deg: float, black_od: float, sums: NDArray[np.int64],
) -> None:  # fmt: skip
    r, g, b = od[pixel[0]], od[pixel[1]], od[pixel[2]]
    sums[0] += 1
    sums[1] += np.int64(np.rint(r * _OD))
    sums[2] += np.int64(np.rint(g * _OD))
    sums[3] += np.int64(np.rint(b * _OD))
    amount = np.int64(np.rint((r * dab[0] + g * dab[1] + b * dab[2]) * _DAB))
    sums[4] += amount
    sums[5] += amount * amount
    if _is_dab(r, g, b, axes, yellow_deg):
        sums[6] += amount
    if r >= black_od and r >= _BLACK_RATIO * b:
        sums[7] += 1


@compiled
def _is_dab(r: float, g: float, b: float, axes: FloatArray, yellow_deg: float) -> bool:
    """Whether a colour is DAB or a mixture of DAB and haematoxylin."""
    along = r * axes[0, 0] + g * axes[0, 1] + b * axes[0, 2]
    normal = r * axes[2, 0] + g * axes[2, 1] + b * axes[2, 2]
    if along <= 0 or abs(normal) > _OFF_SLOPE * along:
        return False
    away = r * axes[1, 0] + g * axes[1, 1] + b * axes[1, 2]
    if away <= 0:
        return True
    off, beyond = math.degrees(math.atan2(normal, along)), math.degrees(math.atan2(away, along))
    return math.hypot(beyond, off) <= yellow_deg


def add_block_sums(
    totals: NDArray[np.int64], numbers: NDArray[np.int32], sums: NDArray[np.int64]
) -> None:
    """Add the sums of the wall objects of a block to those of the whole objects they belong to.

    Parameters
    ----------
    totals
        (n, len(SUMS)) counts, changed in place.
    numbers
        (m,) label of the whole object of each wall object, 1 to n; 0 for dropped objects.
    sums
        (m, len(SUMS)) counts.
    """
    known = numbers > 0
    np.add.at(totals, numbers[known] - 1, sums[known])


def wall_colours(totals: NDArray[np.int64], vectors: ArrayLike) -> dict[str, FloatArray]:
    """Colour of the wall of each object, (n,) each; NaN for an object without wall.

    ``dab_od`` is the mean amount of DAB (natural OD) and ``dab_variation`` its coefficient of
    variation; ``hue_angle_past_dab_deg`` the angle of the mean colour beyond DAB, as seen from
    haematoxylin, ``out_of_plane_deg`` that to the plane of both stains (degrees); ``dab_fraction``
    is the fraction of DAB in pixels of its colour, ``black_fraction`` and ``edge_fraction`` are
    fractions of the wall.  *totals* are the (n, len(SUMS)) sums of the objects.
    """
    columns = {name: totals[:, i].astype(float) for i, name in enumerate(SUMS)}
    pixels = np.where(columns["pixels"] > 0, columns["pixels"], np.nan)
    colour = np.stack([columns[name] for name in ("red", "green", "blue")], axis=1)
    along, away, off = (colour @ _axes(np.asarray(vectors, float)).T).T
    stained = np.where(columns["dab"] > 0, columns["dab"], np.nan)
    mean = columns["dab"] / pixels
    variance = np.maximum(columns["dab_squared"] / pixels - mean**2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        length = np.linalg.norm(colour, axis=1)
        return {
            "dab_od": mean / _DAB,
            "dab_variation": np.sqrt(variance) / mean,
            "hue_angle_past_dab_deg": np.where(
                length > 0, np.degrees(np.arctan2(away, along)), np.nan
            ),
            "out_of_plane_deg": np.degrees(np.arcsin(np.clip(off / length, -1, 1))),
            "dab_fraction": columns["brown"] / stained,
            "black_fraction": columns["black"] / pixels,
            "edge_fraction": columns["edge"] / pixels,
        }


def exclusion_codes(
    totals: NDArray[np.int64],
    pixels: NDArray[np.int64],
    pixel_area_um2: float,
    vectors: ArrayLike,
    params: FalsePositiveFilter,
) -> NDArray[np.uint8]:
    """Code of `REASONS` for each object, (n,) index; 0 for vessels, else the first rule that holds.

    Parameters
    ----------
    totals
        (n, len(SUMS)) sums over the wall of each object (counts).
    pixels
        (n,) pixel count of each object with its filled lumen.
    pixel_area_um2
        Area of a pixel, µm².
    vectors
        (3, 2) OD vectors of haematoxylin and DAB, dimensionless.
    params
        Settings.
    """
    colour = wall_colours(totals, vectors)
    wall_um2 = totals[:, 0] * pixel_area_um2
    solid = totals[:, 0] >= 0.9 * pixels
    rules = (
        params.exclude_black & (colour["black_fraction"] >= 0.5),
        params.exclude_foreign_dye & (np.abs(colour["out_of_plane_deg"]) >= params.dye_deg),
        params.exclude_pigment & (colour["dab_fraction"] < params.min_dab_fraction),
        params.exclude_edge_staining
        & (colour["edge_fraction"] >= 0.7)
        & (wall_um2 >= params.edge_area_um2),
        params.exclude_folds
        & solid
        & (wall_um2 >= params.fold_area_um2)
        & (colour["dab_variation"] <= params.fold_variation),
    )
    return np.select(rules, (2, 3, 1, 4, 5), 0).astype(np.uint8)


def count_by_reason(codes: NDArray[np.uint8]) -> dict[str, int]:
    """Number of excluded objects by reason; every reason is present.

    *codes* are those of `REASONS`, (n,) index.
    """
    return {REASONS[code]: int((codes == code).sum()) for code in REASONS if code}


def excluded_objects_table(
    objects: Table,
    codes: NDArray[np.uint8],
    colours: Mapping[str, NDArray[np.floating]],
    params: FalsePositiveFilter,
) -> Table:
    """The excluded rows of *objects*, with the reason and the colours that it rests on.

    Parameters
    ----------
    objects
        (n,) measurements of all objects, with their units.
    codes
        (n,) codes of `REASONS` (index).
    colours
        (n,) each, of `wall_colours`: OD, degrees and fractions.
    params
        Settings.
    """
    reasons = params.reason_descriptions()
    about = {
        "reason": "; ".join(f"{name}: {text}" for name, text in reasons.items()),
        "dab_od": "mean amount of DAB over the wall, OD (natural)",
        "dab_variation": "coefficient of variation of DAB within the wall",
        "hue_angle_past_dab_deg": "angle of the mean colour beyond DAB, as seen from haematoxylin",
        "out_of_plane_deg": "angle of the mean colour to the plane of both stains",
        "dab_fraction": "fraction of DAB that lies in pixels of its colour",
        "black_fraction": "fraction of the wall that is black",
        "edge_fraction": "fraction of the wall near the edge of the tissue",
    }
    units = {"dab_od": "OD", "hue_angle_past_dab_deg": "°", "out_of_plane_deg": "°"}
    reason = np.array([REASONS[int(code)] for code in codes], "U8")
    return objects.with_columns({"reason": reason, **colours}, units, about).rows(codes != 0)
