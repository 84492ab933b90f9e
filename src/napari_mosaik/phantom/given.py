"""The results that a sample case without slides is given: what its steps would find on slides.

Masks, label images at 4 µm and the tables of their objects lie where the specimen has them: the
sections of such a case are registered exactly.  Each result is stored under an `Origin.given`, so
that no step computes it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Artifact, Origin
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    ARTEFACT_MASK,
    CAIX_CELLS,
    CLASS_NAMES,
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    CORRECTED_ARTEFACT_MASK,
    EXCLUDED_DAB,
    EXCLUDED_DAB_OBJECTS,
    NEOPLASTIC,
    OBJECTS,
    REFERENCE,
    STAIN_FIT,
    STAINS,
    TISSUE,
)
from napari_mosaik.core.compiled import compiled_unchecked
from napari_mosaik.core.frame import FloatArray, Lattice, Transform
from napari_mosaik.core.label_lookup import codes_at
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.features import measure_objects
from napari_mosaik.features.catalogue import caix_grades
from napari_mosaik.io.store import CaseStore
from napari_mosaik.phantom.anatomy import Anatomy
from napari_mosaik.phantom.objects import Nuclei, VesselTubes
from napari_mosaik.phantom.truth import MASK_UM, class_map, vessel_map
from napari_mosaik.register import Alignment
from napari_mosaik.segment.label_editing import MANUAL_CLASS, MANUAL_EDIT
from napari_mosaik.tissue import StainFit
from napari_mosaik.tissue.stain import HE_REFERENCE

__all__ = ["GIVEN_BY", "LABELS_UM", "write_given_results"]

GIVEN_BY: Final = "the sample"
LABELS_UM: Final = 4.0
"""Pixel size of the label images, µm."""
_KNOWN: Final = "known exactly: the sample draws no slides of this case, but gives its tissue"
_Values = Mapping[Artifact[Any], object]


def write_given_results(
    folder: Path,
    anatomy: Anatomy,
    vessels: VesselTubes,
    nuclei: Mapping[str, Nuclei],
    content: str,
) -> Iterator[float]:
    """Store the results of all steps that need a slide; yields the fraction that is written.

    Parameters
    ----------
    folder
        The case.
    anatomy, vessels
        The specimen.
    nuclei
        The nuclei of the sections "he" and "caix".
    content
        Digest of what determines the specimen.
    """
    store = CaseStore(folder / "artifacts")
    painted, objects = _vessels(anatomy, vessels)
    found, nucleus_table = _nuclei(anatomy, nuclei["he"])
    classes = class_map(anatomy, vessel_map(anatomy, vessels, LABELS_UM))
    tissue = _tissue(anatomy)
    parts: list[tuple[str, _Values]] = [
        *((f"tissue_{stain}", _masks(tissue, stain)) for stain in STAINS),
        ("align_he", _registered("he")),
        ("align_caix", _registered("caix")),
        ("vessels", {**_objects("vessels", 0, painted, objects), **_no_excluded(painted.lattice)}),
        ("correct_vessels", _objects("vessels", 1, painted, objects)),
        ("stain", {STAIN_FIT: _no_stain().to_dict()}),
        ("classes", _class_results(classes, tissue)),
        ("nuclei", _objects("nuclei", 0, found, nucleus_table)),
        ("correct_nuclei", _objects("nuclei", 1, found, nucleus_table)),
        ("caix", {CAIX_CELLS: _cells(nuclei["caix"], classes)}),
    ]
    for number, (step, values) in enumerate(parts):
        store.commit(Origin.given(step, GIVEN_BY, content), values, {"seconds": 0.0, "params": {}})
        yield (number + 1) / len(parts)


def _in_frame(lattice: Lattice, frame: str) -> Lattice:
    """The same places on another section, which is registered exactly."""
    return replace(lattice, frame=frame)


def _tissue(anatomy: Anatomy) -> Raster:
    return Raster(anatomy.sampled("tissue", MASK_UM) > 0, anatomy.lattice(MASK_UM))


def _masks(tissue: Raster, stain: str) -> _Values:
    lattice = _in_frame(tissue.lattice, stain)
    none = Raster(np.zeros(lattice.shape, np.uint8), lattice)
    return {
        TISSUE[stain]: Raster(tissue.values, lattice),
        ARTEFACT_MASK[stain]: none,
        CORRECTED_ARTEFACT_MASK[stain]: none,
    }


def _registered(frame: str) -> _Values:
    exact = Transform.identity(frame, REFERENCE)
    return {ALIGNMENT[frame]: Alignment.of(exact, 1.0, 1.0, [], method=_KNOWN).to_dict()}


def _objects(kind: str, version: int, labels: LabelImage, table: Table) -> _Values:
    image, rows = OBJECTS[kind][version]
    none = np.zeros(len(table), "U1")
    corrected = {MANUAL_EDIT: none, MANUAL_CLASS: none} if version else {}
    return {image: labels, rows: table.with_columns(corrected)}


def _no_excluded(lattice: Lattice) -> _Values:
    empty = np.zeros(lattice.shape, np.int32)
    table = measure_objects(empty, lattice).with_columns({"reason": np.zeros(0, "U8")})
    return {EXCLUDED_DAB: LabelImage(empty, lattice), EXCLUDED_DAB_OBJECTS: table}


def _no_stain() -> StainFit:
    why = "the case has no H&E slide; its tissue classes are given"
    return StainFit(HE_REFERENCE.vectors, HE_REFERENCE.max_concentration, 0, False, why)


# --- tissue classes -------------------------------------------------------------------------------
def _class_results(classes: Raster, tissue: Raster) -> _Values:
    lattice = _in_frame(classes.lattice, "he")
    inside = tissue.onto(classes.lattice, outside=0.0).values
    codes = np.where(inside, classes.values, 0).astype(np.uint8)
    names = tuple(name for code, name in CLASS_NAMES.items() if code)
    certain = (codes[..., None] == np.arange(1, len(names) + 1)) * np.uint8(255)
    area = np.bincount(codes.ravel(), minlength=len(CLASS_NAMES)) * lattice.sample_area_um2 / 1e6
    record = {
        "model": "",
        "method": _KNOWN,
        "area_mm2": {name: float(area[code]) for code, name in CLASS_NAMES.items() if code},
        "stain_normalised": False,
        "held_out": None,
        "warnings": [],
        "mean_uncertainty": 0.0,
    }
    return {
        CLASSES: LabelImage(codes, lattice, dict(CLASS_NAMES)),
        CLASS_PROBABILITY: Raster(certain, lattice, "1/255", names),
        CLASS_RECORD: record,
    }


# --- objects --------------------------------------------------------------------------------------
@compiled_unchecked
def _paint(
    out: NDArray[np.int32], line: FloatArray, outer: FloatArray, spacing: float
) -> NDArray[np.int64]:
    """Label the free pixels that each bent tube covers, and its middle; (n,) pixels of each."""
    count = np.zeros(line.shape[0], np.int64)
    for n in range(line.shape[0]):
        for k in range(line.shape[1] - 1):
            y0, x0 = line[n, k, 0], line[n, k, 1]
            dy, dx = line[n, k + 1, 0] - y0, line[n, k + 1, 1] - x0
            i0 = max(0, int((min(y0, y0 + dy) - outer[n]) / spacing))
            i1 = min(out.shape[0] - 1, int((max(y0, y0 + dy) + outer[n]) / spacing))
            j0 = max(0, int((min(x0, x0 + dx) - outer[n]) / spacing))
            j1 = min(out.shape[1] - 1, int((max(x0, x0 + dx) + outer[n]) / spacing))
            for i in range(i0, i1 + 1):
                for j in range(j0, j1 + 1):
                    py, px = (i + 0.5) * spacing - y0, (j + 0.5) * spacing - x0
                    t = (py * dy + px * dx) / (dy * dy + dx * dx + 1e-6)
                    t = min(max(t, 0.0), 1.0)
                    away = (py - t * dy) ** 2 + (px - t * dx) ** 2
                    if away <= outer[n] ** 2 and out[i, j] == 0:
                        out[i, j] = n + 1
                        count[n] += 1
        middle = line[n, line.shape[1] // 2]
        i, j = int(middle[0] / spacing), int(middle[1] / spacing)
        if 0 <= i < out.shape[0] and 0 <= j < out.shape[1] and out[i, j] == 0:
            out[i, j] = n + 1
            count[n] += 1
    return count


def _painted(
    lattice: Lattice, line_um: FloatArray, outer_um: FloatArray
) -> tuple[LabelImage, NDArray[np.bool_]]:
    """Labels 1 to m of the objects that cover a pixel (or hold its place), and which (n,) do."""
    out = np.zeros(lattice.shape, np.int32)
    seen = _paint(out, line_um, outer_um, lattice.spacing_um[0]) > 0
    numbers = np.concatenate([[0], np.where(seen, np.cumsum(seen), 0)]).astype(np.int32)
    return LabelImage(numbers[out], lattice), seen


def _vessels(anatomy: Anatomy, vessels: VesselTubes) -> tuple[LabelImage, Table]:
    """Labels of the filled vessels, and their true sizes."""
    import shapely

    labels, seen = _painted(anatomy.lattice(LABELS_UM), vessels.line_um, vessels.outer_um)
    outer, area = vessels.outer_um, vessels.area_um2
    centre, spread = _moments(vessels.line_um, outer, np.pi * outer**2 / area)
    small, large = np.linalg.eigvalsh(spread).T
    hull = shapely.convex_hull(shapely.linestrings(vessels.line_um))
    around = shapely.length(hull) * np.where(shapely.area(hull) > 0, 1.0, 2.0)
    hull_area = shapely.area(hull) + around * outer + np.pi * outer**2
    lumen = 2 * vessels.lumen_um * vessels.length_um + np.pi * vessels.lumen_um**2
    columns = {
        **_shapes(centre, area, large, small, vessels.perimeter_um),
        "solidity": np.minimum(area / hull_area, 1.0),
        "wall_area_um2": area - lumen,
        "lumen_area_um2": lumen,
    }
    return labels, _table(columns, seen, REFERENCE)


def _moments(
    line: FloatArray, radius: FloatArray, ends: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Centroids (n, 2) and second moments (n, 2, 2), in µm, of bent tubes with round ends.

    *line* are (n, k, 2) centre lines; *ends* is the share (n,) of the area in the two half discs.
    """
    steps = np.diff(line, axis=1)
    length = np.linalg.norm(steps, axis=2)
    share = (length + 1e-9) / (length + 1e-9).sum(axis=1, keepdims=True)
    along = steps / (length + 1e-9)[..., None]
    middle = (line[:, 1:] + line[:, :-1]) / 2
    deep = 4 * radius / (3 * np.pi)  # centroid of a half disc
    tips = line[:, [0, -1]] + np.stack([-along[:, 0], along[:, -1]], axis=1) * deep[:, None, None]
    rest = 1 - ends
    centre = rest[:, None] * (share[..., None] * middle).sum(axis=1)
    centre += ends[:, None] * tips.mean(axis=1)

    def outer_sum(weight: FloatArray, points: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("nk,nki,nkj->nij", weight, points, points), float)

    body = rest[:, None] * share
    spread = outer_sum(body, middle - centre[:, None]) + outer_sum(body / 12, steps)
    spread -= outer_sum(body * (radius**2 / 3)[:, None], along)
    half = np.repeat(ends[:, None] / 2, 2, axis=1)
    spread += outer_sum(half, tips - centre[:, None])
    spread -= outer_sum(half * (deep**2)[:, None], along[:, [0, -1]])
    spread += (radius**2 * (rest / 3 + ends / 4))[:, None, None] * np.eye(2)
    return centre, spread


