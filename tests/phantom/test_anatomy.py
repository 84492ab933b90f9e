"""Truth laws of the drawn tissue: outline, vessels, nuclei, the reader's polygons."""

import numpy as np
import pytest
from shapely import Point, Polygon

from napari_mosaik.core import InputError
from napari_mosaik.phantom.cohort import Specimen, draw_specimen
from napari_mosaik.phantom.fields import interpolate, random_field, star_radius
from napari_mosaik.phantom.objects import NEOPLASTIC_NUCLEUS, STROMAL_NUCLEUS
from napari_mosaik.phantom.presets import CASES, PLANS, SIZES, random_generator
from napari_mosaik.phantom.truth import class_map, simulate_annotations, vessel_map


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    return draw_specimen("A2", "tiny", 0)


def test_a_random_field_has_its_variance_and_correlation():
    field = random_field(np.random.default_rng(0), (1200, 1200), 10.0, 200.0).astype(float)
    assert field.std() == pytest.approx(1.0, abs=0.06)
    assert field.mean() == pytest.approx(0.0, abs=0.1)
    lag = 20  # 200 µm: one correlation length
    r = np.corrcoef(field[:, :-lag].ravel(), field[:, lag:].ravel())[0, 1]
    assert r == pytest.approx(np.exp(-1.0), abs=0.07)


def test_bilinear_interpolation_is_exact_on_a_plane():
    rows, cols = np.mgrid[0:20, 0:30]
    plane = 3.0 * (rows + 0.5) * 4.0 - 2.0 * (cols + 0.5) * 4.0
    points = np.random.default_rng(1).uniform(5.0, 70.0, (50, 2))
    expected = 3.0 * points[:, 0] - 2.0 * points[:, 1]
    np.testing.assert_allclose(interpolate(plane, 4.0, points), expected, atol=1e-9)


def test_an_ellipse_without_waves_is_an_ellipse():
    angle = np.linspace(-np.pi, np.pi, 50)
    radius = star_radius(angle, (3.0, 5.0), [])
    inside = (radius * np.cos(angle) / 3.0) ** 2 + (radius * np.sin(angle) / 5.0) ** 2
    np.testing.assert_allclose(inside, 1.0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("frame", ["he", "cd34", "caix"])
def test_transforms_go_there_and_back(name, frame):
    transform = PLANS[name].transform(frame, SIZES["quick"].extent_um)
    points = np.random.default_rng(2).uniform(0, 8000.0, (40, 2))
    np.testing.assert_allclose(
        transform.inverse().apply(transform.apply(points)), points, atol=1e-6
    )
    if frame == "cd34":
        np.testing.assert_array_equal(transform.matrix, np.eye(3))
    else:
        assert transform.scale == pytest.approx(PLANS[name].poses[frame].scale)
        assert abs(transform.angle_deg) > 5.0


def test_the_outline_lies_on_each_slide_and_has_no_symmetry(specimen):
    plan, extent = specimen.plan, specimen.size.extent_um
    ring = specimen.anatomy.outline_um
    for stain in ("he", "cd34", "caix"):
        moved = plan.transform(stain, extent).inverse().apply(ring)
        assert (moved > 0).all()
        assert (moved < np.asarray(extent)).all()
    shape = Polygon(ring)
    middle = np.array([shape.centroid.x, shape.centroid.y])
    turned = Polygon(2 * middle - ring)
    dice = 2 * shape.intersection(turned).area / (shape.area + turned.area)
    assert dice < 0.965


def test_vessels_are_stadiums_of_the_stated_area(specimen):
    """Closed forms of the tables against areas counted on a fine raster."""
    vessels = specimen.vessels
    area = vessel_map(specimen.anatomy, vessels, 2.0).values.sum() * 4.0
    stated = vessels.area_um2.sum()
    assert area == pytest.approx(stated, rel=0.03)  # bends overlap a little, so not above
    assert (vessels.lumen_um > 0).all()
    assert (vessels.wall_um >= 1.8).all()
    straight = vessels.length_um < 1.0
    circle = 2 * np.pi * vessels.outer_um[straight]
    np.testing.assert_allclose(vessels.perimeter_um[straight], circle, rtol=0.15)


def test_vessels_do_not_touch(specimen):
    vessels = specimen.vessels
    owners = np.repeat(np.arange(len(vessels)), vessels.line_um.shape[1])
    points = vessels.line_um.reshape(-1, 2)
    gap = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    gap -= vessels.outer_um[owners][:, None] + vessels.outer_um[owners][None]
    gap[owners[:, None] == owners[None]] = np.inf
    assert gap.min() > 0


def test_nuclei_of_both_populations_lie_where_they_belong(specimen):
    nuclei = specimen.nuclei("he")
    nest = specimen.anatomy.at("nest", nuclei.centre_um)
    tumour, stroma = nuclei.kind == NEOPLASTIC_NUCLEUS, nuclei.kind == STROMAL_NUCLEUS
    assert nest[tumour].min() > 0 > nest[stroma].max()
    assert nuclei.coarseness[tumour].mean() > 4 * nuclei.coarseness[stroma].mean()
    assert (nuclei.membrane_od[~tumour] == 0).all()
    diameter = 2 * np.sqrt(nuclei.semi_um[tumour].prod(axis=1))
    assert 7.0 < np.percentile(diameter, 5) < np.percentile(diameter, 95) < 10.5
    masks = class_map(specimen.anatomy, vessel_map(specimen.anatomy, specimen.vessels))
    nests_mm2 = (masks.values == 2).sum() * masks.lattice.sample_area_um2 / 1e6
    assert 1700 < tumour.sum() / nests_mm2 < 2300


def test_sections_share_their_tissue_but_not_their_nuclei(specimen):
    he, caix = specimen.nuclei("he"), specimen.nuclei("caix")
    assert len(he) == pytest.approx(len(caix), rel=0.05)
    assert not np.array_equal(he.centre_um[:100], caix.centre_um[:100])


def test_the_reader_stays_inside_the_true_class(specimen):
    extent = specimen.size.extent_um
    to_slide = specimen.plan.transform("he", extent).inverse()
    classes = class_map(specimen.anatomy, vessel_map(specimen.anatomy, specimen.vessels))
    shapes = simulate_annotations(classes, to_slide, random_generator(0, "A2", 5))
    assert {code for code, _ in shapes} == {1, 2, 3}
    back = to_slide.inverse()
    rng = np.random.default_rng(3)
    for code, ring in shapes:
        polygon = Polygon(ring)
        assert polygon.is_valid
        low, high = ring.min(axis=0), ring.max(axis=0)
        points = [p for p in rng.uniform(low, high, (60, 2)) if polygon.contains(Point(p))]
        assert (classes.at(back.apply(np.array(points).reshape(-1, 2))) == code).all()


def test_other_seeds_give_other_tissue_and_unknown_cases_are_refused():
    first, second = draw_specimen("B8", "tiny", 1), draw_specimen("B8", "tiny", 2)
    assert not np.array_equal(first.anatomy.tissue, second.anatomy.tissue)
    with pytest.raises(InputError, match="no case 'C1'"):
        random_generator(0, "C1", 1)
