"""One line in words about what a finished step found."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from napari_mosaik.core import MosaikError
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASS_RECORD,
    CLUSTERS,
    CORRECTED,
    DAMAGED,
    LEFT_OUT,
    METRICS,
    NUCLEUS_OBJECTS,
    OBJECTS,
    PARAMETERS,
    QUALITY_AREAS,
    QUALITY_BY_HAND,
    STAIN_FIT,
    STAIN_TITLES,
    STAINING,
    SUV_RECORD,
    TILES,
    TISSUE,
    UPTAKE,
    UPTAKE_SENSITIVITY,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.io.case import Case
from napari_mosaik.io.slide.types.damage import whereabouts
from napari_mosaik.view.formatting import count, number, percent
from napari_mosaik.view.report.artefacts import bad_place_lines
from napari_mosaik.workflow.step import StepStatus

__all__ = ["result_lines"]

_BY_HAND = (CORRECTED, QUALITY_BY_HAND)


def result_lines(case: Case, states: Mapping[str, StepStatus]) -> dict[str, str]:
    """Words for each step that has results; the first line is the short form."""
    lines: dict[str, str] = {}
    for step, state in states.items():
        if state.word not in ("done", "stale") or step not in _LINES:
            continue
        try:
            lines[step] = _LINES[step](case)
        except MosaikError as error:
            lines[step] = str(error)
    return lines


def _tissue(stain: str) -> Callable[[Case], str]:
    def line(case: Case) -> str:
        mask = case.store.read(TISSUE[stain])
        area = float(np.nansum(np.asarray(mask.values, float))) * mask.lattice.sample_area_um2 / 1e6
        record = case.store.record(TISSUE[stain])
        damaged = record.get(DAMAGED) or {"count": 0}
        words, details = [number(area, "mm²")], []
        if damaged["count"]:
            words.append(f"{count(damaged['count'], 'damaged tile')} left out")
            details.append(f"{number(damaged['area_mm2'], 'mm²')} at {whereabouts(damaged)}")
        corrected = sum((record.get(one) or {"made": 0})["made"] for one in _BY_HAND)
        if corrected:
            words.append(f"{count(corrected, 'correction')} by hand")
        bad = [name for name, size in (record.get(QUALITY_AREAS) or {}).items() if size]
        if bad:
            words.append(" and ".join(bad) + " flagged")
        details += bad_place_lines(record)
        return "\n".join([", ".join(words), *details])

    return line


def _tiles(case: Case) -> str:
    return count(len(case.store.read(TILES)), "tile")


def _alignment(frame: str) -> Callable[[Case], str]:
    def line(case: Case) -> str:
        record = case.store.read(ALIGNMENT[frame])
        parts = []
        if record.get("dice") is not None:
            name = STAIN_TITLES.get(frame, "PET")
            parts.append(f"{name} overlap {percent(record['dice'])}")
        if record.get("position_error_um") is not None:
            parts.append(f"expected error {number(record['position_error_um'], 'µm')}")
        if "landmark_error_um" in record:
            parts.append(f"{number(record['landmark_error_um']['median'], 'µm')} median error")
        warnings = [str(text) for text in record.get("warnings", ())]
        if warnings:
            parts.append("please check")
        return "\n".join(
            [", ".join(parts), f"turned {number(record['angle_deg'], '°')}", *warnings]
        )

    return line


def _suv(case: Case) -> str:
    record = case.store.read(SUV_RECORD)
    unit = str(record.get("unit", ""))
    return f"mean {number(record.get('mean'))}, highest {number(record.get('maximum'), unit)}"


def _uptake(case: Case) -> str:
    table = case.store.read(UPTAKE)
    values = np.asarray(table["suv"], float)
    known = int(np.isfinite(values).sum())
    mean = number(float(np.nanmean(values)) if known else None, table.unit("suv"))
    words = f"{count(known, 'tile')} measured, mean {mean}"
    outside = values.size - known
    return words + (f"; {count(outside, 'tile')} outside the PET" if outside else "")


def _sensitivity(case: Case) -> str:
    table = case.store.read(UPTAKE_SENSITIVITY)
    change, share = (np.asarray(table[name], float) for name in ("change", "share"))
    if not np.isfinite(share).any():
        return "no tile lies on the PET"
    middle = number(float(np.nanmedian(change)), table.unit("change"))
    return (
        f"a small shift changes a tile by {middle} ({percent(float(np.nanmedian(share)))}), median"
    )


def _vessels(case: Case) -> str:
    record = case.store.record(VESSELS)
    words = count(len(case.store.read(VESSEL_OBJECTS)), "vessel")
    staining, left_out = record.get(STAINING), record.get(LEFT_OUT) or {}
    n_out = sum(left_out.values())
    if n_out:
        words += f", {count(n_out, 'brown object')} left out"
    if staining is None:
        return words
    lines = [words + (", please check" if staining["warnings"] else "")]
    if n_out:
        reasons = (f"{number} {reason}" for reason, number in left_out.items() if number)
        lines.append("left out: " + ", ".join(reasons))
    source = _STAIN_SOURCES[staining["stains"]["source"]]
    lines.append(f"{source}; wall from DAB {staining['threshold_od']:.2f} OD")
    return "\n".join([*lines, *staining["warnings"]])


_STAIN_SOURCES = {
    "slide": "stain colours of this slide",
    "ruifrok": "stain colours of Ruifrok and Johnston",
    "manual": "stain colours given by hand",
}


def _stain(case: Case) -> str:
    fit = case.store.read(STAIN_FIT)
    words = "colours found" if fit["usable"] else f"left unchanged: {fit['reason']}"
    warnings = (case.store.record(STAIN_FIT).get(STAINING) or {}).get("warnings", ())
    return "\n".join([words + (", please check" if warnings else ""), *warnings])


def _classes(case: Case) -> str:
    record = case.store.read(CLASS_RECORD)
    areas: dict[str, float] = record["area_mm2"]
    tissue = sum(area for name, area in areas.items() if name != "background")
    share = areas.get("neoplastic", 0.0) / tissue if tissue > 0 else None
    warnings = record.get("warnings", ())
    words = f"neoplastic {percent(share)} of {number(tissue, 'mm²')}"
    lines = [words + (", please check" if warnings else "")]
    doubt = record.get("mean_uncertainty")
    if doubt is not None:
        lines.append(f"mean uncertainty {number(doubt)} (0: certain, 1: all classes alike)")
    return "\n".join([*lines, *warnings])


def _nuclei(case: Case) -> str:
    table = case.store.read(NUCLEUS_OBJECTS)
    return "\n".join([count(len(table), "nucleus", "nuclei"), table.about.get("method", "")])


def _corrected(what: str) -> Callable[[Case], str]:
    def line(case: Case) -> str:
        labels, table = OBJECTS[what][1]
        record = case.store.record(labels).get(CORRECTED) or {"made": 0, "lost": []}
        if not record["made"] and not record["lost"]:
            return "nothing corrected"
        plural = "vessels" if what == "vessels" else "nuclei"
        n = len(case.store.read(table))
        lines = [f"{count(record['made'], 'correction')} made, {n} {plural}"]
        if record["lost"]:
            lines[0] += f", {len(record['lost'])} without their object"
        return "\n".join([*lines, *(f"{e['correction']}: {e['why']}" for e in record["lost"])])

    return line


def _caix(case: Case) -> str:
    words = count(len(case.store.read(CAIX_CELLS)), "cell")
    warnings = (case.store.record(CAIX_CELLS).get(STAINING) or {}).get("warnings", ())
    return "\n".join([words + (", please check" if warnings else ""), *warnings])


def _parameters(case: Case) -> str:
    return count(len(tuple(case.store.read(PARAMETERS))), "parameter") + " per tile"


def _clusters(case: Case) -> str:
    names = [name for name in case.store.read(CLUSTERS) if name.endswith(".label")]
    return f"{count(len(names), 'parameter')} tested"


def _review(case: Case) -> str:
    metrics = case.store.read(METRICS)
    error = number(metrics["suv_norm"]["mae"])
    mean = (metrics["baselines"].get("mean") or {}).get("mae")
    beside = f" (training mean {number(mean)})" if mean is not None else ""
    return f"mean error {error}{beside}, normalised SUV"


_LINES: dict[str, Callable[[Case], str]] = {
    "tissue_he": _tissue("he"),
    "tissue_cd34": _tissue("cd34"),
    "tissue_caix": _tissue("caix"),
    "tiles": _tiles,
    "align_he": _alignment("he"),
    "align_caix": _alignment("caix"),
    "align_pet": _alignment("pet"),
    "suv": _suv,
    "uptake": _uptake,
    "sensitivity": _sensitivity,
    "vessels": _vessels,
    "stain": _stain,
    "classes": _classes,
    "nuclei": _nuclei,
    "correct_vessels": _corrected("vessels"),
    "correct_nuclei": _corrected("nuclei"),
    "caix": _caix,
    "parameters": _parameters,
    "clusters": _clusters,
    "review": _review,
}
