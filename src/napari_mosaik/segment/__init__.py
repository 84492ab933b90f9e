"""What is seen on the slides: vessels, nuclei, tissue classes, CAIX per cell.

The compiled parts are loaded on first use, so importing this folder is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mosaik.segment.caix import CaixParams, h_score, score_caix
    from napari_mosaik.segment.nuclei import (
        ClassicalNuclei,
        NucleiModel,
        NucleiParams,
        segment_nuclei,
    )
    from napari_mosaik.segment.tissue_classifier import (
        FastTissueModel,
        TissueClassParams,
        TissueModel,
        load_tissue_model,
        segment_classes,
        train_fast,
    )
    from napari_mosaik.segment.training_pixels import rasterise_classes, sample_training_pixels
    from napari_mosaik.segment.vessel_assembly import segment_vessels
    from napari_mosaik.segment.vessel_params import VesselParams

_WHERE = {
    "CaixParams": "caix",
    "ClassicalNuclei": "nuclei",
    "FastTissueModel": "tissue_classifier",
    "NucleiModel": "nuclei",
    "NucleiParams": "nuclei",
    "TissueClassParams": "tissue_classifier",
    "TissueModel": "tissue_classifier",
    "VesselParams": "vessel_params",
    "h_score": "caix",
    "load_tissue_model": "tissue_classifier",
    "rasterise_classes": "training_pixels",
    "score_caix": "caix",
    "segment_classes": "tissue_classifier",
    "segment_nuclei": "nuclei",
    "segment_vessels": "vessel_assembly",
    "train_fast": "tissue_classifier",
    "sample_training_pixels": "training_pixels",
}

__all__ = [
    "CaixParams",
    "ClassicalNuclei",
    "FastTissueModel",
    "NucleiModel",
    "NucleiParams",
    "TissueClassParams",
    "TissueModel",
    "VesselParams",
    "h_score",
    "load_tissue_model",
    "rasterise_classes",
    "sample_training_pixels",
    "score_caix",
    "segment_classes",
    "segment_nuclei",
    "segment_vessels",
    "train_fast",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
