"""The same computations outside a case: one picture, one PET, two slides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, stain_density, stain_matrix
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.records import InjectionRecord
from napari_mosaik.core.table import Table
from napari_mosaik.io import open_pet, open_slide

if TYPE_CHECKING:
    from napari_mosaik.segment import NucleiModel

__all__ = ["Segmented", "align_pictures", "segment_picture", "suv_of"]

MOST_PIXELS = 400_000_000
OUTLINE_SPACING_UM = 12.5
DENSITY_SPACING_UM = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """Labels of a picture, a table of its objects, and the record of how they were made."""

    labels: NDArray[Any]
    table: Table
    spacing_um: tuple[float, float]
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of several methods, and the files that it needs."""

    model: Path | None = None
    method: str = ""
    weights: Path | None = None


def segment_picture(
    what: str,
    path: Path,
    spacing_um: float | None = None,
    model: Path | None = None,
    *,
    method: str = "",
    weights: Path | None = None,
) -> Segmented:
    """Segment a picture or slide in memory.

    Parameters
    ----------
    what
        "tissue", "vessels", "nuclei" or "classes".
    path
        Picture or slide.
    spacing_um
        Pixel size of the file, µm, where it does not say it.
    model
        Folder of a tissue class model; needed for "classes".
    method
        "dab" or "hsv" for vessels, "classical" or "stardist" for nuclei; the default if empty.
    weights
        File or folder with the weights of a StarDist network; the method is "stardist" then.
    """
    if what not in _SEGMENTERS:
        raise InputError(f"'{what}' cannot be segmented; use one of: {', '.join(_SEGMENTERS)}")
    offered = _METHODS.get(what, ())
    if method and method not in offered:
        words = f"use one of: {', '.join(offered)}" if offered else "leave --method out"
        raise InputError(f"the method '{method}' is not offered for {what}; {words}")
    if weights is not None and (what != "nuclei" or method == "classical"):
        raise InputError("only nuclei found by the method 'stardist' have weights of a network")
    with open_slide(path, spacing_um) as slide:
        rows, cols = slide.lattice.shape
        if rows * cols > MOST_PIXELS and what != "tissue":
            raise InputError(
                f"{path.name} has {rows} x {cols} pixels, too many to hold at once; make a case "
                "of it with 'napari-mosaik new', which works block by block"
            )
        return _SEGMENTERS[what](slide, Choice(model, method, weights))


def _result(
    what: str,
    labels: NDArray[Any],
    image: Raster,
    method: dict[str, Any],
    table: Table | None = None,
) -> Segmented:
    from napari_mosaik.features import measure_objects

    if table is None:
        table = measure_objects(labels, image.lattice)
    areas = np.asarray(table["area_um2"])
    record = {
        "what": what,
        **method,
        "count": len(table),
        "area_um2": float(areas.sum()),
        "mean_area_um2": float(areas.mean()) if len(table) else None,
        "spacing_um": list(image.lattice.spacing_um),
        "shape": list(image.lattice.shape),
    }
    return Segmented(labels, table, image.lattice.spacing_um, record)


def _tissue(slide: Any, choice: Choice) -> Segmented:
    from napari_mosaik.segment.masks import label_mask
    from napari_mosaik.tissue import TissueParams, tissue_mask

    params = TissueParams()
    mask = tissue_mask(slide.thumbnail(params.spacing_um), params)
    labels, _ = label_mask(np.ascontiguousarray(mask.values, bool))
    method = {"method": "Otsu on luma", "params": params.model_dump(mode="json")}
    return _result("tissue", labels, mask, method)


def _vessels(slide: Any, choice: Choice) -> Segmented:
    from napari_mosaik.features import measure_objects
    from napari_mosaik.segment import VesselParams
    from napari_mosaik.segment.brown import counted
    from napari_mosaik.segment.staining import after_thoughts
    from napari_mosaik.segment.vessels import find_vessels

    params = VesselParams.parse({"method": choice.method} if choice.method else {})
    image = slide.read_lattice(slide.working_lattice(params.spacing_um))
    found = find_vessels(image, params)
    left_out = counted(found.reasons)
    labels, staining = found.vessels.array(), found.staining
    told = after_thoughts(int(labels.max(initial=0)), left_out, staining, params)
    method: dict[str, Any] = {
        "method": params.method,
        **staining.to_dict(),
        "warnings": [*staining.warnings, *told],
        "left_out": left_out,
        "params": params.model_dump(mode="json"),
    }
    table = measure_objects(labels, image.lattice, masks={"wall": found.wall})
    lumen = table["area_um2"] - table["wall_area_um2"]
    table = table.with_columns({"lumen_area_um2": lumen}, {"lumen_area_um2": "µm²"})
    for part in ("wall", "lumen"):
        method[f"{part}_area_um2"] = float(np.sum(table[f"{part}_area_um2"]))
    return _result("vessels", labels, image, method, table)


def _nuclei(slide: Any, choice: Choice) -> Segmented:
    from napari_mosaik.segment import ClassicalNuclei, NucleiParams, segment_nuclei

    params = NucleiParams(spacing_um=max(min(slide.lattice.spacing_um), 0.5))
    model: NucleiModel = ClassicalNuclei(params)
    if choice.weights is not None or choice.method == "stardist":
        model = _network(choice.weights)
    image = slide.read_lattice(slide.working_lattice(model.spacing_um))
    labels = segment_nuclei(image, params, model).array()
    return _result("nuclei", labels, image, {"weights": None, **model.provenance})


def _network(weights: Path | None) -> NucleiModel:
    """The network with weights from a file, or with the only ones on this computer."""
    from napari_mosaik.segment.stardist import StarDistNuclei, load_stardist
    from napari_mosaik.workflow.nuclei_weights import find_weights, installed_weights

    if weights is not None:
        return StarDistNuclei(load_stardist(weights))
    there = installed_weights()
    return StarDistNuclei(find_weights(there[0] if len(there) == 1 else ""))