def _nuclei(anatomy: Anatomy, nuclei: Nuclei) -> tuple[LabelImage, Table]:
    """Labels of the nuclei of the H&E section, and their true sizes; no label shows chromatin."""
    semi, centre = nuclei.semi_um, nuclei.centre_um
    reach = nuclei.along * (semi[:, :1] - semi[:, 1:])
    line = np.stack([centre - reach, centre, centre + reach], axis=1)
    labels, seen = _painted(_in_frame(anatomy.lattice(LABELS_UM), "he"), line, semi[:, 1])
    long, short = semi.T
    h = ((long - short) / (long + short)) ** 2
    perimeter = np.pi * (long + short) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))  # Ramanujan
    columns = _shapes(centre, np.pi * long * short, long**2 / 4, short**2 / 4, perimeter)
    columns["solidity"] = np.ones(len(nuclei))
    table = _table(columns, seen, "he")
    return labels, table.with_columns({}, about={"method": f"given by {GIVEN_BY}"})


def _shapes(
    centre: FloatArray, area: FloatArray, large: FloatArray, small: FloatArray, around: FloatArray
) -> dict[str, FloatArray]:
    """Columns (n,) of `measure_objects`, from true areas, second moments and perimeters, in µm."""
    return {
        "row_um": centre[:, 0],
        "column_um": centre[:, 1],
        "area_um2": area,
        "equivalent_diameter_um": 2 * np.sqrt(area / np.pi),
        "eccentricity": np.sqrt(1 - small / large),
        "major_axis_um": 4 * np.sqrt(large),
        "minor_axis_um": 4 * np.sqrt(small),
        "perimeter_um": around,
    }


