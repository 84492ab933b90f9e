"""The fast tissue classifier: features, forest, annotations, blocks, files."""

import json

import numpy as np
import pytest
import shapely
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.colour import EOSIN, HAEMATOXYLIN, stain_density, stain_matrix
from napari_mosaik.core.errors import CorruptArtifact
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.segment import (
    TissueClassParams,
    load_tissue_model,
    rasterise_classes,
    sample_training_pixels,
    segment_classes,
    train_fast,
)
from napari_mosaik.segment.metrics import class_metrics, confusion_matrix
from napari_mosaik.segment.pixel_features import feature_names, pixel_features, reduce_rgb
from napari_mosaik.segment.tissue_classifier import (
    CLASSES,
    FlatForest,
    block_features,
    class_importances,
    grow_forest,
)
from napari_mosaik.segment.training_pixels import (
    GUARD_UM,
    balanced_pixels,
    split_by_blocks,
    weighted_classes,
)

PARAMS = TissueClassParams(n_trees=20)


def slide(seed=0, shape=(360, 420), spacing_um=2.0):
    """Three regions: blank, cell-rich, fibrous; picture and codes on the 8 µm lattice."""
    rng = np.random.default_rng(seed)
    region = ndimage.gaussian_filter(rng.normal(size=shape), 40)
    codes = np.digitize(region, np.quantile(region, [0.25, 0.6])) + 1
    cells = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    haem = np.where(codes == 2, 0.3 + 6 * np.clip(cells, 0, 0.2), 0.1) * (codes > 1)
    eosin = np.where(codes == 3, 0.6, 0.25) * (codes > 1) + rng.normal(0, 0.03, shape)
    od = np.stack([haem, eosin], -1) @ stain_matrix(HAEMATOXYLIN, EOSIN)[:, :2].T
    rgb = np.clip(240 * np.exp(-od) - 1, 0, 255).astype(np.uint8)
    lattice = Lattice("he", shape, (spacing_um, spacing_um))
    return Raster(rgb, lattice), codes[1::4, 1::4].astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    image, codes = slide()
    features = block_features(image.values, 2.0, PARAMS)
    samples, labels = sample_training_pixels(features, codes, 400, np.random.default_rng(1))
    return train_fast(samples, labels, PARAMS, np.random.default_rng(2))


def test_a_new_slide_is_classified(model):
    image, codes = slide(seed=9)
    labels, probability = segment_classes(image, model)
    scores = class_metrics(confusion_matrix(codes, labels.array(), 3))
    assert (scores.dice > 0.9).all()
    assert probability.channels == CLASSES
    np.testing.assert_allclose(probability.values.sum(-1), 1, atol=1e-5)
    assert labels.lattice.spacing_um == (8.0, 8.0)
    assert labels.names[2] == "neoplastic"


def test_flat_forest_equals_scikit_learn():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(600, 5)).astype(np.float32)
    labels = 1 + (samples[:, 0] + samples[:, 1] ** 2 > 0.6) + (samples[:, 2] > 1)
    options = {"max_depth": 6, "min_samples_leaf": 3, "class_weight": "balanced"}
    reference = RandomForestClassifier(12, random_state=7, **options).fit(samples, labels)
    forest = grow_forest(samples, labels, 3, n_trees=12, max_depth=6, min_leaf=3, seed=7)
    query = rng.normal(size=(400, 5)).astype(np.float32)
    np.testing.assert_allclose(forest.predict(query), reference.predict_proba(query), atol=1e-6)


def test_a_class_without_samples_has_probability_zero():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(50, 2)).astype(np.float32)
    labels = 1 + 2 * (samples[:, 0] > 0)
    forest = grow_forest(samples, labels, 3, n_trees=5, max_depth=4, min_leaf=1, seed=0)
    found = forest.predict(samples)
    assert (found[:, 1] == 0).all()
    np.testing.assert_array_equal(found.argmax(1) + 1, labels)
    with pytest.raises(InputError, match="at least two"):
        grow_forest(samples, np.ones(50), 3, n_trees=5, max_depth=4, min_leaf=1, seed=0)


