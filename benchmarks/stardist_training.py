"""Train a StarDist network on images in which every nucleus is labelled.

This is how the network in the package was trained (`nuclei_training.py`); the program itself only
applies it.

Losses as in StarDist: cross-entropy of the object probability (the distance to the edge, 1 at the
deepest point), and the absolute error of the ray lengths weighted by that probability.  Pixels that
a scene ignores carry no loss.  The weights are a running mean over the last steps.

Sources: Schmidt et al. 2018, MICCAI (losses); Tellez et al. 2019, Med Image Anal 58 (stain
augmentation helps more than stain normalisation).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import imagecodecs
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.colour import DAB, EOSIN, HAEMATOXYLIN, stain_matrix
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.params import Params, setting
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.learning.engine import Trainer, TrainingPlan, TrainingStep
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.masks import Labels
from napari_mosaik.segment.nuclei_params import NETWORK_SPACING_UM
from napari_mosaik.segment.stardist.model import intensity_range, resampled, stardist_module
from napari_mosaik.segment.stardist.network import DIVISOR, GRID, Architecture, StarDistNetwork
from napari_mosaik.segment.stardist.weights import StarDistWeights

__all__ = [
    "Scene",
    "StarDistTrainingParams",
    "augmented_image",
    "augmented_scene",
    "targets",
    "train_stardist",
]

_DISTANCE_WEIGHT = 0.2
_BACKGROUND_WEIGHT = 1e-4
_WARM_UP = 0.03
_AT_FULL_RATE = 0.3
_MIN_RATE = 0.005
_MAX_GRADIENT_NORM = 5.0
_MEAN_OVER_STEPS = 500
_RANGE_NOISE = 4.0
_MIN_RANGE = 20.0
_WHITE = 256.0
_MAX_ZOOM = 1.35
_MIN_ZOOM = 0.75


class StarDistTrainingParams(Params):
    """Settings of the training."""

    base: int = setting(16, "Channels of the first level; StarDist's own network has 32.", ge=1)
    features: int = setting(64, "Channels before the outputs; StarDist's own has 128.", ge=1)
    patch_px: int = setting(144, "Side of the patches, a multiple of 16.", unit="px", ge=32)
    batch_size: int = setting(6, "Patches per step.", ge=1, le=1024)
    steps: int = setting(2000, "Steps of the training.", ge=1)
    learning_rate: float = setting(1e-3, "Highest learning rate of Adam.", gt=0, le=1)
    augmentation: float = setting(
        1.0, "How much stain, sharpness and size of a patch change (1: much).", ge=0, le=2
    )
    prob_threshold: float = setting(0.5, "Minimum probability of a nucleus.", gt=0, lt=1)
    nms_threshold: float = setting(0.4, "Maximum overlap of two nuclei.", gt=0, lt=1)
    spacing_um: float = setting(NETWORK_SPACING_UM, "Pixel size of the images.", unit="µm", gt=0)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image whose nuclei are known.

    Attributes
    ----------
    rgb
        (rows, columns, 3) 8-bit image.
    labels
        (rows, columns) labels of the nuclei, 0 elsewhere.
    ignored
        (rows, columns) mask of pixels that carry no loss; None: no pixel.
    """

    rgb: NDArray[np.uint8]
    labels: Labels
    ignored: Mask | None = None


def targets(labels: Labels, rays: int) -> tuple[Float32, Float32]:
    """Object probability (r/2, c/2) and ray lengths in px (r/2, c/2, rays) of labelled nuclei."""
    on_grid = np.ascontiguousarray(labels[::GRID, ::GRID])
    prob = stardist_module("utils").edt_prob(on_grid)
    dist = stardist_module("geometry").star_dist(labels, rays, grid=(GRID, GRID))
    return np.asarray(prob, np.float32), np.asarray(dist, np.float32)


