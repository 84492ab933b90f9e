"""Image content of two sections: patches that match, and warnings where they do not."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_mosaik.core import InputError, Lattice, Raster, Transform
from napari_mosaik.core.colour import DAB, EOSIN, HAEMATOXYLIN
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.register import (
    AlignParams,
    align_sections,
    assess_sections,
    haematoxylin_density,
    inlier_statistics,
    iter_align_sections,
)
from napari_mosaik.register.content_search import (
    candidates_by_content,
    is_outline_complete,
    second_stain_of,
)
from napari_mosaik.register.patch_matching import fit_matches, match_patches
from napari_mosaik.register.quality import position_score

STEP = 20.0
SHAPE = (180, 220)
ROW, COL = np.moveaxis(Lattice("f", SHAPE, (STEP, STEP)).centres_um(), -1, 0)


def outline(row, col):
    """An egg: blunt at one end."""
    return ((row - 1800) / 1300) ** 2 + ((col - 2200) / (1900 - 0.15 * (row - 1800))) ** 2 < 1


def texture(seed):
    """Smooth random amounts of haematoxylin over a wide area, as a function of position."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=(400, 440)), 3)
    image = 0.5 + 0.12 * image / image.std()

    def at(points):
        index = (points / STEP + 100).reshape(-1, 2).T
        return map_coordinates(image, index, order=1, mode="reflect").reshape(points.shape[:-1])

    return at


def section(frame, to_fixed, amounts, rng=None, shape=SHAPE, cut=True):
    """Mask and density of a section whose positions are mapped into the fixed frame."""
    lattice = Lattice(frame, shape, (STEP, STEP))
    points = to_fixed.apply(lattice.centres_um())
    mask = outline(points[..., 0], points[..., 1]) if cut else np.ones(shape, bool)
    density = np.where(mask, amounts(points), 0.0)
    if rng is not None:
        density = density + rng.normal(0, 0.02, shape)
    return Raster(mask, lattice), Raster(density, lattice)


def pair(true, *, seeds=(0, 0), cut=True):
    rng = np.random.default_rng(9)
    moving = section("m", true, texture(seeds[0]), rng, cut=cut)
    fixed = section("f", Transform.identity("f", "f"), texture(seeds[1]), rng, cut=cut)
    return moving[0], fixed[0], moving[1], fixed[1]


def known(angle=0.0, scale=1.0, mirror=False, shift=(0.0, 0.0)):
    return Transform.similarity(
        "m", "f", angle_deg=angle, scale=scale, mirror=mirror, shift_um=shift,
        about_um=(1800, 2200),
    )  # fmt: skip


def error_um(found, true):
    points = true.inverse().apply([[900, 1500], [2500, 3000], [2600, 1200], [1800, 2200]])
    return float(np.linalg.norm(found.apply(points) - true.apply(points), axis=1).max())


def test_blocks_find_a_known_shift_to_a_fraction_of_a_pixel():
    true = known(shift=(37.0, -52.0))
    _, fixed_mask, moving, fixed = pair(true)
    found = match_patches(
        moving, fixed, fixed_mask, Transform.identity("m", "f"), step_um=STEP, reach=8
    )
    expected = np.array([-37.0, 52.0])  # where the partners lie from where identity puts them
    inner = found.tissue_fraction > 0.8
    assert inner.sum() > 30
    middle = np.median(found.shift_um[inner], axis=0)
    assert middle == pytest.approx(expected, abs=STEP / 4)
    fitted = fit_matches(found, Transform.identity("m", "f"), "rigid")
    assert error_um(fitted, true) < STEP / 4


def test_agreement_is_high_where_it_is_right_and_chance_where_it_is_wrong():
    true = known(angle=10)
    _, fixed_mask, moving, fixed = pair(true)
    right = inlier_statistics(moving, fixed, fixed_mask, true)
    wrong = inlier_statistics(
        moving, fixed, fixed_mask, true.then(known_in_fixed(shift=(500.0, 300.0)))
    )
    assert right.fraction > 0.9
    assert right.median_um < STEP
    assert wrong.fraction < 0.2
    assert right.closeness > 0.8 > 0.2 > wrong.closeness


def known_in_fixed(shift):
    return Transform.similarity("f", "f", shift_um=shift)


@pytest.mark.parametrize(("angle", "scale", "mirror"), [(140.0, 0.95, False), (-35.0, 1.03, True)])
def test_sections_are_found_turned_scaled_and_turned_over(angle, scale, mirror):
    true = known(angle=angle, scale=scale, mirror=mirror, shift=(60.0, -80.0))
    found = align_sections(*pair(true), AlignParams(kind="affine"))
    assert error_um(found.transform, true) < 15
    assert found.mirrored is mirror
    assert found.confidence > 0.8
    assert found.local_error_um < STEP


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_the_share_that_is_done_follows_the_way_that_is_taken(seeds):
    """All angles are tried for sections of another tissue alone: half of the longest way."""
    shares: list[float] = []
    sections = pair(known(shift=(60.0, -80.0)), seeds=seeds)
    found = run_to_end(iter_align_sections(*sections, AlignParams(kind="rigid")), shares.append)
    is_other = seeds[0] != seeds[1]
    assert (found.inlier_fraction < 0.3) is is_other
    assert (len(shares) > 12) is is_other
    assert np.diff(shares).min() > -1e-9
    assert np.diff(shares).max() < 0.4
    assert shares[-1] > 0.85