def test_training_is_repeatable():
    rng = np.random.default_rng(3)
    params = TissueClassParams()
    samples = rng.normal(size=(10_000, len(feature_names(params.scales_um)))).astype(np.float32)
    labels = 1 + (samples[:, 0] > 0.4) + (samples[:, 1] > 0.5)
    one = train_fast(samples, labels, params, np.random.default_rng(5))
    two = train_fast(samples, labels, params, np.random.default_rng(5))
    other = train_fast(samples, labels, params, np.random.default_rng(6))
    assert one.hash == two.hash != other.hash


def test_saved_models_come_back_and_damage_is_told(model, tmp_path):
    model.save(tmp_path / "m")
    back = load_tissue_model(tmp_path / "m")
    image, _ = slide(seed=4, shape=(80, 96))
    np.testing.assert_array_equal(back.predict(image).values, model.predict(image).values)
    assert back.hash == model.hash
    assert json.loads((tmp_path / "m/card.json").read_text())["training"]["samples"]
    weights = tmp_path / "m/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"damaged: .*weights\.safetensors is changed"):
        load_tissue_model(tmp_path / "m")
    weights.write_bytes(content[:100])
    with pytest.raises(CorruptArtifact, match=r"damaged: .*weights\.safetensors is changed"):
        load_tissue_model(tmp_path / "m")
    with pytest.raises(CorruptArtifact, match="no model in"):
        load_tissue_model(tmp_path / "nowhere")


def test_a_forest_that_leads_in_circles_is_refused(model):
    arrays = dict(model.forest.arrays())
    inner = np.flatnonzero(arrays["feature"] >= 0)[0]
    arrays["left"] = arrays["left"].copy()
    arrays["left"][inner] = inner
    with pytest.raises(CorruptArtifact, match="damaged"):
        FlatForest.from_arrays(arrays)
    with pytest.raises(CorruptArtifact, match="lack"):
        FlatForest.from_arrays({})


