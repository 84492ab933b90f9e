"""The steps of the pipeline, in the order in which they run."""

from __future__ import annotations

from typing import Any

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.errors import InputError
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.steps.align import ALIGN
from napari_mosaik.workflow.steps.association import ASSOCIATE
from napari_mosaik.workflow.steps.caix import CAIX
from napari_mosaik.workflow.steps.classes import TISSUE_CLASSES
from napari_mosaik.workflow.steps.clusters import FIND_CLUSTERS
from napari_mosaik.workflow.steps.correct import CORRECT_NUCLEI, CORRECT_VESSELS
from napari_mosaik.workflow.steps.kinetics import CURVES, TILE_CURVES
from napari_mosaik.workflow.steps.maps import PARAMETER_MAPS
from napari_mosaik.workflow.steps.nuclei import FIND_NUCLEI
from napari_mosaik.workflow.steps.parameters import TILE_PARAMETERS
from napari_mosaik.workflow.steps.predict import PREDICT
from napari_mosaik.workflow.steps.review import REVIEW
from napari_mosaik.workflow.steps.sensitivity import SHIFT_SENSITIVITY
from napari_mosaik.workflow.steps.stain import STAIN
from napari_mosaik.workflow.steps.tiles import MAKE_TILES
from napari_mosaik.workflow.steps.tissue import FIND_TISSUE
from napari_mosaik.workflow.steps.uptake import CALCULATE_SUV, MEASURE_UPTAKE
from napari_mosaik.workflow.steps.vessels import FIND_VESSELS

__all__ = ["STEPS", "maker_of", "step_named"]

STEPS: tuple[Step[Any], ...] = (
    *FIND_TISSUE,
    MAKE_TILES,
    *ALIGN,
    CALCULATE_SUV,
    MEASURE_UPTAKE,
    SHIFT_SENSITIVITY,
    FIND_VESSELS,
    CORRECT_VESSELS,
    STAIN,
    TISSUE_CLASSES,
    FIND_NUCLEI,
    CORRECT_NUCLEI,
    CAIX,
    TILE_PARAMETERS,
    PARAMETER_MAPS,
    ASSOCIATE,
    *FIND_CLUSTERS,
    CURVES,
    TILE_CURVES,
    PREDICT,
    REVIEW,
)
_BY_NAME = {step.name: step for step in STEPS}
_MAKERS = {artifact.name: step for step in STEPS for artifact in step.writes}


def step_named(name: str) -> Step[Any]:
    """The step with this name; raises `InputError` with the known names if there is none."""
    if name not in _BY_NAME:
        raise InputError(f"unknown step '{name}'; the steps are: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def maker_of(artifact: Artifact[Any]) -> Step[Any]:
    """The step that writes an artifact."""
    return _MAKERS[artifact.name]
