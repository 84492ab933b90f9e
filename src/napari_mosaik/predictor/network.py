"""The MOSAIK network, in two forms.

Tile by tile, as in the paper (`MosaikNetwork`):

    windows at three scales ─► convolutions ─┐
    clusters of three proxies ─► attention ──┼─► fusion ─► uptake class, normalised SUV
    antibody curves ─► LSTM ─────────────────┘

Over whole slides (`SlideNetwork`, the default): the same three parts and two heads, and a fourth
part that reads the tile's parameters.  A picture of the scanner is made at the end:

    maps at three scales ─► convolutions, once over the slide ─► mean over each window ─┐
    clusters ─► attention ──────────────────────────────────────────────────────────────┤
    antibody curves ─► LSTM ────────────────────────────────────────────────────────────┤
    tile parameters, and their means over what the scanner sees ─► dense layers ────────┴─► fusion
    fusion ─► uptake class
          └─► source ≥ 0 in each tile x tissue in it ─► Gaussian of learnt width ─► normalised SUV

No normalisation reaches over the slide: it is over the channels of one tile, or over one window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.learning.devices import stoppable
from napari_mosaik.predictor.inputs import CODE_CELLS, INVALID_CODE, N_CLASSES
from napari_mosaik.predictor.multiscale import FRACTIONS, SCALE_TILES
from napari_mosaik.predictor.params import NetworkParams
from napari_mosaik.predictor.scene import SlideScene, code_variability, scanner_blur

__all__ = ["PARTS", "MosaikNetwork", "SeededDropout", "SlideNetwork", "SlideOutput"]

_HEADS = 4
PARTS = ("spatial", "heterogeneity", "temporal", "parameters")
"""Parts of `SlideNetwork`, each of which can be cut out (`NetworkParams.without`)."""


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
        # Drawn on the CPU, so that every device drops the same values.
        keep = (torch.rand(x.shape, generator=self.generator) >= self.share).to(x.device)
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

    def forward(self, codes: Tensor, variability: Tensor | None = None) -> Tensor:
        """Cluster labels 0-5 (b, 3, 11, 11) to features (b, proxy_width), dimensionless.

        *variability* is that of `code_variability`, computed where it is None.  A cell's token is
        the sum of its code's, its place's and its proxy's, so scores and values are computed per
        code and place, and not per tile.
        """
        pooled = self._proxies(codes, variability)[0]
        fused, _ = self.attention(pooled, pooled, pooled, need_weights=False)
        return torch.as_tensor(self.out(self.norm(pooled + fused).flatten(1)))

    def attended(self, codes: Tensor, variability: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attention within each map (b, 3, 121), and across the proxies (b, 3, 3); fractions.

        Means over the heads; the weights of a map add up to 1, and so do those that a proxy (row)
        gives to the proxies (columns).  *codes* and *variability* are as for the features.
        """
        pooled, weight = self._proxies(codes, variability)
        _, across = self.attention(pooled, pooled, pooled, need_weights=True)
        return weight.mean(dim=3), across

    def _proxies(self, codes: Tensor, variability: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of the proxies (b, 3, width); weights of their cells (b, 3, 121, heads)."""
        onehot = functional.one_hot(codes.flatten(2).long(), INVALID_CODE + 1).float()
        varied = code_variability(codes) if variability is None else variability
        code = self.embed.weight.T
        place = self.position + self.proxy[:, None, :]
        score = self.score(code + place[:, :, None, :])
        scores = torch.einsum("bptc,ptch->bpth", onehot, score) + varied[..., None] * (
            self.variability
        )
        weight = torch.softmax(scores, dim=2)
        by_code = torch.einsum("bpth,bptc->bphc", weight, onehot) @ self.value(code)
        by_place = torch.einsum("bpth,ptc->bphc", weight, place @ self.value.weight.T)
        pooled = (by_code + by_place).flatten(2)
        middle = CODE_CELLS**2 // 2
        centre = onehot[:, :, middle] @ code + place[:, middle]
        return self.to_proxy(torch.cat([pooled, centre], dim=2)), weight


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
        return self.heads(self.fused(windows, codes, curves))

    def fused(self, windows: Tensor, codes: Tensor, curves: Tensor) -> Tensor:
        """Joined features (b, width) of the parts; dimensionless."""
        mean, sd = self.window_mean[..., None, None], self.window_sd[..., None, None]
        varies = (self.curve_sd > 0).float()
        scaled = (curves - self.curve_mean) / torch.where(self.curve_sd > 0, self.curve_sd, 1.0)
        parts = [
            self.spatial((windows.float() / 255.0 - mean) / sd),
            self.heterogeneity(codes),
            self.temporal((scaled * varies).clamp(-8.0, 8.0)),
        ]
        return torch.as_tensor(self.dropout(functional.relu(self.fusion(torch.cat(parts, dim=1)))))

    def heads(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (b, 5) and normalised SUV (b,) of features (b, width)."""
        return self.class_head(fused), torch.sigmoid(self.suv_head(fused).squeeze(1))

    @property
    def n_parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())


