"""The updating twin: what scans of one patient say about the parameters of a kinetic model."""

from napari_mosaik.twin.data import Observation, Prior
from napari_mosaik.twin.identify import IdentifiabilityRow
from napari_mosaik.twin.identify import ScanIdentifiability as Identifiability
from napari_mosaik.twin.identify import scan_identifiability as identifiability
from napari_mosaik.twin.posterior import Posterior, chain_posterior, log_linear_posterior
from napari_mosaik.twin.scans import ScanPrediction as Prediction
from napari_mosaik.twin.scans import ScanValue, Update, value_of_scan
from napari_mosaik.twin.scans import predict_scan as predict
from napari_mosaik.twin.scans import take_in as update
from napari_mosaik.twin.virtual import (
    Cohort,
    patients_needed,
    virtual_cohort,
    wilson_interval,
)

__all__ = [
    "Cohort",
    "Identifiability",
    "IdentifiabilityRow",
    "Observation",
    "Posterior",
    "Prediction",
    "Prior",
    "ScanValue",
    "Update",
    "chain_posterior",
    "identifiability",
    "log_linear_posterior",
    "patients_needed",
    "predict",
    "update",
    "value_of_scan",
    "virtual_cohort",
    "wilson_interval",
]
