"""Which layers a case has: each finished step's results in the hands of `view.layers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from napari_mosaik.core import Artifact, MosaikError, Raster, Table, Transform
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    BROWN_LEFT_OUT,
    BROWN_OBJECTS,
    CLASS_PROBABILITY,
    CLASSES,
    CLUSTERS,
    CORRECTED_QUALITY,
    MAPS,
    NUCLEI,
    OBJECTS,
    PREDICTION,
    PREDICTION_MAP,
    REFERENCE,
    STAIN_TITLES,
    SUV,
    TILES,
    TISSUE,
    UPTAKE,
    UPTAKE_CLUSTERS,
    UPTAKE_SENSITIVITY,
    VESSELS,
)
from napari_mosaik.io.case import Case
from napari_mosaik.io.corrections import objects_now
from napari_mosaik.tissue import ARTEFACT_NAMES
from napari_mosaik.view import layers as view
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.workflow.steps.align import transform_of

__all__ = [
    "BASE_OF_STEP",
    "choices_of",
    "specs_for",
    "specs_of",
    "transform_to_reference",
]

BASE_OF_STEP = {
    "tissue_he": "he",
    "tissue_cd34": "cd34",
    "tissue_caix": "caix",
    "tiles": "cd34",
    "vessels": "cd34",
    "classes": "he",
    "stain": "he",
    "nuclei": "he",
    "correct_vessels": "cd34",
    "correct_nuclei": "he",
    "caix": "caix",
}
"""The slide on which a step's result is best looked at."""


def transform_to_reference(case: Case, frame: str) -> Transform | None:
    """From a section or the PET to the CD34 section; None when it is not aligned yet."""
    if frame == REFERENCE or not _has(case, ALIGNMENT[frame]):
        return None
    return transform_of(case.store.read(ALIGNMENT[frame]))


def _has(case: Case, *artifacts: Artifact[Any]) -> bool:
    return all(case.store.origin(artifact) is not None for artifact in artifacts)


def map_names(case: Case) -> tuple[str, ...]:
    """Names of the parameters that have a map."""
    return case.store.read(MAPS).channels if _has(case, MAPS) else ()


def proxy_names(case: Case) -> tuple[str, ...]:
    """Names of the parameters that have cluster labels."""
    if not _has(case, CLUSTERS):
        return ()
    table = case.store.read(CLUSTERS)
    return tuple(name.removesuffix(".label") for name in table if name.endswith(".label"))


def choices_of(case: Case) -> dict[str, tuple[str, ...]]:
    """By step, the parameters that can be chosen; none where the result is damaged."""
    found = {}
    for step, names in (("maps", map_names), ("clusters", proxy_names)):
        try:
            found[step] = names(case)
        except MosaikError:
            found[step] = ()
    return found


def specs_of(case: Case, step: str, choice: str = "") -> list[LayerSpec]:
    """The layers that show the results of one step; none when it has none.

    *choice* names the parameter for the maps and the clusters.
    """
    make = _MAKERS.get(step)
    return make(case, choice) if make is not None else []


def _tissue(stain: str) -> Callable[[Case, str], list[LayerSpec]]:
    def make(case: Case, choice: str) -> list[LayerSpec]:
        if not _has(case, TISSUE[stain]):
            return []
        title = f"Tissue on {TISSUE[stain].about.split(' of the ')[1].removesuffix(' slide')}"
        mask = case.store.read(TISSUE[stain])
        transform = transform_to_reference(case, stain)
        specs = [view.tissue_layer(mask, transform, title)]
        if _has(case, CORRECTED_QUALITY[stain]):
            quality = case.store.read(CORRECTED_QUALITY[stain])
            if np.asarray(quality.values).any():
                title = f"Artefacts on {STAIN_TITLES[stain]}"
                specs.append(view.quality_layer(quality, ARTEFACT_NAMES, transform, title))
        return specs

    return make


def _labels(
    artifact: Artifact[Any], stain: str, draw: Callable[..., LayerSpec]
) -> Callable[[Case, str], list[LayerSpec]]:
    def make(case: Case, choice: str) -> list[LayerSpec]:
        if not _has(case, artifact):
            return []
        shown = objects_now(case.store, artifact.name)[0] if artifact.name in OBJECTS else artifact
        return [draw(case.store.read(shown), transform_to_reference(case, stain))]

    return make


def _vessels(case: Case, choice: str) -> list[LayerSpec]:
    specs = _labels(VESSELS, "cd34", view.vessels_layer)(case, choice)
    if _has(case, BROWN_LEFT_OUT, BROWN_OBJECTS):
        reasons = [str(reason) for reason in case.store.read(BROWN_OBJECTS)["reason"]]
        if reasons:
            specs.append(view.left_out_layer(case.store.read(BROWN_LEFT_OUT), reasons))
    return specs


