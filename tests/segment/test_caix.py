"""CAIX of painted cells: rings, cut-offs, units, the H-score's identities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.color import rgb2hed

from napari_mosaik.core import InputError, LabelImage, Lattice, Raster
from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, LN10, optical_density, stain_matrix
from napari_mosaik.segment import CaixParams, h_score, score_caix
from napari_mosaik.segment.caix import cell_rings, grade

PARAMS = CaixParams()


def stained(haematoxylin, dab):
    matrix = stain_matrix(HAEMATOXYLIN, DAB)
    od = np.asarray(haematoxylin)[..., None] * matrix[:, 0]
    od = od + np.asarray(dab)[..., None] * matrix[:, 1]
    return np.clip(np.rint(240 * np.exp(-od) - 1), 0, 255).astype(np.uint8)


def raster(rgb, spacing_um=1.0, origin_um=(0.0, 0.0)):
    return Raster(rgb, Lattice("caix", rgb.shape[:2], (spacing_um, spacing_um), origin_um))


def cells(od10):
    """One nucleus per cell in a row, each surrounded by its own amount of DAB."""
    labels = np.zeros((30, 30 * len(od10)), np.int32)
    dab = np.zeros(labels.shape)
    for k, value in enumerate(od10):
        labels[12:18, 30 * k + 12 : 30 * k + 18] = k + 1
        dab[:, 30 * k : 30 * (k + 1)] = value * LN10
    return stained(np.where(labels > 0, 0.8, 0.05), dab), labels


def test_membrane_density_is_what_was_painted_base_10():
    painted = [0.0, 0.1, 0.25, 0.45, 0.7]
    rgb, labels = cells(painted)
    table = score_caix(raster(rgb, 0.5, (100.0, 50.0)), labels)
    np.testing.assert_allclose(table["membrane_od10"], painted, atol=0.02)
    assert table["grade"].tolist() == [0, 0, 1, 2, 3]
    np.testing.assert_allclose(table["row_um"], 100 + 15 * 0.5)
    np.testing.assert_allclose(table["column_um"], 50 + 0.5 * (15 + 30 * np.arange(5)))
    assert table.frame == "caix"


def test_grades_on_under_and_over_each_cut_off():
    for g, cut in enumerate(PARAMS.cutoffs):
        values = [np.nextafter(cut, 0), cut, np.nextafter(cut, 1)]
        assert grade(values, PARAMS).tolist() == [g, g + 1, g + 1]
    assert grade([np.nan, -0.1], PARAMS).tolist() == [-1, 0]


def test_pure_dab_through_three_routes_of_optical_density():
    """Natural, base 10 and scikit-image's HED units name the same cut-offs."""
    matrix = stain_matrix(HAEMATOXYLIN, DAB)
    for cut, natural, hed in ((0.2, 0.4605, 0.03333), (0.4, 0.9210, 0.06667), (0.6, 1.3816, 0.1)):
        assert cut * LN10 == pytest.approx(natural, abs=1e-4)
        assert natural / 13.8155 == pytest.approx(hed, abs=1e-5)
        transmitted = np.exp(-cut * LN10 * matrix[:, 1])  # its vector is 0.3 % longer than 1
        assert rgb2hed(transmitted[None, None])[0, 0, 2] == pytest.approx(hed, rel=6e-3)
        rgb = np.rint(240 * transmitted - 1).astype(np.uint8)
        along = optical_density(rgb[None])[0] @ matrix[:, 1]
        assert along / LN10 == pytest.approx(cut, abs=0.01)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_h_score_identities(grades):
    values = np.array(grades)
    score = h_score(values)
    percent = [100 * np.mean(values == g) for g in range(4)]
    assert score == pytest.approx(percent[1] + 2 * percent[2] + 3 * percent[3])
    positive = values[values > 0]
    if positive.size:
        assert score == pytest.approx(positive.mean() * 100 * positive.size / values.size)
    assert 0 <= score <= 300


def test_h_score_bounds_and_no_cells():
    assert h_score([0, 0]) == 0
    assert h_score([3, 3, 3]) == 300
    assert np.isnan(h_score([]))
    assert np.isnan(h_score([-1]))
    assert h_score([-1, 2]) == 200


def test_rings_equal_the_euclidean_distance_transform():
    rng = np.random.default_rng(0)
    labels, n = ndimage.label(ndimage.gaussian_filter(rng.normal(size=(80, 90)), 2) > 0.25)
    assert n > 10
    rings = cell_rings(labels.astype(np.int32), 1.0, 4.0)
    distance = ndimage.distance_transform_edt(labels == 0)
    np.testing.assert_array_equal(rings > 0, (distance > 1) & (distance <= 4))
    for r, c in np.argwhere(rings > 0)[::7]:
        rows, cols = np.nonzero(labels == rings[r, c])
        assert np.hypot(rows - r, cols - c).min() == pytest.approx(distance[r, c])


