"""Stains of an H-DAB slide are found from mixtures of known colours, or refused with a reason."""

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.core.colour import DAB, EOSIN, HAEMATOXYLIN
from napari_mosaik.segment.slide_stain import estimate_staining
from napari_mosaik.segment.stain_vectors import (
    fit_h_dab,
    given_stains,
    guess_stain,
    ruifrok_stains,
    stain_mismatch_warning,
)
from napari_mosaik.segment.vessel_params import VesselParams

N = 40_000


def degrees(one, other):
    one, other = (np.asarray(v, float) / np.linalg.norm(v) for v in (one, other))
    return np.degrees(np.arccos(min(1.0, one @ other)))


def mixture(blue, brown, *, pure=0.02, noise=2.0, seed=0):
    """Pixels (n, 3) of two stains: mostly pale haematoxylin, brown mixed with it, some pure."""
    rng = np.random.default_rng(seed)
    h = rng.exponential(0.35, N)
    d = rng.exponential(0.1, N) * (rng.random(N) < 0.3)
    strong = rng.random(N) < pure
    d[strong] = rng.uniform(0.6, 2, strong.sum())
    h[strong] *= 0.6 * (rng.random(strong.sum()) < 0.5)
    od = h[:, None] * np.asarray(blue) + d[:, None] * np.asarray(brown)
    levels = 240 * np.exp(-od) - 1 + rng.normal(0, noise, (N, 3))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("noise", "tolerance_deg"), [(0.0, 0.5), (4.0, 1.0)])
def test_known_colours_are_found_within_a_degree(seed, noise, tolerance_deg):
    rng = np.random.default_rng(seed + 100)
    blue, brown = (np.array(v) + rng.normal(0, 0.07, 3) for v in (HAEMATOXYLIN, DAB))
    blue, brown = blue / np.linalg.norm(blue), brown / np.linalg.norm(brown)
    found = fit_h_dab(mixture(blue, brown, noise=noise, seed=seed))
    assert found.source == "slide"
    assert degrees(found.haematoxylin, blue) < tolerance_deg
    assert degrees(found.dab, brown) < tolerance_deg
    assert found.angle_deg == pytest.approx((degrees(found.haematoxylin, HAEMATOXYLIN),
                                             degrees(found.dab, DAB)), abs=1e-6)  # fmt: skip


def test_the_order_of_the_pixels_does_not_matter():
    pixels = mixture(HAEMATOXYLIN, DAB)
    again = fit_h_dab(np.random.default_rng(1).permutation(pixels))
    np.testing.assert_allclose(fit_h_dab(pixels).matrix, again.matrix, atol=1e-12)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((0, 3), np.uint8), "only 0 sampled pixels show haematoxylin"),
        (np.full((N, 3), 255, np.uint8), "only 0 sampled pixels show haematoxylin"),
        (np.zeros((N, 3), np.uint8), "only 0 sampled pixels show haematoxylin"),
        (np.full((N, 3), (90, 110, 160), np.uint8), "pixels show DAB"),
        (mixture(HAEMATOXYLIN, DAB, pure=0.0), "pixels show DAB"),
        (mixture((0.9, 0.4, 0.1), DAB), "the estimated vector of haematoxylin lies"),
    ],
)
def test_without_both_stains_the_usual_ones_are_used_and_the_reason_is_said(pixels, reason):
    found = fit_h_dab(pixels)
    assert found.source == "ruifrok"
    assert reason in found.reason
    np.testing.assert_allclose(found.matrix, ruifrok_stains().matrix)
    said = estimate_staining(pixels, VesselParams()).warnings
    assert any(reason in text and "Ruifrok" in text for text in said)


def test_stains_given_by_hand_are_used_as_they_are():
    params = VesselParams(
        stains="manual", haematoxylin_vector=(0.8, 0.9, 0.4), dab_vector=(0.3, 0.7, 1.1)
    )
    found = estimate_staining(mixture(HAEMATOXYLIN, DAB), params)
    assert found.stains.source == "manual"
    assert not found.warnings
    assert degrees(found.stains.haematoxylin, (0.8, 0.9, 0.4)) < 1e-4
    assert np.linalg.norm(found.stains.dab) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("blue", "brown", "words"),
    [
        ((0, 0, 0), DAB, "haematoxylin"),
        (HAEMATOXYLIN, (0.2, -0.1, 0.7), "DAB"),
        (DAB, DAB, "nearly the same colour"),
    ],
)
def test_impossible_vectors_are_refused(blue, brown, words):
    with pytest.raises(InputError, match=words):
        given_stains(blue, brown)


def test_the_look_of_a_slide_is_told_by_pink_and_brown():
    brown = guess_stain(mixture(HAEMATOXYLIN, DAB, pure=0.05))
    assert brown.kind == "DAB"
    assert brown.brown > 0.03
    for eosin in (EOSIN, (0.2159, 0.8012, 0.5581)):
        pink = mixture(HAEMATOXYLIN, eosin, pure=0.4)
        look = guess_stain(pink)
        assert look.kind == "H&E"
        (warning,) = (w for w in estimate_staining(pink, VesselParams()).warnings if "H&E" in w)
        assert "Check that the file belongs to this stain" in warning
    assert guess_stain(np.full((N, 3), 255, np.uint8)).kind == ""
    assert guess_stain(mixture(HAEMATOXYLIN, HAEMATOXYLIN, noise=0)).kind == ""


def test_a_stain_in_the_wrong_slot_is_said_either_way():
    brown = guess_stain(mixture(HAEMATOXYLIN, DAB, pure=0.05))
    pink = guess_stain(mixture(HAEMATOXYLIN, EOSIN, pure=0.4))
    assert stain_mismatch_warning(brown, "DAB") == stain_mismatch_warning(pink, "H&E") == ""
    assert "looks like a DAB slide, not an H&E slide" in stain_mismatch_warning(brown, "H&E")
    assert "looks like an H&E slide, not a DAB slide" in stain_mismatch_warning(pink, "DAB")
    assert stain_mismatch_warning(guess_stain(np.full((N, 3), 255, np.uint8)), "H&E") == ""


def test_other_arrays_are_refused():
    with pytest.raises(InputError, match="8-bit pixels"):
        fit_h_dab(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="8-bit pixels"):
        guess_stain(np.zeros((4, 3)))
