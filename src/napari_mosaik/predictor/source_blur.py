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
from napari_mosaik.predictor.scene import WIDEST, TileLattice, scanner_blur
from napari_mosaik.predictor.surroundings import Surroundings, column_statistics

__all__ = ["SourceBlur", "fit_source_blur"]

_HIDDEN: Final = 24
_STEPS: Final = 300
_LEARNING_RATE: Final = 0.02
_DECAY: Final = 1e-2


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
        lattice = TileLattice.of(surroundings.inputs, surroundings.fwhm_um)
        with torch.no_grad(), thread_count(1):
            source = network(_standard(surroundings, self.arrays))
            width = torch.tensor(self.fwhm_um)
            found = scanner_blur(source, lattice, width) if blur else source
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


def _standard(surroundings: Surroundings, arrays: Mapping[str, NDArray[Any]]) -> Tensor:
    """(n, k) standardised tile parameters; the median where one is missing."""
    raw = surroundings.columns("tile")
    filled = np.where(np.isfinite(raw), raw, arrays["median"])
    return torch.from_numpy(((filled - arrays["centre"]) / arrays["scale"]).astype(np.float32))


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
    median, centre, scale = column_statistics(raw)
    arrays: dict[str, NDArray[Any]] = {"median": median, "centre": centre, "scale": scale}
    columns = [_standard(case, arrays) for case in cases]
    lattices = [TileLattice.of(case.inputs, case.fwhm_um) for case in cases]
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
            for own, lattice, mask, target in zip(columns, lattices, masks, wanted, strict=True):
                seen = scanner_blur(network(own), lattice, start * torch.exp(log_width))
                loss = ((seen[mask] - target) ** 2).sum() / n_tiles
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                log_width.clamp_(-np.log(WIDEST), np.log(WIDEST))
    arrays |= {name: value.numpy().copy() for name, value in network.state_dict().items()}
    return SourceBlur(arrays, start * float(torch.exp(log_width.detach())))
