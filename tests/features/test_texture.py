"""Texture: Haralick's printed example by exact fractions, patterns by hand, kernel = formula."""

from fractions import Fraction
from itertools import product
from math import log2

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.features import (
    TextureParams,
    cooccurrence,
    difference_entropy,
    grey_levels,
    texture_table,
)

HARALICK = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]])
PRINTED = {
    (0, 1): [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]],
    (1, 0): [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]],
    (1, 1): [[2, 1, 3, 0], [1, 2, 1, 0], [3, 1, 0, 2], [0, 0, 2, 0]],
    (-1, 1): [[4, 1, 0, 0], [1, 2, 2, 0], [0, 2, 4, 1], [0, 0, 1, 0]],
}


def entropy_of(pairs):
    """Difference entropy from a list of (level, level), by exact shares."""
    counts = {}
    for a, b in pairs:
        counts[abs(a - b)] = counts.get(abs(a - b), 0) + 1
    shares = [Fraction(n, len(pairs)) for n in counts.values()]
    return -sum(float(p) * log2(p) for p in shares)


def pairs_of(levels, mask, offset):
    rows, cols = levels.shape
    found = []
    for r, c in product(range(rows), range(cols)):
        s, d = r + offset[0], c + offset[1]
        if 0 <= s < rows and 0 <= d < cols and mask[r, c] and mask[s, d]:
            found.append((int(levels[r, c]), int(levels[s, d])))
    return found


@pytest.mark.parametrize("offset", list(PRINTED))
def test_the_matrices_printed_by_haralick(offset):
    np.testing.assert_array_equal(cooccurrence(HARALICK, None, 4, offset), PRINTED[offset])


@pytest.mark.parametrize("offset", list(PRINTED))
def test_difference_entropy_by_exact_fractions_with_and_without_mask(offset):
    everything = np.ones((4, 4), bool)
    part = everything.copy()
    part[0, 0] = part[3, 3] = part[1, 2] = False
    for mask in (everything, part):
        expected = entropy_of(pairs_of(HARALICK, mask, offset))
        assert difference_entropy(HARALICK, mask, 4, offset) == pytest.approx(expected, abs=1e-14)


def test_horizontal_value_written_out():
    # p_d: 16/24 equal, 6/24 one apart, 2/24 two apart
    expected = -(16 / 24 * log2(16 / 24) + 6 / 24 * log2(6 / 24) + 2 / 24 * log2(2 / 24))
    assert difference_entropy(HARALICK, np.ones((4, 4), bool), 4, (0, 1)) == pytest.approx(expected)


def test_constant_is_zero_checkerboard_by_hand_and_no_pair_is_nan():
    assert difference_entropy(np.full((5, 5), 7), None, 32, (0, 1)) == 0
    board = np.indices((6, 6)).sum(axis=0) % 2 * 5
    assert difference_entropy(board, None, 8, (0, 1)) == 0  # every pair is 5 apart
    assert difference_entropy(board, None, 8, (1, 1)) == 0  # every pair is equal
    stripes = np.repeat([[0, 0, 3, 3, 0, 0, 3, 3, 0]], 4, axis=0)  # half equal, half 3 apart
    assert difference_entropy(stripes, None, 4, (0, 1)) == 1
    lone = np.zeros((3, 3), bool)
    lone[1, 1] = True
    assert np.isnan(difference_entropy(np.zeros((3, 3), int), lone, 4, (0, 1)))


def test_sign_of_the_difference_does_not_matter():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 16, (9, 9))
    forward = difference_entropy(levels, None, 16, (1, -1))
    assert forward == difference_entropy(levels, None, 16, (-1, 1))
    assert forward == difference_entropy(15 - levels, None, 16, (1, -1))


def test_levels_out_of_range_are_refused():
    with pytest.raises(InputError, match="0 to 3"):
        difference_entropy(np.array([[0, 4]]), None, 4, (0, 1))
    with pytest.raises(InputError, match="offset"):
        difference_entropy(np.array([[0, 1]]), None, 4, (0, 0))


def scene():
    rng = np.random.default_rng(4)
    labels = np.zeros((60, 70), np.int32)
    rows, cols = np.mgrid[:60, :70]
    for k, (r, c, radius) in enumerate([(12, 12, 9), (12, 40, 6), (40, 20, 12), (58, 60, 8)], 1):
        labels[(rows - r) ** 2 + (cols - c) ** 2 <= radius**2] = k
    labels[45, 60] = 5
    density = rng.gamma(3, 0.25, labels.shape).astype(np.float32)
    return labels, density


def test_the_table_equals_the_clear_version():
    labels, density = scene()
    table = texture_table(labels, density, 6)
    levels = grey_levels(density)
    for k in range(1, 5):
        values = [difference_entropy(levels, labels == k, 32, a) for a in PRINTED]
        assert table["difference_entropy_bits"][k - 1] == pytest.approx(np.mean(values), abs=1e-12)
    assert np.isnan(table["difference_entropy_bits"][4:]).all()


def test_the_other_numbers_from_the_matrices():
    labels, density = scene()
    table = texture_table(labels, density)
    levels = grey_levels(density)
    i, j = np.indices((32, 32))
    expected = {name: [] for name in table}
    for offset in PRINTED:
        p = cooccurrence(levels, labels == 3, 32, offset)
        p = p / p.sum()
        sums = np.bincount((i + j).ravel(), p.ravel())
        expected["contrast"].append((p * (i - j) ** 2).sum())
        expected["angular_second_moment"].append((p**2).sum())
        expected["inverse_difference_moment"].append((p / (1 + (i - j) ** 2)).sum())
        expected["entropy_bits"].append(-(p[p > 0] * np.log2(p[p > 0])).sum())
        expected["sum_entropy_bits"].append(-(sums[sums > 0] * np.log2(sums[sums > 0])).sum())
    for name, values in expected.items():
        if values:
            assert table[name][2] == pytest.approx(np.mean(values), rel=1e-12), name


def test_background_never_counts():
    labels, density = scene()
    other = np.where(labels > 0, density, 1.9).astype(np.float32)
    first, second = texture_table(labels, density), texture_table(labels, other)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_small_nuclei_and_missing_pixels():
    labels, density = scene()
    strict = texture_table(labels, density, params=TextureParams(min_pixels=200))
    sizes = np.bincount(labels.ravel())[1:]
    np.testing.assert_array_equal(np.isnan(strict["contrast"]), sizes < 200)
    holed = density.copy()
    holed[labels == 1] = np.nan
    assert np.isnan(texture_table(labels, holed)["contrast"][0])


def test_the_number_of_threads_changes_nothing():
    import numba

    labels, density = scene()
    before = numba.get_num_threads()
    many = texture_table(labels, density)
    numba.set_num_threads(1)
    one = texture_table(labels, density)
    numba.set_num_threads(before)
    for name in one:
        np.testing.assert_array_equal(one[name], many[name])


def test_fixed_bins():
    np.testing.assert_array_equal(
        grey_levels([-1, 0, 0.0624, 0.0626, 1.99, 2.0, 9]), [0, 0, 0, 1, 31, 31, 31]
    )