def train_stardist(
    scenes: Sequence[Scene],
    params: StarDistTrainingParams,
    rng: np.random.Generator,
    *,
    chances: ArrayLike | None = None,
    name: str = "own",
    start: StarDistWeights | None = None,
    training: Mapping[str, Any] | None = None,
) -> Generator[TrainingStep, None, StarDistWeights]:
    """Train a network; yields after every step, returns the weights at the end.

    Parameters
    ----------
    scenes
        Images at ``spacing_um`` with labels of all nuclei outside ``ignored``, at least as large as
        a patch.
    params
        Settings.
    rng
        Source of randomness of weights, patches and augmentation.
    chances
        (n,) relative frequency of each scene; all equal if None.
    name
        Name of the network.
    start
        Initial weights; random initialisation if None.  Their widths are kept.
    training
        Further entries of the card.

    Raises
    ------
    InputError
        A scene does not fit, or there is none.
    """
    _check(scenes, params)
    likely = np.ones(len(scenes)) if chances is None else np.asarray(chances, float)
    if likely.shape != (len(scenes),) or (likely < 0).any() or not likely.sum() > 0:
        raise InputError(f"chances are {len(scenes)} numbers of at least 0, not {likely.shape}")
    task = _NucleiTask(scenes, params, rng, likely / likely.sum(), start)
    optimiser = torch.optim.AdamW(
        task.network.parameters(), lr=params.learning_rate, weight_decay=1e-4
    )
    plan = TrainingPlan(
        seed=0,  # all randomness comes from rng
        epochs=1,
        batches=params.steps,
        max_gradient_norm=_MAX_GRADIENT_NORM,
        learning_rate=lambda step: params.learning_rate * _rate(step / params.steps),
        mean_share=lambda step: max(1 / _MEAN_OVER_STEPS, 1 - (step + 1) / (step + 51)),
    )
    trainer = Trainer(task, optimiser, plan, ComputeDevice.cpu(params.batch_size))
    yield from trainer.run()
    arrays = {key: value.cpu().numpy() for key, value in trainer.weights().items()}
    record = {"settings": params.model_dump(mode="json"), **(training or {})}
    return StarDistWeights(
        name,
        arrays,
        task.widths,
        params.prob_threshold,
        params.nms_threshold,
        params.spacing_um,
        record,
    )


