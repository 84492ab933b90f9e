"""StarDist's network in torch gives what TensorFlow gives, and reads only its own weights."""

import gc
import json
import weakref
import zipfile

import h5py
import numpy as np
import pytest
import torch

from napari_mosaik.core import CorruptArtifact, InputError
from napari_mosaik.core.progress import cancellable
from napari_mosaik.segment.stardist import (
    Architecture,
    StarDistNetwork,
    StarDistNuclei,
    StarDistWeights,
    load_stardist,
    predict_maps,
    save_stardist,
)
from napari_mosaik.segment.stardist.network import CONTEXT_PX, PieceWork, layer_shapes
from napari_mosaik.segment.stardist.weights import VERSATILE_HE_THRESHOLDS, read_keras_weights
from tests.segment.make_stardist_reference import (
    REFERENCE,
    SHAPES,
    keras_model,
    outputs_of,
    picture,
    random_kernels,
)

SHAPES_OF = layer_shapes(Architecture())


def write_keras(path, layout, kernels=None, first=0):
    """A weights file as Keras writes it, in one of its three layouts."""
    kernels = kernels or random_kernels(SHAPES_OF)
    with h5py.File(path, "w") as file:
        for number, (name, arrays) in enumerate(kernels.items()):
            if layout == "keras-3":
                group = file.create_group(f"layers/conv2d{f'_{number}' if number else ''}/vars")
                group.attrs["name"] = name
                for key, array in enumerate(arrays):
                    group[str(key)] = array
                continue
            if name in ("conv2d", "conv2d_1"):
                place = first + int(name == "conv2d_1")
                name = f"conv2d_{place}" if place else "conv2d"
            end = ":0" if layout == "keras-2" else ""
            names = [f"{name}/kernel{end}", f"{name}/bias{end}"]
            group = file.create_group(name)
            group.attrs["weight_names"] = [text.encode() for text in names]
            for text, array in zip(names, arrays, strict=True):
                group[text] = array
        if layout == "keras-3":
            file.create_group("layers/max_pooling2d/vars").attrs["name"] = "max_0"
        else:
            file.create_group("max_0").attrs["weight_names"] = np.zeros(0, "S1")
            file.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0, "S1")
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return load_stardist(write_keras(folder / "weights_best.h5", "keras-2"))


@pytest.fixture(scope="module")
def network(weights):
    return weights.network()


