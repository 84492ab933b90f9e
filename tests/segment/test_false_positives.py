"""Planted pigment, red cells, ink, edges and folds are left out, and the vessels stay."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_mosaik.core import Lattice, Raster
from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, stain_density, stain_matrix
from napari_mosaik.segment.false_positives import (
    REASONS,
    SUMS,
    FalsePositiveFilter,
    add_block_sums,
    count_by_reason,
    exclusion_codes,
    wall_colours,
    wall_sums,
)
from napari_mosaik.segment.run_length import find_runs
from napari_mosaik.segment.slide_stain import result_warnings
from napari_mosaik.segment.vessel_params import VesselParams
from napari_mosaik.segment.vessels import find_vessels
from tests.false_positive_scene import KINDS, brown_scene

VECTORS = np.array([HAEMATOXYLIN, DAB]).T
RULES = {
    "yellow": "exclude_pigment",
    "black": "exclude_black",
    "dye": "exclude_foreign_dye",
    "edge": "exclude_edge_staining",
    "fold": "exclude_folds",
}


@pytest.fixture(scope="module")
def scene():
    return brown_scene(0)


@pytest.fixture(scope="module")
def found(scene):
    away = ndimage.distance_transform_edt(scene.tissue, sampling=scene.image.lattice.spacing_um)
    return find_vessels(scene.image, edge=scene.tissue & (away <= VesselParams().edge_um))


def matched(truth, labels):
    """Pairs (n, 2) of labels that overlap by at least half of their union."""
    pairs = np.zeros((truth.max() + 1, labels.max() + 1), int)
    np.add.at(pairs, (truth.ravel(), labels.ravel()), 1)
    union = pairs.sum(1)[:, None] + pairs.sum(0)[None, :] - pairs
    return np.argwhere((pairs / union >= 0.5)[1:, 1:]) + 1


def test_vessels_are_found_and_their_area_is_right(scene, found):
    labels = found.vessels.array()
    pairs = matched(scene.vessels, labels)
    f1 = 2 * len(pairs) / (scene.vessels.max() + labels.max())
    assert f1 >= 0.94
    assert abs((labels > 0).sum() / (scene.vessels > 0).sum() - 1) <= 0.05
    assert found.staining.stains.source == "slide"


def test_what_is_planted_is_left_out_for_the_right_reason(scene, found):
    expected = {
        "golden": {"yellow"},
        "red cells": {"yellow"},
        "black": {"black"},
        "ink": {"dye"},
        "edge": {"edge"},
        "fold": {"fold"},
    }
    kept, reasons = 0, {kind: [] for kind in KINDS}
    for label, kind in enumerate(scene.kinds, 1):
        there = scene.others == label
        kept += (found.vessels.array()[there] > 0).mean() > 0.1
        over = np.bincount(found.excluded.array()[there])[1:]
        if over.any():
            reasons[kind].append(REASONS[int(found.reasons[over.argmax()])])
    assert kept / len(scene.kinds) <= 0.1
    for kind, said in reasons.items():
        assert said
        assert set(said) == expected[kind]


def runs_of(labels):
    """Runs whose objects have the numbers of a label image (objects do not touch in a row)."""
    runs = find_runs(labels > 0)
    rows = np.repeat(np.arange(labels.shape[0]), np.diff(runs.row))
    own = np.where(runs.inside, labels[rows, runs.start], runs.label).astype(np.int32)
    return replace(runs, label=own, n_objects=int(labels.max()))


def test_each_rule_can_be_switched_off(scene):
    params = VesselParams(**dict.fromkeys(RULES.values(), False))
    everything = find_vessels(scene.image, params)
    assert not everything.excluded.array().any()
    codes = {"yellow": 1, "black": 2, "dye": 3, "edge": 4, "fold": 5}
    sums = wall_sums(
        scene.image.values,
        runs_of(np.where(everything.wall, everything.vessels.array(), 0)),
        everything.staining.stains.matrix,
        params,
        np.ones(scene.tissue.shape, bool),
    )
    pixels = np.bincount(everything.vessels.array().ravel())[1:]
    for name, code in codes.items():
        only = VesselParams(**{rule: rule == RULES[name] for rule in RULES.values()})
        verdict = exclusion_codes(sums, pixels, 1.0, everything.staining.stains.matrix, only)
        assert set(np.unique(verdict)) == {0, code}


def test_sums_of_blocks_are_those_of_the_whole_and_of_numpy():
    rng = np.random.default_rng(0)
    rgb = rng.integers(20, 250, (60, 70, 3)).astype(np.uint8)
    objects = (ndimage.uniform_filter(rng.random((60, 70)), 9) > 0.5).astype(int)
    labels = ndimage.label(objects)[0].astype(np.int32)
    edge = rng.random(labels.shape) > 0.5
    n, params = int(labels.max()), FalsePositiveFilter()
    whole = wall_sums(rgb, runs_of(labels), VECTORS, params, edge)
    total = np.zeros_like(whole)
    for rows in (slice(0, 23), slice(23, 60)):
        for cols in (slice(0, 41), slice(41, 70)):
            part, own = np.unique(labels[rows, cols], return_inverse=True)
            shift = 0 if part[0] == 0 else 1
            mine = (own.reshape(labels[rows, cols].shape) + shift).astype(np.int32)
            numbers = part[part > 0].astype(np.int32)
            sums = wall_sums(rgb[rows, cols], runs_of(mine), VECTORS, params, edge[rows, cols])
            add_block_sums(total, numbers, sums)
    np.testing.assert_array_equal(total, whole)
    table = wall_colours(whole, VECTORS)
    dab = stain_density(rgb, stain_matrix(HAEMATOXYLIN, DAB))[..., 1]
    for i in range(n):
        there = labels == i + 1
        assert table["dab_od"][i] == pytest.approx(dab[there].mean(), abs=2e-3)
        expected = dab[there].std() / dab[there].mean()
        assert table["dab_variation"][i] == pytest.approx(expected, rel=0.01, abs=0.01)
        assert table["edge_fraction"][i] == pytest.approx(edge[there].mean())


@pytest.mark.parametrize(
    ("colour", "beyond", "off"),
    [
        (DAB, 0.0, 0.0),
        (HAEMATOXYLIN, -37.07, 0.0),
        (np.cross(HAEMATOXYLIN, DAB), None, 90.0),
    ],
)
def test_colours_are_told_by_their_angles(colour, beyond, off):
    sums = np.zeros((1, len(SUMS)), np.int64)
    sums[0, 0] = 100
    sums[0, 1:4] = np.rint(np.asarray(colour) * 1e6)
    table = wall_colours(sums, VECTORS)
    if beyond is not None:
        assert table["hue_angle_past_dab_deg"][0] == pytest.approx(beyond, abs=0.01)
    assert table["out_of_plane_deg"][0] == pytest.approx(off, abs=0.01)


def test_an_object_without_sums_is_no_artefact():
    nothing = np.zeros((2, len(SUMS)), np.int64)
    verdict = exclusion_codes(nothing, np.array([50, 5000]), 1.0, VECTORS, FalsePositiveFilter())
    assert verdict.tolist() == [0, 0]
    assert np.isnan(wall_colours(nothing, VECTORS)["dab_od"]).all()


def test_vessels_and_excluded_objects_are_numbered_apart(found):
    for labels in (found.vessels.array(), found.excluded.array()):
        numbers, first = np.unique(labels, return_index=True)
        assert numbers.tolist() == list(range(labels.max() + 1))
        assert (np.diff(first[1:]) > 0).all()


def test_excluded_objects_are_counted_by_reason():
    assert count_by_reason(np.array([0, 3, 0, 0, 1], np.uint8)) == {
        "yellow": 1, "black": 0, "dye": 1, "edge": 0, "fold": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ((255, 255, 255), "hardly any pixel of the tissue is stained"),
        ((0, 0, 0), "every DAB object was excluded (1 black)"),
        ((90, 110, 160), "reaches a DAB of"),
        ((170, 110, 70), ""),
    ],
)
@pytest.mark.parametrize("method", ["dab", "hsv"])
def test_pictures_of_one_colour_have_no_vessels_and_the_reason_is_said(level, words, method):
    rgb = np.full((120, 130, 3), level, np.uint8)
    image = Raster(rgb, Lattice("cd34", rgb.shape[:2], (1.0, 1.0)))
    params = VesselParams(method=method)
    result = find_vessels(image, params)
    assert not result.vessels.array().any()
    told = result_warnings(0, count_by_reason(result.reasons), result.staining, params)
    assert len(told) == 1
    assert told[0].startswith("no vessel was found: ")
    if method == "dab":
        assert words in told[0]


def test_many_objects_left_out_are_told(found):
    params = VesselParams()
    told = result_warnings(10, {"black": 9, "edge": 0}, found.staining, params)
    assert "9 of 19 DAB objects were excluded (9 black)" in told[0]
    assert result_warnings(90, {"black": 9}, found.staining, params) == []
