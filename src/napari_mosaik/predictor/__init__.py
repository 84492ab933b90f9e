"""The network that predicts uptake: inputs, training, baselines and metrics.

torch is loaded when a name that needs it is first used, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_mosaik.predictor.inputs import (
    INVALID_CODE,
    N_CLASSES,
    TileInputs,
    code_windows,
    edge_distance_um,
)
from napari_mosaik.predictor.metrics import metrics_record
from napari_mosaik.predictor.model import TargetScale, TrainedModel
from napari_mosaik.predictor.multiscale import (
    FRACTIONS,
    Scale,
    area_fractions,
    fraction_pyramid,
    stack_fractions,
)
from napari_mosaik.predictor.params import PRESETS, NetworkParams, TrainParams
from napari_mosaik.predictor.training_set import (
    GUARD_TILES,
    Split,
    TileSplit,
    block_split,
    leave_one_case_out,
    leave_one_patient_out,
    random_split,
)

if TYPE_CHECKING:
    from napari_mosaik.predictor.baselines import (
        Baseline,
        BaselineColumns,
        fit_baselines,
        predict_baselines,
    )
    from napari_mosaik.predictor.network import MosaikNetwork
    from napari_mosaik.predictor.prediction import Prediction, predict
    from napari_mosaik.predictor.training import train

__all__ = [
    "FRACTIONS",
    "GUARD_TILES",
    "INVALID_CODE",
    "N_CLASSES",
    "PRESETS",
    "Baseline",
    "BaselineColumns",
    "MosaikNetwork",
    "NetworkParams",
    "Prediction",
    "Scale",
    "Split",
    "TargetScale",
    "TileInputs",
    "TileSplit",
    "TrainParams",
    "TrainedModel",
    "area_fractions",
    "block_split",
    "code_windows",
    "edge_distance_um",
    "fit_baselines",
    "fraction_pyramid",
    "leave_one_case_out",
    "leave_one_patient_out",
    "metrics_record",
    "predict",
    "predict_baselines",
    "random_split",
    "stack_fractions",
    "train",
]

_LATER = {
    "Baseline": "baselines",
    "BaselineColumns": "baselines",
    "fit_baselines": "baselines",
    "predict_baselines": "baselines",
    "MosaikNetwork": "network",
    "Prediction": "prediction",
    "predict": "prediction",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
