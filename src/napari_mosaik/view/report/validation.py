"""The verification and validation sheet of a case: ten areas with status, result and evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from napari_mosaik.core import InputError, MosaikError
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CLUSTERS,
    DOSE_RECORD,
    KINETICS,
    KINETICS_RECORD,
    PARAMETERS,
    PREDICTION,
    PREDICTION_RECORD,
    STAIN_TITLES,
    SUV_RECORD,
    TILE_KINETICS,
    TILE_KINETICS_RECORD,
    TILES,
    UPTAKE,
    UPTAKE_SENSITIVITY,
)
from napari_mosaik.core.text import counted
from napari_mosaik.kinetics import ORDER
from napari_mosaik.twin.identify import PRIOR_ONLY
from napari_mosaik.twin.verification import RANK_LIMIT, SEQUENTIAL_LIMIT
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.formatting import baseline_title, number, percent, title_of
from napari_mosaik.view.kinetic_explorer import share_interval
from napari_mosaik.workflow.plan_dose import SOURCE_TITLES
from napari_mosaik.workflow.twin import IN_DOUBT_Z, CaseTwin, begun_twin

__all__ = ["AREAS", "SPACING_SOURCES", "SheetRow", "Status", "case_checks", "validation_sheet"]

Status = Literal["pass", "fail", "not available"]

AREAS: Final = (
    "Code verification",
    "Solution verification",
    "Conservation",
    "Data",
    "Validation",
    "Sensitivity",
    "Identifiability",
    "Uncertainty",
    "Domain of use",
    "Provenance",
)
"""The areas of the sheet, in order."""
_WHAT: Final = {
    "Code verification": "closed forms, manufactured solutions, order of convergence",
    "Solution verification": "grid, time step and tolerance",
    "Conservation": "antibody, mass, tile and object counts",
    "Data": "registration error, scale, reference SUV, units, dates",
    "Validation": "held-out blocks, slides and patients against baselines",
    "Sensitivity": "kinetic parameters; registration by one voxel",
    "Identifiability": "which parameters the imaging times determine",
    "Uncertainty": "coverage and width of the intervals",
    "Domain of use": "tracer, tumour, scanner, stain, pixel size, patients",
    "Provenance": "versions, random seeds, digests, settings, warnings",
}


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One line of the sheet.

    Parameters
    ----------
    area
        One of `AREAS`.
    status
        "pass", "fail" or "not available", which is not a pass.
    value
        The result as text with units.
    evidence
        Source of the result: step, file or test.
    """

    area: str
    status: Status
    value: str = ""
    evidence: str = ""

    @property
    def about(self) -> str:
        """Scope of the area."""
        return _WHAT[self.area]


def validation_sheet(rows: Iterable[SheetRow] = ()) -> tuple[SheetRow, ...]:
    """The sheet in order; areas without a row are "not available".

    An area may have several rows.

    Raises
    ------
    InputError
        An unknown area, or a "pass" or "fail" without a value.
    """
    given = tuple(rows)
    for row in given:
        if row.area not in AREAS:
            raise InputError(f"unknown area '{row.area}'; the areas are: {', '.join(AREAS)}")
        if row.status != "not available" and not row.value:
            raise InputError(f"'{row.area}' is '{row.status}' without a value")
    sheet: list[SheetRow] = []
    for area in AREAS:
        matching = [row for row in given if row.area == area]
        sheet += matching or [SheetRow(area, "not available", "", "not computed")]
    return tuple(sheet)


_LARGEST_ERROR_UM = 150.0


def case_checks(results: CaseResults) -> tuple[SheetRow, ...]:
    """The rows that the results of a case support; the other areas stay "not available"."""
    rows = [*_pixel_sizes(results), *_registration(results), *_suv(results)]
    rows += [*_counts(results), *_kinetics(results), *_delivery(results), *_shift(results)]
    rows += [*_validation(results), *_uncertainty(results), *_dose(results)]
    rows += _twin(begun_twin(results.case))
    return (*rows, *_domain(results), *_provenance(results))


