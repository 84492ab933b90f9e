"""Laws of the stated uptake and of the scanner."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from napari_mosaik.core import Lattice, Raster, Transform
from napari_mosaik.phantom.cohort import draw_specimen
from napari_mosaik.phantom.physics import (
    ScannerLaw,
    UptakeLaw,
    delivered_fraction,
    patient_activity,
    perfused_surface,
    pet_pose,
    simulate_scan,
    true_uptake,
)
from napari_mosaik.phantom.presets import PATIENTS, PLANS
from napari_mosaik.phantom.truth import class_map, tile_table, vessel_map


@pytest.fixture(scope="module")
def specimen():
    return draw_specimen("B11", "quick", 0)


def test_the_blur_keeps_the_activity():
    """What leaves a voxel arrives in another: a PET without noise holds the whole activity."""
    plan = PLANS["A2"]
    values = np.zeros((60, 80))
    values[20:40, 25:60] = 5.0
    uptake = Raster(values, Lattice("cd34", values.shape, (40.0, 40.0)), "g/mL")
    lattice = Lattice("pet", (32, 32), (400.0, 400.0))
    pose = Transform.similarity(
        "pet",
        "cd34",
        angle_deg=33.0,
        scale=0.93,
        shift_um=(-5200.0, -4800.0),
        about_um=(6400, 6400),
    )
    image, noise = simulate_scan(uptake, lattice, pose, plan, 0, ScannerLaw(noise_share=0.0))
    assert not noise.any()
    total = image.values.sum() * lattice.sample_area_um2 / patient_activity(plan)
    expected = values.sum() * uptake.lattice.sample_area_um2 / 0.93**2
    assert total == pytest.approx(expected, rel=0.005)
    fine = ScannerLaw()
    peak = image.values.max() / patient_activity(plan)
    assert peak < 5.0 * math.erf(1400 / 0.93 / 2 / (fine.fwhm_um / 2.3548) / math.sqrt(2))


def test_activity_of_one_gram_per_millilitre():
    """37.1 MBq in 82 kg, decayed for 14 days and 3 h 35 min, by hand."""
    hours = 14 * 24 + 3 + 35 / 60
    by_hand = 37.1e6 / 82000 * math.exp(-math.log(2) * hours / 78.41)
    assert patient_activity(PLANS["A2"]) == pytest.approx(by_hand, rel=1e-9)
    later = patient_activity(PLANS["A3"]) / patient_activity(PLANS["A2"])
    assert later == pytest.approx(2 ** (-1.25 / 78.41), rel=1e-9)


@pytest.mark.parametrize("patient", PATIENTS)
def test_the_plasma_integral_by_quadrature(patient):
    def curve(hour):
        fast, slow = patient.plasma_half_h
        share = patient.plasma_share
        return share * 2 ** (-hour / fast) + (1 - share) * 2 ** (-hour / slow)

    end = {"patient 1": 334 + 50 / 60, "patient 2": 333 + 35 / 60}[patient.name]
    assert delivered_fraction(patient) == pytest.approx(quad(curve, 0, end)[0] / 75.0, rel=1e-9)


def test_the_surface_adds_up_to_the_perfused_perimeters(specimen):
    law = UptakeLaw()
    surface = perfused_surface(specimen.anatomy, specimen.vessels, law)
    total = surface.sum() * law.spacing_um**2
    vessels = specimen.vessels
    assert total == pytest.approx(vessels.perimeter_um[vessels.perfused].sum(), rel=1e-3)
    assert 0.55 < vessels.perfused.mean() < 0.92


def test_uptake_is_empty_outside_saturates_and_follows_delivery(specimen):
    anatomy, vessels, patient = specimen.anatomy, specimen.vessels, specimen.plan.patient
    uptake = specimen.uptake.values
    tissue = anatomy.sampled("tissue", 40.0)
    assert not uptake[tissue < -40].any()
    assert (uptake[tissue > 40] > 0.5).all()
    double = true_uptake(anatomy, vessels, patient, UptakeLaw(delivery=2 * UptakeLaw().delivery))
    deep = tissue > 40
    base = UptakeLaw(delivery=0.0)
    floor = true_uptake(anatomy, vessels, patient, base).values
    gain = (double.values - floor)[deep] / np.maximum((uptake - floor)[deep], 1e-9)
    real = (uptake - floor)[deep] > 1e-3
    assert (gain[real] >= 1.0).all()
    assert (gain[real] <= 2.0 + 1e-6).all()


def test_the_normalised_uptake_spreads(specimen):
    """Standard deviation of the tiles' min-max normalised SUV of a quick case, at least 0.18."""
    scanner = ScannerLaw()
    lattice, pose = pet_pose(specimen.plan, specimen.anatomy, scanner)
    assert 1.05 < 1 / pose.scale < 1.10
    pet, _ = simulate_scan(specimen.uptake, lattice, pose, specimen.plan, 0, scanner)
    classes = class_map(specimen.anatomy, vessel_map(specimen.anatomy, specimen.vessels))
    nuclei = specimen.nuclei("caix")
    tiles = tile_table(
        specimen.anatomy, specimen.vessels, nuclei, classes, specimen.uptake, pet, pose
    )
    suv = tiles["pet_bq_ml"] / patient_activity(specimen.plan)
    assert 250 <= len(suv) <= 350
    low, high = np.percentile(suv, [0.5, 99.5])
    assert np.clip((suv - low) / (high - low), 0, 1).std() >= 0.18
    assert 0.2 < suv.min() < suv.max() < 40.0
    hot = [p for p in specimen.anatomy.planted if p.kind == "hot"]
    cold = [p for p in specimen.anatomy.planted if p.kind == "cold"]
    assert _mean_near(tiles, hot) > 1.5 * _mean_near(tiles, cold)


def _mean_near(tiles, regions):
    """Mean true uptake of tiles within half the radius of planted regions."""
    away = [
        np.hypot(tiles["row_um"] - r.centre_um[0], tiles["col_um"] - r.centre_um[1]) / r.radius_um
        for r in regions
    ]
    return tiles["true_uptake_g_ml"][np.min(away, axis=0) < 0.6].mean()


def test_a_ridge_on_true_tile_values_beats_the_training_mean():
    """Uptake is learnable from one case for another, and not by tile values alone."""
    keys = ("vessel_perimeter_um", "h_score", "neoplastic_fraction", "coverage")
    tables = []
    for name in ("A2", "B11"):
        case = draw_specimen(name, "quick", 0)
        lattice, pose = pet_pose(case.plan, case.anatomy, ScannerLaw())
        pet, _ = simulate_scan(case.uptake, lattice, pose, case.plan, 0)
        classes = class_map(case.anatomy, vessel_map(case.anatomy, case.vessels))
        nuclei = case.nuclei("caix")
        tiles = tile_table(case.anatomy, case.vessels, nuclei, classes, case.uptake, pet, pose)
        x = np.column_stack([tiles[k] for k in keys])
        x = np.where(np.isnan(x), np.nanmedian(x, axis=0), x)
        tables.append((np.column_stack([np.ones(len(x)), x]), tiles["pet_bq_ml"]))
    (train_x, train_y), (test_x, test_y) = tables
    weights = np.linalg.lstsq(train_x, train_y, rcond=None)[0]
    error = np.abs(test_x @ weights - test_y).mean()
    mean = np.abs(train_y.mean() - test_y).mean()
    assert 0.15 * mean < error < 0.8 * mean