def _classes(slide: Any, choice: Choice) -> Segmented:
    from napari_mosaik.segment import segment_classes
    from napari_mosaik.segment.compartments import load_tissue_model
    from napari_mosaik.tissue import MacenkoParams, fit_macenko, normalise

    if choice.model is None:
        raise InputError(
            "tissue classes need a trained model: --model FOLDER (a models/HASH folder)"
        )
    taught = load_tissue_model(choice.model)
    image = slide.read_lattice(slide.working_lattice(taught.read_spacing_um))
    fit = fit_macenko(image.values.reshape(-1, 3)[::7], MacenkoParams())
    image = Raster(normalise(image.values, fit), image.lattice)
    found, _ = segment_classes(image, taught)
    codes = found.array()
    area_um2 = found.lattice.sample_area_um2
    areas = {
        name: float((codes == code).sum() * area_um2) for code, name in found.names.items() if code
    }
    record = {
        "what": "classes",
        "method": taught.name,
        "weights": taught.hash,
        "count": len(areas),
        "area_um2": areas,
        "stain_normalised": fit.usable,
        "spacing_um": list(found.lattice.spacing_um),
        "shape": list(found.lattice.shape),
    }
    table = Table({"class": np.array(list(areas)), "area_um2": np.array(list(areas.values()))})
    return Segmented(codes, table, found.lattice.spacing_um, record)


_METHODS = {"vessels": ("dab", "hsv"), "nuclei": ("classical", "stardist")}
_SEGMENTERS: dict[str, Callable[[Any, Choice], Segmented]] = {
    "tissue": _tissue,
    "vessels": _vessels,
    "nuclei": _nuclei,
    "classes": _classes,
}


def suv_of(
    files: Sequence[Path], kind: str, given: Mapping[str, Any], choice: Mapping[str, int]
) -> dict[str, Any]:
    """SUV of a PET slice with every term, its source and the assumptions.

    Parameters
    ----------
    files
        PET files.
    kind
        "bsa", "bw" or "lbm".
    given
        Fields of `InjectionRecord` that the user gave; None where not given.
    choice
        Slice and frame, where the files hold several.
    """
    from pydantic import ValidationError

    from napari_mosaik.uptake import combine, to_suv
    from napari_mosaik.uptake.suv import SuvKind

    wanted: SuvKind = next(one for one in get_args(SuvKind) if one == kind)
    pet = open_pet(list(files), **choice)
    values = {name: value for name, value in given.items() if value is not None}
    try:
        record = InjectionRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from error
    terms = combine(record, pet.header)
    suv = to_suv(pet, terms, wanted)
    document = {
        **terms.to_dict(),
        "kind": terms.kind(wanted),
        "unit": suv.unit,
        "maximum": float(np.nanmax(suv.values)),
        "mean": float(np.nanmean(suv.values)),
    }
    if not terms.already_suv:
        document["factor"] = terms.factor(wanted)
        document["formula"] = terms.formula(wanted)
    return document


def align_pictures(
    fixed: Path,
    moving: Path,
    spacing_fixed: float | None,
    spacing_moving: float | None,
    landmarks_fixed: Path | None,
    landmarks_moving: Path | None,
    kind: str,
) -> dict[str, Any]:
    """Align two slides by outline and haematoxylin; landmarks only measure the error."""
    from napari_mosaik.register import (
        AlignParams,
        align_sections,
        landmark_quality,
        read_landmarks,
    )
    from napari_mosaik.tissue import TissueParams, tissue_mask

    params = AlignParams.parse({"kind": kind}, "--kind")
    if (landmarks_fixed is None) != (landmarks_moving is None):
        raise InputError("give landmarks of both pictures, or of neither")
    with (
        open_slide(fixed, spacing_fixed, frame="fixed") as one,
        open_slide(moving, spacing_moving, frame="moving") as other,
    ):
        masks = []
        for slide in (other, one):
            settings = TissueParams(spacing_um=max(OUTLINE_SPACING_UM, *slide.lattice.spacing_um))
            masks.append(tissue_mask(slide.thumbnail(settings.spacing_um), settings))
        densities = [_haematoxylin(slide) for slide in (other, one)]
        lattices = other.lattice, one.lattice
    found = align_sections(masks[0], masks[1], densities[0], densities[1], params)
    record = found.to_dict()
    record["matrix"] = record.pop("matrix_um")
    if landmarks_fixed is not None and landmarks_moving is not None:
        marks_moving = read_landmarks(landmarks_moving, lattices[0].spacing_um)
        marks_fixed = read_landmarks(landmarks_fixed, lattices[1].spacing_um)
        n = min(len(marks_moving), len(marks_fixed))
        if len(marks_moving) != len(marks_fixed):
            record["warnings"] = [
                *record["warnings"],
                f"{len(marks_moving)} and {len(marks_fixed)} landmarks: the first {n} were paired",
            ]
        quality = landmark_quality(marks_moving[:n], marks_fixed[:n], found.transform, lattices[1])
        before, after = quality["before_um"], quality["tre_um"]
        record["landmark_error_um"] = {"before": {**before, "n": n}, "after": {**after, "n": n}}
        record["landmark_rtre"] = quality["rtre"]
        record["robustness"] = quality["robustness"]
    return record


def _haematoxylin(slide: Any) -> Raster:
    overview = slide.thumbnail(max(DENSITY_SPACING_UM, *slide.lattice.spacing_um))
    amounts = stain_density(overview.values, stain_matrix(HAEMATOXYLIN, DAB))
    return Raster(amounts[..., 0], overview.lattice)