SPACING_SOURCES: Final = {
    "header": "file header",
    "user": "entered manually",
    "profile": "scanner profile",
    "ruler": "ruler calibration",
}
"""Who gave the pixel size of a slide, in words."""


def _pixel_sizes(results: CaseResults) -> list[SheetRow]:
    """One row on the pixel sizes of the slides; every length and area depends on them."""
    known, unknown = [], []
    for stain, entry in results.case.file.slides.items():
        try:
            size = results.case.spacing_um(stain)
        except MosaikError as error:
            unknown.append(f"{STAIN_TITLES[stain]}: {error}")
            continue
        given = " ".join((SPACING_SOURCES[entry.spacing_source], entry.profile)).strip()
        shown = " x ".join(number(s) for s in dict.fromkeys(size))
        known.append(f"{STAIN_TITLES[stain]} {shown} µm ({given})")
    if not known and not unknown:
        return []
    if unknown:
        return [SheetRow("Data", "fail", "; ".join(unknown), "case.toml and the slides")]
    return [SheetRow("Data", "pass", f"pixel sizes: {', '.join(known)}", "case.toml")]


def _registration(results: CaseResults) -> list[SheetRow]:
    rows = []
    for frame, artifact in ALIGNMENT.items():
        record = results.get(artifact)
        if record is None:
            continue
        name = f"{STAIN_TITLES.get(frame, 'PET')} to CD34"
        error = (record.get("landmark_error_um") or {}).get("median")
        scale = f"scale {number(record.get('scale'))}"
        if error is None:
            value = f"{name}: no landmarks, error unknown; {scale}"
            rows.append(SheetRow("Data", "not available", value, f"result {artifact.name}"))
        else:
            value = f"{name}: landmark error {number(error, 'µm')} (median); {scale}"
            good = error < _LARGEST_ERROR_UM
            evidence = f"result {artifact.name}; the limit is {_LARGEST_ERROR_UM:.0f} µm"
            rows.append(SheetRow("Data", "pass" if good else "fail", value, evidence))
    return rows


def _suv(results: CaseResults) -> list[SheetRow]:
    record = results.get(SUV_RECORD)
    if record is None:
        return []
    value = f"SUV in {record.get('unit', 'unknown unit')}; all inputs are in the table"
    return [SheetRow("Data", "not available", value, "no reference value")]


def _counts(results: CaseResults) -> list[SheetRow]:
    grid = results.get(TILES)
    if grid is None:
        return []
    tables = {a.name: results.get(a) for a in (UPTAKE, PARAMETERS, CLUSTERS, PREDICTION)}
    sizes = {name: len(table) for name, table in tables.items() if table is not None}
    if not sizes:
        return []
    good = set(sizes.values()) == {len(grid)}
    listed = ", ".join(f"{title_of(name)} {size}" for name, size in sizes.items())
    value = f"{len(grid)} tiles; rows: {listed}"
    return [SheetRow("Conservation", "pass" if good else "fail", value, "rows of the tile tables")]


_ORDER_WITHIN, _SMALL = 0.2, 1e-6
_NARROW = 0.2
"""Width of the 95 % intervals of the Sobol indices up to which they are resolved."""


def _kinetics(results: CaseResults) -> list[SheetRow]:
    """Rows on the patient's curves; "not available" without their record, whatever the curves."""
    if not results.has(KINETICS):
        return []
    found = results.get(KINETICS_RECORD)
    areas = ("Code verification", "Solution verification", "Conservation", "Identifiability")
    if not found or "not_available" in found:
        why = found["not_available"] if found else "this result has no record; run Kinetics again"
        return [SheetRow(area, "not available", "", f"kinetics: {why}") for area in areas]
    checks, evidence = found["verification"], f"result {KINETICS_RECORD.name}"
    order, closed = checks["order"], checks["closed_form"]
    good = abs(order - ORDER) <= _ORDER_WITHIN and closed <= _SMALL
    code = (
        f"kinetics: observed order of convergence {order:.2f} (theory {ORDER}); deviation from the "
        f"closed form {number(closed)} of the antibody"
    )
    rows = [
        _row("Code verification", good, code, f"{evidence}; limits {_ORDER_WITHIN:g}, {_LIMIT}")
    ]
    change = checks["tolerance"]
    solution = f"kinetics: a tolerance 100 times smaller changes the curves by {number(change)}"
    rows.append(
        _row("Solution verification", change <= _SMALL, solution, f"{evidence}; limit {_LIMIT}")
    )
    table = results.read(KINETICS)
    total = sum(np.asarray(table[name], float) for name in ("free", "bound", "internalised"))
    error = max(checks["balance"], float(np.max(total)) - 1.0)
    balance = f"antibody in the curves and lost differs from that injected by {number(error)} of it"
    rows.append(_row("Conservation", error <= _SMALL, balance, f"{evidence}; limit {_LIMIT}"))
    return [*rows, _identified("patient", found, evidence)]


