"""The MOSAIK network: tissue at three scales, clusters of three proxies and antibody curves."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.learning.devices import stoppable
from napari_mosaik.predictor.inputs import CODE_CELLS, INVALID_CODE, N_CLASSES
from napari_mosaik.predictor.multiscale import FRACTIONS, SCALE_TILES
from napari_mosaik.predictor.params import NetworkParams

__all__ = ["MosaikNetwork", "SeededDropout"]

_HEADS = 4


class SeededDropout(nn.Module):
    """Dropout with a random generator of its own, so that nothing else changes a training."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop a fraction of the values (any shape, any unit) in training; else the identity."""
        if not self.training or self.share == 0:
            return x
        keep = torch.rand(x.shape, generator=self.generator) >= self.share
        return torch.as_tensor(x * keep / (1 - self.share))


class ResidualBlock(nn.Module):
    """Layer norm, convolution and channel mixing, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (b, width, rows, columns) to the same shape; dimensionless."""
        return torch.as_tensor(x + self.mix(functional.relu(self.conv(self.norm(x)))))


class SpatialPart(nn.Module):
    """Tissue at three scales, each in its own branch, then joined and pooled."""

    def __init__(self, params: NetworkParams) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            self._branch(params.branch_channels) for _ in range(len(SCALE_TILES))
        )
        width = params.spatial_width
        self.join = nn.Conv2d(len(SCALE_TILES) * params.branch_channels[-1], width, 1)
        self.blocks = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def _branch(channels: tuple[int, int, int]) -> nn.Sequential:
        layers: list[nn.Module] = []
        before = len(FRACTIONS)
        for after in channels:
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
            before = after
        return nn.Sequential(*layers)

    def forward(self, windows: Tensor) -> Tensor:
        """Standardised area fractions of shape (b, 3, 4, w, w) to features of shape (b, width).

        Dimensionless.
        """
        maps = [branch(windows[:, i]) for i, branch in enumerate(self.branches)]
        joined = self.blocks(self.join(torch.cat(maps, dim=1)))
        return torch.as_tensor(self.norm(joined.mean(dim=(2, 3))))