def test_rings_do_not_depend_on_numbers_or_place():
    rng = np.random.default_rng(1)
    labels, n = ndimage.label(ndimage.gaussian_filter(rng.normal(size=(60, 60)), 1.5) > 0.2)
    rings = cell_rings(labels, 0.0, 5.0)
    table = np.r_[0, rng.permutation(n) + 1].astype(np.int32)
    np.testing.assert_array_equal(cell_rings(table[labels], 0.0, 5.0), table[rings])
    part = cell_rings(labels[10:, 7:], 0.0, 5.0)
    np.testing.assert_array_equal(part[6:, 6:], rings[16:, 13:])


def test_membrane_is_the_brownest_share_of_the_ring():
    rng = np.random.default_rng(2)
    labels = np.zeros((40, 40), np.int32)
    labels[10:15, 10:15], labels[24:30, 22:28] = 1, 2
    rgb = stained(np.zeros((40, 40)), rng.uniform(0, 1.5, (40, 40)))
    density = optical_density(rgb) @ np.linalg.inv(stain_matrix(HAEMATOXYLIN, DAB))[1] / LN10
    rings = cell_rings(labels, 0.0, 8.0)
    for share in (0.25, 0.6, 1.0):
        found = score_caix(raster(rgb), labels, CaixParams(membrane_share=share))["membrane_od10"]
        for k in (1, 2):
            values = np.sort(density[rings == k])[::-1]
            assert found[k - 1] == pytest.approx(
                values[: np.ceil(share * values.size).astype(int)].mean(), abs=1e-5
            )


def test_shared_pixels_belong_to_one_cell_only():
    labels = np.zeros((20, 20), np.int32)
    labels[8:12, 4:7], labels[8:12, 9:12] = 1, 2
    dab = np.zeros((20, 20))
    dab[:, 8:] = 1.0
    params = CaixParams(ring_outer_um=4.0, membrane_share=1.0)
    table = score_caix(raster(stained(np.zeros((20, 20)), dab)), labels, params)
    rings = cell_rings(labels, 0.0, 4.0)
    assert table["ring_px"].tolist() == np.bincount(rings.ravel())[1:].tolist()
    assert table["membrane_od10"][0] < table["membrane_od10"][1]


def test_a_cell_without_ring_is_not_measurable():
    labels = np.ones((6, 6), np.int32)
    table = score_caix(raster(stained(np.ones((6, 6)), np.zeros((6, 6)))), labels)
    assert np.isnan(table["membrane_od10"][0])
    assert table["grade"][0] == -1


def test_tumour_flag_follows_the_mask_at_the_centroid():
    rgb, labels = cells([0.5, 0.5])
    mask = np.zeros(labels.shape, bool)
    mask[:, :30] = True
    image = raster(rgb)
    nuclei = LabelImage(labels, image.lattice)
    assert score_caix(image, nuclei, PARAMS, mask)["tumour"].tolist() == [True, False]
    assert score_caix(image, nuclei)["tumour"].all()
    with pytest.raises(InputError, match="shape"):
        score_caix(image, labels[:5])


def test_no_cells_give_an_empty_table():
    table = score_caix(raster(np.full((9, 9, 3), 255, np.uint8)), np.zeros((9, 9), np.int32))
    assert len(table) == 0
    assert np.isnan(h_score(table["grade"]))


def test_cut_offs_must_rise():
    with pytest.raises(InputError, match="increase"):
        CaixParams.parse({"cutoff_1": 0.5})
    with pytest.raises(InputError, match="ring"):
        CaixParams.parse({"ring_inner_um": 9.0})


def test_calibration_multiplies_the_density_before_it_is_graded():
    labels = np.zeros((40, 40), np.int32)
    labels[16:24, 16:24] = 1
    rgb = np.full((40, 40, 3), 245, np.uint8)
    rgb[10:30, 10:30] = (190, 150, 120)
    plain = score_caix(raster(rgb), labels, CaixParams(membrane_share=1.0))
    doubled = score_caix(raster(rgb), labels, CaixParams(membrane_share=1.0, calibration=2.0))
    np.testing.assert_allclose(doubled["membrane_od10"], 2 * plain["membrane_od10"])
    np.testing.assert_allclose(doubled["nucleus_od10"], 2 * plain["nucleus_od10"])
    assert doubled["grade"][0] == grade(2 * plain["membrane_od10"], CaixParams())[0]