_LIMIT: Final = "10⁻⁶"


def _row(area: str, good: bool, value: str, evidence: str) -> SheetRow:
    return SheetRow(area, "pass" if good else "fail", value, evidence)


def _identified(model: str, record: Mapping[str, Any], evidence: str) -> SheetRow:
    """A pass only where the images determine every parameter of the model."""
    names = {
        known: ", ".join(p["label"] for p in record["parameters"] if p["determined"] is known)
        for known in (True, False)
    }
    times = ", ".join(f"{t:g}" for t in record["imaging_h"])
    value = (
        f"{model}, images at {times} h: determined {names[True] or 'nothing'}; prior only "
        f"{names[False] or 'nothing'}"
    )
    return _row(
        "Identifiability",
        not names[False],
        value,
        f"{evidence}; determined: images with an error of {percent(record['image_error'])} narrow "
        "the prior to half or less",
    )


def _delivery(results: CaseResults) -> list[SheetRow]:
    """Rows on the tiles' curves: shares of the variance, and what the images determine."""
    if not results.has(TILE_KINETICS):
        return []
    found = results.get(TILE_KINETICS_RECORD)
    if not found or "not_available" in found:
        why = found["not_available"] if found else "this result has no record; run the step again"
        areas = ("Sensitivity", "Identifiability")
        return [SheetRow(area, "not available", "", f"delivery per tile: {why}") for area in areas]
    evidence = f"result {TILE_KINETICS_RECORD.name}"
    sobol = found["sobol"]
    lasts = {name: sobol[name][-1] for name in ("total", "total_low", "total_high")}
    if any(value is None for values in lasts.values() for value in values):
        shares = SheetRow("Sensitivity", "not available", "", "the retained antibody does not vary")
    else:
        listed = ", ".join(
            f"{label} {share_interval(sobol, 'total', place)}"
            for place, label in enumerate(sobol["labels"])
        )
        widest = max(
            high - low for low, high in zip(lasts["total_low"], lasts["total_high"], strict=True)
        )
        shares = _row(
            "Sensitivity",
            widest <= _NARROW,
            f"share of the variance of the antibody retained at {found['imaging_h'][-1]:g} h, with "
            f"interactions: {listed}",
            f"{evidence}; Sobol, {sobol['samples']} samples; resolved: 95 % intervals up to "
            f"{_NARROW:g} wide",
        )
    return [shares, _identified("delivery per tile", found, evidence)]


def _dose(results: CaseResults) -> list[SheetRow]:
    """Rows on the dose what-if of each plan."""
    found = results.get(DOSE_RECORD)
    rows: list[SheetRow] = []
    evidence = f"result {DOSE_RECORD.name}"
    for name, own in ({} if found is None else found["plans"]).items():
        checks = own["verification"]
        value = (
            f"dose, plan {name}: repair of courses and fractions against quadrature "
            f"{number(checks['repair'])}"
        )
        if "integral" in checks:
            value += f", time-integrated activity {number(checks['integral'])}"
        where = f"{evidence}; limit {_LIMIT}; kernels: docs/dose.md, published values"
        rows.append(_row("Code verification", max(checks.values()) <= _SMALL, value, where))
        rows += _dose_shares(name, own["shares"], evidence)
        value = f"dose, plan {name}: {own['plan']['draws']} draws; uptake: {own['error_fields']}"
        why = "no measured dose to compare with"
        rows.append(SheetRow("Uncertainty", "not available", value, why))
    if rows:
        value = "dose: no measured dose and no outcome of this patient"
        rows.append(SheetRow("Validation", "not available", value, "what-if only"))
    return rows