class ChannelBlock(nn.Module):
    """Layer norm over the channels of a tile and two dense layers, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.mix = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, width) to the same shape; dimensionless."""
        return torch.as_tensor(x + self.mix(functional.relu(self.wide(self.norm(x)))))


class SlideSpatialPart(nn.Module):
    """Tissue at three scales: each map is read once, and pooled over the window of each tile."""

    def __init__(self, params: NetworkParams) -> None:
        super().__init__()
        first, second, _ = params.branch_channels
        self.strides = [(2, 2), (1, 1), (2, 1)]
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(len(FRACTIONS), first, 3, stride=one, padding=1),
                nn.ReLU(),
                nn.Conv2d(first, second, 3, stride=two, padding=1),
                nn.ReLU(),
            )
            for one, two in self.strides
        )
        width = params.spatial_width
        self.join = nn.Linear(len(SCALE_TILES) * second, width)
        self.blocks = nn.Sequential(ChannelBlock(width), ChannelBlock(width))
        self.norm = nn.LayerNorm(width)

    def forward(self, scene: SlideScene, mean: Tensor, sd: Tensor) -> Tensor:
        """Features (n, width) of the tiles, dimensionless; *mean* and *sd* (3, 4) of the maps."""
        found = []
        for level, branch in enumerate(self.branches):
            values = scene.maps[level].float() / 255.0
            scaled = (values - mean[level, :, None, None]) / sd[level, :, None, None]
            features = branch(scaled[None]).float()
            step = self.strides[level][0] * self.strides[level][1]
            found.append(_window_means(features, scene.corners[level], scene.windows[level], step))
        return torch.as_tensor(self.norm(self.blocks(self.join(torch.cat(found, dim=1)))))


