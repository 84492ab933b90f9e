"""Layers: where samples come to lie, colours, scales, legends."""

import numpy as np
import pytest

from napari_mosaik.annotate import DEFAULT_CLASSES
from napari_mosaik.annotate.review_queue import QueuedTile
from napari_mosaik.core import (
    FrameMismatch,
    InputError,
    LabelImage,
    Lattice,
    Raster,
    TileGrid,
    Transform,
)
from napari_mosaik.core.palette import CLASS_COLOURS, CLUSTER_COLOURS, rgba
from napari_mosaik.view import layers, maps, placement

LATTICE = Lattice("cd34", (40, 60), (2.0, 3.0), (100.0, -50.0))


def grid(shape=(6, 5), frame="cd34"):
    n = shape[0] * shape[1]
    lattice = Lattice(frame, shape, (300.0, 300.0), (50.0, 50.0))
    return TileGrid(lattice, 400.0, np.arange(n), np.ones(n), np.arange(n) % 2 == 0)


def rasters():
    rng = np.random.default_rng(0)
    return [
        Raster(rng.normal(3, 1, LATTICE.shape), LATTICE, "cm²/mL"),
        Raster(rng.normal(2, 0.5, LATTICE.shape), LATTICE, "cm²/mL"),
    ]


def all_layers():
    labels = LabelImage(
        np.zeros(LATTICE.shape, np.uint32), LATTICE, levels=(np.zeros((20, 30), np.uint32),)
    )
    measured, predicted = rasters()
    rgb = [np.zeros((40, 60, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)]
    return [
        layers.slide_layer("CD34", rgb, LATTICE),
        layers.tissue_layer(Raster(np.ones(LATTICE.shape, bool), LATTICE)),
        layers.artefact_layer(
            Raster(np.ones(LATTICE.shape, np.uint8), LATTICE),
            {1: "pen", 2: "a", 3: "b", 4: "c", 5: "d"},
        ),
        layers.tiles_layer(grid()),
        layers.vessels_layer(labels),
        layers.excluded_dab_layer(labels, ["black", "edge", "black"]),
        layers.nuclei_layer(labels),
        layers.classes_layer(labels),
        layers.annotation_layer(np.zeros(LATTICE.shape, np.uint8), LATTICE, DEFAULT_CLASSES),
        maps.parameter_layer(measured, "equivalent_diameter_um", unit="µm"),
        maps.clusters_layer(grid(), np.arange(30) % 6, "caix_score"),
        *maps.uptake_layers(measured, predicted),
        maps.difference_layer(measured, predicted),
        maps.pet_layer(measured),
        layers.queue_layer([QueuedTile(1, 3, 1.0, "flagged", False, None, 0)], grid()),
    ]


def test_sample_centres_come_to_lie_where_the_lattice_says():
    turn = Transform.similarity("cd34", "cd34", angle_deg=30, scale=1.1, shift_um=(20, -7))
    for transform in (None, turn):
        place = placement(LATTICE, transform)
        for index in ((0, 0), (39, 59), (7, 31)):
            physical = np.array(index) * place["scale"] + place["translate"]
            world = (place["affine"] @ [*physical, 1.0])[:2]
            expected = LATTICE.to_um(index)
            expected = expected if transform is None else transform.apply(expected)
            assert world == pytest.approx(expected, abs=1e-9)


def test_a_transform_of_another_frame_is_refused():
    with pytest.raises(FrameMismatch, match="'cd34'"):
        placement(LATTICE, Transform.identity("he", "cd34"))


def test_every_layer_wears_units_axes_and_a_place():
    for spec in all_layers():
        _, arguments, _ = spec.as_layer_data()
        assert arguments["units"] == ("um", "um")
        assert arguments["axis_labels"] == ("row", "column")
        assert arguments["affine"].shape == (3, 3)
        assert spec.legend is not None or spec.name == "CD34"


def test_measured_and_predicted_share_one_scale_and_the_difference_is_centred():
    measured, predicted = rasters()
    first, second = maps.uptake_layers(measured, predicted)
    assert first.style["contrast_limits"] == second.style["contrast_limits"]
    assert first.style["colormap"] == second.style["colormap"] == "magma"
    assert first.legend.limits == first.style["contrast_limits"]
    assert first.legend.unit == "cm²/mL"
    difference = maps.difference_layer(measured, predicted)
    low, high = difference.style["contrast_limits"]
    assert low == -high
    assert np.allclose(difference.data, predicted.values - measured.values, atol=1e-6)
    with pytest.raises(InputError, match="differ"):
        maps.difference_layer(measured, Raster(predicted.values, LATTICE, "1"))


def test_limits_ignore_missing_values_and_are_never_empty():
    assert maps.common_limits(np.array([np.nan, np.inf])) == (0.0, 1.0)
    low, high = maps.common_limits(np.full(9, 2.0))
    assert low == 2.0 < high
    values = np.arange(101.0)
    assert maps.common_limits(values, np.array([np.nan])) == (2.0, 98.0)
    assert maps.common_limits() == (0.0, 1.0)


def test_colours_of_codes():
    classes = {
        code: tuple(c)
        for code, c in layers.classes_layer(
            LabelImage(np.zeros((2, 2), np.uint8), Lattice("he", (2, 2), (1.0, 1.0)))
        )
        .style["colormap"]
        .items()
    }
    assert classes[2] == rgba("#D55E00")
    assert classes[3] == rgba("#009E73")
    assert classes[0][3] == classes[None][3] == 0.0
    assert CLUSTER_COLOURS == {
        1: "#D55E00",
        2: "#0072B2",
        3: "#E69F00",
        4: "#56B4E9",
        5: "#999999",
    }
    assert set(CLASS_COLOURS) == {1, 2, 3}


def test_tiles_that_cannot_be_tested_are_hatched():
    g = grid()
    codes = np.zeros(30, int)
    codes[7], codes[8] = 1, 5
    image, lattice = maps.cluster_codes(g, codes)
    blocks = image.reshape(6, 12, 5, 12).transpose(0, 2, 1, 3).reshape(30, 144)
    assert (blocks[7] == 1).all()
    assert 0.2 < (blocks[8] == 5).mean() < 0.3
    assert not blocks[np.r_[:7, 9:30]].any()
    assert lattice.extent_um == pytest.approx(g.lattice.extent_um)
    with pytest.raises(InputError, match="29"):
        maps.cluster_codes(g, codes[1:])


def test_tile_lines_are_the_edges_of_the_tiles():
    g = grid()
    spec = layers.tiles_layer(g)
    ends = np.concatenate([spec.data[:, 0], spec.data.sum(1)])
    assert ends.min(0) == pytest.approx(g.corners_um.min(0))
    assert ends.max(0) == pytest.approx(g.corners_um.max(0) + 400)
    assert np.linalg.norm(spec.data[:, 1], axis=1) == pytest.approx(400.0)
    assert len(spec.style["edge_color"]) == len(spec.data) == 4 * len(g)


def test_a_map_of_several_channels_is_not_guessed():
    stack = Raster(np.zeros((*LATTICE.shape, 2)), LATTICE, channels=("a", "b"))
    with pytest.raises(InputError, match="channel"):
        maps.parameter_layer(stack, "a")


def test_napari_accepts_every_layer_and_agrees_about_the_place():
    napari_layers = pytest.importorskip("napari.layers")
    turn = Transform.similarity("cd34", "cd34", angle_deg=30, scale=1.1, shift_um=(20, -7))
    for spec in all_layers():
        data, arguments, kind = spec.as_layer_data()
        layer = napari_layers.Layer.create(data, arguments, kind)
        for name, value in spec.attributes.items():
            setattr(layer, name, value)
        assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
        assert layer.name == spec.name
    spec = maps.parameter_layer(rasters()[0], "density_per_mm2", transform=turn)
    data, arguments, kind = spec.as_layer_data()
    layer = napari_layers.Layer.create(data, arguments, kind)
    world = layer.data_to_world((5, 9))
    assert world == pytest.approx(tuple(turn.apply(LATTICE.to_um((5, 9)))), abs=1e-6)


def test_two_thousand_tiles_are_two_layers():
    napari_layers = pytest.importorskip("napari.layers")
    big = grid((40, 50))
    tiles = napari_layers.Layer.create(*layers.tiles_layer(big).as_layer_data())
    clusters = napari_layers.Layer.create(
        *maps.clusters_layer(big, np.arange(2000) % 6, "a").as_layer_data()
    )
    assert tiles.ndim == clusters.ndim == 2
