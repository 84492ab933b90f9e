from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.predictor import TargetScale, fit_baselines
from napari_mosaik.predictor.surroundings import Surroundings, tile_pitch_um


def gaussian_mean(case, fwhm_um, column):
    """The mean that the scanner sees, tile by tile; the Gaussian is cut at 4 sigma."""
    sigma = fwhm_um / (2 * np.sqrt(2 * np.log(2)))
    values, known = case.features[:, column], np.isfinite(case.features[:, column])
    pitch = tile_pitch_um(case)
    out = np.full(len(case), np.nan)
    for i, cell in enumerate(case.cells):
        apart = np.abs(case.cells - cell)
        reach = [int(4 * sigma / step + 0.5) for step in pitch]
        near = known & (apart <= reach).all(axis=1)
        weight = np.exp(-0.5 * ((apart * pitch / sigma) ** 2).sum(axis=1)) * case.covered * near
        if weight.sum() > 0:
            out[i] = (weight * np.where(near, values, 0.0)).sum() / weight.sum()
    return out


@pytest.fixture
def case(small_cases):
    rng = np.random.default_rng(0)
    one = small_cases[0]
    features = one.features.copy()
    features[rng.random(features.shape) < 0.1] = np.nan
    return replace(one, features=features, coverage=rng.uniform(0.3, 1.0, len(one)))


def test_scanner_means_against_a_sum_over_all_tiles(case):
    means = Surroundings(case, 1400.0).scanner_means
    for column in range(case.features.shape[1]):
        expected = gaussian_mean(case, 1400.0, column)
        np.testing.assert_allclose(means[:, column], expected, rtol=1e-9, equal_nan=True)


def test_box_means_against_a_sum_over_all_tiles(case):
    seen = Surroundings(case, 1400.0)
    columns, names = seen.columns("all"), seen.names("all")
    assert columns.shape == (len(case), len(names))
    for box in (3, 11):
        at = names.index(f"{case.feature_names[1]} ({box} x {box})")
        for i, cell in enumerate(case.cells):
            near = (np.abs(case.cells - cell) <= box // 2).all(axis=1)
            near &= np.isfinite(case.features[:, 1])
            mean = np.average(case.features[near, 1], weights=case.covered[near])
            assert columns[i, at] == pytest.approx(mean, rel=1e-9)


def test_a_regression_sees_how_much_tissue_the_scanner_sees(case):
    seen = Surroundings(case, 1400.0)
    columns, names = seen.columns("psf"), seen.names("psf")
    assert columns.shape == (len(case), len(names)) == (len(case), 2 * case.features.shape[1] + 1)
    sigma, pitch = 1400.0 / (2 * np.sqrt(2 * np.log(2))), tile_pitch_um(case)
    kernels = []
    for step in pitch:
        at = np.arange(-int(4 * sigma / step + 0.5), int(4 * sigma / step + 0.5) + 1)
        kernel = np.exp(-0.5 * (at * step / sigma) ** 2)
        kernels.append(dict(zip(at.tolist(), kernel / kernel.sum(), strict=True)))
    tissue = columns[:, names.index("tissue (scanner)")]
    for i, (row, col) in enumerate(case.cells):
        share = sum(
            kernels[0].get(int(r - row), 0.0) * kernels[1].get(int(c - col), 0.0) * covered
            for (r, c), covered in zip(case.cells, case.covered, strict=True)
        )
        assert tissue[i] == pytest.approx(share, rel=1e-9)
    name = case.feature_names[0]
    amount = columns[:, names.index(f"{name} (scanner, amount)")]
    np.testing.assert_allclose(amount, columns[:, names.index(f"{name} (scanner)")] * tissue)


def test_the_ridge_that_knows_the_scanner_follows_the_rim_of_the_tissue(small_cases):
    """A PET of equal sources is brightest inside: a straight line on the share of tissue."""
    cases = []
    for case in small_cases:
        seen = Surroundings(case, 1400.0)
        tissue = seen.columns("psf")[:, -1]
        cases.append(replace(case, suv=2.0 * tissue))
    found = fit_baselines(cases[:2], TargetScale(0.0, 1.0), fwhm_um=1400.0, only=["ridge_psf"])
    predicted = found["ridge_psf"].predict(Surroundings(cases[2], 1400.0))
    assert np.ptp(cases[2].suv) > 0.2
    np.testing.assert_allclose(predicted, cases[2].suv, atol=0.02)


def test_a_narrow_scanner_sees_the_tile_and_a_wide_one_the_mean(case):
    narrow = Surroundings(case, 30.0).scanner_means
    known = np.isfinite(case.features)
    np.testing.assert_allclose(narrow[known], case.features[known])
    assert np.isnan(narrow[~known]).all()
    wide = Surroundings(case, 1e6).scanner_means
    weights = np.where(known[:, 0], case.covered, 0.0)
    mean = np.average(np.nan_to_num(case.features[:, 0]), weights=weights)
    np.testing.assert_allclose(wide[:, 0], mean, rtol=1e-3)


def test_a_single_tile_and_a_width_of_zero_are_refused(case):
    with pytest.raises(InputError, match="one tile has no surroundings"):
        Surroundings(case.subset([0]), 1400.0).columns("psf")
    with pytest.raises(InputError, match="resolution of 0"):
        Surroundings(case, 0.0)
