"""A source in each tile, seen through the scanner: the simplest model that knows the PET.

    tile parameters ─► small network ─► source ≥ 0 ─► x tissue in the tile ─► Gaussian ─► SUV

The width of the Gaussian is learnt; it starts at the scanner's.  Beyond the tissue there is no
source, so the uptake falls at the rim as it does in the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core import FloatArray
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.learning.devices import thread_count
from napari_mosaik.predictor.surroundings import (
    CUT_SIGMA,
    SIGMA_PER_FWHM,
    Surroundings,
    tile_pitch_um,
)

__all__ = ["SourceBlur", "fit_source_blur"]

_HIDDEN: Final = 24
_STEPS: Final = 300
_LEARNING_RATE: Final = 0.02
_DECAY: Final = 1e-2
_WIDEST: Final = 2.0
"""The kernel is drawn for a width up to this multiple of the scanner's."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceBlur:
    """A fitted source network and the width of its blur.

    Parameters
    ----------
    arrays
        Weights of the network, medians, means and SDs of the k columns, by name.
    fwhm_um
        Learnt width of the blur, µm of the reference section.
    """

    arrays: Mapping[str, NDArray[Any]]
    fwhm_um: float

    def predict(self, surroundings: Surroundings) -> FloatArray:
        """(n,) uptake of the tiles, SUV over the span of the training tiles, dimensionless."""
        return self._run(surroundings, blur=True)

    def sources(self, surroundings: Surroundings) -> FloatArray:
        """(n,) source of each tile before the blur, in the same unit; dimensionless."""
        return self._run(surroundings, blur=False)

    def _run(self, surroundings: Surroundings, *, blur: bool) -> FloatArray:
        network = _Network(len(self.arrays["centre"]))
        names = network.state_dict()
        network.load_state_dict({k: torch.from_numpy(np.array(self.arrays[k])) for k in names})
        scene = _Scene(surroundings, self.arrays)
        with torch.no_grad(), thread_count(1):
            source = network(scene.columns)
            found = scene.seen(source, torch.tensor(self.fwhm_um)) if blur else source
        return np.asarray(found.numpy(), float)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """From the record of a card and its arrays."""
        return cls(arrays, float(record["learnt_fwhm_um"]))


class _Network(nn.Module):
    """Source of a tile from its k standardised parameters."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, _HIDDEN), nn.Linear(_HIDDEN, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in (self.first, self.last):
                bound = 1.0 / layer.in_features**0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()

    def forward(self, columns: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(columns))
        found: Tensor = functional.softplus(self.last(hidden))[:, 0]
        return found


class _Scene:
    """The tiles of one case on their lattice."""

    def __init__(self, surroundings: Surroundings, arrays: Mapping[str, NDArray[Any]]) -> None:
        inputs = surroundings.inputs
        raw = surroundings.columns("tile")
        filled = np.where(np.isfinite(raw), raw, arrays["median"])
        standard = (filled - arrays["centre"]) / arrays["scale"]
        self.columns = torch.from_numpy(standard.astype(np.float32))
        cells = inputs.cells - inputs.cells.min(axis=0)
        self.cells = tuple(torch.from_numpy(np.ascontiguousarray(axis)) for axis in cells.T)
        self.shape = tuple(int(side) + 1 for side in cells.max(axis=0))
        self.covered = torch.from_numpy(inputs.covered.astype(np.float32))
        self.pitch_um = tile_pitch_um(inputs)
        widest = _WIDEST * surroundings.fwhm_um * SIGMA_PER_FWHM * CUT_SIGMA
        self.radius = [max(1, int(np.ceil(widest / step))) for step in self.pitch_um]

    def seen(self, source: Tensor, fwhm_um: Tensor) -> Tensor:
        """The sources of the tiles, times the tissue in them, blurred over the lattice."""
        raster = source.new_zeros(self.shape)
        raster = raster.index_put(self.cells, source * self.covered)[None, None]
        for axis in (0, 1):
            sigma = fwhm_um * SIGMA_PER_FWHM / self.pitch_um[axis]
            reach = self.radius[axis]
            offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
            bell = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= CUT_SIGMA * sigma)
            bell = bell / bell.sum()
            kernel = bell[None, None, :, None] if axis == 0 else bell[None, None, None, :]
            padding = (reach, 0) if axis == 0 else (0, reach)
            raster = functional.conv2d(raster, kernel, padding=padding)
        return raster[0, 0][self.cells]


def fit_source_blur(
    cases: Sequence[Surroundings], targets: Sequence[FloatArray], seed: int = 0
) -> SourceBlur:
    """Fit the source network and the width of the blur to measured uptake.

    Parameters
    ----------
    cases
        The training cases.
    targets
        For each case the (n,) measured uptake, SUV over the span of the training tiles,
        dimensionless; NaN: not measured, and not counted.
    seed
        Random seed of the first weights.

    Notes
    -----
    Full batches over whole slides, 300 steps of AdamW with a cosine to zero, one thread: equal
    seeds give equal bits.
    """
    raw = np.concatenate([case.columns("tile") for case in cases])
    known = np.where(np.isfinite(raw), raw, np.nan)
    with np.errstate(all="ignore"):
        empty = np.isnan(known).all(axis=0)
        median = np.where(empty, 0.0, np.nanmedian(np.where(empty, 0.0, known), axis=0))
    filled = np.where(np.isnan(known), median, known)
    spread = filled.std(axis=0)
    arrays: dict[str, NDArray[Any]] = {
        "median": median,
        "centre": filled.mean(axis=0),
        "scale": np.where(spread > 0, spread, 1.0),
    }
    scenes = [_Scene(case, arrays) for case in cases]
    masks = [torch.from_numpy(np.isfinite(target)) for target in targets]
    wanted = [
        torch.from_numpy(np.nan_to_num(target).astype(np.float32))[mask]
        for target, mask in zip(targets, masks, strict=True)
    ]
    n_tiles = sum(int(mask.sum()) for mask in masks)
    start = float(np.mean([case.fwhm_um for case in cases]))
    network = _Network(raw.shape[1], seed)
    log_width = torch.zeros((), requires_grad=True)
    groups = [
        {"params": list(network.parameters()), "weight_decay": _DECAY},
        {"params": [log_width], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
    with thread_count(1):
        for _ in range(_STEPS):
            checkpoint()
            optimiser.zero_grad()
            for scene, mask, target in zip(scenes, masks, wanted, strict=True):
                seen = scene.seen(network(scene.columns), start * torch.exp(log_width))
                loss = ((seen[mask] - target) ** 2).sum() / n_tiles
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                log_width.clamp_(-np.log(_WIDEST), np.log(_WIDEST))
    arrays |= {name: value.numpy().copy() for name, value in network.state_dict().items()}
    return SourceBlur(arrays, start * float(torch.exp(log_width.detach())))