def _twin(twin: CaseTwin | None) -> list[SheetRow]:
    """Rows on the updating twin: its machinery, its predictions, and what the scans determine."""
    if twin is None:
        return []
    last = twin.updates[-1]
    checks, parameters = last["verification"], last["parameters"]
    evidence = f"twin/updates, {counted(len(twin.updates), 'scan')}"
    within = sum(
        one["prediction"]["low"] <= one["mean"] <= one["prediction"]["high"] for one in twin.updates
    )
    largest = max(abs(row["z"]) for one in twin.updates for row in one["regions"])
    named = {
        known: ", ".join(p["name"] for p in parameters if (p["word"] == PRIOR_ONLY) is known)
        for known in (True, False)
    }
    return [
        _row(
            "Code verification",
            checks["sequential_gap"] <= SEQUENTIAL_LIMIT,
            "twin: scans one after the other against all at once (log-linear) "
            f"{number(checks['sequential_gap'])} SD",
            f"{evidence}; limit {SEQUENTIAL_LIMIT:g}",
        ),
        _row(
            "Uncertainty",
            checks["rank_gap"] <= RANK_LIMIT,
            "twin: simulation-based calibration (log-linear, 1,000 patients), largest gap of the "
            f"ranks {number(checks['rank_gap'])}",
            f"{evidence}; limit {RANK_LIMIT:g}; of the chain: docs/twin.md",
        ),
        _row(
            "Validation",
            largest <= IN_DOUBT_Z,
            f"twin: {within} of {counted(len(twin.updates), 'scan')} within the 90 % interval "
            f"that was stored before they were taken in; largest |z| {number(largest)}",
            f"{evidence}; limit |z| {IN_DOUBT_Z:g}; one patient",
        ),
        _row(
            "Identifiability",
            not named[True],
            f"twin: determined {named[False] or 'nothing'}; prior only {named[True] or 'nothing'}",
            f"{evidence}; prior only: contraction below 0.5, or an open profile",
        ),
    ]


def _dose_shares(plan: str, shares: Mapping[str, Any], evidence: str) -> list[SheetRow]:
    if "sources" not in shares:
        return []
    total, low, high = (
        shares[kind]["ln_survival_mean"] for kind in ("total", "total_low", "total_high")
    )
    listed = ", ".join(f"{SOURCE_TITLES[name]} {value:.2f}" for name, value in total.items())
    widest = max(high[name] - low[name] for name in total)
    value = f"dose, plan {plan}: share of the variance of −ln S, with interactions: {listed}"
    where = (
        f"{evidence}; Sobol, {shares['samples']} samples; resolved: 95 % intervals up to "
        f"{_NARROW:g} wide, here {number(widest)}"
    )
    return [_row("Sensitivity", widest <= _NARROW, value, where)]


def _shift(results: CaseResults) -> list[SheetRow]:
    """How far a shift of the PET by one voxel moves a tile's SUV, against what tiles differ by."""
    change = results.column(UPTAKE_SENSITIVITY, "change")
    uptake = results.column(UPTAKE, "suv")
    if change is None or uptake is None or not np.isfinite(change * uptake).any():
        return []
    middle, spread = float(np.nanmedian(change)), float(np.nanstd(uptake))
    value = (
        f"registration: the SUV of a tile changes by {number(middle, results.unit)} (median); "
        f"tiles differ by {number(spread, results.unit)} (SD)"
    )
    evidence = (
        f"result {UPTAKE_SENSITIVITY.name}: shift by one voxel or rotation by 2° as set; limit: "
        "half the SD"
    )
    return [_row("Sensitivity", middle <= spread / 2, value, evidence)]