class _NucleiTask:
    """Nuclei of random patches of the scenes; an epoch is the whole training."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        params: StarDistTrainingParams,
        rng: np.random.Generator,
        likely: NDArray[np.float64],
        start: StarDistWeights | None,
    ) -> None:
        self.scenes, self.params, self.rng, self.likely = scenes, params, rng, likely
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            self.widths = (
                Architecture(params.base, params.features) if start is None else start.architecture
            )
            self.network = _new(self.widths) if start is None else start.network()

    def batches(self, rng: np.random.Generator) -> Iterator[list[tuple[Float32, Scene]]]:
        for _ in range(self.params.steps):
            chosen = self.rng.choice(len(self.scenes), self.params.batch_size, p=self.likely)
            yield [_patch(self.scenes[index], self.params, self.rng) for index in chosen]

    def losses(
        self, batch: list[tuple[Float32, Scene]], device: ComputeDevice
    ) -> Iterator[tuple[Tensor, ...]]:
        yield (_loss(self.network, batch, self.widths.rays),)

    def validate(self, network: nn.Module, device: ComputeDevice) -> dict[str, float]:
        return {}


def _rate(done: float) -> float:
    """Fraction of the learning rate: warm-up, constant, and down as a cosine."""
    falling = max(0.0, (done - _AT_FULL_RATE) / (1 - _AT_FULL_RATE))
    return min(1.0, done / _WARM_UP + 0.02) * (0.5 * (1 + math.cos(math.pi * falling)) + _MIN_RATE)


def _new(widths: Architecture) -> StarDistNetwork:
    """A network of random weights that keep the size of the signal (He et al. 2015, ICCV)."""
    network = StarDistNetwork(widths)
    for layer in network.layers.values():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(cast("Tensor", layer.bias), 0.0)
    return network


def _check(scenes: Sequence[Scene], params: StarDistTrainingParams) -> None:
    if params.patch_px % DIVISOR:
        raise InputError(f"patch_px is a multiple of {DIVISOR}, not {params.patch_px}")
    if not scenes:
        raise InputError("at least one labelled image is needed for training")
    for scene in scenes:
        rgb, labels = scene.rgb.shape, scene.labels.shape
        hidden = labels if scene.ignored is None else scene.ignored.shape
        if rgb != (*labels, 3) or hidden != labels or min(labels) < params.patch_px:
            raise InputError(
                f"an image {rgb} with labels {labels} and ignored pixels {hidden} cannot be used; "
                f"all have the same size, at least {params.patch_px} px a side"
            )


def _patch(
    scene: Scene, params: StarDistTrainingParams, rng: np.random.Generator
) -> tuple[Float32, Scene]:
    """A normalised, augmented patch of a scene, and the patch itself."""
    piece = augmented_scene(scene, params.patch_px, params.augmentation, rng)
    low, high = intensity_range(piece.rgb[::2, ::2])
    low, high = np.array([low, high]) + rng.normal(0, _RANGE_NOISE * params.augmentation, 2)
    values = (piece.rgb.astype(np.float32) - np.float32(low)) / np.float32(
        max(high - low, _MIN_RANGE)
    )
    return values, piece


def _loss(network: StarDistNetwork, batch: list[tuple[Float32, Scene]], rays: int) -> Tensor:
    pictures = torch.from_numpy(np.stack([values.transpose(2, 0, 1) for values, _ in batch]))
    wanted = [targets(piece.labels, rays) for _, piece in batch]
    prob = torch.from_numpy(np.stack([item[0] for item in wanted]))
    dist = torch.from_numpy(np.stack([item[1].transpose(2, 0, 1) for item in wanted]))
    known = torch.from_numpy(np.stack([_known(piece) for _, piece in batch]))
    scores, found = network(pictures)
    mask = (prob * known)[:, None]
    error = (mask * (dist - found).abs()).sum() / (mask.sum() * rays + 1e-6)
    outside = (((1 - prob) * known)[:, None] * found.abs()).mean()
    entropy = functional.binary_cross_entropy_with_logits(
        scores[:, 0], prob, weight=known, reduction="sum"
    )
    loss: Tensor = entropy / (known.sum() + 1)
    total: Tensor = loss + _DISTANCE_WEIGHT * (error + _BACKGROUND_WEIGHT * outside)
    return total


def _known(piece: Scene) -> Float32:
    """1 on the network's grid where it is known whether there is a nucleus, else 0."""
    if piece.ignored is None:
        return np.ones(piece.labels[::GRID, ::GRID].shape, np.float32)
    return (~piece.ignored[::GRID, ::GRID]).astype(np.float32)


# --- augmentation
def augmented_scene(scene: Scene, side: int, amount: float, rng: np.random.Generator) -> Scene:
    """A square patch of a scene, rotated, scaled, with changed stain and sharpness.

    Parameters
    ----------
    scene
        The scene, at least *side* pixels large.
    side
        Rows and columns of the patch, px.
    amount
        Dimensionless; 0 changes position and orientation only, 1 changes much.
    rng
        Source of randomness.
    """
    shape = scene.labels.shape
    zoom = _zoom(amount, rng)
    span = min(math.ceil(side / zoom), *shape)
    row, col = (int(rng.integers(size - span + 1)) for size in shape)
    window = (slice(row, row + span), slice(col, col + span))
    ignored = np.zeros(shape, bool) if scene.ignored is None else scene.ignored
    nearest = np.clip(np.rint((np.arange(side) + 0.5) * span / side - 0.5), 0, span - 1).astype(int)
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def rotated(part: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.rot90(part, turns)[:: -1 if mirrored else 1])

    return Scene(
        augmented_image(rotated(_resized(scene.rgb[window], side)), amount, rng),
        rotated(scene.labels[window][np.ix_(nearest, nearest)]).astype(np.int32),
        rotated(ignored[window][np.ix_(nearest, nearest)]),
    )


