"""What the dose what-if exchanges with other programs: results, Monte Carlo, doses of organs.

plan of a case ──write_activity──► NIfTI (Bq/mL, lengths of living tissue) + JSON
dose of a Monte Carlo program (NIfTI, Gy) ──compare_dose──► indices of both
plan ─► folder of tiles.csv (units in the header, limitations above it), maps and record.json
organs.csv (mGy/MBq, or time-integrated activity x S) ──organ_limits──► largest activity
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from napari_mosaik.core import Raster, Table
from napari_mosaik.core.catalogue import DOSE, DOSE_RECORD, PARAMETERS, TILES
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.text import nearest, read_text
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.dosimetry import NUCLIDES, dose_volume, plan_activity
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import saving, write_bytes, write_json
from napari_mosaik.io.store import write_raster
from napari_mosaik.workflow.plan_facts import tile_weight

__all__ = [
    "ORGAN_COLUMNS",
    "OrganTable",
    "compare_dose",
    "organ_limits",
    "read_organ_table",
    "write_activity",
    "write_dose",
]

ORGAN_COLUMNS: Final = (
    ("organ", "mgy_per_mbq", "limit_gy"),
    ("organ", "tia_h", "s_mgy_per_mbq_h", "limit_gy"),
)
"""Headers of a table of organs; a last column ``cv`` may follow: its coefficient of variation."""
_SAME: Final = 0.01
_DRAWS: Final = 10_000


def _plan(case: Case, name: str) -> Mapping[str, Any]:
    """The record of a plan of a case that was run."""
    plans: Mapping[str, Any] = case.store.read(DOSE_RECORD)["plans"]
    if name not in plans:
        raise InputError(f"there is no plan {name!r} with results; {nearest(name, plans)}")
    found: Mapping[str, Any] = plans[name]
    return found


def _nuclide(name: str, plan: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(course["nuclide"] for course in plan["plan"]["courses"]))
    if len(names) != 1:
        given = ", ".join(names) or "external beam only"
        raise InputError(
            f"plan '{name}' has {len(names)} nuclides ({given}); this needs a plan of one nuclide"
        )
    return str(names[0])


def _voxel_mm(grid: TileGrid, plan: Mapping[str, Any]) -> tuple[float, float]:
    """Distance of neighbouring tiles (row, column) in living tissue, mm."""
    scale = next(row["value"] for row in plan["constants"] if row["name"] == "living_scale")
    rows, columns = grid.lattice.spacing_um
    return rows / scale / 1e3, columns / scale / 1e3


def write_activity(case: Case, name: str, path: Path) -> dict[str, Any]:
    """Write the activity of a plan as NIfTI for a Monte Carlo program, with a JSON beside it.

    The value of a tile is the activity at time 0, Bq/mL, that by physical decay alone gives as
    many decays as all courses together (median of the draws).  One slice, one voxel per tile, as
    thick as a tile is wide; 0 outside.  Lengths are those of living tissue.

    Returns
    -------
    dict
        What the JSON states: unit, nuclide, half-life, voxel size, and what the values mean.

    Raises
    ------
    InputError
        If the plan has no results or several nuclides, or the file is no ``.nii``.
    """
    if path.suffix.lower() != ".nii":
        raise InputError(f"'{path.name}' is not a .nii file: change its name")
    plan = _plan(case, name)
    own = NUCLIDES[_nuclide(name, plan)]
    grid, table = case.store.read(TILES), case.store.read(DOSE)
    decays = np.asarray(table[f"{name}.tia_mbq_h_ml_50"], float) * 1e6  # Bq h/mL
    values = np.nan_to_num(grid.paint(decays * math.log(2) / own.half_life_h).values)
    row_mm, column_mm = _voxel_mm(grid, plan)
    write_bytes(path, nifti_bytes(np.asarray(values, float), (column_mm, row_mm, row_mm)))
    stated = {
        "unit": "Bq/mL",
        "nuclide": own.name,
        "half_life_h": own.half_life_h,
        "voxel_mm": {"column": column_mm, "row": row_mm, "thickness": row_mm},
        "meaning": "activity at time 0 that by physical decay alone gives as many decays as all "
        "courses of the plan together; median of the draws",
        "lengths": "living tissue: those of the section divided by the scale of the record",
        "plan": name,
        "case": case.name,
        "limitations": list(case.store.read(DOSE_RECORD)["limitations"]),
    }
    write_bytes(path.with_suffix(".json"), (json.dumps(stated, indent=1) + "\n").encode())
    return stated


def nifti_bytes(
    values: FloatArray, voxel_mm: tuple[float, float, float], *, placed: bool = False
) -> bytes:
    """A NIfTI-1 file of one slice (rows, columns) in Bq/mL, Gy or SUV; sizes in mm.

    With *placed* it says where its voxels lie (sform): x along the columns, y against the rows,
    from the upper left corner of the map on.
    """
    head = np.zeros(1, _HEADER)
    head["size"], head["datatype"], head["bits"] = 348, 16, 32
    head["dim"][0] = (3, values.shape[1], values.shape[0], 1, 1, 1, 1, 1)
    head["pixdim"][0] = (1.0, *voxel_mm, 0.0, 0.0, 0.0, 0.0)
    head["offset"], head["slope"], head["units"], head["magic"] = 352.0, 1.0, 2, b"n+1"
    if placed:
        wide, high, deep = voxel_mm
        head["sform"] = 2  # aligned, not in a scanner
        head["srow"][0] = [wide, 0, 0, wide / 2, 0, -high, 0, -high / 2, 0, 0, deep, 0]
    return head.tobytes() + bytes(4) + np.ascontiguousarray(values, "<f4").tobytes()


_HEADER: Final = np.dtype(
    {
        "names": [
            "size", "dim", "datatype", "bits", "pixdim", "offset", "slope", "units", "sform",
            "srow", "magic",
        ],
        "formats": [
            "<i4", ("<i2", 8), "<i2", "<i2", ("<f4", 8), "<f4", "<f4", "u1", "<i2", ("<f4", 12),
            "S4",
        ],
        "offsets": [0, 40, 70, 72, 76, 108, 112, 123, 254, 280, 344],
        "itemsize": 348,
    }
)  # fmt: skip


def compare_dose(case: Case, name: str, path: Path) -> dict[str, Any]:
    """Indices of a dose map from a Monte Carlo program beside those of the plan's median map.

    Parameters
    ----------
    case, name
        The case, and the plan whose activity the program was given.
    path
        NIfTI of one slice on the voxels of `write_activity`, Gy.

    Returns
    -------
    dict
        ``monte_carlo`` and ``plan``: D98, D50, D2 and mean, Gy, by the ``weight`` of the plan's
        indices; ``mean_ratio``; ``largest_gy``: the largest difference of a tile, Gy; ``n_tiles``.

    Raises
    ------
    InputError
        If the image has other voxels, holds negative values, or no tile is in both maps.
    """
    from napari_mosaik.io.pet.nifti import NiftiSeries

    plan = _plan(case, name)
    grid, table = case.store.read(TILES), case.store.read(DOSE)
    try:
        series = NiftiSeries(path)
        image = series.image(0, 0).raster
    except InputError as error:
        words = str(error).replace("as PET", "as a dose map, which is a NIfTI in Gy")
        raise InputError(words) from error
    shape, wanted = image.values.shape, grid.lattice.shape
    if shape != wanted or series.n_slices != 1:
        raise InputError(
            f"{path.name} has {series.n_slices} slices of {shape[0]} x {shape[1]} voxels, the "
            f"activity map one of {wanted[0]} x {wanted[1]}; give the dose on its voxels"
        )
    sizes, expected = image.lattice.spacing_um, [1e3 * mm for mm in _voxel_mm(grid, plan)]
    if any(abs(a / b - 1) > _SAME for a, b in zip(sizes, expected, strict=True)):
        raise InputError(
            f"{path.name} has voxels of {sizes[0]:.4g} x {sizes[1]:.4g} µm, the activity map of "
            f"{expected[0]:.4g} x {expected[1]:.4g} µm; give the dose on its voxels, in mm"
        )
    given = np.asarray(image.values, float)[grid.cells[:, 0], grid.cells[:, 1]]
    if (given < 0).any():
        raise InputError(f"{path.name} holds negative doses, down to {np.nanmin(given):g} Gy")
    own = sum(
        np.asarray(table[f"{name}.{part}_50"], float) for part in ("dose_gy", "alpha_particle_gy")
    )
    both = np.isfinite(given) & np.isfinite(own)
    if not both.any() or not given[both].any():
        raise InputError(f"{path.name} holds no dose in the tiles of the plan")
    known = case.store.origin(PARAMETERS) is not None
    weight, words = tile_weight(grid, case.store.read(PARAMETERS) if known else None)
    found: dict[str, Any] = {
        "plan_name": name,
        "file": path.name,
        "n_tiles": int(both.sum()),
        "weight": words,
    }
    for key, dose in (("plan", own), ("monte_carlo", given)):
        histogram = dose_volume(np.where(both, dose, np.nan), weight)
        d98, d50, d2 = (float(value) for value in histogram.dose_at([98, 50, 2]))
        found[key] = {"d98_gy": d98, "d50_gy": d50, "d2_gy": d2, "mean_gy": histogram.mean_gy}
    means = found["monte_carlo"]["mean_gy"], found["plan"]["mean_gy"]
    found["mean_ratio"] = means[0] / means[1] if means[1] > 0 else None
    found["largest_gy"] = float(np.abs(given - own)[both].max())
    return found


def organ_limits(case: Case, name: str, path: Path) -> dict[str, Any]:
    """What a user's table of organs says about the activity of a plan; no recommendation.

    Parameters
    ----------
    case, name
        The case, and a plan of one nuclide, whose coefficients the table holds.
    path
        CSV with one of `ORGAN_COLUMNS`, and ``cv`` if the coefficients are uncertain: lognormal,
        organ by organ, 10,000 draws.

    Returns
    -------
    dict
        ``organs`` with dose of the whole plan, Gy, limit and share of the limit; ``largest_mbq``
        with the ``organ`` that limits it; ``confident_mbq``: what meets all limits together in 95 %
        of the draws; ``plan_mbq``: total of the plan.

    Raises
    ------
    InputError
        For another header, values that are not possible, or a plan of several nuclides.
    """
    plan = _plan(case, name)
    nuclide = _nuclide(name, plan)
    total = sum(float(row["value"]) for row in plan["constants"] if row["name"] == f"{nuclide} mbq")
    table = read_organ_table(path)
    limits, coefficients = table.limits_gy, table.gy_per_mbq
    rng = np.random.default_rng(plan["plan"]["seed"])
    drawn = {
        organ: table.drawn_gy_per_mbq(organ, rng.standard_normal(_DRAWS))
        if any(table.cvs.values())
        else value
        for organ, value in coefficients.items()
    }
    try:
        found = plan_activity(limits, drawn)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    return {
        "plan_name": name,
        "nuclide": nuclide,
        "file": path.name,
        "plan_mbq": total,
        "organs": [
            {
                "organ": organ,
                "gy": total * value,
                "limit_gy": limits[organ],
                "share_of_limit": total * value / limits[organ],
            }
            for organ, value in coefficients.items()
        ],
        "largest_mbq": found.activity_mbq,
        "organ": found.organ,
        "confident_mbq": found.confident_mbq,
    }


@dataclass(frozen=True, slots=True)
class OrganTable:
    """Limits, Gy, coefficients, Gy/MBq, and their coefficients of variation, by organ."""

    limits_gy: Mapping[str, float]
    gy_per_mbq: Mapping[str, float]
    cvs: Mapping[str, float]

    def drawn_gy_per_mbq(self, organ: str, normal: FloatArray) -> FloatArray:
        """(n,) lognormal coefficients of an organ, Gy/MBq, of standard normal numbers (n,)."""
        sd = math.sqrt(math.log1p(self.cvs[organ] ** 2))
        return np.asarray(self.gy_per_mbq[organ] * np.exp(sd * normal), float)


def read_organ_table(path: Path) -> OrganTable:
    """A table of the organs of one nuclide, a CSV with one of `ORGAN_COLUMNS`.

    Raises
    ------
    InputError
        For another header, or values that are not possible.
    """
    rows = [row for row in csv.reader(read_text(path).splitlines()) if any(c.strip() for c in row)]
    header = tuple(cell.strip() for cell in rows[0]) if rows else ()
    kind = header[:-1] if header and header[-1] == "cv" else header
    if kind not in ORGAN_COLUMNS:
        known = " or ".join(",".join(one) for one in ORGAN_COLUMNS)
        raise InputError(
            f"{path.name}: the header must be {known}, and cv may follow, not "
            f"{','.join(header) or 'empty'}"
        )
    limits: dict[str, float] = {}
    coefficients: dict[str, float] = {}
    cvs: dict[str, float] = {}
    for place, row in enumerate(rows[1:], 1):
        organ, numbers = _organ_row(row, header, f"{path.name}: row {place}, {','.join(row)!r}")
        if organ in limits:
            raise InputError(f"{path.name}: {organ!r} is listed twice")
        cvs[organ] = numbers.pop() if header[-1] == "cv" else 0.0
        limits[organ] = numbers.pop()
        coefficients[organ] = math.prod(numbers) / 1e3
    if not limits:
        raise InputError(f"{path.name} has a header but no organ")
    return OrganTable(limits, coefficients, cvs)


def _organ_row(row: list[str], header: tuple[str, ...], where: str) -> tuple[str, list[float]]:
    """Organ and numbers of a row of a table of organs, if they are possible."""
    cells = [cell.strip() for cell in row]
    try:
        numbers = [float(cell) for cell in cells[1:]]
    except ValueError:
        numbers = []
    if len(cells) != len(header) or not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"{where}, does not match the header")
    if not cells[0]:
        raise InputError(f"{where}, names no organ")
    cv = numbers[-1] if header[-1] == "cv" else 0.0
    *parts, limit = numbers[:-1] if header[-1] == "cv" else numbers
    if min(parts) < 0 or not limit > 0 or not 0 <= cv <= 2:
        raise InputError(f"{where}: coefficients must be 0 or more, limits above 0 Gy, cv 0 to 2")
    return cells[0], numbers


# --- results of a plan as files -------------------------------------------------------------------
def write_dose(
    folder: Path,
    grid: TileGrid,
    table: Table,
    maps: Mapping[str, Raster],
    record: Mapping[str, Any],
) -> None:
    """Write the tiles (n), the maps (rows, columns) in their units and the record of one plan.

    A missing value is an empty cell of the table and NaN in a map.

    Raises
    ------
    InputError
        If *folder* exists: nothing is written over.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another folder, or remove it")
    with saving("the results of the plan", folder.parent):
        folder.mkdir(parents=True)
        try:
            write_bytes(folder / "tiles.csv", _csv(grid, table, record).encode("utf-8"))
            for title, raster in maps.items():
                write_raster(folder / f"{title}.ome.zarr", raster, title)
            write_json(folder / "record.json", dict(record))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _csv(grid: TileGrid, table: Table, record: Mapping[str, Any]) -> str:
    """Comments with # first, then the header and a row for each tile."""
    text = io.StringIO(newline="")
    for line in (f"case {record['case']}, plan {record['name']}", *record["limitations"]):
        text.write(f"# {line}\n")
    writer = csv.writer(text, lineterminator="\n")
    units = [f" [{table.unit(c)}]" if table.unit(c) != "1" else "" for c in table]
    names = [f"{column}{unit}" for column, unit in zip(table, units, strict=True)]
    writer.writerow(["tile", "row_um", "column_um", *names])
    columns = [np.asarray(table[column], float) for column in table]
    for tile, centre in enumerate(grid.centres_um):
        values = ["" if np.isnan(c[tile]) else f"{c[tile]:.9g}" for c in columns]
        writer.writerow([tile, *(f"{float(x):.9g}" for x in centre), *values])
    return text.getvalue()
