"""The comparison with the measured uptake, and the resolution that the baselines are told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from napari_mosaik.core import Blocked, InputError, Lattice, Raster, TileGrid
from napari_mosaik.core.artifact import Artifact
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    METRICS,
    PARAMETERS,
    PREDICTION,
    PREDICTION_RECORD,
    SUV,
    SUV_RECORD,
    TILES,
    UPTAKE,
    UPTAKE_CLUSTERS,
)
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.table import Table
from napari_mosaik.predictor import block_split, tiles_digest
from napari_mosaik.predictor.baselines import ABOUT
from napari_mosaik.register import Alignment
from napari_mosaik.uptake.body_size import lean_mass_kg, suv_weight_factor
from napari_mosaik.workflow.cohort import scanner_width_um
from napari_mosaik.workflow.held_out_block import cut_block
from napari_mosaik.workflow.steps import maker_of, step_named
from napari_mosaik.workflow.steps.review import REVIEW
from napari_mosaik.workflow.suv import ReviewParams

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

    def source_contents(self, *sources):
        return {"slide:he": "h", "pet": "p"}

    def warn(self, sentence):
        raise AssertionError(sentence)


def compared(
    suv, predicted, clusters=None, class_label=None, *, given=None, params=None, table=None, **more
):
    lattice = Lattice("cd34", (6, 6), (300.0, 300.0), (0.0, 0.0))
    ones = np.ones(N)
    grid = TileGrid(lattice, 400.0, np.arange(N), ones, ones > 0)
    span = HIGH - LOW
    columns = {
        "suv": predicted,
        "suv_norm": (predicted - LOW) / span,
        "baseline_mean": np.full(N, 0.5),
        **({} if class_label is None else {"class_label": class_label}),
        **(table or {}),
    }
    record = {
        "unit": "cm²/mL", "target": {"low": LOW, "high": HIGH}, "split": "case", "model": "m",
        "shared_patient": False, "seen_in_training": False, "training_cases": ["A2"],
        "proxies": [], "seed": 0, "warnings": [], **more,
    }  # fmt: skip
    artifacts = {
        TILES: grid,
        UPTAKE: Table({"suv": suv}, {"suv": "cm²/mL"}),
        PREDICTION: Table(columns, {"suv": "cm²/mL"}),
        PREDICTION_RECORD: record,
        ALIGNMENT["pet"]: pet_alignment(1.0),
        **({} if clusters is None else {UPTAKE_CLUSTERS: clusters}),
        **(given or {}),
    }
    return run_to_end(REVIEW.body(Inputs(artifacts), params or ReviewParams()))[METRICS]


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


def test_a_model_that_has_learned_no_class_has_no_scores_of_classes():
    values = np.linspace(1.0, 6.0, N)
    lattice = Lattice("cd34", (6, 6), (300.0, 300.0), (0.0, 0.0))
    clusters = Table({"suv.label": np.arange(N) % 5}, {}, {}, lattice.frame)
    learned = np.arange(N) % 3
    assert "classes" in compared(values, values, clusters=clusters, class_label=learned)
    none = np.full(N, -1)
    assert "classes" not in compared(values, values, clusters=clusters, class_label=none)


def test_similarity_effective_tiles_and_calibration_error_stand_in_the_metrics():
    from napari_mosaik.predictor.metrics import expected_calibration_error, similarity_map
    from napari_mosaik.spatial import associate

    rng = np.random.default_rng(3)
    cells = np.stack(np.divmod(np.arange(N), 6), axis=1)
    suv = 4 + np.sin(cells[:, 0]) + rng.normal(0, 0.3, N)
    suv[3] = np.nan
    predicted = suv + rng.normal(0, 0.4, N)
    predicted[9] = np.nan
    lattice = Lattice("cd34", (6, 6), (300.0, 300.0), (0.0, 0.0))
    clusters = Table({"suv.label": np.arange(N) % 5}, {}, {}, lattice.frame)
    p = rng.dirichlet(np.ones(5), N)
    table = {f"class_{code}": p[:, code] for code in range(5)}
    label = p.argmax(axis=1)
    metrics = compared(suv, predicted, clusters=clusters, class_label=label, table=table)
    norm = [(values - LOW) / (HIGH - LOW) for values in (suv, predicted)]
    assert metrics["agreement"]["ssim"] == pytest.approx(np.nanmean(similarity_map(*norm, cells)))
    found = associate(suv, predicted, cells * 300.0)  # neither scale nor order matter
    assert metrics["agreement"]["pearson"] == pytest.approx(found.pearson)
    assert metrics["agreement"]["ess_pearson"] == pytest.approx(found.ess_pearson)
    assert metrics["agreement"]["ess_spearman"] == pytest.approx(found.ess_spearman)
    assert 2 < metrics["agreement"]["ess_pearson"] < N - 2
    there = np.isfinite(suv) & np.isfinite(predicted)
    by_hand = expected_calibration_error((np.arange(N) % 5)[there], p[there])
    assert metrics["classes"]["ece"] == pytest.approx(by_hand)
    constant = compared(suv, np.full(N, 4.0))
    assert constant["agreement"]["ess_pearson"] is None


def calibrated(**more):
    """What a model states of its intervals: an error that is common to a slide, and no field."""
    fields = {"case_sd": 0.2, "sd": 0.0, "length_um": 300.0}
    return {"tile": 0.2, "block": 0.4, "fields": fields, "notes": ["few cases"], **more}


def limits(norm):
    """Columns of the table `prediction`: ends of both intervals of normalised SUV."""
    return {
        "suv_norm_low": norm - 0.1,
        "suv_norm_high": norm + 0.3,
        "suv_norm_block_low": norm - 0.4,
        "suv_norm_block_high": norm + 0.4,
    }


def test_coverage_width_and_score_of_both_intervals_by_hand():
    predicted = np.random.default_rng(0).uniform(2.5, 3.5, N)
    norm, suv = (predicted - LOW) / (HIGH - LOW), predicted.copy()
    suv[[3, 8, 20]] += 1.0  # 0.5 of normalised SUV: 0.2 and 0.1 outside
    options = {"table": limits(norm), "intervals": calibrated()}
    found = compared(suv, predicted, **options)["intervals"]
    covered, outside = 33 / 36, 3 / 36
    tile, block = found["tile"], found["block"]
    assert tile["coverage"] == block["coverage"] == pytest.approx(covered)
    assert (tile["width"], block["width"]) == (pytest.approx(0.4), pytest.approx(0.8))
    assert tile["interval_score"] == pytest.approx(0.4 + 20 * 0.2 * outside)
    assert block["interval_score"] == pytest.approx(0.8 + 20 * 0.1 * outside)
    assert block["block_coverage"] == 0  # the slide is one block of 7 x 7
    mean = found["slide_mean"]
    assert mean["predicted"] == pytest.approx(norm.mean())
    assert mean["measured"] == pytest.approx(norm.mean() + 0.5 * outside)
    half = 1.645 * 0.2  # 90 % of the errors of a slide's mean
    assert mean["low"] == pytest.approx(norm.mean() - half, abs=0.045)
    assert mean["high"] == pytest.approx(norm.mean() + half, abs=0.045)
    new = "the patient is new: the intervals were calibrated on other patients"
    assert found["notes"] == ["few cases", new]
    known = compared(suv, predicted, **{**options, "shared_patient": True})["intervals"]
    assert known["notes"] == ["few cases"]
    options["intervals"] = calibrated(block=None)
    assert compared(suv, predicted, **options)["intervals"]["block"] is None


def test_without_intervals_the_metrics_say_why():
    suv = np.linspace(1.0, 6.0, N)
    why = "no intervals: 0 training cases could be held out, 2 are needed"
    found = compared(suv, suv, warnings=["other", why])["intervals"]
    note = f"{why}; so there is no guarantee at case level"
    assert found == {"tile": None, "block": None, "notes": [note]}
    assert "was trained without them" in compared(suv, suv)["intervals"]["notes"][0]


def test_tiles_beyond_the_training_and_tiles_without_a_prediction_are_counted():
    suv, predicted = np.linspace(1.0, 6.0, N), np.linspace(1.0, 6.0, N)
    predicted[:3] = np.nan
    beyond = np.arange(N) % 9 == 5
    reasons = {"no antibody curve": 3}
    found = compared(
        suv, predicted, table={"out_of_range": beyond}, not_predicted=reasons, learnt_fwhm_mm=1.3
    )
    assert found["n_out_of_range"] == 4
    assert (found["n_not_predicted"], found["not_predicted"]) == (3, reasons)
    assert found["learnt_fwhm_mm"] == 1.3
    assert compared(suv, predicted)["n_out_of_range"] is None


def test_what_moves_the_measured_uptake_is_drawn():
    """On a ramp the spread is known: slope x shift, and value x error of dose and weight."""
    slope, low = 0.002, 3.0  # SUV per µm along the columns
    ramp = np.broadcast_to(low + slope * (np.arange(12) + 0.5) * 300.0, (12, 12))
    lattice = Lattice("pet", (12, 12), (300.0, 300.0), (-900.0, -900.0))
    record = {"kind": "bsa", "terms": []}
    suv = low + slope * (np.tile(np.arange(6), 6) * 300.0 + 150.0 + 900.0)
    given = {SUV: Raster(ramp, lattice, "cm²/mL"), SUV_RECORD: record}
    params = ReviewParams(draws=64, registration="voxel")
    found = compared(suv, suv, given=given, params=params)["measured_spread"]
    shift = 300.0 / np.sqrt(3)
    assert found["registration"]["sd_um"] == pytest.approx(shift)
    parts = {
        "registration": (slope * shift) ** 2 + 0 * suv,
        "dose": (0.05 * suv) ** 2,
        "weight": (0.02 * 0.425 * suv) ** 2,
    }
    sd = np.sqrt(sum(parts.values())) / (HIGH - LOW)
    assert found["sd_median"] == pytest.approx(np.median(sd), rel=0.05)
    for name, part in parts.items():
        expected = part.sum() / sum(one.sum() for one in parts.values())
        assert found["shares"][name] == pytest.approx(expected, abs=0.03)
    assert 0 < found["mae"]["low"] < found["mae"]["high"]
    cells = np.stack(np.divmod(np.arange(N), 6), axis=1)
    test = block_split(cells, guard=3, min_tiles=1).test
    block = {"guard": 3, "tiles": tiles_digest(cells), "n_train": 12, "n_test": 9, "n_between": 15}
    seen = np.where(test, suv + 10.0, suv)  # right but for the tiles that count
    spread = compared(suv, seen, given=given, params=params, block=block)["measured_spread"]
    assert spread["mae"]["low"] > 9.0 / (HIGH - LOW)
    assert compared(suv, suv, given=given, params=ReviewParams(draws=0))["measured_spread"] is None
    assert compared(suv, suv)["measured_spread"] is None


@pytest.mark.parametrize(
    ("kind", "terms", "factor"),
    [
        ("bsa", {}, 1.1**0.425),
        ("bw", {}, 1.1),
        ("lbm", {}, 1.1),  # nothing is known of the patient
        (
            "lbm",
            {"weight_kg": 70.0, "height_cm": 170.0, "sex": "F"},
            lean_mass_kg(77.0, 170.0, "F") / lean_mass_kg(70.0, 170.0, "F"),
        ),
    ],
)
def test_another_weight_changes_the_suv_by_its_kind(kind, terms, factor):
    assert suv_weight_factor(kind, terms, 1.1) == pytest.approx(factor)


def test_only_the_tiles_of_the_test_block_count():
    suv = np.linspace(1.0, 6.0, N)
    cells = np.stack(np.divmod(np.arange(N), 6), axis=1)
    split = block_split(cells, guard=3, min_tiles=1)
    block = {"guard": 3, "tiles": tiles_digest(cells), "n_train": 12, "n_test": 9, "n_between": 15}
    predicted = np.where(split.test, suv + 0.5, 0.0)
    metrics = compared(suv, predicted, split="block", block=block, seen_in_training=True)
    assert (metrics["n_tiles"], metrics["n_not_measured"]) == (split.test.sum(), 0)
    assert metrics["suv_bsa"]["mae"] == pytest.approx(0.5)
    assert metrics["block"] == block
    assert metrics["seen_in_training"]
    assert metrics["warnings"][0].startswith(
        "only the 9 tiles of the test block count, 3 tiles or more from the 12 that trained"
    )
    other = {**block, "tiles": tiles_digest(cells[:-1])}
    with pytest.raises(InputError, match="train again with --split block"):
        compared(suv, predicted, block=other)


@pytest.mark.parametrize("name", ["slide:he", "pet"])
def test_a_case_that_holds_a_file_of_the_training_is_known(name):
    suv = np.linspace(1.0, 6.0, N)
    digest = {"slide:he": "h", "pet": "p"}[name]
    metrics = compared(suv, suv, training_files={"A2": {"slide:caix": "c", name: digest}})
    assert metrics["seen_in_training"]
    assert re.search(
        r"trained with the (H&E slide|microPET slice) of case A2", metrics["warnings"][0]
    )
    assert not compared(suv, suv, training_files={"A2": {name: "other"}})["seen_in_training"]


def test_only_the_measured_neighbours_know_the_pet_of_the_case():
    suv = np.linspace(1.0, 6.0, N)
    baselines = compared(suv, suv + 0.1)["baselines"]
    knows = {name for name, errors in baselines.items() if errors and errors["uses_test_pet"]}
    assert knows == {"neighbour_idw"}
    assert set(baselines) == {*ABOUT, "neighbour_idw"}
    assert {name for name, errors in baselines.items() if errors} == {"mean", "neighbour_idw"}
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


@dataclass
class Measured:
    suv: np.ndarray | None = None
    pet_label: np.ndarray | None = None


def slide(folder, suv):
    """A case of 20 x 60 tiles with two vascular parameters."""
    lattice = Lattice("cd34", (20, 60), (300.0, 300.0), (0.0, 0.0))
    n = 1200
    grid = TileGrid(lattice, 400.0, np.arange(n), np.ones(n), np.ones(n, bool))
    rng = np.random.default_rng(1)
    place = np.arange(n) % 60
    density, diameter, other = rng.normal(size=(3, n))
    columns = {
        "vessel_density_per_mm2": np.where(place < 30, suv[1], density),
        "vessel_equivalent_diameter_um": np.where(place < 30, diameter, suv[0]),
        "nucleus_density_per_mm2": other,
        "caix_h_score": other,
    }
    stored = {TILES: grid, UPTAKE: Table({"suv": suv[0]}), PARAMETERS: Table(columns)}
    return SimpleNamespace(name="B11", root=folder, store=SimpleNamespace(read=stored.__getitem__))


def test_nothing_measured_on_the_test_block_reaches_the_training(tmp_path):
    rng = np.random.default_rng(0)
    suv = 5.0 + rng.normal(0, 0.1, 1200)
    row, col = np.divmod(np.arange(1200), 60)
    suv[(row - 10) ** 2 + (col - 6) ** 2 < 16] += 4.0
    first = cut_block(slide(tmp_path, (suv, suv)), 8, 1500.0)
    train, test = first.split.train, first.split.test
    assert np.abs(col[test][:, None] - col[train]).min() == 8
    spoilt = np.where(train, suv, suv + 50.0 * rng.normal(size=1200))
    second = cut_block(slide(tmp_path, (spoilt, suv)), 8, 1500.0)
    one, other = first.masked(Measured()), second.masked(Measured())
    np.testing.assert_array_equal(one.suv, np.where(train, suv, np.nan))
    np.testing.assert_array_equal(one.suv, other.suv)
    np.testing.assert_array_equal(one.pet_label, other.pet_label)
    assert (one.pet_label == 1).sum() > 30
    assert set(one.pet_label[~train]) == {-1}
    assert first.choose_proxies().proxies == second.choose_proxies().proxies
    assert first.choose_proxies().proxies["vascular"] == "vessel_density_per_mm2"
    assert "with a guard of 8 tiles training and test tiles share tissue" in first.warnings[0]
    record = first.record
    assert record["n_train"] + record["n_test"] + record["n_between"] == 1200


def test_a_slide_too_small_for_the_whole_guard_is_refused(tmp_path):
    with pytest.raises(Blocked, match=r"0 training and 300 test tiles remain with a guard of 58"):
        cut_block(slide(tmp_path, np.ones((2, 1200))), 58, 1500.0)


def test_nothing_up_to_the_prediction_reads_the_pet_of_the_case():
    """With another PET the prediction is the same: none of its inputs comes from it."""
    read, waiting = set(), [step_named("predict")]
    while waiting:
        step = waiting.pop()
        for entry in (*step.reads, *step.may_read):
            if entry.name not in read and isinstance(entry, Artifact):
                waiting.append(maker_of(entry))
            read.add(entry.name)
    assert {"tiles", "parameters", "slide:he", "slide:cd34", "slide:caix"} <= read
    of_pet = {"pet", "injection", "given_alignment:pet", "alignment_pet", "suv", "uptake"}
    assert not read & of_pet
    assert not any(name.startswith(("uptake", "suv")) for name in read)