def augmented_image(
    rgb: NDArray[np.uint8], amount: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """An 8-bit image (rows, columns, 3) with changed stain, sharpness, noise and compression.

    Unchanged at *amount* 0.
    """
    if amount <= 0:
        return rgb
    od = -np.log((rgb.astype(np.float32) + 1) / np.float32(_WHITE))
    if rng.random() < 0.25:
        od = _other_eosin(od, rng)
    if rng.random() < 0.07:
        od = _brown(od, rng)
    mix = np.eye(3) + rng.normal(0, 0.09 * amount, (3, 3))
    mix *= np.exp(rng.normal(0, 0.28 * amount)) * np.exp(rng.normal(0, 0.1 * amount, (1, 3)))
    od = np.maximum(od @ mix.astype(np.float32).T, 0)
    if rng.random() < 0.3:
        od **= np.float32(rng.uniform(0.85, 1.2))
    od += np.float32(0.12 * amount * rng.random()) * (rng.random() < 0.5)
    return _as_scanned(od, amount, rng)


def _zoom(amount: float, rng: np.random.Generator) -> float:
    """Magnification of the patch, dimensionless."""
    if amount <= 0 or rng.random() > 0.6:
        return 1.0
    return math.exp(rng.uniform(math.log(_MIN_ZOOM), math.log(_MAX_ZOOM)))


def _resized(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if rgb.shape[0] == side:
        return rgb
    factor = side / rgb.shape[0]
    found = resampled(rgb.astype(np.float32), factor)[:side, :side]
    short = [(0, side - size) for size in found.shape[:2]]
    padded = np.pad(found, (*short, (0, 0)), mode="edge")
    return np.asarray(np.clip(np.rint(padded), 0, 255), np.uint8)


def _other_eosin(od: Float32, rng: np.random.Generator) -> Float32:
    """Little eosin, as in a counterstain, or much of it."""
    stains = stain_matrix(HAEMATOXYLIN, EOSIN)
    amounts = od @ np.linalg.inv(stains).T.astype(np.float32)
    few = rng.random() < 0.6
    amounts[..., 1] *= np.float32(rng.uniform(0, 0.4) if few else rng.uniform(1.2, 1.8))
    return np.asarray(amounts @ stains.T.astype(np.float32), np.float32)


def _brown(od: Float32, rng: np.random.Generator) -> Float32:
    """Nuclei that an antibody stained brown, on a pale ground."""
    stains = stain_matrix(HAEMATOXYLIN, EOSIN)
    amounts = od @ np.linalg.inv(stains).T.astype(np.float32)
    dye = rng.uniform(0.6, 1.3) * np.array(DAB) + rng.uniform(0, 0.4) * np.array(HAEMATOXYLIN)
    pink = rng.uniform(0, 0.3) * np.array(EOSIN)
    return np.asarray(amounts[..., :1] * dye + amounts[..., 1:2] * pink, np.float32)


def _as_scanned(od: Float32, amount: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Optical densities as a scanner's file would show them."""
    if rng.random() < 0.45:
        od = _blurred(od, rng.uniform(0.3, 1.3) * amount)
    values = np.float32(_WHITE) * np.exp(-od) - 1
    if rng.random() < 0.4:
        sharpening = np.float32(rng.uniform(0.2, 1.5) * amount)
        values = values + sharpening * (values - _blurred(values, rng.uniform(0.6, 1.5)))
    if rng.random() < 0.5:
        noise = rng.normal(0, 7 * amount * rng.random(), values.shape)
        values = values + noise.astype(np.float32)
    found = np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
    return _compressed(found, int(rng.integers(35, 92))) if rng.random() < 0.4 else found


def _blurred(values: Float32, sigma_px: float) -> Float32:
    """Each channel smoothed by a Gaussian."""
    return np.asarray(gaussian_filter(values, (sigma_px, sigma_px, 0)), np.float32)


def _compressed(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    return np.asarray(imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(rgb, level=quality)))
