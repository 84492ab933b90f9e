from .caix import CaixParams, h_score, score_caix
from .nuclei import ClassicalNuclei, NucleiModel, NucleiParams, segment_nuclei
from .tissue_classifier import (
    FastTissueModel,
    TissueClassParams,
    TissueModel,
    segment_classes,
    train_fast,
)
from .tissue_models import load_tissue_model
from .training_pixels import rasterise_classes, sample_training_pixels
from .vessel_params import VesselParams
from .vessels import segment_vessels

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