def _table(columns: Mapping[str, FloatArray], rows: NDArray[np.bool_], frame: str) -> Table:
    """An object table of true sizes, with the units of `measure_objects`."""
    from napari_mosaik.features.morphology import OBJECT_UNITS

    units = {n: OBJECT_UNITS.get(n, "µm²" if n.endswith("_um2") else "1") for n in columns}
    about = dict.fromkeys(columns, f"of the true object, given by {GIVEN_BY}")
    return Table(_rounded(columns), units, about, frame).rows(rows)


def _rounded(columns: Mapping[str, FloatArray]) -> dict[str, NDArray[np.float32]]:
    return {name: np.round(values, 3).astype(np.float32) for name, values in columns.items()}


def _cells(nuclei: Nuclei, classes: Raster) -> Table:
    """The cells of the CAIX section with the true density of their membranes."""
    density = nuclei.membrane_od / np.log(10.0)
    columns = {
        "row_um": nuclei.centre_um[:, 0],
        "column_um": nuclei.centre_um[:, 1],
        "membrane_od10": density,
    }
    table = Table(
        _rounded(columns),
        {"row_um": "µm", "column_um": "µm", "membrane_od10": "OD10"},
        {
            "row_um": "centroid of the nucleus, row",
            "column_um": "centroid of the nucleus, column",
            "membrane_od10": f"true DAB density of the membrane, base 10, given by {GIVEN_BY}",
            "grade": "0 negative, 1 weak, 2 moderate, 3 strong.",
            "tumour": "the cell's nucleus lies in neoplastic tissue",
        },
        "caix",
    )
    return table.with_columns(
        {
            "grade": caix_grades(density).astype(np.int8),
            "tumour": codes_at(classes, nuclei.centre_um) == NEOPLASTIC,
        }
    )
