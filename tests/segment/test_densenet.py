"""The paper's network is trained, keeps to its interface, and comes back from disk."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from monai.networks.nets import densenet as monai_densenet
from sklearn.metrics import log_loss

from napari_mosaik.core import InputError, Lattice, MosaikError, Raster
from napari_mosaik.core.errors import CorruptArtifact
from napari_mosaik.learning.devices import ComputeDevice, thread_count
from napari_mosaik.segment import load_tissue_model, segment_classes
from napari_mosaik.segment.densenet.network import PRESETS, DenseNetParams, TissueNetwork
from napari_mosaik.segment.densenet.training import (
    Tiles,
    TissueTask,
    class_weights,
    split_groups,
    train_densenet,
)
from napari_mosaik.segment.densenet.weights import put_encoder_weights, read_encoder_weights

PARAMS = DenseNetParams(
    epochs=3, batch_size=4, decoder=(32, 16, 8, 8), validation_fraction=0.0, threads=1
)
SHALLOW = pytest.mark.usefixtures("shallow")
SMALL = PARAMS.model_copy(update={"epochs": 2, "batch_size": 2})


def problem(n=4, size=64):
    """Left half pale, right half dark; one column of pixels carries no class."""
    rng = np.random.default_rng(0)
    codes = np.full((n, size, size), 1, np.uint8)
    codes[:, :, size // 2 :] = 2
    codes[:, :, 0] = 0
    level = np.where(codes == 2, 90, 220)[..., None] + rng.normal(0, 8, (n, size, size, 3))
    return Tiles(np.clip(level, 0, 255).astype(np.uint8), codes)


def train(tiles=None, params=PARAMS, **options):
    generator = train_densenet(tiles or problem(), params, 1, **options)
    steps = []
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as stop:
            return steps, stop.value


def simulated_gpu(batch_size, device="cpu"):
    """A device that takes the CPU for a GPU."""
    return ComputeDevice(torch.device(device), batch_size, has_gpu=True)


def short_of_memory(monkeypatch, most):
    """The network runs out of memory with more than so many pictures; the sizes it was given."""
    forward, seen = TissueNetwork.forward, []

    def fake(self, pictures):
        seen.append(len(pictures))
        if len(pictures) > most():
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (for this test)")
        return forward(self, pictures)

    monkeypatch.setattr(TissueNetwork, "forward", fake)
    return seen


@contextmanager
def few_layers():
    """An encoder with the same interface but few layers: the full one trains for minutes."""
    encoder = partial(
        monai_densenet.DenseNet, init_features=8, growth_rate=4, block_config=(1, 1, 1, 1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monai_densenet, "DenseNet169", encoder)
        yield


@pytest.fixture(scope="module")
def trained():
    with few_layers():
        return train(params=PARAMS.model_copy(update={"epochs": 6}))


@pytest.fixture
def shallow():
    with few_layers():
        yield


def test_steps_lower_the_loss(trained):
    steps, model = trained
    losses = [step.loss for step in steps]
    assert len(losses) == 6
    assert losses[-1] < 0.9 * losses[0]
    assert model.training["class_weights"]["neoplastic"] > 0
    assert model.training["class_weights"]["non-neoplastic"] == 0
    assert model.training["held_out"] is None


@SHALLOW
def test_prediction_is_a_probability_on_the_class_lattice(trained, tmp_path):
    _, model = trained
    image = Raster(problem(1).images[0, :50, :59], Lattice("he", (50, 59), (2.0, 2.0)))
    labels, probability = segment_classes(image, model)
    assert probability.lattice.shape == labels.lattice.shape == (13, 15)
    np.testing.assert_allclose(probability.values.sum(-1), 1, atol=1e-5)
    model.save(tmp_path)
    back = load_tissue_model(tmp_path)
    assert back.name == "densenet"
    assert back.hash == model.hash
    np.testing.assert_allclose(back.predict(image).values, probability.values, atol=1e-6)


def test_the_full_network_returns_scores_of_the_size_of_the_images():
    network = TissueNetwork(3, PARAMS.decoder).eval()
    with torch.inference_mode():
        assert network.encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 1664, 2, 2)
        assert network(torch.zeros(1, 3, 45, 70)).shape == (1, 3, 45, 70)


def test_class_weights_by_hand():
    codes = np.array([0, 1, 1, 1, 1, 2, 2, 3])
    np.testing.assert_allclose(class_weights(codes, 3), np.array([1, 2, 4]) / 7, rtol=1e-6)
    with pytest.raises(InputError, match="annotate shapes"):
        class_weights(np.zeros(4, int), 3)


@SHALLOW
def test_given_weights_have_the_order_of_the_classes():
    given = SMALL.model_copy(update={"class_weights": (0.45, 0.24, 0.31)})
    task = TissueTask(problem(2), given, 0, 3)
    np.testing.assert_allclose(task.weights, [0.45, 0.24, 0.31])
    with pytest.raises(InputError, match="3 classes need as many"):
        TissueTask(problem(2), SMALL.model_copy(update={"class_weights": (1.0, 2.0)}), 0, 3)


@SHALLOW
def test_the_loss_is_that_of_labelled_pixels_alone():
    tiles = problem(2)
    task, device = TissueTask(tiles, SMALL, 0, 3), ComputeDevice.cpu(2)
    task.validation = np.arange(2)
    scores = torch.cat(list(task._scores(task.network, device)))
    probability = torch.softmax(scores, 1).permute(0, 2, 3, 1).numpy()[tiles.codes > 0]
    labels = tiles.codes[tiles.codes > 0]
    weights = task.weights[labels - 1]
    expected = log_loss(labels, probability, sample_weight=weights, labels=[1, 2, 3])
    assert task.validate(task.network, device)["loss"] == pytest.approx(expected, rel=1e-4)
    other = Tiles(tiles.images, np.where(np.arange(64) < 32, tiles.codes, 0).astype(np.uint8))
    assert TissueTask(other, SMALL, 0, 3).weights.tolist() == [1, 0, 0]


@SHALLOW
def test_the_weight_of_a_pixel_reaches_the_loss():
    tiles = problem(2)
    given = np.random.default_rng(3).random(tiles.codes.shape).astype(np.float32)
    given[0, :20] = 0
    weighted = Tiles(tiles.images, tiles.codes, weights=given)
    assert weighted.digest() != tiles.digest()
    still = SMALL.model_copy(update={"flip_rotate": False})
    task, device = TissueTask(weighted, still, 0, 3), ComputeDevice.cpu(2)
    task.validation = np.arange(2)
    scores = torch.cat(list(task._scores(task.network, device)))
    seen = tiles.codes > 0
    probability = torch.softmax(scores, 1).permute(0, 2, 3, 1).numpy()[seen]
    weights = task.weights[tiles.codes[seen] - 1] * given[seen]
    expected = log_loss(tiles.codes[seen], probability, sample_weight=weights, labels=[1, 2, 3])
    assert task.validate(task.network, device)["loss"] == pytest.approx(expected, rel=1e-4)
    (batch,) = task.batches(np.random.default_rng(0))
    task.network.eval()  # as in the validation
    (loss,) = (part[0].detach() for part in task.losses(batch, device))
    assert float(loss) == pytest.approx(expected, rel=1e-3)
    turning = SMALL.model_copy(update={"flip_rotate": True})
    task = TissueTask(weighted, turning, 0, 3)  # turns and mirrors, and the weights with it
    own = sorted(given[i][tiles.codes[i] == 1].sum() for i in range(2))
    turned = [next(task.batches(np.random.default_rng(seed))) for seed in range(8)]
    for _, codes, weights in turned:
        sums = sorted(float(weights[i][codes[i] == 0].sum()) for i in range(2))
        assert sums == pytest.approx(own, rel=1e-5)
    assert len({weights.numpy().tobytes() for _, _, weights in turned}) > 2


def test_groups_are_never_split():
    groups = np.repeat(np.arange(10), 7)
    train_part, validation = split_groups(70, groups, 0.3, np.random.default_rng(3))
    assert not set(groups[train_part]) & set(groups[validation])
    assert len(set(groups[validation])) == 3
    assert len(train_part) + len(validation) == 70
    alone, none = split_groups(5, np.zeros(5), 0.3, np.random.default_rng(0))
    assert len(alone) == 5
    assert len(none) == 0


@SHALLOW
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path):
    params = SMALL.model_copy(update={"stain_augmentation": 0.2, "flip_rotate": True})
    _, whole = train(problem(2), params)
    file = tmp_path / "scratch" / "training.pt"
    cut_off = train_densenet(problem(2), params, 1, checkpoint=file)
    while next(cut_off).record is None:
        pass
    cut_off.close()
    steps, resumed = train(problem(2), params, checkpoint=file)
    assert [step.epoch for step in steps] == [2]
    assert resumed.hash == whole.hash
    steps, _ = train(problem(2), SMALL, checkpoint=file)
    assert steps[0].epoch == 1
    file.write_bytes(b"no checkpoint")
    assert train(problem(2), params, checkpoint=file)[1].hash == whole.hash


@SHALLOW
def test_training_stops_early_and_keeps_the_best_epoch(monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.41])
    kept = []

    def validate(task, network, device):
        kept.append(network.head.bias.detach().clone())
        return {"loss": next(losses)}

    monkeypatch.setattr(TissueTask, "validate", validate)
    params = SMALL.model_copy(update={"epochs": 9, "patience": 2, "validation_fraction": 0.5})
    steps, model = train(problem(2), params)
    assert len(steps) == 4
    assert model.training["best_epoch"] == 2
    assert model.training["validation_loss"] == [0.5, 0.4, 0.45, 0.41]
    torch.testing.assert_close(model.network.head.bias, kept[1])
    scores = model.training["held_out"]["classes"]
    assert scores["non-neoplastic"]["dice"] is None
    assert set(scores["background"]) == {"dice", "iou", "precision", "recall", "accuracy"}


@SHALLOW
def test_parts_of_a_batch_have_the_loss_of_the_whole():
    """Without batch statistics the gradient of four parts is that of the batch."""
    tasks = [TissueTask(problem(4), PARAMS, 0, 3) for _ in range(2)]
    for task, size in zip(tasks, (4, 1), strict=True):
        task.network.eval()
        (batch,) = task.batches(np.random.default_rng(0))
        parts = list(task.losses(batch, simulated_gpu(size)))
        assert len(parts) == 4 // size
        for (loss,) in parts:
            loss.backward()
    one, other = (task.network.head.weight.grad for task in tasks)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@SHALLOW
def test_smaller_batches_then_the_cpu_when_memory_runs_out(monkeypatch):
    device = simulated_gpu(4)
    seen = short_of_memory(monkeypatch, lambda: 1 if device.has_gpu else 9)
    steps, model = train(problem(4), SMALL.model_copy(update={"batch_size": 4}), device=device)
    assert seen[:3] == [4, 2, 1]
    assert "batches of 1" in steps[0].note
    assert steps[1].note == ""
    assert len(model.training["notes"]) == 2

    device = simulated_gpu(2)
    short_of_memory(monkeypatch, lambda: 0 if device.has_gpu else 9)
    steps, _ = train(problem(2), SMALL, device=device)
    assert "the CPU computes" in steps[0].note
    assert device.device.type == "cpu"
    assert device.batch_size == 2

    device = ComputeDevice(torch.device("cpu"), 2, has_gpu=False)
    short_of_memory(monkeypatch, lambda: 0)
    with pytest.raises(MosaikError, match="memory is not enough"):
        train(problem(2), SMALL, device=device)


def test_prediction_falls_back_to_the_cpu_and_reports_it(trained, monkeypatch):
    _, model = trained
    image = problem(1).images[0]
    expected = model.predict_block(image, 2.0)
    assert model.notes == ()
    device = simulated_gpu(1)
    short_of_memory(monkeypatch, lambda: 0 if device.has_gpu else 1)
    other = type(model)(model.network, model.params, model.classes, model.training, device)
    np.testing.assert_allclose(other.predict_block(image, 2.0), expected, atol=1e-6)
    assert "the CPU computes" in other.notes[0]
    assert other.hash == model.hash


def encoder_file(path, rename=lambda name: name):
    network = TissueNetwork(3, PARAMS.decoder)
    state = {f"features.{rename(n)}": v for n, v in network.encoder.state_dict().items()}
    state = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    torch.save({**state, "classifier.weight": torch.zeros(5, 1664)}, path)
    return network


@SHALLOW
def test_encoder_weights_of_torchvision_are_taken(tmp_path):
    file = tmp_path / "densenet169.pth"
    source = encoder_file(
        file,
        lambda n: n.replace("layers.", "").replace("norm1", "norm.1").replace("conv2", "conv.2"),
    )
    weights = read_encoder_weights(file)
    task = TissueTask(problem(1, 32), SMALL, 5, 3, weights)
    for name, value in source.encoder.state_dict().items():
        torch.testing.assert_close(task.network.encoder.state_dict()[name], value)


@SHALLOW
def test_other_and_damaged_encoder_weights_are_refused(tmp_path):
    file = tmp_path / "weights.pth"
    network = encoder_file(file)
    weights = read_encoder_weights(file)
    with pytest.raises(InputError, match="another network"):
        put_encoder_weights(network.encoder, {**weights, "conv9.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"lack conv0\.weight"):
        put_encoder_weights(network.encoder, {n: v for n, v in weights.items() if n[:5] != "conv0"})
    with pytest.raises(InputError, match=r"another shape of conv0\.weight"):
        put_encoder_weights(network.encoder, {**weights, "conv0.weight": torch.zeros(8, 1, 7, 7)})
    with pytest.raises(CorruptArtifact, match="not finite"):
        put_encoder_weights(
            network.encoder, {**weights, "conv0.weight": torch.full((8, 3, 7, 7), torch.nan)}
        )
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CorruptArtifact, match="cut off"):
        read_encoder_weights(file)
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="no dictionary"):
        read_encoder_weights(file)
    with pytest.raises(InputError, match="no encoder weights"):
        read_encoder_weights(tmp_path / "absent.pth")


def test_presets_are_settings_of_the_network():
    paper = DenseNetParams.parse(PRESETS["paper"])
    assert (paper.batch_size, paper.epochs, paper.validation_fraction) == (8, 25, 0.3)
    robust = DenseNetParams.parse(PRESETS["robust"])
    assert robust.patience > 0
    assert robust.stain_augmentation > 0


def test_threads_are_as_before():
    before = torch.get_num_threads()
    with thread_count(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_tiles_and_codes_must_fit():
    tiles = problem(2)
    with pytest.raises(InputError, match="do not fit"):
        Tiles(tiles.images, tiles.codes[:1])
