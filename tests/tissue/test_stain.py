import json

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.core.colour import DAB
from napari_mosaik.tissue import (
    HE_REFERENCE,
    MacenkoParams,
    StainFit,
    StainReference,
    fit_macenko,
    normalise,
)

REFERENCE = np.array(HE_REFERENCE.vectors)
OTHER = np.array([[0.65, 0.704, 0.286], [0.20, 0.93, 0.31]])


def unit(vectors):
    vectors = np.asarray(vectors, float)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def amounts(n=60_000, pure=0.03, seed=0):
    """Amounts of the two stains; a share of the pixels holds one of them only."""
    rng = np.random.default_rng(seed)
    found = np.stack([rng.gamma(3, 0.3, n) + 0.3, rng.gamma(3, 0.2, n) + 0.3], axis=1)
    k = int(pure * n)
    found[:k] = [[1.0, 0.0]] * k
    found[:k, 0] += rng.random(k)
    found[k : 2 * k] = [[0.0, 1.0]] * k
    found[k : 2 * k, 1] += rng.random(k)
    return found


def light(c, vectors):
    return 240 * np.exp(-c @ np.asarray(vectors)) - 1


def eight_bit(c, vectors):
    return np.clip(np.rint(light(c, vectors)), 0, 255).astype(np.uint8)


def degrees(a, b):
    return np.degrees(np.arccos(np.clip((unit(a) * unit(b)).sum(-1), -1, 1)))


@pytest.mark.parametrize("vectors", [REFERENCE, OTHER])
def test_known_stains_are_recovered(vectors):
    vectors = unit(vectors)
    fit = fit_macenko(eight_bit(amounts(), vectors))
    assert fit.usable
    assert degrees(fit.vectors, vectors).max() < 0.5
    exact = fit_macenko(light(amounts(4000), vectors))
    assert degrees(exact.vectors, vectors).max() < 1e-3


def test_agrees_with_the_published_steps():
    """The method once more, pixel by pixel as published, without counting colours."""
    pixels = eight_bit(amounts(20_000), unit(OTHER))
    od = -np.log((pixels + 1.0) / 240)
    kept = od[~(od < 0.15).any(axis=1)]
    axes = np.linalg.eigh(np.cov(kept.T))[1][:, [2, 1]]
    axes *= np.where(axes[0] < 0, -1, 1)
    phi = np.arctan2(kept @ axes[:, 1], kept @ axes[:, 0])
    ends = [axes @ (np.cos(p), np.sin(p)) for p in np.percentile(phi, [1, 99])]
    ends.sort(key=lambda v: -v[0])
    c = np.linalg.lstsq(np.array(ends).T, od.T, rcond=None)[0]
    most = np.percentile(np.clip(c, 0, None), 99, axis=1)
    fit = fit_macenko(pixels)
    np.testing.assert_allclose(fit.vectors, ends, atol=1e-10)
    np.testing.assert_allclose(fit.max_concentration, most, rtol=1e-10)
    assert fit.n_pixels == len(kept)
    scaled = np.clip(c, 0, None) * (np.array(HE_REFERENCE.max_concentration) / most)[:, None]
    wanted = np.clip(np.rint(240 * np.exp(-REFERENCE.T @ scaled)), 0, 255).T
    got = normalise(pixels, fit)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, wanted)


def test_order_of_pixels_does_not_matter():
    pixels = eight_bit(amounts(5000), unit(OTHER))
    shuffled = np.random.default_rng(9).permutation(pixels)
    assert fit_macenko(pixels) == fit_macenko(shuffled)


def test_repeated_pixels_count_as_often_as_they_occur():
    pixels = eight_bit(amounts(3000), unit(OTHER))
    weighted = np.concatenate([pixels, pixels[:1500], pixels[:1500]])
    floats = fit_macenko(weighted.astype(float))
    np.testing.assert_allclose(fit_macenko(weighted).vectors, floats.vectors, atol=1e-12)
    assert degrees(fit_macenko(weighted).vectors, fit_macenko(pixels).vectors).max() > 1e-4


def test_reference_image_stays_as_it_is():
    c = amounts(40_000)
    c *= np.array(HE_REFERENCE.max_concentration) / np.percentile(c, 99, axis=0)
    pixels = np.clip(np.rint(240 * np.exp(-c @ REFERENCE)), 0, 255).astype(np.uint8)
    once = normalise(pixels, fit_macenko(pixels))
    assert np.abs(once.astype(int) - pixels).max() <= 4
    assert np.abs(once.astype(int) - pixels).mean() < 1.2
    twice = normalise(once, fit_macenko(once))
    assert np.abs(twice.astype(int) - once).mean() < 1.2


def test_differently_stained_slides_become_alike():
    c = amounts(40_000)
    one = eight_bit(c, unit(REFERENCE))
    two = eight_bit(c * (0.7, 1.3), unit(OTHER))
    before = np.abs(one.astype(int) - two).mean()
    after = np.abs(
        normalise(one, fit_macenko(one)).astype(int) - normalise(two, fit_macenko(two))
    ).mean()
    assert after < 0.1 * before
    fit = fit_macenko(one)
    swapped = StainFit(fit.vectors[::-1], fit.max_concentration[::-1], 1, True, "")
    gross = np.abs(normalise(one, swapped).astype(int) - normalise(one, fit)).mean()
    assert gross > 10


def test_glass_becomes_white():
    fit = fit_macenko(eight_bit(amounts(), unit(OTHER)))
    np.testing.assert_array_equal(normalise(np.full((2, 2, 3), 250, np.uint8), fit), 240)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((5000, 3), 245, np.uint8), "0 stained pixels"),
        (np.zeros((0, 3), np.uint8), "0 stained pixels"),
        (eight_bit(amounts(5000) * (1, 0) + (0.5, 0), unit(REFERENCE)), "one stain"),
        (np.full((5000, 3), 90, np.uint8), "one stain"),
    ],
)
def test_slides_without_two_stains_are_left_unchanged(pixels, words):
    fit = fit_macenko(pixels)
    assert not fit.usable
    assert words in fit.reason
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    out = normalise(picture, fit)
    np.testing.assert_array_equal(out, picture)
    assert out is not picture


def test_colours_that_are_not_he_are_refused():
    blue_green = unit([[0.9, 0.3, 0.1], [0.85, 0.1, 0.5]])
    fit = fit_macenko(eight_bit(amounts(), blue_green))
    assert not fit.usable
    assert "haematoxylin and eosin" in fit.reason


def test_record_and_input_checks():
    fit = fit_macenko(eight_bit(amounts(), unit(OTHER)), MacenkoParams(white=245.0))
    assert StainFit.from_dict(json.loads(json.dumps(fit.to_dict()))) == fit
    assert fit.white == 245.0
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        fit_macenko(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="8-bit"):
        normalise(np.zeros((4, 4, 3)), fit)
    brown = StainReference((HE_REFERENCE.vectors[0], DAB), (1.0, 1.0))
    assert fit_macenko(eight_bit(amounts(), unit(OTHER)), None, brown).reference == brown
