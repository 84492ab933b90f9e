"""The paper's network takes training steps, keeps to its interface and comes back from disk."""

import numpy as np
import pytest
import torch

from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.segment import load_tissue_model, segment_classes
from napari_mosaik.segment.densenet import (
    DenseNetParams,
    class_weights,
    train_densenet,
)

PARAMS = DenseNetParams(epochs=3, batch_size=4, decoder=(32, 16, 8, 8), validation_fraction=0.0)


def problem(n=4, size=64):
    """Left half pale, right half dark; one column of pixels carries no class."""
    rng = np.random.default_rng(0)
    codes = np.full((n, size, size), 1, np.uint8)
    codes[:, :, size // 2 :] = 2
    codes[:, :, 0] = 0
    level = np.where(codes == 2, 90, 220)[..., None] + rng.normal(0, 8, (n, size, size, 3))
    return np.clip(level, 0, 255).astype(np.uint8), codes


def train(params=PARAMS, **options):
    generator = train_densenet(*problem(), params, np.random.default_rng(1), **options)
    steps = []
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as stop:
            return steps, stop.value


@pytest.fixture(scope="module")
def trained():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    result = train()
    torch.set_num_threads(before)
    return result


def test_steps_lower_the_loss(trained):
    steps, model = trained
    losses = [step.loss for step in steps]
    assert len(losses) == 3
    assert losses[-1] < 0.9 * losses[0]
    assert model.training["class_weights"]["neoplastic"] > 0
    assert model.training["class_weights"]["non-neoplastic"] == 0


def test_prediction_is_a_probability_on_the_class_lattice(trained, tmp_path):
    _, model = trained
    pictures, _ = problem(1)
    image = Raster(pictures[0, :50, :59], Lattice("he", (50, 59), (2.0, 2.0)))
    labels, probability = segment_classes(image, model)
    assert probability.lattice.shape == labels.lattice.shape == (13, 15)
    np.testing.assert_allclose(probability.values.sum(-1), 1, atol=1e-5)
    model.save(tmp_path)
    back = load_tissue_model(tmp_path)
    assert back.name == "densenet"
    assert back.hash == model.hash
    np.testing.assert_allclose(back.predict(image).values, probability.values, atol=1e-6)


def test_the_network_returns_scores_of_the_pictures_own_size(trained):
    network = trained[1].network.eval()
    with torch.inference_mode():
        assert network.encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 1664, 2, 2)
        assert network(torch.zeros(1, 3, 45, 70)).shape == (1, 3, 45, 70)


def test_class_weights_by_hand():
    codes = np.array([0, 1, 1, 1, 1, 2, 2, 3])
    np.testing.assert_allclose(class_weights(codes, 3), np.array([1, 2, 4]) / 7, rtol=1e-6)
    with pytest.raises(InputError, match="draw shapes"):
        class_weights(np.zeros(4, int), 3)


def test_tiles_and_codes_must_fit():
    pictures, codes = problem(2)
    with pytest.raises(InputError, match="do not fit"):
        next(train_densenet(pictures, codes[:1], PARAMS, np.random.default_rng(0)))
