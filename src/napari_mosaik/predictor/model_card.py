"""The card of a trained model: all that is needed to judge it and to use it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from napari_mosaik import __version__
from napari_mosaik.predictor.baselines import BaselineColumns, fit_baselines
from napari_mosaik.predictor.inputs import TileInputs
from napari_mosaik.predictor.multiscale import FRACTIONS, SCALE_TILES
from napari_mosaik.predictor.params import TrainParams
from napari_mosaik.predictor.training_set import TrainingSet

__all__ = ["make_card"]


def _case_entry(case: TileInputs, fold: TrainingSet) -> dict[str, Any]:
    """How many tiles of a case were used."""
    is_check = fold.validation is not None and case.case == fold.validation.case
    return {
        "case": case.case,
        "patient": case.patient,
        "role": "validation" if is_check else "training",
        "n_tiles": len(case),
        "n_used": int(case.measured.sum()),
        "n_not_measured": int((case.usable & ~case.measured).sum()),
        "n_without_curves": int((~case.usable).sum()),
    }


def _warnings(fold: TrainingSet) -> list[str]:
    """Sentences that stay with the model."""
    found = [f"{case.case}: {text}" for case in fold.everything for text in case.warnings]
    patients = {case.patient for case in fold.everything}
    if len(patients) < 10:
        found.append(f"{len(patients)} patient(s) in training: no claim about new patients")
    if fold.validation is None:
        found.append("no validation case: the number of epochs was not checked")
    if not (fold.label >= 0).any():
        found.append("no class labels: the class head is not trained")
    return found


def make_card(
    fold: TrainingSet,
    params: TrainParams,
    seed: int,
    *,
    n_parameters: int,
    history: Sequence[Mapping[str, Any]],
    best_epoch: int,
    columns: BaselineColumns | None,
    times: Mapping[str, Any],
) -> dict[str, Any]:
    """The card as a JSON document; what is under ``"times"`` does not count to the content."""
    baselines = fit_baselines(fold.everything, fold.scale, columns)
    first = fold.everything[0]
    return {
        "format": 1,
        "kind": "mosaik",
        "settings": params.model_dump(mode="json"),
        "seed": seed,
        "n_parameters": n_parameters,
        "channels": list(FRACTIONS),
        "scales": {
            scale.name: {"tiles": SCALE_TILES[scale.name], "spacing_um": scale.spacing_um}
            for scale in first.scales
        },
        "proxies": list(first.proxies),
        "times_h": [float(t) for t in first.times_h],
        "features": list(first.feature_names),
        "target": {
            "low": fold.scale.low,
            "high": fold.scale.high,
            "percentiles": [params.low_percentile, params.high_percentile],
        },
        "class_counts": [int(n) for n in fold.class_counts],
        "class_weights": [float(w) for w in fold.class_weights],
        "cases": [_case_entry(case, fold) for case in fold.everything],
        "validation": None if fold.validation is None else fold.validation.case,
        "n_tiles": len(fold.tiles),
        "history": [dict(entry) for entry in history],
        "best_epoch": best_epoch,
        "baselines": {k: None if b is None else b.as_dict() for k, b in baselines.items()},
        "versions": {
            "napari-mosaik": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "warnings": _warnings(fold),
        "times": dict(times),
    }