def _validation(results: CaseResults) -> list[SheetRow]:
    """A pass: better than the training mean, and no fair baseline better, by paired intervals."""
    metrics = results.metrics
    own = metrics.get("suv_norm", {}).get("mae")
    if own is None:
        return []
    others = {
        name: values["mae_minus_network"]
        for name, values in metrics.get("baselines", {}).items()
        if values and not values.get("uses_test_pet", True)
    }
    record = results.get(PREDICTION_RECORD) or {}
    better = [name for name, d in others.items() if d["high"] is not None and d["high"] < 0]
    worse = [name for name, d in others.items() if d["low"] is not None and d["low"] > 0]
    open_ = [name for name in others if name not in better and name not in worse]
    value = f"MAE {number(own)}" + "".join(
        f"; {text} {', '.join(map(baseline_title, names))}"
        for text, names in (
            ("better than", worse),
            ("not distinguishable from", open_),
            ("worse than", better),
        )
        if names
    )
    if record.get("seen_in_training") or not others:
        why = "training case" if others else "no baseline was computed"
        return [SheetRow("Validation", "not available", value, why)]
    where = "patient in the training set" if record.get("shared_patient") else "new patient"
    evidence = (
        f"held-out {record.get('split', 'case')}, {where}; tile level, 95 % intervals by blocks"
    )
    if results.case.is_development:
        evidence += "; optimistic, because it is a development case"
    passed = "mean" in worse and not better
    return [SheetRow("Validation", "pass" if passed else "fail", value, evidence)]


_MIN_COVERAGE = 0.8
"""Of one held-out case: the mean over many has to be near 0.9, a single one spreads about it."""


def _uncertainty(results: CaseResults) -> list[SheetRow]:
    """Coverage and width of the 90 % intervals on this case, by what they are made for."""
    intervals = results.metrics.get("intervals") or {}
    found = {
        words: intervals[kind]
        for kind, words in (("tile", "tile of a new slide"), ("block", "whole block"))
        if (intervals.get(kind) or {}).get("coverage") is not None
    }
    if not found:
        return []
    value = "; ".join(
        f"{words}: {percent(one['coverage'])} of the tiles within the 90 % interval, "
        f"width {number(one.get('width'))}, score {number(one.get('interval_score'))}"
        for words, one in found.items()
    )
    first = next(iter(found.values()))
    limit = f"normalised SUV; limit for one case: {percent(_MIN_COVERAGE)}"
    evidence = "; ".join([limit, *map(str, intervals.get("notes") or ())])
    if (results.get(PREDICTION_RECORD) or {}).get("seen_in_training"):
        return [SheetRow("Uncertainty", "not available", value, "training case")]
    return [_row("Uncertainty", first["coverage"] >= _MIN_COVERAGE, value, evidence)]


def _domain(results: CaseResults) -> list[SheetRow]:
    """What is known of the domain; tumour and antibody are in no record, so it never passes."""
    record = results.get(SUV_RECORD) or {}
    terms = {term.get("name"): term.get("value") for term in record.get("terms", ())}
    file, training = results.case.file, (results.get(PREDICTION_RECORD) or {}).get("training_cases")
    known = [f"nuclide {terms['nuclide']}" if terms.get("nuclide") else ""]
    if file.slides:
        known.append(f"sections {', '.join(STAIN_TITLES[stain] for stain in file.slides)}")
    if file.pet is not None and file.pet.fwhm_mm is not None:
        known.append(f"scanner resolution {number(file.pet.fwhm_mm, 'mm')}")
    known.append(f"trained on {', '.join(training)}" if training else "")
    value = "; ".join(filter(None, known))
    if not (record or training):
        return []
    return [
        SheetRow("Domain of use", "not available", value, "tumour and antibody are not recorded")
    ]


def _provenance(results: CaseResults) -> list[SheetRow]:
    present = results.present()
    if not present:
        return []
    store = results.case.store
    lacking = [a.name for a in present if not store.record(a).get("version")]
    value = f"{len(present)} results, all with origin, settings and version"
    if lacking:
        return [
            SheetRow(
                "Provenance",
                "fail",
                f"no record of: {', '.join(lacking)}",
                "result folder of the case",
            )
        ]
    return [SheetRow("Provenance", "pass", value, "result folder of the case")]
