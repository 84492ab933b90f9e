"""Segment one picture or a region of a slide outside a case, with the same code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.uncertainty import normalised_entropy
from napari_mosaik.io import open_slide

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment import NucleiModel, TissueModel

__all__ = ["Region", "Segmented", "segment_picture"]

Region = tuple[float, float, float, float]
"""Row, column, height and width in µm of the slide."""
MOST_PIXELS = 400_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """Labels of a picture, a table of its objects, and the record of how they were made."""

    labels: NDArray[Any]
    table: Table
    spacing_um: tuple[float, float]
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of several methods, the files that it needs, and the part of the slide."""

    method: str = ""
    weights: Path | None = None
    region: Region | None = None

    def picture(self, slide: Slide, spacing_um: float) -> Raster:
        """The part of the slide at about a pixel size."""
        return slide.read_lattice(self.part(slide.working_lattice(spacing_um)))

    def overview(self, slide: Slide, spacing_um: float) -> Raster:
        """The same of a small picture of the slide."""
        whole = slide.thumbnail(spacing_um)
        rows, cols = self._window(whole.lattice)
        return Raster(whole.values[rows, cols], whole.lattice.crop(rows, cols))

    def part(self, lattice: Lattice) -> Lattice:
        """The samples of a lattice that lie in the region."""
        return lattice.crop(*self._window(lattice))

    def _window(self, lattice: Lattice) -> tuple[slice, slice]:
        """Rows and columns of a lattice whose samples lie in the region."""
        if self.region is None:
            return slice(0, lattice.shape[0]), slice(0, lattice.shape[1])
        spans = []
        for axis in (0, 1):
            step, begin = lattice.spacing_um[axis], self.region[axis] - lattice.origin_um[axis]
            first = max(0, round(begin / step))
            last = min(lattice.shape[axis], round((begin + self.region[axis + 2]) / step))
            if last <= first:
                shown = " x ".join(f"{extent:.0f}" for extent in lattice.extent_um)
                raise InputError(
                    f"the region {self.region} (row, column, height, width in µm) holds nothing of "
                    f"the slide of {shown} µm"
                )
            spans.append(slice(first, last))
        return spans[0], spans[1]


def segment_picture(
    what: str,
    path: Path,
    spacing_um: float | None = None,
    *,
    method: str = "",
    weights: Path | None = None,
    region: Region | None = None,
) -> Segmented:
    """Segment a picture, slide or region of a slide in memory.

    Parameters
    ----------
    what
        "tissue", "vessels", "nuclei" or "classes".
    path
        Picture or slide.
    spacing_um
        Pixel size of the file, µm, where it does not say it.
    method
        "dab" or "hsv" for vessels, "classical" or "stardist" for nuclei, "fast" or "densenet" for
        classes; what is the default, or what the weights are of, if empty.
    weights
        For nuclei a file or folder with the weights of a StarDist network; for classes the folder
        of a trained model (needed).
    region
        Row, column, height and width in µm; the whole slide if None.

    Returns
    -------
    Segmented
        The record says method, weights (None where the method has none), count and areas in µm²;
        ``warnings`` are sentences for the user.
    """
    if what not in _SEGMENTERS:
        raise InputError(f"'{what}' cannot be segmented; use one of: {', '.join(_SEGMENTERS)}")
    offered = _METHODS.get(what, ())
    if method and method not in offered:
        words = f"use one of: {', '.join(offered)}" if offered else "leave --method out"
        raise InputError(f"the method '{method}' is not offered for {what}; {words}")
    if weights is not None and (what not in _WITH_WEIGHTS or method == "classical"):
        raise InputError(
            "only nuclei found by the method 'stardist', and tissue classes, have weights"
        )
    choice = Choice(method, weights, region)
    with open_slide(path, spacing_um) as slide:
        rows, cols = choice.part(slide.lattice).shape
        if rows * cols > MOST_PIXELS and what != "tissue":
            raise InputError(
                f"{path.name} has {rows} x {cols} pixels, too many to hold at once; give a region "
                "of it, or make a case with 'napari-mosaik new', which works block by block"
            )
        return _SEGMENTERS[what](slide, choice)


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
        "weights": None,
        **method,
        "count": len(table),
        "area_um2": float(areas.sum()),
        "mean_area_um2": float(areas.mean()) if len(table) else None,
        "spacing_um": list(image.lattice.spacing_um),
        "shape": list(image.lattice.shape),
    }
    return Segmented(labels, table, image.lattice.spacing_um, record)


def _tissue(slide: Slide, choice: Choice) -> Segmented:
    from napari_mosaik.segment.masks import label_mask
    from napari_mosaik.tissue import TissueParams, tissue_mask

    params = TissueParams()
    mask = tissue_mask(choice.overview(slide, params.spacing_um), params)
    labels, _ = label_mask(np.ascontiguousarray(mask.values, bool))
    method: dict[str, Any] = {
        "method": "Otsu on luma",
        "params": params.model_dump(mode="json"),
        "warnings": [],
    }
    return _result("tissue", labels, mask, method)