def test_blocks_with_halo_equal_the_whole(model):
    image, _ = slide(seed=5)
    whole = model.predict(image).values
    halo, block = int(model.halo_um / 2), 160
    for r in range(0, 360, block):
        for c in range(0, 420, block):
            top, left = max(0, r - halo), max(0, c - halo)
            part = image.values[top : r + block + halo, left : c + block + halo]
            found = model.predict_block(part, 2.0)
            i, j = (r - top) // 4, (c - left) // 4
            expected = whole[r // 4 : (r + block) // 4, c // 4 : (c + block) // 4]
            core = found[i : i + expected.shape[0], j : j + expected.shape[1]]
            np.testing.assert_array_equal(core, expected)


def test_a_finer_picture_gives_nearly_the_same(model):
    image, _ = slide(seed=6, shape=(160, 200))
    fine = Raster(np.kron(image.values, np.ones((2, 2, 1), np.uint8)),
                  Lattice("he", (320, 400), (1.0, 1.0)))  # fmt: skip
    np.testing.assert_array_equal(model.predict(fine).values, model.predict(image).values)
    odd = Raster(image.values, Lattice("he", (160, 200), (1.37, 1.37)))
    assert model.predict(odd).lattice.shape == (28, 35)
    with pytest.raises(InputError, match="whole fraction"):
        model.predict_block(image.values, 1.37)


def test_cell_features_equal_their_definition():
    image, _ = slide(seed=7, shape=(24, 32))
    features = pixel_features(image.values, 2.0, 8.0, (16.0,))
    names = feature_names((16.0,))
    assert features.shape == (6, 8, len(names))
    haem = stain_density(image.values, stain_matrix(HAEMATOXYLIN, EOSIN))[..., 0]
    cells = haem.reshape(6, 4, 8, 4).transpose(0, 2, 1, 3).reshape(6, 8, 16)
    np.testing.assert_allclose(features[..., 0], cells.mean(-1), atol=1e-5)
    spread = features[..., names.index("haematoxylin spread")]
    np.testing.assert_allclose(spread, cells.std(-1), atol=1e-5)
    smooth = ndimage.gaussian_filter(cells.mean(-1), 2.0, truncate=3)
    np.testing.assert_allclose(features[..., names.index("haematoxylin, 16 µm")], smooth, atol=1e-5)


def test_reduction_is_the_rounded_mean_also_of_partial_blocks():
    rgb = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    out = reduce_rgb(rgb, 4)
    assert out.shape == (2, 3, 3)
    np.testing.assert_allclose(out[1, 2], rgb[4:, 8:].reshape(-1, 3).mean(0), atol=0.5)
    np.testing.assert_allclose(out[0, 1], rgb[:4, 4:8].reshape(-1, 3).mean(0), atol=0.5)


def shape(label, geometry, key="s"):
    return AnnotatedShape(key, label, geometry)


def test_rasterised_shapes_equal_shapely_at_sample_centres():
    rng = np.random.default_rng(0)
    lattice = Lattice("he", (60, 70), (3.0, 3.0), (20.0, 10.0))
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 60 + 20 * rng.random(40)
    star = shapely.Polygon(
        np.c_[110 + radius * np.cos(angles), 100 + radius * np.sin(angles)],
        [shapely.Point(110, 100).buffer(25).exterior.coords],
    )
    parts = shapely.MultiPolygon([shapely.box(15, 25, 40.5, 60.5), shapely.box(180, 150, 400, 300)])
    codes = rasterise_classes([shape("neoplastic", star), shape("non-neoplastic", parts)], lattice)
    centres = lattice.centres_um()
    inside = shapely.contains_xy(star, centres[..., 1], centres[..., 0])
    expected = np.where(inside, 2, 0)
    expected[shapely.contains_xy(parts, centres[..., 1], centres[..., 0])] = 3
    np.testing.assert_array_equal(codes, expected)


def test_later_shapes_win_and_unknown_classes_are_told():
    lattice = Lattice("he", (10, 10), (1.0, 1.0))
    first = shape("background", shapely.box(0, 0, 10, 10))
    second = shape("neoplastic", shapely.box(2, 2, 5, 5))
    codes = rasterise_classes([first, second], lattice)
    assert np.bincount(codes.ravel()).tolist() == [0, 91, 9]
    with pytest.raises(InputError, match="'necrosis'"):
        rasterise_classes([shape("necrosis", shapely.box(0, 0, 1, 1))], lattice)
    assert rasterise_classes([], lattice).max() == 0


def test_training_pixels_are_labelled_and_limited():
    features = np.arange(200, dtype=np.float32).reshape(10, 10, 2)
    codes = np.zeros((10, 10), np.uint8)
    codes[:3], codes[5] = 1, 3
    samples, labels = sample_training_pixels(features, codes, 12, np.random.default_rng(0))
    assert np.bincount(labels).tolist() == [0, 12, 0, 10]
    index = samples[:, 0].astype(int) // 2
    assert len(set(index.tolist())) == 22
    np.testing.assert_array_equal(codes.ravel()[index], labels)
    with pytest.raises(InputError, match="differ in shape"):
        sample_training_pixels(features, codes[:5], 12, np.random.default_rng(0))


def test_the_importances_of_the_classes_add_up_to_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(500, 4)).astype(np.float32)
    labels = np.where(samples[:, 2] > 0.3, 4, np.where(samples[:, 0] > 0, 2, 1))  # no class 3
    forest = RandomForestClassifier(8, max_depth=5, random_state=0).fit(samples, labels)
    found = class_importances(forest, 4)
    np.testing.assert_allclose(found.sum(axis=0), forest.feature_importances_, atol=1e-12)
    assert found[2].sum() == 0
    assert found[3].argmax() == 2  # what makes class 4
    params = TissueClassParams(n_trees=5)
    image, codes = slide()
    features = block_features(image.values, 2.0, params).reshape(-1, 23)
    told = train_fast(features, codes.ravel(), params, rng).training["features"]
    assert set(told) == set(CLASSES)
    assert set(told["neoplastic"]) <= set(feature_names(params.scales_um))