def _position_code(width: int) -> Tensor:
    """(121, width) sines and cosines of row and column offset from the centre."""
    offset = torch.arange(CODE_CELLS) - CODE_CELLS // 2
    rows, cols = torch.meshgrid(offset, offset, indexing="ij")
    rates = math.pi / CODE_CELLS * 2.0 ** torch.arange(width // 4)
    angles = [x.reshape(-1, 1) * rates for x in (rows, cols)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1).float()


class HeterogeneityPart(nn.Module):
    """Cluster codes of three proxies: attention within each map, then across proxies."""

    position: Tensor

    def __init__(self, params: NetworkParams) -> None:
        super().__init__()
        code, width = params.code_width, params.proxy_width
        self.embed = nn.Linear(INVALID_CODE + 1, code, bias=False)
        self.proxy = nn.Parameter(torch.zeros(3, code))
        self.register_buffer("position", _position_code(code), persistent=False)
        self.score = nn.Sequential(nn.Linear(code, code), nn.Tanh(), nn.Linear(code, _HEADS))
        self.variability = nn.Parameter(torch.ones(_HEADS))
        self.value = nn.Linear(code, code)
        self.to_proxy = nn.Linear((_HEADS + 1) * code, width)
        self.attention = nn.MultiheadAttention(width, _HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(3 * width, width)

    def forward(self, codes: Tensor) -> Tensor:
        """Cluster labels 0-5 (b, 3, 11, 11) to features (b, proxy_width), dimensionless."""
        batch = codes.shape[0]
        onehot = functional.one_hot(codes.long(), INVALID_CODE + 1).float()
        tokens = self.embed(onehot).reshape(batch, 3, CODE_CELLS**2, -1)
        tokens = tokens + self.position + self.proxy[:, None, :]
        score = self.score(tokens) + self._variability(onehot) * self.variability
        weight = torch.softmax(score, dim=2)
        pooled = torch.einsum("bpth,bptc->bphc", weight, self.value(tokens)).flatten(2)
        centre = tokens[:, :, CODE_CELLS**2 // 2]
        proxies = self.to_proxy(torch.cat([pooled, centre], dim=2))
        fused, _ = self.attention(proxies, proxies, proxies, need_weights=False)
        return torch.as_tensor(self.out(self.norm(proxies + fused).flatten(1)))

    @staticmethod
    def _variability(onehot: Tensor) -> Tensor:
        """(b, 3, 121, 1) fraction of the 3 x 3 neighbourhood with another code than the cell."""
        batch = onehot.shape[0]
        planes = onehot.flatten(0, 1).permute(0, 3, 1, 2)
        around = functional.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
        other = 1.0 - (around * planes).sum(dim=1)
        return other.reshape(batch, 3, CODE_CELLS**2, 1)


class TemporalPart(nn.Module):
    """Antibody curves: one LSTM for bound and internalised, another for free antibody."""

    def __init__(self, params: NetworkParams) -> None:
        super().__init__()
        self.bound = nn.LSTM(2, params.bound_width, batch_first=True)
        self.free = nn.LSTM(1, params.free_width, batch_first=True)
        self.out = nn.Linear(params.bound_width + params.free_width, params.temporal_width)

    def forward(self, curves: Tensor) -> Tensor:
        """Standardised curves to features of shape (b, temporal_width), dimensionless.

        The curves (b, t, 3) are free, bound and internalised antibody.
        """
        bound, _ = self.bound(curves[..., 1:])
        free, _ = self.free(curves[..., :1])
        return functional.relu(self.out(torch.cat([bound[:, -1], free[:, -1]], dim=1)))


class MosaikNetwork(nn.Module):
    """Multi-modal spatial aggregation of instance knowledge, per tile.

    Three parts (spatial, heterogeneity, temporal) are joined and feed two heads: logits of the
    tile's uptake class, and the normalised SUV in [0, 1].

    Parameters
    ----------
    params
        Sizes.
    n_times
        Samples of the antibody curves.
    seed
        Random seed of the initial weights.

    Notes
    -----
    The statistics that bring the inputs to zero mean and unit variance are part of the weights
    (set before training).  A curve value that is equal in all training tiles is passed on as zero:
    a constant curve carries no information.  Attention weights explain the model, not biology.
    """

    window_mean: Tensor
    window_sd: Tensor
    curve_mean: Tensor
    curve_sd: Tensor

    def __init__(self, params: NetworkParams, n_times: int, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__()
            self.spatial = SpatialPart(params)
            self.heterogeneity = HeterogeneityPart(params)
            self.temporal = TemporalPart(params)
            joined = params.spatial_width + params.proxy_width + params.temporal_width
            self.fusion = nn.Linear(joined, params.fusion_width)
            self.dropout = SeededDropout(params.dropout)
            self.class_head = nn.Linear(params.fusion_width, N_CLASSES)
            self.suv_head = nn.Linear(params.fusion_width, 1)
        shape = (len(SCALE_TILES), len(FRACTIONS))
        self.register_buffer("window_mean", torch.zeros(shape))
        self.register_buffer("window_sd", torch.ones(shape))
        self.register_buffer("curve_mean", torch.zeros(n_times, 3))
        self.register_buffer("curve_sd", torch.ones(n_times, 3))
        stoppable(self)

    def forward(self, windows: Tensor, codes: Tensor, curves: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (b, 5) and normalised SUV (b,).

        Parameters
        ----------
        windows
            (b, 3, 4, window, window) area fractions times 255 at the three scales.
        codes
            (b, 3, 11, 11) cluster codes 0-5.
        curves
            (b, times, 3) free, bound and internalised antibody.
        """
        mean, sd = self.window_mean[..., None, None], self.window_sd[..., None, None]
        varies = (self.curve_sd > 0).float()
        scaled = (curves - self.curve_mean) / torch.where(self.curve_sd > 0, self.curve_sd, 1.0)
        parts = [
            self.spatial((windows.float() / 255.0 - mean) / sd),
            self.heterogeneity(codes),
            self.temporal((scaled * varies).clamp(-8.0, 8.0)),
        ]
        fused = self.dropout(functional.relu(self.fusion(torch.cat(parts, dim=1))))
        return self.class_head(fused), torch.sigmoid(self.suv_head(fused).squeeze(1))

    @property
    def n_parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())