def assert_same(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_are_those_of_tensorflow(network, shape):
    prob, dist = predict_maps(network, picture(shape))
    reference = np.load(REFERENCE)
    assert_same(prob, reference[f"prob_{shape[0]}"])
    assert_same(dist[::3, ::3, ::4], reference[f"dist_{shape[0]}"])
    assert prob.std() > 1e-3


def test_tensorflow_itself_where_it_is_installed(network, tmp_path):
    pytest.importorskip("tensorflow")
    model = keras_model(tmp_path)
    for shape in SHAPES:
        prob, dist = model.predict(picture(shape))
        ours = predict_maps(network, picture(shape))
        assert_same(ours[0], prob)
        assert_same(ours[1], dist)
    stored = np.load(REFERENCE)
    for name, values in outputs_of(model).items():
        assert_same(values, stored[name])
    for name in ("weights_best.h5", "other.weights.h5"):
        model.keras_model.save_weights(str(tmp_path / name))
        found = read_keras_weights(tmp_path / name)
        for key, array in network.state_dict().items():
            np.testing.assert_array_equal(found[key], array.numpy())


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (15, 17), (31, 16)])
def test_any_size_gives_half_as_many_positions(network, shape):
    prob, dist = predict_maps(network, np.zeros((*shape, 3)))
    assert prob.shape == tuple(-(-n // 2) for n in shape)
    assert dist.shape == (*prob.shape, 32)
    assert dist.min() >= np.float32(1e-3)


@pytest.mark.parametrize("piece", [(8, 16), (40, 24)])
def test_pieces_give_what_the_whole_gives_and_can_be_stopped(network, monkeypatch, piece):
    image, looks = picture((97, 150)), []
    with cancellable(lambda: looks.append(1)):
        whole = predict_maps(network, image)
        at_first = len(looks)
        monkeypatch.setattr("napari_mosaik.segment.stardist.network.PIECE", piece)
        for one, other in zip(predict_maps(network, image), whole, strict=True):
            assert_same(one, other)
    assert len(looks) > 3 * at_first  # ever shorter stretches without a place to stop


def test_only_wanted_cells_are_computed_whatever_the_memory_holds(network, monkeypatch):
    """The maps between the levels are those of the picture before, here without a number."""
    monkeypatch.setattr("napari_mosaik.segment.stardist.network.PIECE", (16, 32))
    image = np.random.default_rng(3).integers(0, 255, (352, 480, 3)).astype(np.uint8)
    whole = np.zeros((176, 240, 128), np.float32)
    work = PieceWork(network)

    def put(out, pieces):
        for row, col, found in pieces:
            rows, cols = slice(row, row + found.shape[2]), slice(col, col + found.shape[3])
            out[rows, cols] = found[0].permute(1, 2, 0).numpy()

    put(whole, work.run(image, (0, 255)))
    where = np.zeros((22, 30), bool)
    where[3:5, 2:4] = where[18, 25:30] = True
    list(work.run(np.full((352, 480, 3), np.nan, np.float32), (0, 1)))
    found = np.zeros_like(whole)
    put(found, work.run(image, (0, 255), where))
    wanted = where.repeat(8, 0).repeat(8, 1)
    np.testing.assert_allclose(found[wanted], whole[wanted], rtol=1e-5, atol=1e-6)
    assert (found != 0).any(2).mean() < 0.1
    assert list(work.run(image, (0, 255), where & False)) == []


def test_memory_depends_on_the_width_alone(network, monkeypatch):
    monkeypatch.setattr("napari_mosaik.segment.stardist.network.PIECE", (32, 64))
    held = []
    for height in (512, 1536):
        work = PieceWork(network)
        image = np.random.default_rng(3).integers(0, 255, (height, 128, 3)).astype(np.uint8)
        where = np.ones((height // 16, 8), bool)
        where[10:-10] = False  # a gap is skipped, not kept
        pieces = list(work.run(image, (0, 255), where)) + list(work.run(image, (0, 255)))
        assert len(pieces) > 10
        held.append(sum(memory.numel() for memory in work._memory.values()))
    assert held[1] < 1.2 * held[0]  # three times the rows


@pytest.mark.parametrize("stopped", [False, True])
def test_an_image_is_let_go_at_once(network, stopped):
    """Blocks of a slide would stay in memory until cycles of references are looked for."""
    image = np.zeros((64, 64, 3), np.uint8)
    seen = weakref.ref(image)
    gc.disable()
    try:
        pieces = PieceWork(network).run(image, (0, 255))
        if stopped:
            next(pieces)
            pieces.close()
        else:
            list(pieces)
        del image, pieces
        assert seen() is None
    finally:
        gc.enable()


def test_what_lies_beyond_the_context_changes_nothing(network):
    rng = np.random.default_rng(0)
    one = rng.random((64, 512, 3)).astype("f4")
    other = one.copy()
    other[:, 256:] = rng.random((64, 256, 3))
    first, second = predict_maps(network, one)[0], predict_maps(network, other)[0]
    edge = (256 - CONTEXT_PX) // 2
    np.testing.assert_allclose(first[:, :edge], second[:, :edge], atol=1e-6)
    assert (first[:, edge + 12 : 128] != second[:, edge + 12 : 128]).any()


@pytest.mark.parametrize(
    ("layout", "first"), [("keras-2", 0), ("keras-2", 9), ("keras-3-h5", 0), ("keras-3", 0)]
)
def test_every_layout_of_keras_is_read(tmp_path, weights, layout, first):
    path = write_keras(tmp_path / "weights_best.h5", layout, first=first)
    found = load_stardist(path)
    assert found.hash == weights.hash
    assert (found.prob_threshold, found.nms_threshold) == VERSATILE_HE_THRESHOLDS
    kernel, bias = random_kernels(SHAPES_OF)["down_level_1_no_0"]
    np.testing.assert_array_equal(
        found.arrays["layers.down_level_1_no_0.weight"][5, 3], kernel[:, :, 3, 5]
    )
    np.testing.assert_array_equal(found.arrays["layers.down_level_1_no_0.bias"], bias)


def test_numbered_layout_without_names_goes_by_order(tmp_path, weights):
    path = write_keras(tmp_path / "w.h5", "keras-3")
    with h5py.File(path, "a") as file:
        for group in file["layers"].values():
            del group["vars"].attrs["name"]
    found = read_keras_weights(path)
    assert all((found[name] == array).all() for name, array in weights.arrays.items())


def drop(kernels):
    del kernels["features"]


def add(kernels):
    kernels["prob_class"] = kernels["prob"]


def narrow(kernels):
    kernel, bias = kernels["up_level_0_no_2"]
    kernels["up_level_0_no_2"] = kernel[..., :16], bias[:16]


def turn(kernels):
    kernel, bias = kernels["dist"]
    kernels["dist"] = kernel.transpose(0, 1, 3, 2), bias


@pytest.mark.parametrize("layout", ["keras-2", "keras-3-h5", "keras-3"])
@pytest.mark.parametrize(
    ("change", "words"),
    [(drop, "features"), (add, "prob_class"), (narrow, "up_level_0_no_2"), (turn, "dist")],
)
def test_weights_of_another_network_are_refused(tmp_path, layout, change, words):
    kernels = random_kernels(SHAPES_OF)
    change(kernels)
    path = write_keras(tmp_path / "weights_best.h5", layout, kernels)
    with pytest.raises(InputError, match=f"another network.*{words}"):
        load_stardist(path)


def test_damaged_files_are_refused(tmp_path):
    path = write_keras(tmp_path / "weights_best.h5", "keras-2")
    whole = path.read_bytes()
    for content in (whole[:-1000], whole[:3000], b"", b"no weights at all"):
        path.write_bytes(content)
        with pytest.raises(CorruptArtifact, match="cannot be read"):
            load_stardist(path)
    kernels = random_kernels(SHAPES_OF)
    kernels["prob"][1][0] = np.nan
    with pytest.raises(CorruptArtifact, match=r"'prob'.*not finite"):
        load_stardist(write_keras(path, "keras-2", kernels))
    with pytest.raises(InputError, match="no weights at"):
        load_stardist(tmp_path / "nothing")


def test_folder_and_zip_bring_their_thresholds(tmp_path, weights):
    folder = tmp_path / "2D_versatile_he"
    folder.mkdir()
    write_keras(folder / "weights_best.h5", "keras-2")
    (folder / "config.json").write_text(json.dumps({"n_channel_in": 3, "grid": [2, 2]}))
    assert (load_stardist(folder).prob_threshold, load_stardist(folder).nms_threshold) == (0.5, 0.4)
    (folder / "thresholds.json").write_text(json.dumps({"prob": 0.61, "nms": 0.25}))
    found = load_stardist(folder)
    assert (found.prob_threshold, found.nms_threshold, found.name) == (0.61, 0.25, folder.name)
    assert found.hash != weights.hash
    archive = tmp_path / "python_2D_versatile_he.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for part in folder.iterdir():
            file.write(part, f"{folder.name}/{part.name}")
    assert load_stardist(archive).hash == found.hash
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(CorruptArtifact, match="cut off"):
        load_stardist(archive)
    (folder / "config.json").write_text(json.dumps({"n_channel_in": 1}))
    with pytest.raises(InputError, match="n_channel_in is 1, needed is 3"):
        load_stardist(folder)


def test_saved_weights_are_read_again_and_checked(tmp_path):
    torch.manual_seed(0)
    widths = Architecture(base=4, features=8)
    arrays = {k: v.numpy() for k, v in StarDistNetwork(widths).state_dict().items()}
    mine = StarDistWeights("mine", arrays, widths, 0.4, 0.2, 0.5, {"pictures": 3})
    save_stardist(mine, tmp_path / "mine")
    found = load_stardist(tmp_path / "mine")
    assert found.hash == mine.hash
    assert found.training == {"pictures": 3}
    assert StarDistNuclei(found).provenance["weights"] == mine.hash
    card = json.loads((tmp_path / "mine/card.json").read_text())
    card["params"]["prob_threshold"] = 0.9
    (tmp_path / "mine/card.json").write_text(json.dumps(card))
    with pytest.raises(CorruptArtifact, match="card"):
        load_stardist(tmp_path / "mine")
