from .baselines import Baseline, fit_baselines, predict_baselines, with_baselines
from .inputs import CODE_CELLS, INVALID_CODE, N_CLASSES, TileInputs, code_windows, edge_distance_um
from .metrics import metrics_record
from .model import TargetScale, TrainedModel
from .multiscale import (
    FRACTIONS,
    SCALE_TILES,
    Scale,
    area_fractions,
    fraction_pyramid,
    stack_fractions,
)
from .network import PARTS, MosaikNetwork, SlideNetwork
from .params import PRESETS, NetworkParams, TrainParams
from .prediction import EarlierPrediction, Prediction, predict
from .training import train
from .training_set import (
    GUARD_TILES,
    Split,
    TileSplit,
    block_guard,
    block_split,
    held_out_tiles,
    leave_one_case_out,
    leave_one_patient_out,
    own_block,
    random_split,
    tiles_digest,
)
from .uncertainty import (
    calibrate,
    draw_errors,
    held_out_cases,
    interval_metrics,
    with_intervals,
    with_range,
)

__all__ = [
    "CODE_CELLS",
    "FRACTIONS",
    "GUARD_TILES",
    "INVALID_CODE",
    "N_CLASSES",
    "PARTS",
    "PRESETS",
    "SCALE_TILES",
    "Baseline",
    "EarlierPrediction",
    "MosaikNetwork",
    "NetworkParams",
    "Prediction",
    "Scale",
    "SlideNetwork",
    "Split",
    "TargetScale",
    "TileInputs",
    "TileSplit",
    "TrainParams",
    "TrainedModel",
    "area_fractions",
    "block_guard",
    "block_split",
    "calibrate",
    "code_windows",
    "draw_errors",
    "edge_distance_um",
    "fit_baselines",
    "fraction_pyramid",
    "held_out_cases",
    "held_out_tiles",
    "interval_metrics",
    "leave_one_case_out",
    "leave_one_patient_out",
    "metrics_record",
    "own_block",
    "predict",
    "predict_baselines",
    "random_split",
    "stack_fractions",
    "tiles_digest",
    "train",
    "with_baselines",
    "with_intervals",
    "with_range",
]
