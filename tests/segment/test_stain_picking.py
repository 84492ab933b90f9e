"""A stain picked from pixels of a known colour is that colour; what is not the stain is refused."""

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.core.colour import DAB, EOSIN, HAEMATOXYLIN, optical_density
from napari_mosaik.segment.stain_vectors import check_apart, pick_stain, stain_colour

USUAL = {"haematoxylin": HAEMATOXYLIN, "dab": DAB}


def degrees(one, other):
    one, other = (np.asarray(v, float) / np.linalg.norm(v) for v in (one, other))
    return np.degrees(np.arccos(min(1.0, one @ other)))


def pixels(*parts, noise=4.0, seed=0):
    """Pixels (n, 3) of (vector, number, least and most OD) in any order, with noise."""
    rng = np.random.default_rng(seed)
    od = [
        rng.uniform(low, high, n)[:, None] * np.asarray(v) / np.linalg.norm(v)
        for v, n, low, high in parts
    ]
    levels = 240 * np.exp(-np.concatenate(od)) - 1
    levels = levels + rng.normal(0, noise, levels.shape)
    return rng.permutation(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("stain", ["haematoxylin", "dab"])
@pytest.mark.parametrize("seed", range(8))
def test_a_known_colour_is_picked_within_a_degree(stain, seed):
    rng = np.random.default_rng(seed + 50)
    true = np.clip(np.array(USUAL[stain]) + rng.normal(0, 0.07, 3), 0.02, None)
    glass = ((1, 1, 1), 60, 0, 0.05)
    found = pick_stain(pixels((true, 200, 0.5, 1.8), glass, seed=seed), stain)
    assert degrees(found.vector, true) < 1
    assert np.linalg.norm(found.vector) == pytest.approx(1)
    assert found.angle_deg == pytest.approx(degrees(found.vector, USUAL[stain]), abs=1e-6)
    assert 180 <= found.pixels <= 200
    assert found.share == pytest.approx(200 / 260, abs=0.05)


def test_without_noise_the_direction_is_that_of_the_mean_density():
    """A second way: the first principal direction of the densities."""
    place = pixels((DAB, 300, 0.5, 1.8), noise=0)
    _, _, axes = np.linalg.svd(optical_density(place).astype(float), full_matrices=False)
    found = pick_stain(place, "dab")
    assert degrees(found.vector, np.abs(axes[0])) < 0.1
    assert degrees(found.vector, DAB) < 0.2


def test_a_bit_of_the_other_stain_changes_nothing():
    place = pixels((HAEMATOXYLIN, 200, 0.5, 1.5), (DAB, 60, 0.6, 1.5))
    assert degrees(pick_stain(place, "haematoxylin").vector, HAEMATOXYLIN) < 1


@pytest.mark.parametrize(
    ("place", "stain", "said"),
    [
        (np.full((100, 3), 250, np.uint8), "dab", "this area is blank: 0 of 100 pixels"),
        (np.zeros((0, 3), np.uint8), "dab", "this area is blank: 0 of 0 pixels"),
        (np.zeros((100, 3), np.uint8), "haematoxylin", "nearly black; pick a paler area"),
        (pixels((DAB, 200, 0.5, 1.5)), "haematoxylin", "this area is brown, not blue: 200 of"),
        (pixels((HAEMATOXYLIN, 200, 0.5, 1.5)), "dab", "this area is blue, not brown"),
        (pixels((EOSIN, 200, 0.5, 1.5)), "haematoxylin", r"this area is not blue: .* 25° are acc"),
        (pixels(((0.95, 0.3, 0.05), 200, 0.6, 1.5)), "haematoxylin", "this area is not blue"),
        (pixels(((0.05, 0.2, 0.95), 200, 0.6, 1.5)), "dab", "this area is not brown"),
        (pixels((DAB, 9, 0.5, 1.5)), "dab", "this area is blank: 9 of 9"),
    ],
)
def test_what_is_not_the_stain_is_refused_with_what_to_do(place, stain, said):
    with pytest.raises(InputError, match=said) as refused:
        pick_stain(place, stain)
    assert "pick" in str(refused.value)


def test_two_stains_of_nearly_one_colour_are_refused():
    check_apart(HAEMATOXYLIN, DAB)
    near = 0.75 * np.asarray(HAEMATOXYLIN) + 0.35 * np.asarray(DAB)
    with pytest.raises(InputError, match=r"only .*° apart; at least 15°"):
        check_apart(HAEMATOXYLIN, tuple(near))


def test_the_colour_shown_is_that_of_the_stain():
    shown = stain_colour(DAB)
    rgb = np.array([[int(shown[i : i + 2], 16) for i in (1, 3, 5)]], np.uint8)
    assert degrees(optical_density(rgb)[0], DAB) < 1
    red, green, blue = rgb[0]
    assert red > green > blue