def _window_means(features: Tensor, corners: Tensor, window: int, step: int) -> Tensor:
    """(n, channels) means over the windows of the tiles; a feature stands for *step* pixels."""
    size = max(1, round(window / step))
    row = torch.div(corners[:, 0] + step // 2, step, rounding_mode="floor")
    col = torch.div(corners[:, 1] + step // 2, step, rounding_mode="floor")
    down = functional.avg_pool2d(features, (size, 1), stride=1)
    means = functional.avg_pool2d(down, (1, size), stride=1)[0]
    row, col = row.clamp(max=means.shape[1] - 1), col.clamp(max=means.shape[2] - 1)
    return means.flatten(1)[:, row * means.shape[2] + col].T


class ParameterPart(nn.Module):
    """Parameters of the tile, and their means over what the scanner sees."""

    def __init__(self, params: NetworkParams, n_columns: int) -> None:
        super().__init__()
        width = params.parameter_width
        self.first, self.second = nn.Linear(n_columns, width), nn.Linear(width, width)

    def forward(self, columns: Tensor) -> Tensor:
        """Standardised columns (n, k) to features (n, width), dimensionless."""
        return functional.relu(self.second(torch.tanh(self.first(columns))))


@dataclass(frozen=True, slots=True, eq=False)
class SlideOutput:
    """What `SlideNetwork` says of the n tiles of a slide.

    Parameters
    ----------
    logits
        (n, 5) of the uptake classes; minus infinity for a class that is not in the training set.
    suv_norm
        (n,) normalised SUV that the scanner would see; not bounded to [0, 1].
    source
        (n,) contribution of each tile before the scanner's blur, SUV over the span of the training
        tiles; not negative.
    """

    logits: Tensor
    suv_norm: Tensor
    source: Tensor


class SlideNetwork(nn.Module):
    """The network over whole slides, with a source in each tile and the scanner's blur.

    Parameters
    ----------
    params
        Sizes, and the parts that are cut out.
    n_times
        Samples of the antibody curves.
    n_columns
        Columns of the tile parameters and their means over what the scanner sees.
    fwhm_um
        Width of the scanner's Gaussian, µm of the reference section; the learnt one starts there.
    seed
        Random seed of the initial weights.

    Notes
    -----
    The statistics that bring the inputs to zero mean and unit variance are part of the weights (set
    before training), as is the learnt width.  A missing parameter is replaced by the median of the
    training tiles; a tile without curves has the mean curve, so that its neighbours can be
    predicted, and is not predicted itself.
    """

    window_mean: Tensor
    window_sd: Tensor
    curve_mean: Tensor
    curve_sd: Tensor
    column_median: Tensor
    column_mean: Tensor
    column_sd: Tensor
    known_class: Tensor
    scanner_um: Tensor
    zero_suv: Tensor

    def __init__(
        self,
        params: NetworkParams,
        n_times: int,
        n_columns: int,
        fwhm_um: float = 1500.0,
        seed: int = 0,
    ) -> None:
        self.without = frozenset(params.without)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__()
            widths = {
                "spatial": params.spatial_width,
                "heterogeneity": params.proxy_width,
                "temporal": params.temporal_width,
                "parameters": params.parameter_width,
            }
            # Every part is made, so that cutting one out leaves the others their first weights.
            self.spatial = SlideSpatialPart(params)
            self.heterogeneity = HeterogeneityPart(params)
            self.temporal = TemporalPart(params)
            self.parameters_part = ParameterPart(params, n_columns)
            joined = sum(width for name, width in widths.items() if name not in self.without)
            self.fusion = nn.Linear(joined, params.fusion_width)
            self.dropout = SeededDropout(params.dropout)
            self.context = SeededDropout(params.context_dropout)
            self.class_head = nn.Linear(params.fusion_width + 1, N_CLASSES)
            self.source_head = nn.Linear(params.fusion_width, 1)
        self.log_width = nn.Parameter(torch.zeros(()))
        shape = (len(SCALE_TILES), len(FRACTIONS))
        self.register_buffer("window_mean", torch.zeros(shape))
        self.register_buffer("window_sd", torch.ones(shape))
        self.register_buffer("curve_mean", torch.zeros(n_times, 3))
        self.register_buffer("curve_sd", torch.ones(n_times, 3))
        self.register_buffer("column_median", torch.zeros(n_columns))
        self.register_buffer("column_mean", torch.zeros(n_columns))
        self.register_buffer("column_sd", torch.ones(n_columns))
        self.register_buffer("known_class", torch.ones(N_CLASSES))
        self.register_buffer("scanner_um", torch.tensor(float(fwhm_um)))
        self.register_buffer("zero_suv", torch.zeros(()))
        stoppable(self)

    @property
    def fwhm_um(self) -> Tensor:
        """Learnt width of the scanner's Gaussian (scalar), µm of the reference section."""
        return self.scanner_um * torch.exp(self.log_width)

    def forward(self, scene: SlideScene) -> SlideOutput:
        """The output for all tiles of a slide."""
        return self.seen(scene, self.fused(scene))

    def seen(self, scene: SlideScene, fused: Tensor) -> SlideOutput:
        """The output of features (n, width), dimensionless: sources, and what the scanner sees."""
        source = functional.softplus(self.source_head(fused))[:, 0]
        uptake = source * scene.lattice.covered
        if "blur" not in self.without:
            uptake = scanner_blur(source, scene.lattice, self.fwhm_um)
        suv_norm = uptake + self.zero_suv
        logits = self.class_head(torch.cat([fused, suv_norm[:, None].detach()], dim=1))
        return SlideOutput(torch.where(self.known_class > 0, logits, -torch.inf), suv_norm, source)

    def fused(self, scene: SlideScene) -> Tensor:
        """Joined features (n, width) of the parts that are not cut out; dimensionless."""
        parts = []
        if "spatial" not in self.without:
            tissue = self.spatial(scene, self.window_mean, self.window_sd)
            parts.append(self.context(tissue))
        if "heterogeneity" not in self.without:
            parts.append(self.context(self.heterogeneity(scene.codes, scene.variability)))
        if "temporal" not in self.without:
            parts.append(self.temporal(self._curves(scene.curves)))
        if "parameters" not in self.without:
            columns = self._columns(scene.columns)
            own, seen = columns.chunk(2, dim=1)
            parts.append(self.parameters_part(torch.cat([own, self.context(seen)], dim=1)))
        return torch.as_tensor(self.dropout(functional.relu(self.fusion(torch.cat(parts, dim=1)))))

    def _curves(self, curves: Tensor) -> Tensor:
        varies = (self.curve_sd > 0).float()
        scaled = (curves - self.curve_mean) / torch.where(self.curve_sd > 0, self.curve_sd, 1.0)
        return torch.nan_to_num(scaled * varies, nan=0.0).clamp(-8.0, 8.0)

    def _columns(self, columns: Tensor) -> Tensor:
        filled = torch.where(torch.isfinite(columns), columns, self.column_median)
        return ((filled - self.column_mean) / self.column_sd).clamp(-8.0, 8.0)

    @property
    def n_parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())
