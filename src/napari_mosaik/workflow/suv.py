"""SUV of a PET with every term: of single files, and in a case before the step is run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError

from napari_mosaik.core.catalogue import ALIGNMENT, PET, SUV, SUV_RECORD, TILES, UPTAKE
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.pet_records import (
    InjectionRecord,
    PetHeader,
    PetImage,
    PetUnit,
    record_problem,
    record_unit,
    renamed_items,
)
from napari_mosaik.core.progress import reach_of_item
from napari_mosaik.core.text import typed_number
from napari_mosaik.io.files import read_json
from napari_mosaik.register import transform_of
from napari_mosaik.uptake import (
    TERM_ITEMS,
    LeanFormula,
    SuvKind,
    SuvParams,
    SuvTerms,
    combine_terms,
    implausible,
    tile_uptake,
    to_suv,
)
from napari_mosaik.uptake.body_size import suv_weight_factor
from napari_mosaik.uptake.suv import SUV_UNITS
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.predictor import TargetScale

WIDEST_FWHM_MM: Final = (0.1, 20.0)
"""Resolution that a case may state, mm."""
PLAUSIBLE_FWHM_MM: Final = (0.5, 8.0)
"""Resolution of PET scanners in use, mm; beyond, a slip is likely."""

_MAX_UNEVEN: Final = 1.1
"""Factors of slices of one scan that differ by more are those of two scans."""
_PLAUSIBLE_MAXIMUM: Final = (0.01, 2e3)
_MEASURED_SOURCES: Final = ("registration", "registration", "dose", "weight")
_BY: Final = {"bsa": "body surface area", "bw": "body weight", "lbm": "lean body mass"}

__all__ = [
    "TERM_ITEMS",
    "ReviewParams",
    "check_suv_unit",
    "check_terms",
    "doubtful_maximum",
    "field_problem",
    "injection_record",
    "is_pet_file",
    "item_title",
    "measured_spread",
    "resolution_mm",
    "resolution_problem",
    "scaled_statistics",
    "series_paths",
    "suv_of_files",
    "suv_record",
    "suv_record_or_problem",
    "titled",
    "voxel_statistics",
]


def suv_of_files(
    files: Sequence[Path],
    kind: str,
    given: Mapping[str, Any],
    *,
    slice_index: int | None = None,
    frame_index: int | None = None,
    unit: PetUnit | None = None,
    mask: Path | None = None,
) -> dict[str, Any]:
    """SUV of a PET slice, or of all slices, with all terms, their sources and the assumptions.

    Parameters
    ----------
    files
        PET files.
    kind
        "bsa", "bw" or "lbm".
    given
        Fields of `InjectionRecord`; None where not given.
    slice_index, frame_index
        One slice, all if None; the time frame, where the files hold several.
    unit
        Unit of the values, where the files do not state one.
    mask
        Image on the same voxels: the statistics are those of the voxels above 0.
    """
    from napari_mosaik.io import open_pet
    from napari_mosaik.io.pet import open_pet_slices

    wanted: SuvKind = next(one for one in get_args(SuvKind) if one == kind)

    def images(paths: Sequence[Path], in_unit: PetUnit | None) -> list[PetImage]:
        if slice_index is None:
            return open_pet_slices(paths, frame_index=frame_index, unit=in_unit)
        return [open_pet(paths, slice_index=slice_index, frame_index=frame_index, unit=in_unit)]

    pets = images(list(files), unit)
    record = injection_record(given)
    terms = [combine_terms(record, pet.header) for pet in pets]
    values = [
        np.asarray(to_suv(pet, term, wanted).values) for pet, term in zip(pets, terms, strict=True)
    ]
    inside = None if mask is None else _masks(images([mask], None), values, mask)
    statistics = voxel_statistics(values, inside)
    document = {**suv_record(terms[0], wanted), **statistics, "n_slices": len(pets)}
    document["warnings"] = [*document["warnings"], *doubtful_maximum(statistics)]
    factors = {term.factor(wanted) for term in terms}
    units = sorted({f"SUV by {_BY[term.kind(wanted)]} in {term.unit(wanted)}" for term in terms})
    if len(units) > 1 or max(factors) > min(factors) * _MAX_UNEVEN:
        differ = " and ".join(units) if len(units) > 1 else "the same unit"
        raise InputError(
            f"the slices of the PET do not belong together: {differ}, by factors from "
            f"{min(factors):.4g} to {max(factors):.4g}; give the files of one scan"
        )
    if len(factors) > 1 and max(factors) > min(factors) * (1 + 1e-9):
        document["warnings"] = [
            *document["warnings"],
            f"the factor differs between slices, from {min(factors):.8g} to {max(factors):.8g}; "
            "each slice uses its own, and that of the first one is shown",
        ]
    return document


def series_paths(case: Case, paths: Sequence[str], number: int) -> tuple[str, ...]:
    """The files of one of several PET series, counted from 1 as the error message lists them."""
    from napari_mosaik.io.pet import choose_series

    chosen = choose_series([case.path(path) for path in paths], number)
    return tuple(str(path.absolute()) for path in chosen)


def injection_record(given: Mapping[str, Any]) -> InjectionRecord:
    """The injection record of the given fields; None and empty text count as not given.

    Raises
    ------
    InputError
        If a value is not valid; the message names it.
    """
    values = {name: value for name, value in given.items() if value not in (None, "")}
    try:
        return InjectionRecord.model_validate(values)
    except ValidationError as error:
        name, problem = record_problem(error)
        raise InputError(f"{item_title(name)}: {problem}") from error


def is_pet_file(path: Path) -> bool:
    """Whether a file, or the first file of a folder, is in a format of PET images."""
    from napari_mosaik.io.pet.registry import pet_formats
    from napari_mosaik.io.slide import slide_only_suffixes

    if path.suffix.lower() == ".zip":
        return True  # no slide is read from an archive
    if path.name.lower().endswith((*slide_only_suffixes(), ".tif", ".tiff", ".zarr")):
        return False
    files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()][:1]
    return any(one.holds(file) for file in files for one in pet_formats())


def item_title(name: str) -> str:
    """The words for an item of the injection record, as a form names it."""
    field = InjectionRecord.model_fields.get(name)
    return (field.title if field else None) or name


def titled(text: str) -> str:
    """A message in which every item of the record has its words: "give 'Body weight' ..."."""
    titles = {name: f"'{item_title(name)}'" for name in InjectionRecord.model_fields}
    return renamed_items(text, titles)


def field_problem(name: str, text: str, nuclide: str = "Zr-89") -> str:
    """What is wrong with the text of one field of the record; empty if nothing is.

    It is asked at the moment when a field is left: numbers and times that cannot be read, and
    values that are implausible.
    """
    if not text.strip():
        return ""
    try:
        value: Any = typed_number(text) if record_unit(name) else text.strip()
        given = getattr(injection_record({name: value}), name)
    except InputError as error:
        problem = str(error)
        return problem if problem.startswith(item_title(name)) else f"{item_title(name)}: {problem}"
    return titled(implausible(name, given, nuclide))


def resolution_mm(text: str) -> float | None:
    """The resolution of the PET scanner (FWHM, mm) that a reader typed; None if empty.

    Raises
    ------
    InputError
        It is not a number, or no PET scanner has it.
    """
    if not text.strip():
        return None
    try:
        value = typed_number(text)
    except InputError:
        value = np.nan
    if not WIDEST_FWHM_MM[0] <= value <= WIDEST_FWHM_MM[1]:
        raise InputError(
            f"resolution of the PET '{text.strip()}' mm: no PET scanner has it; give the full "
            "width at half maximum in mm, {:g} to {:g}".format(*WIDEST_FWHM_MM)
        )
    return value


def resolution_problem(text: str) -> str:
    """What is wrong or implausible about a typed resolution (FWHM, mm); empty if nothing is."""
    try:
        value = resolution_mm(text)
    except InputError as error:
        return str(error)
    if value is None or PLAUSIBLE_FWHM_MM[0] <= value <= PLAUSIBLE_FWHM_MM[1]:
        return ""
    return (
        f"resolution of the PET {value:g} mm: microPET has about 1 to 2 mm, a clinical scanner 3 "
        "to 7 mm"
    )


def suv_record(
    terms: SuvTerms, kind: SuvKind, lean_formula: LeanFormula = "janmahasatian"
) -> dict[str, Any]:
    """Terms, factor and formula as a JSON-able document."""
    document = terms.to_dict()
    if terms.kind(kind) != kind:
        document["warnings"] += [
            f"the values of the file are SUV by {_BY[terms.kind(kind)]} ({terms.unit(kind)}); they "
            f"are not converted to SUV by {_BY[kind]}"
        ]
    return {
        **document,
        "kind": terms.kind(kind),
        "unit": terms.unit(kind),
        "formula": terms.formula(kind, lean_formula),
        "factor": terms.factor(kind, lean_formula),
    }


def suv_record_or_problem(
    header: PetHeader, given: Mapping[str, Any], settings: Params | None
) -> dict[str, Any]:
    """The record of `suv_record`, or what is known of it with the ``problem`` as a sentence.

    *settings* are those of the step "suv"; defaults if None.
    """
    params = settings if isinstance(settings, SuvParams) else SuvParams()
    try:
        terms = combine_terms(injection_record(given), header)
    except InputError as error:
        return {"terms": [], "assumptions": [], "warnings": [], "problem": titled(str(error))}
    try:
        return suv_record(terms, params.kind, params.lean_formula)
    except InputError as error:
        return {**terms.to_dict(), "problem": titled(str(error))}


def check_terms(case: Case, params: SuvParams) -> None:
    """Raise `InputError` if the SUV of a case cannot be computed, with the place to mend it."""
    header, record = case.pet().header, case.file.injection or InjectionRecord()
    try:
        combine_terms(record, header).factor(params.kind, params.lean_formula)
    except InputError as error:
        raise InputError(
            f"{titled(str(error))} (page Uptake (PET), or [injection] in case.toml)"
        ) from error


def check_suv_unit(case: Case, recipe: Mapping[str, Any]) -> None:
    """Raise `InputError` if the SUV of a case is set to another unit than that of its predictor.

    Says nothing of a case without PET or predictor, and of one whose SUV was given.
    """
    model, kind = recipe["predict"].model, recipe["suv"].kind
    given = case.store.origin(UPTAKE) or case.store.origin(SUV)
    card = case.model_folder(model) / "card.json"
    if not model or case.missing_reason(PET) or (given is not None and given.is_given):
        return
    unit = read_json(card).get("suv_unit") if card.is_file() else None
    if unit not in (None, SUV_UNITS[kind]):
        kinds = " or ".join(name for name, of_kind in SUV_UNITS.items() if of_kind == unit)
        raise InputError(
            f"the SUV of case {case.name} is set to {SUV_UNITS[kind]} (suv.kind={kind}), but its "
            f"predictor {model[:12]} predicts {unit}: use the kind of its training cases "
            f"({kinds}), or another predictor or none (predict.model)"
        )


def doubtful_maximum(statistics: Mapping[str, Any]) -> list[str]:
    """A sentence if no SUV of living tissue has the maximum of `voxel_statistics`; else none."""
    low, high = _PLAUSIBLE_MAXIMUM
    if low <= statistics["maximum"] <= high:
        return []
    return [
        f"the largest SUV is {statistics['maximum']:.3g}, which is not plausible ({low:g} to "
        f"{high:g}); check the unit of the image, the injected activity, the weight and the times"
    ]


def scaled_statistics(pet: PetImage, factor: float) -> dict[str, Any]:
    """Maximum, mean and number of voxels of the image (rows, columns) times a factor."""
    return voxel_statistics([np.asarray(pet.raster.values, float) * factor])


def voxel_statistics(
    values: Sequence[FloatArray], inside: Sequence[FloatArray] | None = None
) -> dict[str, Any]:
    """Maximum, mean and count of the voxels with a value, or of those inside a mask.

    *values* are images (rows, columns) in one unit, *inside* masks (rows, columns) above 0.
    """
    every = np.concatenate([np.ravel(part) for part in values])
    if inside is not None:
        every = every[np.concatenate([np.ravel(part) for part in inside]) > 0]
    known = every[np.isfinite(every)]
    if not known.size:
        raise InputError("no voxel of the PET has a value (or none lies in the mask)")
    return {
        "maximum": float(known.max()),
        "mean": float(known.mean()),
        "n_voxels": int(known.size),
    }


def _masks(
    images: Sequence[PetImage], values: Sequence[FloatArray], path: Path
) -> list[FloatArray]:
    masks = [np.asarray(image.raster.values, float) for image in images]
    if [m.shape for m in masks] != [v.shape for v in values]:
        raise InputError(
            f"the mask {path.name} does not match the voxels of the PET; give one of the same shape"
        )
    return masks


class ReviewParams(Params):
    """Settings of the comparison: how far the measured SUV is known."""

    draws: int = setting(
        16, "Draws of dose, weight and registration of the PET; 0: none.", ge=0, le=2000
    )
    registration: Literal["own", "voxel"] = setting(
        "own",
        "Error of the registration of the PET: as estimated (one voxel without an estimate), "
        "or always one voxel to each side.",
        choices={"own": "as the registration states", "voxel": "one voxel to each side"},
    )
    dose_error: float = setting(
        0.05,
        "Relative SD of the dose and of the calibration of the scanner.",
        label="Dose",
        ge=0,
        le=1,
    )
    weight_error: float = setting(
        0.02, "Relative SD of the body weight.", label="Weight", ge=0, le=0.5
    )
    seed: int = setting(0, "Random seed of the draws.", ge=0, advanced=True)


def measured_spread(
    inputs: StepContext, params: ReviewParams, target: TargetScale, predicted: ArrayLike
) -> dict[str, Any] | None:
    """How far the measured SUV is known, and what that means for the error; None without draws.

    Each draw moves the PET, and multiplies the SUV as another dose and weight would.
    *predicted* (n,), normalised SUV, is NaN where a tile does not count.  ``mae`` and ``r2`` are
    the range (90 %) of the errors against the drawn measurements: how much depends on the PET, and
    no interval of the error.
    """
    from napari_mosaik.predictor import input_draws, input_spread
    from napari_mosaik.predictor.metrics import mae, r2
    from napari_mosaik.register import registration_error

    if not params.draws or not (inputs.has(SUV) and inputs.has(SUV_RECORD)):
        return None
    grid, suv, record = inputs.read(TILES), inputs.read(SUV), inputs.read(SUV_RECORD)
    document = inputs.read(ALIGNMENT["pet"])
    to_reference, frame = transform_of(document), grid.lattice.frame
    voxel_um = max(suv.lattice.spacing_um) * to_reference.scale
    error = registration_error(document, voxel_um, params.registration)
    kind = str(record.get("kind", ""))
    terms = {term["name"]: term["value"] for term in record.get("terms", ())}
    draws = input_draws(params.draws, len(_MEASURED_SOURCES), params.seed)
    found = []
    for number, (row, column, dose, weight) in enumerate(draws):
        reach_of_item(number / len(draws))
        shift = Transform.similarity(
            frame, frame, shift_um=(error["sd_um"] * row, error["sd_um"] * column)
        )
        factor = math.exp(-params.dose_error * dose) * suv_weight_factor(
            kind, terms, math.exp(params.weight_error * weight)
        )
        value = tile_uptake(suv, grid, to_reference.then(shift)) * factor
        found.append(target.normalise(value, clip=False))
    drawn = np.stack(found)
    errors = {
        name: np.percentile([function(one, predicted) for one in drawn], [5.0, 95.0])
        for name, function in (("mae", mae), ("r2", r2))
    }
    return {
        "draws": params.draws,
        "seed": params.seed,
        "registration": error,
        "dose_error": params.dose_error,
        "weight_error": params.weight_error,
        **input_spread(draws, _MEASURED_SOURCES, drawn).summary(),
        **{name: {"low": float(low), "high": float(high)} for name, (low, high) in errors.items()},
    }
