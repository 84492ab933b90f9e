"""Brown that is not endothelium: pigment, red cells, ink, edge staining and folds.

Every object is judged once it is whole, by sums over the pixels of its wall.  The sums are whole
numbers that are added block by block, so the verdict does not depend on where a slide was cut.
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
"""Codes of the verdict; `FalsePositiveFilter.reason_descriptions` says what each means."""

SUMS: Final = ("pixels", "red", "green", "blue", "dab", "dab_squared", "brown", "black", "edge")
"""Columns of `wall_sums`: number of pixels, optical densities, amount of DAB and its square, the
amount of DAB in pixels of its colour, pixels that are nearly black, pixels at the tissue's edge."""

_OD = 1024
"""Steps per unit of optical density in the sums."""
_DAB = 256
"""Steps per unit of the amount of DAB in the sums."""
_OFF_SLOPE = math.tan(math.radians(10.0))
"""A pixel more than 10 degrees off the plane of both stains has not the colour of DAB."""
_BLACK_RATIO = 0.65
"""Red optical density beside blue from which a dark pixel is black; dark DAB reaches 0.6."""


def any_rule_enabled(params: FalsePositiveFilter) -> bool:
    """Whether any rule is on; without one, colours need not be summed."""
    rules = (name for name in type(params).model_fields if name.startswith("exclude_"))
    return any(getattr(params, name) for name in rules)


def wall_sums(
    rgb: NDArray[np.uint8],
    wall: Runs,
    vectors: ArrayLike,
    params: FalsePositiveFilter,
    edge: Mask | None = None,
) -> NDArray[np.int64]:
    """Sums over each object of the wall in a block, (n_objects, len(SUMS)); exact whole numbers.

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit pixels.
    wall
        Runs of the wall with the numbers of its objects.
    vectors
        (3, 2) OD vectors of haematoxylin and DAB.
    params
        Settings; of them `yellow_deg` and `black_od`.
    edge
        (rows, columns) True near the edge of the tissue; nowhere if None.
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
    if _is_brown(r, g, b, axes, yellow_deg):
        sums[6] += amount
    if r >= black_od and r >= _BLACK_RATIO * b:
        sums[7] += 1


@compiled
def _is_brown(r: float, g: float, b: float, axes: FloatArray, yellow_deg: float) -> bool:
    """Whether a colour is that of DAB or lies between DAB and haematoxylin."""
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
    """Add the sums of a block's parts to those of the whole objects that they belong to.

    Parameters
    ----------
    totals
        (n, len(SUMS)), changed.
    numbers
        (n_parts,) number of the object of each part, 1 to n; 0 for parts of dropped objects.
    sums
        (n_parts, len(SUMS)).
    """
    kept = numbers > 0
    np.add.at(totals, numbers[kept] - 1, sums[kept])


def wall_colours(totals: NDArray[np.int64], vectors: ArrayLike) -> dict[str, FloatArray]:
    """What the sums say of each object, (n,) each; NaN for an object without wall.

    ``dab_od`` is the mean amount of DAB (natural OD) and ``dab_variation`` its standard deviation
    over the mean; ``hue_angle_past_dab_deg`` the angle of the mean colour beyond DAB, seen from
    haematoxylin, ``out_of_plane_deg`` that to the plane of both stains; ``dab_fraction`` is the
    share of DAB in pixels of its colour, ``black_fraction`` and ``edge_fraction`` shares of the
    wall.
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
    """Which objects are no vessels: a code of `REASONS` for each, (n,); the first rule that holds.

    Parameters
    ----------
    totals
        (n, len(SUMS)) sums over the wall of each object.
    pixels
        (n,) number of pixels of each object with its filled lumen.
    pixel_area_um2
        Area of a pixel, µm².
    vectors
        (3, 2) OD vectors of haematoxylin and DAB.
    params
        Settings.
    """
    found = wall_colours(totals, vectors)
    wall_um2 = totals[:, 0] * pixel_area_um2
    solid = totals[:, 0] >= 0.9 * pixels
    rules = (
        params.exclude_black & (found["black_fraction"] >= 0.5),
        params.exclude_foreign_dye & (np.abs(found["out_of_plane_deg"]) >= params.dye_deg),
        params.exclude_pigment & (found["dab_fraction"] < params.min_dab_fraction),
        params.exclude_edge_staining
        & (found["edge_fraction"] >= 0.7)
        & (wall_um2 >= params.edge_area_um2),
        params.exclude_folds
        & solid
        & (wall_um2 >= params.fold_area_um2)
        & (found["dab_variation"] <= params.fold_variation),
    )
    return np.select(rules, (2, 3, 1, 4, 5), 0).astype(np.uint8)


def count_by_reason(verdict: NDArray[np.uint8]) -> dict[str, int]:
    """How many objects were left out, by reason; every reason is named."""
    return {REASONS[code]: int((verdict == code).sum()) for code in REASONS if code}


def excluded_objects_table(
    objects: Table,
    verdict: NDArray[np.uint8],
    colours: Mapping[str, NDArray[np.floating]],
    params: FalsePositiveFilter,
) -> Table:
    """The rows of *objects* that are no vessels, with the reason and what it rests on.

    Parameters
    ----------
    objects
        (n) measurements of all objects.
    verdict
        (n,) codes of `REASONS`.
    colours
        (n,) each, of `wall_colours`.
    params
        Settings.
    """
    words = params.reason_descriptions()
    about = {
        "reason": "; ".join(f"{name}: {text}" for name, text in words.items()),
        "dab_od": "mean amount of DAB over the wall, natural OD",
        "dab_variation": "standard deviation of DAB over its mean within the wall",
        "hue_angle_past_dab_deg": "angle of the mean colour beyond DAB, seen from haematoxylin",
        "out_of_plane_deg": "angle of the mean colour to the plane of both stains",
        "dab_fraction": "share of DAB that lies in pixels of its colour",
        "black_fraction": "share of the wall that is black",
        "edge_fraction": "share of the wall near the edge of the tissue",
    }
    units = {"dab_od": "OD", "hue_angle_past_dab_deg": "°", "out_of_plane_deg": "°"}
    reason = np.array([REASONS[int(code)] for code in verdict], "U8")
    return objects.with_columns({"reason": reason, **colours}, units, about).rows(verdict != 0)