def test_pixels_are_balanced_over_the_cases_whatever_their_area():
    codes = np.repeat(np.array([1, 2], np.uint8), 600)
    cases = np.tile(np.repeat([0, 1, 2], [500, 80, 20]), 2)
    chosen = balanced_pixels(codes, cases, 300, np.random.default_rng(0))
    for code in (1, 2):
        own = cases[chosen[codes[chosen] == code]]
        assert np.bincount(own).tolist() == [200, 80, 20]  # the rest of the small ones goes on
    assert len(np.unique(chosen)) == len(chosen)
    assert len(balanced_pixels(codes, cases, 90, np.random.default_rng(0))) == 180


def test_no_tile_beside_a_held_out_block_trains():
    rows, cols = np.mgrid[:512, :384]
    places = np.column_stack([rows.ravel() // 256, rows.ravel(), cols.ravel()])
    codes = (1 + (cols.ravel() // 64) % 2).astype(np.uint8)
    train, held = split_by_blocks(codes, places, 8.0, 0.3, np.random.default_rng(3))
    assert 0.1 < held.mean() < 0.5
    assert not (train & held).any()
    assert set(codes[held]) <= set(codes[train])
    for case in (0, 1):
        picture = np.zeros((512, 384), bool)
        own = places[:, 0] == case
        picture[places[own & held, 1], places[own & held, 2]] = True
        away = ndimage.distance_transform_cdt(~picture, "chessboard")
        trained = places[own & train]
        assert away[trained[:, 1], trained[:, 2]].min() > GUARD_UM / 8.0


def drawn(label, box, reader="", **properties):
    named = {"reader": reader, **properties} if reader else properties
    return AnnotatedShape(f"{reader} {box}", label, shapely.box(*box), properties=named)


def test_readers_vote_on_every_pixel():
    lattice = Lattice("he", (1, 10), (1.0, 1.0))
    codes = {"a": 1, "b": 2}
    one = drawn("a", (0, 0, 6, 1), "Anna")
    other = drawn("b", (4, 0, 8, 1), "Ben")
    found, weights = weighted_classes([one, other], lattice, codes)
    assert found.tolist() == [[1, 1, 1, 1, 0, 0, 2, 2, 0, 0]]  # where they differ, none
    assert weights.tolist() == [[1, 1, 1, 1, 0, 0, 1, 1, 0, 0]]
    third = drawn("b", (5, 0, 9, 1), "Cid")
    found, weights = weighted_classes([one, other, third], lattice, codes)
    assert found.tolist() == [[1, 1, 1, 1, 0, 2, 2, 2, 2, 0]]
    assert weights.ravel().tolist() == pytest.approx([1, 1, 1, 1, 0, 2 / 3, 1, 1, 1, 0])
    decided = drawn("a", (4, 0, 6, 1), "agreed", decided_by="Eve")
    found, weights = weighted_classes([decided, one, other, third], lattice, codes)
    assert found.tolist() == [[1, 1, 1, 1, 1, 1, 2, 2, 2, 0]]
    assert weights.tolist() == [[1, 1, 1, 1, 1, 1, 1, 1, 1, 0]]
    alone, weights = weighted_classes([drawn("a", (0, 0, 2, 1)), drawn("b", (1, 0, 3, 1))],
                                      lattice, codes)  # fmt: skip
    assert alone.tolist() == [[1, 2, 2, 0, 0, 0, 0, 0, 0, 0]]  # one reader: the later shape wins
    assert weights.sum() == 3


def test_the_weight_of_a_sample_reaches_the_forest():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(400, 2)).astype(np.float32)
    truth = np.where(samples[:, 0] > 0, 2, 1)
    wrong = np.concatenate([truth, 3 - truth])
    options = {"n_trees": 10, "max_depth": 4, "min_leaf": 4, "seed": 1}
    both = np.tile(samples, (2, 1))

    def right(weights):
        forest = grow_forest(both, wrong, 3, weights=weights, **options)
        return float((forest.predict(samples).argmax(axis=1) + 1 == truth).mean())

    assert right(np.repeat([1.0, 0.01], 400)) > 0.95
    assert right(None) < 0.8
    equal = grow_forest(both, wrong, 3, weights=np.ones(800), **options)
    assert (
        equal.predict(samples).tolist()
        == grow_forest(both, wrong, 3, **options).predict(samples).tolist()
    )
