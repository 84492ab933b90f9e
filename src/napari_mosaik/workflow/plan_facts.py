"""What a therapeutic plan takes from a case: uptake, patient, weights, vessels and time course.

    stored results ─► `TileFacts`: uptake, weight and distance to vessels of each tile
    + injection record, the plan's own files ─► `PlanFacts`: errors of the uptake, time course
    ─► `iter_plan_dose`, and a record of every constant with its source

What the case lacks is a sentence in `missing`; a doubt is one in `warnings`; what the plan asks for
and the case cannot give is an `InputError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CORRECTED_VESSELS,
    PARAMETERS,
    PREDICTION,
    PREDICTION_RECORD,
    REFERENCE,
    SUV,
    SUV_RECORD,
    TILE_KINETICS,
    TILES,
    TISSUE,
    UPTAKE,
)
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.pet_records import InjectionRecord
from napari_mosaik.core.progress import checkpoint, part_of_item, reach_of_item
from napari_mosaik.core.table import Table
from napari_mosaik.core.text import counted
from napari_mosaik.core.tiles import TileGrid
from napari_mosaik.dosimetry import curve_level
from napari_mosaik.kinetics import CURVE_NAMES, TILE_TIMES_H, curve_columns
from napari_mosaik.register import registration_error, transform_of
from napari_mosaik.uptake import du_bois_bsa_m2, tile_uptake
from napari_mosaik.uptake.suv import body_measure
from napari_mosaik.workflow.plan_record import TWIN_SOURCE
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.workflow.plan_dose import PlanResult, TileUptake
    from napari_mosaik.workflow.plan_record import Plan

__all__ = ["NEOPLASTIC_AREA", "SHRINKAGE", "PlanFacts", "TileFacts", "tile_weight"]

T = TypeVar("T")
NEOPLASTIC_AREA: Final = "neoplastic area"
"""The weight of a tile in indices, in words, where tissue classes are known."""
SHRINKAGE: Final = 0.886
"""Length on a section of one length in fresh renal tumour (Tran et al. 2015, J Cancer 6:759)."""
_SHIFTS: Final = 64
_FIELDS_AT_ONCE: Final = 125
_DRAWN: Final = 0.25
"""Share of the time of `PlanFacts` (fraction of 1) when the errors of the uptake are drawn."""
_DISTANCE_PIXEL_UM: Final = 4.0


class ResultReader(Protocol):
    """Where results of a case are read from."""

    def has(self, entry: Artifact[Any]) -> bool:
        """Whether the case has it."""

    def read(self, artifact: Artifact[T]) -> T:
        """The result."""

    def why_not(self, artifact: Artifact[Any]) -> str:
        """Why it is not there; empty where that is not known."""


class TileFacts:
    """Uptake, tissue and vessels of the tiles, as a plan takes them.

    Attributes
    ----------
    missing
        What was not available, one sentence each.
    warnings
        Doubts, one sentence each.
    """

    def __init__(self, inputs: ResultReader, plan: Plan) -> None:
        self._tiles, self._plan = inputs, plan
        self.missing: list[str] = []
        self.warnings: list[str] = []

    def suv(self) -> tuple[FloatArray, str, str]:
        """SUV (n,), its unit, and whether it is predicted or measured."""
        inputs, wanted = self._tiles, self._plan.uptake
        there = {"predicted": inputs.has(PREDICTION), "measured": inputs.has(UPTAKE)}
        which = wanted
        if which == "best":
            which = "predicted" if there["predicted"] else "measured"
            if which == "measured" and (reason := inputs.why_not(PREDICTION)):
                self.warnings.append(
                    f"there is no prediction, so the measured uptake counts: {reason}"
                )
        if not there[which]:
            raise InputError(
                f"plan '{self._plan.name}' asks for the {which} uptake, which the case does not "
                "have; run that step, or choose the other one"
            )
        table = inputs.read(PREDICTION if which == "predicted" else UPTAKE)
        values = np.asarray(table["suv"], float)
        if which == "measured" and self._plan.courses:
            self.warnings.append(
                "the measured uptake is blurred by the PET, so cold tiles look warmer and hot ones "
                "colder than they are: tumour control is overstated"
            )
            if self._plan.kernel != "local":
                self.warnings.append(
                    "the kernel blurs again a map that the PET has blurred already"
                )
        below = int((values < 0).sum())
        if below:
            self.warnings.append(
                f"{counted(below, 'tile has', 'tiles have')} a negative SUV, which counts as 0"
            )
        return np.maximum(values, 0.0), table.unit("suv"), which

    def weight(self) -> tuple[FloatArray, str]:
        """(n,) neoplastic share of each tile's area, and what it is, in words."""
        inputs = self._tiles
        table = inputs.read(PARAMETERS) if inputs.has(PARAMETERS) else None
        weight, words = tile_weight(inputs.read(TILES), table)
        if words != NEOPLASTIC_AREA:
            self.missing.append(
                "no tissue classes: indices count all tissue, not neoplastic tissue"
            )
        return weight, words

    def distances(self) -> FloatArray:
        """(n, j) share of each tile's tissue in each class of distance to the nearest vessel."""
        from napari_mosaik.features import vessel_distance_shares
        from napari_mosaik.workflow.plan_dose import distance_edges_um

        inputs = self._tiles
        found = None
        # the distance counts in living tissue, like every length of transport
        edges = distance_edges_um() * self.living_scale()[0]
        if inputs.has(CORRECTED_VESSELS) and inputs.has(TISSUE[REFERENCE]):
            vessels = inputs.read(CORRECTED_VESSELS).coarser(_DISTANCE_PIXEL_UM)
            tissue = inputs.read(TISSUE[REFERENCE])
            found = vessel_distance_shares(inputs.read(TILES), vessels, edges, tissue)
            if np.isfinite(found).any():
                return found
        words = "no distance to vessels: hypoxic share and oxygen effect are not known"
        if self._plan.oxygen:
            raise InputError(f"plan '{self._plan.name}' counts oxygen, but the case has {words}")
        self.missing.append(words)
        return np.full((len(inputs.read(TILES)), edges.size - 1), np.nan)

    def living_scale(self) -> tuple[float, str]:
        """Length on the section of one length in living tissue, and where it is from."""
        if self._tiles.has(ALIGNMENT["pet"]):
            scale = float(transform_of(self._tiles.read(ALIGNMENT["pet"])).scale)
            return scale, "registration of the PET (fresh specimen to section)"
        return SHRINKAGE, "shrinkage of renal tumours: Tran et al. 2015, J Cancer 6:759"