def _vessels(slide: Slide, choice: Choice) -> Segmented:
    from napari_mosaik.features import measure_objects
    from napari_mosaik.segment import VesselParams
    from napari_mosaik.segment.false_positives import count_by_reason
    from napari_mosaik.segment.slide_stain import result_warnings
    from napari_mosaik.segment.vessel_assembly import find_vessels

    params = VesselParams.parse({"method": choice.method} if choice.method else {})
    image = choice.picture(slide, params.spacing_um)
    found = find_vessels(image, params)
    left_out = count_by_reason(found.reasons)
    labels, staining = found.vessels.array(), found.staining
    told = result_warnings(int(labels.max(initial=0)), left_out, staining, params)
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


def _nuclei(slide: Slide, choice: Choice) -> Segmented:
    from napari_mosaik.segment import ClassicalNuclei, NucleiParams, segment_nuclei

    params = NucleiParams(spacing_um=max(min(slide.lattice.spacing_um), 0.5))
    classical = (choice.method or params.method) == "classical" and choice.weights is None
    model: NucleiModel = ClassicalNuclei(params) if classical else _network(choice.weights)
    image = choice.picture(slide, model.spacing_um)
    if _one_colour(image):
        labels = np.zeros(image.lattice.shape, np.int32)
        told = ["no nucleus was found: the picture has a single colour"]
    else:
        labels = segment_nuclei(image, params, model).array()
        told = [] if labels.any() else ["no nucleus was found; check the pixel size and the stain"]
    return _result("nuclei", labels, image, {**model.provenance, "warnings": told})


def _one_colour(image: Raster) -> bool:
    """Whether all pixels are alike, as far as a camera tells."""
    values = image.values.reshape(-1, 3)
    return bool((values.max(axis=0).astype(int) - values.min(axis=0) <= 3).all())


def _network(weights: Path | None) -> NucleiModel:
    """The network with weights from a file, or the one that comes with the program."""
    from napari_mosaik.segment.stardist import StarDistNuclei, embedded_weights, load_stardist

    return StarDistNuclei(embedded_weights() if weights is None else load_stardist(weights))


def _classes(slide: Slide, choice: Choice) -> Segmented:
    from napari_mosaik.segment import segment_classes
    from napari_mosaik.segment.stain_vectors import guess_stain, stain_mismatch_warning
    from napari_mosaik.tissue import MacenkoParams, fit_macenko, normalise

    taught = _taught(choice)
    image = choice.picture(slide, taught.read_spacing_um)
    pixels = image.values.reshape(-1, 3)[::7]
    fit = fit_macenko(pixels, MacenkoParams())
    warnings = [text for text in (stain_mismatch_warning(guess_stain(pixels), "H&E"),) if text]
    if not fit.usable:
        warnings.append(f"the picture's stain was left as it is: {fit.reason}")
    image = Raster(normalise(image.values, fit), image.lattice)
    found, probability = segment_classes(image, taught)
    codes = found.array()
    counts = np.bincount(codes.ravel(), minlength=len(taught.classes) + 1)[1:]
    areas = counts * found.lattice.sample_area_um2
    record = {
        "what": "classes",
        "method": taught.name,
        "weights": taught.hash,
        "count": int((counts > 0).sum()),
        "area_um2": dict(zip(taught.classes, areas.tolist(), strict=True)),
        "mean_uncertainty": float(normalised_entropy(probability.values).mean()),
        "stain_normalised": fit.usable,
        "warnings": [*warnings, *taught.notes],
        "spacing_um": list(found.lattice.spacing_um),
        "shape": list(found.lattice.shape),
    }
    table = Table({"class": np.array(taught.classes), "area_um2": areas}, {"area_um2": "µm²"})
    return Segmented(codes, table, found.lattice.spacing_um, record)


def _taught(choice: Choice) -> TissueModel:
    """The model in the folder that the user gave; of the wished method."""
    from napari_mosaik.segment.tissue_classifier import load_tissue_model

    if choice.weights is None:
        raise InputError(
            "tissue classes need a trained model: --weights FOLDER (a models/HASH folder of a "
            "case); 'napari-mosaik retrain' makes one from drawn shapes"
        )
    model = load_tissue_model(choice.weights)
    if choice.method not in ("", model.name):
        raise InputError(
            f"the model in {choice.weights} is of the method '{model.name}', not '{choice.method}'"
        )
    return model


_METHODS = {
    "vessels": ("dab", "hsv"),
    "nuclei": ("classical", "stardist"),
    "classes": ("fast", "densenet"),
}
_WITH_WEIGHTS = ("nuclei", "classes")
_SEGMENTERS: dict[str, Callable[[Slide, Choice], Segmented]] = {
    "tissue": _tissue,
    "vessels": _vessels,
    "nuclei": _nuclei,
    "classes": _classes,
}