def test_sections_without_an_outline_are_found_by_what_is_inside():
    true = known(angle=100, shift=(150.0, 120.0))
    masks_and_densities = pair(true, cut=False)
    assert not is_outline_complete(masks_and_densities[0])
    found = align_sections(*masks_and_densities, AlignParams(kind="rigid"))
    assert error_um(found.transform, true) < 15
    assert found.confidence > 0.8


@pytest.mark.parametrize("what", ["unrelated", "mirrored", "blank"])
def test_a_wrong_alignment_has_a_low_confidence(what):
    true = known(angle=20, mirror=what == "mirrored")
    parts = list(pair(true, seeds=(0, 1 if what == "unrelated" else 0)))
    params = AlignParams(kind="affine", mirror=False)
    if what == "blank":
        blank = np.where(parts[0].values, 0.5, 0.0)
        noise = np.random.default_rng(1).normal(0, 0.02, SHAPE)
        parts[2] = Raster(blank + noise, parts[2].lattice)
    found = align_sections(*parts, params)
    assert found.confidence < 0.3
    assert found.warnings


def test_two_plain_sections_say_that_only_the_outline_was_used():
    true = known(angle=20)
    plain = [Raster(np.where(mask.values, 0.5, 0.0), mask.lattice) for mask in pair(true)[:2]]
    found = align_sections(*pair(true)[:2], *plain, AlignParams(kind="rigid"))
    assert found.method == "outline"
    assert np.isnan(found.inlier_fraction)
    assert found.confidence <= 0.6
    assert "too little image content" in found.messages[0]


def test_a_given_map_is_judged_by_the_same_figures():
    true = known(angle=-60)
    parts = pair(true)
    good = assess_sections(*parts, true, method="manual")
    bad = assess_sections(*parts, known(angle=-40), method="manual")
    assert good.confidence > 0.9
    assert good.dice > 0.97
    assert good.method == "manual"
    assert bad.confidence < 0.3
    assert bad.warnings
    beside = assess_sections(*parts, true.then(known_in_fixed((90.0, 80.0))), method="manual")
    assert beside.local_error_um == pytest.approx(120, abs=15)
    assert beside.confidence < 0.75  # as many places agree, but none of them where it is placed
    assert any("fits better" in text for text in beside.messages)


@pytest.mark.parametrize(
    ("error_um", "share"),
    [(0, 1), (75, 1), (150, 0.4), (200, 0), (np.inf, 0), (np.nan, 0)],
)
def test_how_exact_a_position_counts_as(error_um, share):
    assert position_score(error_um) == pytest.approx(share, abs=1e-9)


def test_the_scan_by_density_meets_a_shift_found_by_brute_force():
    rng = np.random.default_rng(3)
    true = known(shift=(220.0, 160.0))
    moving = section("m", true, texture(5), rng)
    fixed = section("f", Transform.identity("f", "f"), texture(5), rng)
    scan = candidates_by_content(
        moving[1], fixed[1], moving[0], fixed[0], mirror=False, angle_step_deg=90
    )
    best = None
    while best is None:
        try:
            next(scan)
        except StopIteration as end:
            best = end.value[0]
    assert best.angle_deg == pytest.approx(0, abs=1e-6)
    assert error_um(best, true) < 60  # a coarse pixel is 42 µm


def test_a_cut_off_section_has_no_whole_outline():
    lattice = Lattice("f", (50, 50), (STEP, STEP))
    inner = np.zeros((50, 50), bool)
    inner[10:40, 10:40] = True
    assert is_outline_complete(Raster(inner, lattice))
    assert not is_outline_complete(Raster(np.ones((50, 50), bool), lattice))


def mixed(first, second, n=40):
    """A picture of two stains in known amounts, and the amounts of the first."""
    amounts = np.stack(np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n)), axis=-1)
    stains = np.array([first, second]) / np.linalg.norm([first, second], axis=1, keepdims=True)
    rgb = 240 * np.exp(-(amounts @ stains)) - 1
    return np.rint(np.clip(rgb, 0, 255)).astype(np.uint8), amounts[..., 0]


@pytest.mark.parametrize("second", [EOSIN, DAB])
def test_haematoxylin_is_separated_from_eosin_and_from_dab(second):
    rgb, amounts = mixed(HAEMATOXYLIN, second)
    assert second_stain_of(rgb) == second
    found = haematoxylin_density(Raster(rgb, Lattice("he", rgb.shape[:2], (STEP, STEP))))
    assert np.abs(found.values - amounts).max() < 0.03


def test_haematoxylin_of_a_grey_picture_is_refused():
    with pytest.raises(InputError, match="RGB"):
        haematoxylin_density(Raster(np.zeros((5, 5)), Lattice("he", (5, 5), (1.0, 1.0))))