class PlanFacts(TileFacts):
    """What a plan needs of a case: uptake, patient, weights, vessels and time course.

    Attributes
    ----------
    uptake
        For `iter_plan_dose`.
    record
        What was used, JSON-able.
    """

    def __init__(self, inputs: StepContext, plan: Plan, files: Mapping[str, Path]) -> None:
        from napari_mosaik.workflow.plan_dose import TileUptake

        super().__init__(inputs, plan)
        self._inputs = inputs
        self._constants: list[tuple[str, Any, str]] = []
        self._curve_draws: FloatArray | None = None
        if plan.antibody_mg is not None:
            self.missing.append(
                f"the antibody mass of {plan.antibody_mg:g} mg enters the virtual cohort only: "
                "tiles follow the tracer"
            )
        grid = inputs.read(TILES)
        suv, unit, which = self.suv()
        patient = self._patient()
        kind, lean = self._kind(unit)
        measure = body_measure(patient, kind, lean)
        surface = self._surface(patient)
        time_h, shape, course = self._time_course(files)
        scale, scale_from = self.living_scale()
        with part_of_item(0.0, _DRAWN):
            errors, error_words = self._errors(which, suv)
        weight, weight_words = self.weight()
        with part_of_item(_DRAWN, 1.0):
            distances = self.distances()
        self.uptake: TileUptake = TileUptake(
            suv,
            errors,
            measure,
            surface,
            weight,
            distances,
            time_h,
            shape,
            grid,
            scale,
            self._curve_draws,
        )
        words = {"bsa": "body surface, cm²", "bw": "body weight, g", "lbm": "lean body mass, g"}
        self._constants += [
            ("suv_kind", kind, f"SUV per {words[kind]}"),
            ("body_measure", measure, "injection record"),
            *([("body_surface_m2", surface, "Du Bois")] if surface is not None else []),
            ("living_scale", scale, scale_from),
        ]
        known = np.isfinite(suv)
        self.record: dict[str, Any] = {
            "uptake": which,
            "suv_unit": unit,
            "n_tiles": int(known.sum()),
            "n_without_uptake": int((~known).sum()),
            "weight": weight_words,
            "error_fields": error_words,
            "time_course_shape": course,
        }

    # --- uptake ---------------------------------------------------------------------------------
    def _terms(self) -> dict[str, Any]:
        """Terms of the SUV as they were used, by name; empty without a PET."""
        if not self._inputs.has(SUV_RECORD):
            return {}
        terms = self._inputs.read(SUV_RECORD).get("terms", ())
        return {term["name"]: term["value"] for term in terms}

    def _patient(self) -> InjectionRecord:
        """The injection record, completed by the terms that the SUV was computed with."""
        given = self._inputs.injection()
        fields = ("weight_kg", "height_cm", "sex", "injected", "excised", "scanned")
        terms = {k: v for k, v in self._terms().items() if k in fields and v is not None}
        stated = given.model_dump(exclude_unset=True, exclude_none=True)
        return InjectionRecord.model_validate({**stated, **terms})

    def _kind(self, unit: str) -> tuple[Any, Any]:
        """Kind of the SUV and formula of the lean mass."""
        lean, kind = "janmahasatian", ""
        if self._inputs.has(SUV_RECORD):
            kind = str(self._inputs.read(SUV_RECORD).get("kind", ""))
            params = self._inputs.record(SUV_RECORD).get("params", {})
            lean = str(params.get("lean_formula", lean))
        if unit == "cm²/mL":
            return "bsa", lean
        if kind in ("bw", "lbm"):
            return kind, lean
        raise InputError(
            f"the uptake is an SUV in {unit}, and no PET of the case says by which body "
            "measure; use a predictor that was trained on SUV by body surface"
        )

    def _surface(self, patient: InjectionRecord) -> float | None:
        needed = any(course.unit == "MBq/m2" for course in self._plan.courses)
        if patient.weight_kg is not None and patient.height_cm is not None:
            return float(du_bois_bsa_m2(patient.weight_kg, patient.height_cm))
        if needed:
            body_measure(patient, "bsa")  # names what is missing
        return None

    def _errors(self, which: str, suv: FloatArray) -> tuple[Any, str]:
        """Error fields (k, n), SUV, and what they are, in words."""
        if not self._plan.spreads.uptake:
            return None, "none: switched off in the plan"
        return self._prediction_errors() if which == "predicted" else self._shifted(suv)

    def _prediction_errors(self) -> tuple[Any, str]:
        from napari_mosaik.predictor import draw_errors

        record = self._inputs.read(PREDICTION_RECORD)
        calibrated = record.get("intervals")
        if not calibrated:
            self.missing.append(
                "the predictor was not calibrated, so the error of the predicted uptake is not "
                "among the draws and every interval is too narrow"
            )
            self.warnings.append(self.missing[-1])
            return None, "none: the predictor was not calibrated"
        width = float(record["target"]["high"]) - float(record["target"]["low"])
        grid, plan = self._inputs.read(TILES), self._plan
        found = np.empty((plan.draws, len(grid)), np.float32)
        for start in range(0, plan.draws, _FIELDS_AT_ONCE):
            stop = min(start + _FIELDS_AT_ONCE, plan.draws)
            seed = plan.seed * 1_000_003 + start
            fields = draw_errors(
                calibrated["fields"], grid.cells, grid.lattice.spacing_um, stop - start, seed
            )
            found[start:stop] = width * fields
            checkpoint()
            reach_of_item(stop / plan.draws)
        if calibrated.get("notes"):
            self.warnings.append(f"error of the prediction: {calibrated['notes'][0]}")
        words = "whole error fields of the prediction, from its calibration on held-out cases"
        return found, words

    def _shifted(self, suv: FloatArray) -> tuple[Any, str]:
        """Change of the measured uptake when the PET lies elsewhere within its error."""
        inputs = self._inputs
        if not (inputs.has(SUV) and inputs.has(ALIGNMENT["pet"])):
            self.missing.append("the registration of the PET is not known: no draw moves it")
            return None, "none: the registration of the PET is not known"
        grid, raster, document = inputs.read(TILES), inputs.read(SUV), inputs.read(ALIGNMENT["pet"])
        place, frame = transform_of(document), grid.lattice.frame
        voxel_um = max(raster.lattice.spacing_um) * place.scale
        error = registration_error(document, voxel_um, "own")
        rng = np.random.default_rng([self._plan.seed, 101])
        count = min(_SHIFTS, self._plan.draws)
        found = np.empty((count, len(grid)), np.float32)
        for row, (down, right) in enumerate(rng.standard_normal((count, 2)) * error["sd_um"]):
            shift = Transform.similarity(frame, frame, shift_um=(float(down), float(right)))
            found[row] = tile_uptake(raster, grid, place.then(shift)) - suv
            checkpoint()
            reach_of_item((row + 1) / count)
        beyond = int((np.isnan(found).any(axis=0) & np.isfinite(suv)).sum())
        if beyond:
            self.warnings.append(
                f"{counted(beyond, 'tile leaves', 'tiles leave')} the PET in some of its "
                "shifts; there their uptake counts as measured, so their intervals are too narrow"
            )
        return np.nan_to_num(found), (
            f"{count} shifts of the PET within the error of its registration, SD "
            f"{error['sd_um']:.0f} µm from {error['from']}"
        )

    # --- time course ----------------------------------------------------------------------------
    def _measured_at_h(self, patient: InjectionRecord) -> float:
        """Time of the measured or predicted uptake, h after injection: excision, else scan."""
        end = patient.excised or patient.scanned
        if patient.injected is None or end is None:
            lacking = "injected" if patient.injected is None else "excised"
            raise InputError(
                f"plan '{self._plan.name}': the time course needs the time of the uptake; give "
                f"{lacking} with date and time, or use the shape 'constant'"
            )
        if (patient.injected.tzinfo is None) != (end.tzinfo is None):
            raise InputError("injection and excision: only one of them has a time zone")
        hours = (end - patient.injected).total_seconds() / 3600
        if not hours > 0:
            raise InputError(f"the uptake lies {hours:g} h after the injection; correct the times")
        return hours

    def _time_course(self, files: Mapping[str, Path]) -> tuple[FloatArray, FloatArray, Any]:
        """Times (m,), h, decay-corrected shape (1 or n, m) at them, and a record of it.

        Draws of a shape that is common to all tiles are kept as well, each 1 at the uptake's time.
        """
        plan = self._plan
        if plan.shape == "constant":
            self._constants.append(
                ("rise_h", plan.rise_h, "straight rise, then constant but for decay; assumption")
            )
            shape = {"kind": "constant", "rise_h": plan.rise_h}
            return np.array([plan.rise_h]), np.ones((1, 1)), shape
        at_h = self._measured_at_h(self._patient())
        self._constants.append(("uptake_at_h", at_h, "injection record: excision, else scan"))
        if plan.shape == "tile":
            return self._tile_shape(at_h)
        from napari_mosaik.workflow.dose import read_time_course

        time_h, curve, drawn = read_time_course(files["shape"])
        times = np.array(time_h)
        curves = np.array([curve]) if drawn is None else np.concatenate([[curve], drawn])
        level = curve_level(times, curves, at_h)
        if not (level > 0).all():
            where = f" in draw {np.argmin(level)}" if level[0] > 0 else ""
            raise InputError(
                f"{files['shape'].name}: no activity at {at_h:.4g} h, the uptake's time{where}"
            )
        shapes, course = curves / level[:, None], {"kind": "file", "uptake_at_h": at_h}
        if drawn is not None:
            self._curve_draws = shapes[1:]
            course |= self._drawn_course(files["shape"].name, len(drawn))
        return times, shapes[:1], course

    def _drawn_course(self, file: str, n: int) -> dict[str, Any]:
        """Number and origin of drawn time courses, for the record."""
        plan = self._plan
        source = next((one for one in plan.sources if one.startswith(TWIN_SOURCE)), file)
        self._constants.append(("time_course_draws", n, source))
        if plan.spreads.time_course > 0:
            self.warnings.append(
                f"the time course is drawn from {n} curves, and its spread of "
                f"{plan.spreads.time_course:g} is added; set it to 0 if the curves already hold "
                "the whole uncertainty"
            )
        return {"n_draws": n, "from": source}

    def _tile_shape(self, at_h: float) -> tuple[FloatArray, FloatArray, Any]:
        if not self._inputs.has(TILE_KINETICS):
            raise InputError(
                f"plan '{self._plan.name}' asks for the curve of each tile, which the case does "
                "not have; run 'tile_kinetics', or use the shape 'constant'"
            )
        table = self._inputs.read(TILE_KINETICS)
        times = np.array(TILE_TIMES_H)
        curves = sum(
            (table.matrix(curve_columns(name)) for name in CURVE_NAMES), np.zeros((1, times.size))
        )
        level = curve_level(times, curves, at_h)
        usable = np.isfinite(curves).all(axis=1) & (np.nan_to_num(level) > 0)
        if not usable.any():
            raise InputError(
                f"plan '{self._plan.name}': no tile has a delivery curve; use the shape 'constant'"
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            shape = curves / level[:, None]
        shape[~usable] = np.median(shape[usable], axis=0)
        lost = int((~usable).sum())
        if lost:
            self.warnings.append(
                f"{counted(lost, 'tile has', 'tiles have')} no delivery curve of their own "
                "(no vessel, or CAIX not measured); they follow the median of the others"
            )
        return times, shape, {"kind": "tile", "uptake_at_h": at_h, "n_median_shape": lost}

    # --- constants ------------------------------------------------------------------------------
    def constants(self, result: PlanResult) -> list[dict[str, Any]]:
        """Every constant with value and source."""
        from napari_mosaik.workflow.plan_dose import constant_rows

        rows = [*constant_rows(self._plan), *self._constants, *result.constants]
        return [{"name": name, "value": value, "source": source} for name, value, source in rows]


def tile_weight(grid: TileGrid, parameters: Table | None) -> tuple[FloatArray, str]:
    """(n,) share of each tile's area that counts in indices, dimensionless, and what it is.

    Neoplastic tissue; all tissue where the tile parameters know none.
    """
    coverage = np.asarray(grid.coverage, float)
    if parameters is not None and "neoplastic_fraction" in parameters:
        share = np.nan_to_num(np.asarray(parameters["neoplastic_fraction"], float)) * coverage
        if (share > 0).any():
            return share, NEOPLASTIC_AREA
    return coverage, "tissue area"
