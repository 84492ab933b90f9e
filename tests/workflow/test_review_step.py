"""The comparison with the measured uptake, and the resolution that the baselines are told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_mosaik.core import Lattice, TileGrid
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    METRICS,
    PREDICTION,
    PREDICTION_RECORD,
    TILES,
    UPTAKE,
)
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.table import Table
from napari_mosaik.register import Alignment
from napari_mosaik.workflow.cohort import scanner_width_um
from napari_mosaik.workflow.steps.review import REVIEW, ReviewParams

N = 36
LOW, HIGH = 2.0, 4.0


def pet_alignment(scale):
    transform = Transform.similarity("pet", "cd34", scale=scale)
    return Alignment.of(transform, 0.9, 0.9, []).to_dict()


class Inputs:
    """What the step asks its context for."""

    case_name = "B11"

    def __init__(self, artifacts):
        self.artifacts, self.read = artifacts, artifacts.__getitem__

    def has(self, artifact):
        return artifact in self.artifacts

    def warn(self, sentence):
        raise AssertionError(sentence)


def compared(suv, predicted):
    lattice = Lattice("cd34", (6, 6), (300.0, 300.0), (0.0, 0.0))
    ones = np.ones(N)
    grid = TileGrid(lattice, 400.0, np.arange(N), ones, ones > 0)
    span = HIGH - LOW
    columns = {
        "suv": predicted,
        "suv_norm": (predicted - LOW) / span,
        "baseline_mean": np.full(N, 0.5),
    }
    record = {
        "unit": "cm²/mL", "target": {"low": LOW, "high": HIGH}, "split": "case", "model": "m",
        "shared_patient": False, "seen_in_training": False, "training_cases": ["A2"],
        "proxies": [], "seed": 0, "warnings": [],
    }  # fmt: skip
    artifacts = {
        TILES: grid,
        UPTAKE: Table({"suv": suv}, {"suv": "cm²/mL"}),
        PREDICTION: Table(columns, {"suv": "cm²/mL"}),
        PREDICTION_RECORD: record,
        ALIGNMENT["pet"]: pet_alignment(1.0),
    }
    return run_to_end(REVIEW.body(Inputs(artifacts), ReviewParams()))[METRICS]


def test_values_beyond_the_training_range_count_as_they_were_measured():
    rng = np.random.default_rng(0)
    suv, predicted = rng.uniform(1.0, 7.0, N), rng.uniform(LOW, HIGH, N)
    assert (suv > HIGH).any()
    metrics = compared(suv, predicted)
    expected = np.abs(predicted - suv).mean() / (HIGH - LOW)
    assert metrics["suv_norm"]["mae"] == pytest.approx(expected)
    assert metrics["suv_bsa"]["mae"] == pytest.approx(expected * (HIGH - LOW))
    clipped = np.abs(np.clip(suv, LOW, HIGH) - predicted).mean() / (HIGH - LOW)
    assert metrics["suv_norm_clipped"]["mae"] == pytest.approx(clipped)
    assert clipped < expected


def test_only_the_measured_neighbours_know_the_pet_of_the_case():
    suv = np.linspace(1.0, 6.0, N)
    baselines = compared(suv, suv + 0.1)["baselines"]
    knows = {name for name, errors in baselines.items() if errors["uses_test_pet"]}
    assert knows == {"neighbour_idw"}
    assert baselines["mean"]["mae_minus_network"]["estimate"] == pytest.approx(
        np.abs((suv - LOW) / (HIGH - LOW) - 0.5).mean() - 0.05
    )


def case(name, fwhm_mm, scale):
    stored = {ALIGNMENT["pet"]: pet_alignment(scale)}
    return SimpleNamespace(
        name=name,
        file=SimpleNamespace(pet=SimpleNamespace(fwhm_mm=fwhm_mm)),
        store=SimpleNamespace(read=stored.__getitem__),
    )


def test_the_scanner_is_as_wide_on_the_section_as_the_registration_makes_it():
    width, warning = scanner_width_um([case("A2", 1.4, 0.8), case("A3", 1.4, 1.0)])
    assert width == pytest.approx(1260.0)
    assert not warning
    width, warning = scanner_width_um([case("A2", 1.4, 1.0), case("A3", None, 1.0)])
    assert width == pytest.approx(1450.0)
    assert "A3" in warning
    assert "A2" not in warning
    assert "1.5 mm was assumed" in warning