def _classes(case: Case, choice: str) -> list[LayerSpec]:
    """The map of the classes and, hidden at first, how undecided the classifier was."""
    specs = _labels(CLASSES, "he", view.classes_layer)(case, choice)
    if specs and _has(case, CLASS_PROBABILITY):
        probability = case.store.read(CLASS_PROBABILITY)
        transform = transform_to_reference(case, "he")
        specs.append(view.uncertainty_layer(probability, case.store.read(CLASSES), transform))
    return specs


def _tiles(case: Case, choice: str) -> list[LayerSpec]:
    return [view.tiles_layer(case.store.read(TILES))] if _has(case, TILES) else []


def _pet(case: Case, choice: str) -> list[LayerSpec]:
    if not _has(case, SUV):
        return []
    return [view.pet_layer(case.store.read(SUV), transform_to_reference(case, "pet"))]


def painted(case: Case, artifact: Artifact[Table], column: str = "suv") -> Raster | None:
    """A column of a tile table as a map of tiles; None when it is not there."""
    if not _has(case, artifact, TILES):
        return None
    table, grid = case.store.read(artifact), case.store.read(TILES)
    if len(table) != len(grid):
        return None
    return grid.paint(np.asarray(table[column], float), table.unit(column))


def _uptake(case: Case, choice: str) -> list[LayerSpec]:
    measured = painted(case, UPTAKE)
    predicted = painted(case, PREDICTION)
    specs = view.uptake_layers(measured, predicted)
    if measured is not None and predicted is not None and measured.unit == predicted.unit:
        specs.append(view.difference_layer(measured, predicted))
    if _has(case, PREDICTION_MAP):
        smooth = case.store.read(PREDICTION_MAP)
        limits = view.common_limits(smooth.values)
        for spec in specs:
            if spec.legend is not None and spec.artifact == "prediction":
                limits = spec.legend.limits or limits
        specs.append(view.parameter_layer(smooth, "Predicted uptake, smoothed", limits=limits))
    return specs


def _sensitivity(case: Case, choice: str) -> list[LayerSpec]:
    change = painted(case, UPTAKE_SENSITIVITY, "change")
    return [] if change is None else [view.sensitivity_layer(change)]


def _maps(case: Case, choice: str) -> list[LayerSpec]:
    names = map_names(case)
    if not names:
        return []
    name = choice if choice in names else names[0]
    maps = case.store.read(MAPS)
    return [view.parameter_layer(maps.channel(name), name, unit=_unit_of(case, name))]


def _unit_of(case: Case, name: str) -> str:
    from napari_mosaik.core.catalogue import PARAMETERS

    return case.store.read(PARAMETERS).unit(name) if _has(case, PARAMETERS) else ""


def _clusters(case: Case, choice: str) -> list[LayerSpec]:
    names = proxy_names(case)
    if not names or not _has(case, TILES):
        return []
    name = choice if choice in names else names[0]
    codes = case.store.read(CLUSTERS)[f"{name}.label"]
    return [view.clusters_layer(case.store.read(TILES), codes, name)]


def _uptake_clusters(case: Case, choice: str) -> list[LayerSpec]:
    if not _has(case, UPTAKE_CLUSTERS, TILES):
        return []
    codes = case.store.read(UPTAKE_CLUSTERS)["suv.label"]
    return [view.clusters_layer(case.store.read(TILES), codes, "measured SUV")]


_MAKERS: dict[str, Callable[[Case, str], list[LayerSpec]]] = {
    "tissue_he": _tissue("he"),
    "tissue_cd34": _tissue("cd34"),
    "tissue_caix": _tissue("caix"),
    "tiles": _tiles,
    "suv": _pet,
    "align_pet": _pet,
    "uptake": _uptake,
    "sensitivity": _sensitivity,
    "vessels": _vessels,
    "classes": _classes,
    "nuclei": _labels(NUCLEI, "he", view.nuclei_layer),
    "correct_vessels": _labels(VESSELS, "cd34", view.vessels_layer),
    "correct_nuclei": _labels(NUCLEI, "he", view.nuclei_layer),
    "maps": _maps,
    "clusters": _clusters,
    "uptake_clusters": _uptake_clusters,
    "predict": _uptake,
}


def specs_for(case: Case, steps: Iterable[str]) -> list[LayerSpec]:
    """The layers of several steps, each once; a damaged result is left out here."""
    found: dict[str, LayerSpec] = {}
    for step in steps:
        try:
            specs = specs_of(case, step)
        except MosaikError:
            continue
        found.update({spec.name: spec for spec in specs})
    return list(found.values())
