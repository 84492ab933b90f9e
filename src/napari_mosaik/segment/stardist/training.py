"""Teaches a StarDist network from pictures in which every nucleus is labelled.

Losses as in StarDist: cross-entropy of the object probability (the distance to the edge, 1 at the
deepest point), and the absolute error of the ray lengths weighted by that probability.

Source: Schmidt et al. 2018, MICCAI; Tellez et al. 2018, IEEE Trans Med Imaging (stain changes).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params, setting
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.masks import Labels
from napari_mosaik.segment.stardist.model import intensity_range
from napari_mosaik.segment.stardist.network import DIVISOR, GRID, Architecture, StarDistNetwork
from napari_mosaik.segment.stardist.polygons import stardist_module
from napari_mosaik.segment.stardist.weights import SPACING_UM, StarDistWeights

__all__ = ["StarDistTrainingParams", "TrainingStep", "stain_changed", "targets", "train_stardist"]

_DISTANCE_WEIGHT = 0.2
_BACKGROUND_WEIGHT = 1e-4


class StarDistTrainingParams(Params):
    """Settings of the training."""

    base: int = setting(16, "Channels of the first level; StarDist's own network has 32.", ge=1)
    features: int = setting(64, "Channels before the outputs; StarDist's own has 128.", ge=1)
    patch_px: int = setting(160, "Side of the patches, a multiple of 16.", unit="px", ge=32)
    batch_size: int = setting(4, "Patches per step.", ge=1, le=1024)
    steps: int = setting(2000, "Steps of the training.", ge=1)
    learning_rate: float = setting(1e-3, "Highest step size of Adam.", gt=0, le=1)
    stain_change: float = setting(0.2, "How much the stain of a patch is changed.", ge=0, le=1)
    prob_threshold: float = setting(0.5, "Least probability of a nucleus.", gt=0, lt=1)
    nms_threshold: float = setting(0.4, "Largest overlap of two nuclei.", gt=0, lt=1)
    spacing_um: float = setting(SPACING_UM, "Pixel size of the pictures.", unit="µm", gt=0)


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
    pictures: Sequence[NDArray[np.uint8]],
    labels: Sequence[Labels],
    params: StarDistTrainingParams,
    rng: np.random.Generator,
    *,
    name: str = "own",
    start: StarDistWeights | None = None,
    training: Mapping[str, Any] | None = None,
) -> Generator[TrainingStep, None, StarDistWeights]:
    """Train a network; yields after every step, returns the weights at the end.

    Parameters
    ----------
    pictures
        (rows, columns, 3) 8-bit pictures at ``spacing_um``, at least a patch large.
    labels
        Labels of all nuclei of each picture, 0 elsewhere.
    params
        Settings.
    rng
        Source of chance for weights, patches and changes of the stain.
    name
        What people call the network.
    start
        Weights to begin with; chance if None.  Their widths are kept.
    training
        What to keep in the card.
    """
    _check(pictures, labels, params)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        widths = Architecture(params.base, params.features) if start is None else start.architecture
        network = _new(widths) if start is None else start.network()
    optimiser = torch.optim.Adam(network.parameters(), lr=params.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, params.learning_rate, total_steps=params.steps + 1, pct_start=0.1
    )
    network.train()
    for step in range(params.steps):
        batch = [_patch(pictures, labels, params, rng) for _ in range(params.batch_size)]
        loss = _loss(network, batch, widths.rays)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        yield TrainingStep(step, params.steps, float(loss.detach()))
    arrays = {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}
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


def stain_changed(
    picture: NDArray[np.uint8], amount: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The picture with another strength and hue of its stain, brightness, sharpness and noise."""
    od = -np.log((picture.astype(np.float32) + 1) / 256)
    mix = np.eye(3) + amount * rng.normal(0, 0.35, (3, 3))
    mix *= np.exp(amount * rng.normal(0, 1.2))
    od = od @ mix.astype(np.float32).T + np.float32(0.15 * amount * rng.random())
    if rng.random() < 0.5:
        od = _blurred(od, 2.5 * amount * rng.random())
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


def _blurred(values: Float32, sigma_px: float) -> Float32:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, (sigma_px, sigma_px, 0)), np.float32)


def _check(
    pictures: Sequence[NDArray[np.uint8]], labels: Sequence[Labels], params: StarDistTrainingParams
) -> None:
    if params.patch_px % DIVISOR:
        raise InputError(f"patch_px is a multiple of {DIVISOR}, not {params.patch_px}")
    if not pictures or len(pictures) != len(labels):
        raise InputError(f"{len(pictures)} pictures and {len(labels)} label images do not fit")
    for picture, truth in zip(pictures, labels, strict=True):
        if picture.shape != (*truth.shape, 3) or min(truth.shape) < params.patch_px:
            raise InputError(
                f"a picture {picture.shape} with labels {truth.shape} cannot be used; both have "
                f"the same size, at least {params.patch_px} px a side"
            )


def _patch(
    pictures: Sequence[NDArray[np.uint8]],
    labels: Sequence[Labels],
    params: StarDistTrainingParams,
    rng: np.random.Generator,
) -> tuple[Float32, Labels]:
    """A turned patch of a picture, normalised, and its labels."""
    which = int(rng.integers(len(pictures)))
    picture, truth, side = pictures[which], labels[which], params.patch_px
    row, col = (int(rng.integers(size - side + 1)) for size in truth.shape)
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    if params.stain_change > 0:
        picture = stain_changed(picture, params.stain_change, rng)
    low, high = intensity_range(picture[::2, ::2])
    values = (picture[row : row + side, col : col + side].astype(np.float32) - low) / max(
        1.0, high - low
    )
    found = np.rot90(values, turns), np.rot90(truth[row : row + side, col : col + side], turns)
    if flip:
        found = found[0][::-1], found[1][::-1]
    return np.ascontiguousarray(found[0], np.float32), np.ascontiguousarray(found[1], np.int32)


def _loss(network: StarDistNetwork, batch: list[tuple[Float32, Labels]], rays: int) -> Tensor:
    pictures = torch.from_numpy(np.stack([values.transpose(2, 0, 1) for values, _ in batch]))
    wanted = [targets(truth, rays) for _, truth in batch]
    prob = torch.from_numpy(np.stack([item[0] for item in wanted]))
    dist = torch.from_numpy(np.stack([item[1].transpose(2, 0, 1) for item in wanted]))
    scores, found = network(pictures)
    mask = prob[:, None]
    error = (mask * (dist - found).abs()).mean() / (mask.mean() + 1e-7)
    outside = ((1 - mask) * found.abs()).mean()
    loss: Tensor = functional.binary_cross_entropy_with_logits(scores[:, 0], prob)
    total: Tensor = loss + _DISTANCE_WEIGHT * (error + _BACKGROUND_WEIGHT * outside)
    return total
