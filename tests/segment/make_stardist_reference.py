"""Makes data/stardist_reference.npz: what StarDist computes with TensorFlow on random weights.

Run it where TensorFlow and stardist are installed: python tests/segment/make_stardist_reference.py
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
REFERENCE = HERE / "data" / "stardist_reference.npz"
SHAPES = ((37, 53), (16, 90), (64, 33))
SEED = 20260101


def random_kernels(shapes, seed=SEED):
    """Kernels (rows, columns, in, out) and biases, drawn as Keras does (Glorot, uniform)."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, (inputs, outputs, size) in shapes.items():
        limit = np.sqrt(6 / (size * size * (inputs + outputs)))
        kernel = (2 * rng.random((size, size, inputs, outputs)) - 1) * limit
        found[name] = kernel.astype("f4"), (0.1 * (rng.random(outputs) - 0.5)).astype("f4")
    return found


def picture(shape):
    """A picture of noise, as if it were normalised."""
    return np.random.default_rng(shape[0]).random((*shape, 3)).astype("f4")


def keras_model(folder):
    """StarDist's own model with the random weights; TensorFlow does the work."""
    from stardist.models import Config2D, StarDist2D

    config = Config2D(axes="YXC", n_channel_in=3, grid=(2, 2), train_tensorboard=False)
    model = StarDist2D(config, name="random", basedir=str(folder))
    layers = [layer for layer in model.keras_model.layers if layer.get_weights()]
    order = ["conv2d", "conv2d_1", *(layer.name for layer in layers[2:])]
    shapes = {}
    for name, layer in zip(order, layers, strict=True):
        size, _, inputs, outputs = layer.get_weights()[0].shape
        shapes[name] = inputs, outputs, size
    for layer, arrays in zip(layers, random_kernels(shapes).values(), strict=True):
        layer.set_weights(list(arrays))
    return model


def outputs_of(model):
    """Maps of each picture; of the rays every third position and every fourth ray."""
    found = {}
    for shape in SHAPES:
        prob, dist = model.predict(picture(shape))
        found[f"prob_{shape[0]}"], found[f"dist_{shape[0]}"] = prob, dist[::3, ::3, ::4]
    return found


if __name__ == "__main__":
    np.savez_compressed(REFERENCE, **outputs_of(keras_model(Path(sys.argv[1]))))
