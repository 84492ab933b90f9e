"""Teaches a StarDist network from pictures in which every nucleus is labelled.

Losses as in StarDist: cross-entropy of the object probability (the distance to the edge, 1 at the
deepest point), and the absolute error of the ray lengths weighted by that probability.

Places that a scene hides carry no loss.  The weights are a running mean over the last steps, which
wanders less than the last step's.

Source: Schmidt et al. 2018, MICCAI; Tellez et al. 2018, IEEE Trans Med Imaging (stain changes).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params, setting
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.masks import Labels
from napari_mosaik.segment.nuclei_params import NETWORK_SPACING_UM
from napari_mosaik.segment.stardist.model import intensity_range
from napari_mosaik.segment.stardist.network import DIVISOR, GRID, Architecture, StarDistNetwork
from napari_mosaik.segment.stardist.polygons import stardist_module
from napari_mosaik.segment.stardist.variation import Scene, augmented_scene, blurred
from napari_mosaik.segment.stardist.weights import StarDistWeights

__all__ = ["StarDistTrainingParams", "TrainingStep", "stain_augmented", "targets", "train_stardist"]

_DISTANCE_WEIGHT = 0.2
_BACKGROUND_WEIGHT = 1e-4
_WARM_UP = 0.03
_AT_FULL_RATE = 0.3
_LEAST_RATE = 0.005
_LARGEST_GRADIENT = 5.0
_MEAN_OVER_STEPS = 500
_RANGE_NOISE = 4.0
_LEAST_RANGE = 20.0


class StarDistTrainingParams(Params):
    """Settings of the training."""

    base: int = setting(16, "Channels of the first level; StarDist's own network has 32.", ge=1)
    features: int = setting(64, "Channels before the outputs; StarDist's own has 128.", ge=1)
    patch_px: int = setting(144, "Side of the patches, a multiple of 16.", unit="px", ge=32)
    batch_size: int = setting(6, "Patches per step.", ge=1, le=1024)
    steps: int = setting(2000, "Steps of the training.", ge=1)
    learning_rate: float = setting(1e-3, "Highest step size of Adam.", gt=0, le=1)
    variation: float = setting(
        1.0, "How much stain, sharpness and size of a patch are changed (1: much).", ge=0, le=2
    )
    prob_threshold: float = setting(0.5, "Least probability of a nucleus.", gt=0, lt=1)
    nms_threshold: float = setting(0.4, "Largest overlap of two nuclei.", gt=0, lt=1)
    spacing_um: float = setting(NETWORK_SPACING_UM, "Pixel size of the pictures.", unit="µm", gt=0)


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One step of training."""

    step: int
    steps: int
    loss: float


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
        Pictures at ``spacing_um`` with labels of all nuclei but those in ``ignored`` places, at
        least a patch large.
    params
        Settings.
    rng
        Source of chance for weights, patches and their variation.
    chances
        (n,) how often each scene is shown, relative to the others; all alike if None.
    name
        What people call the network.
    start
        Weights to begin with; chance if None.  Their widths are kept.
    training
        What to keep in the card.

    Raises
    ------
    InputError
        A scene does not fit, or there is none.
    """
    _check(scenes, params)
    likely = np.ones(len(scenes)) if chances is None else np.asarray(chances, float)
    if likely.shape != (len(scenes),) or (likely < 0).any() or not likely.sum() > 0:
        raise InputError(f"chances are {len(scenes)} numbers of at least 0, not {likely.shape}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        widths = Architecture(params.base, params.features) if start is None else start.architecture
        network = _new(widths) if start is None else start.network()
    optimiser = torch.optim.AdamW(network.parameters(), lr=params.learning_rate, weight_decay=1e-4)
    mean = {key: value.detach().clone() for key, value in network.state_dict().items()}
    network.train()
    for step in range(params.steps):
        for group in optimiser.param_groups:
            group["lr"] = params.learning_rate * _rate(step / params.steps)
        chosen = rng.choice(len(scenes), params.batch_size, p=likely / likely.sum())
        batch = [_patch(scenes[index], params, rng) for index in chosen]
        loss = _loss(network, batch, widths.rays)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        optimiser.step()
        _follow(mean, network, step)
        yield TrainingStep(step, params.steps, float(loss.detach()))
    arrays = {key: value.cpu().numpy() for key, value in mean.items()}
    record = {"settings": params.model_dump(mode="json"), **(training or {})}
    return StarDistWeights(
        name,
        arrays,
        widths,
        params.prob_threshold,
        params.nms_threshold,
        params.spacing_um,
        record,
    )


def _rate(done: float) -> float:
    """Share of the learning rate at a part of the training: up, level, and down as a cosine."""
    falling = max(0.0, (done - _AT_FULL_RATE) / (1 - _AT_FULL_RATE))
    return min(1.0, done / _WARM_UP + 0.02) * (
        0.5 * (1 + math.cos(math.pi * falling)) + _LEAST_RATE
    )


@torch.no_grad()
def _follow(mean: dict[str, Tensor], network: StarDistNetwork, step: int) -> None:
    """Move the running mean of the weights towards those of a step."""
    share = max(1 / _MEAN_OVER_STEPS, 1 - (step + 1) / (step + 51))
    for key, value in network.state_dict().items():
        mean[key].lerp_(value, share)


def stain_augmented(
    picture: NDArray[np.uint8], amount: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The picture with another strength and hue of its stain, brightness, sharpness and noise."""
    od = -np.log((picture.astype(np.float32) + 1) / 256)
    mix = np.eye(3) + amount * rng.normal(0, 0.35, (3, 3))
    mix *= np.exp(amount * rng.normal(0, 1.2))
    od = od @ mix.astype(np.float32).T + np.float32(0.15 * amount * rng.random())
    if rng.random() < 0.5:
        od = blurred(od, 2.5 * amount * rng.random())
    changed = 255 * np.exp(-np.maximum(od, 0))
    changed += rng.normal(0, 20 * amount * rng.random(), picture.shape)
    return np.asarray(np.clip(np.rint(changed), 0, 255), np.uint8)


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
        raise InputError("a network needs at least one picture with labels to learn from")
    for scene in scenes:
        rgb, labels = scene.rgb.shape, scene.labels.shape
        hidden = labels if scene.ignored is None else scene.ignored.shape
        if rgb != (*labels, 3) or hidden != labels or min(labels) < params.patch_px:
            raise InputError(
                f"a picture {rgb} with labels {labels} and ignored places {hidden} cannot be used; "
                f"all have the same size, at least {params.patch_px} px a side"
            )


def _patch(
    scene: Scene, params: StarDistTrainingParams, rng: np.random.Generator
) -> tuple[Float32, Scene]:
    """A varied piece of a scene, and its normalised picture."""
    piece = augmented_scene(scene, params.patch_px, params.variation, rng)
    low, high = intensity_range(piece.rgb[::2, ::2])
    low, high = np.array([low, high]) + rng.normal(0, _RANGE_NOISE * params.variation, 2)
    values = (piece.rgb.astype(np.float32) - np.float32(low)) / np.float32(
        max(high - low, _LEAST_RANGE)
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
