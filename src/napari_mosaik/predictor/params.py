"""Settings of the network and of its training, and their presets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from napari_mosaik.core import InputError, Params, setting

__all__ = ["PRESETS", "NetworkParams", "TrainParams"]


Part = Literal["spatial", "heterogeneity", "temporal", "parameters", "blur"]
_Channels = Annotated[int, Field(ge=1, le=512)]
SLIDE_WINDOWS_PX = (16, 34, 82)
"""Edge of the windows of the network over whole slides: pixels of 25, 100 and 100 µm."""


class NetworkParams(Params):
    """Sizes of the network; small, because there are few data (the paper states none)."""

    architecture: Literal["slide", "tile"] = setting(
        "slide",
        "Whether the network reads whole slides and blurs a source in each tile as the scanner "
        "does, or reads one tile with its windows (paper).",
        choices={"slide": "whole slides, with the scanner's blur", "tile": "tile by tile (paper)"},
    )
    window_px: Literal[40, 80, 160, 200] = setting(
        40,
        "Edge of the three input windows in pixels; 160 in the paper.",
        unit="px",
        only_with={"architecture": "tile"},
    )
    branch_channels: tuple[_Channels, _Channels, _Channels] = setting(
        (8, 16, 16),
        "Channels of the convolutions of each scale (the third only tile by tile).",
        advanced=True,
    )
    spatial_width: int = setting(
        24, "Width of the pooled spatial features.", ge=8, le=512, advanced=True
    )
    code_width: int = setting(
        16, "Width of the embedding of one cluster code.", ge=4, le=64, multiple_of=4, advanced=True
    )
    proxy_width: int = setting(
        16, "Width of the heterogeneity features.", ge=8, le=256, multiple_of=4, advanced=True
    )
    bound_width: int = setting(
        32, "Width of the LSTM of the bound and internalised curves.", ge=4, le=128, advanced=True
    )
    free_width: int = setting(
        16, "Width of the LSTM of the free curve.", ge=4, le=128, advanced=True
    )
    temporal_width: int = setting(
        16, "Width of the joined temporal features.", ge=4, le=128, advanced=True
    )
    parameter_width: int = setting(
        64,
        "Width of the features of the tile parameters.",
        ge=4,
        le=256,
        advanced=True,
        only_with={"architecture": "slide"},
    )
    fusion_width: int = setting(
        128, "Width of the fusion of the parts.", ge=8, le=512, advanced=True
    )
    without: tuple[Part, ...] = setting(
        (),
        "Parts that are removed from the network, to see what each contributes (ablation).",
        advanced=True,
        only_with={"architecture": "slide"},
    )
    context_dropout: float = setting(
        0.7,
        "Fraction of what a tile does not hold itself (spatial and heterogeneity features, means "
        "over what the scanner sees) that is dropped in each training step.",
        ge=0.0,
        lt=1.0,
        advanced=True,
        only_with={"architecture": "slide"},
    )
    dropout: float = setting(
        0.2, "Fraction of the fused features dropped in each training step.", ge=0.0, lt=1.0
    )

    @field_validator("without")
    @classmethod
    def _something_is_left(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        if {"spatial", "heterogeneity", "temporal", "parameters"} <= set(parts):
            raise ValueError("a network without all its parts reads nothing; leave one of them")
        return parts

    @property
    def windows_px(self) -> tuple[int, int, int]:
        """Edge of the windows at the three scales, pixels."""
        one = self.window_px
        return SLIDE_WINDOWS_PX if self.architecture == "slide" else (one, one, one)


class TrainParams(NetworkParams):
    """Settings of a training; the defaults take a minute for the quick cohort on two cores."""

    members: int = setting(
        5,
        "Networks of the ensemble, which differ in their first weights and in the order of "
        "training; the prediction is their mean.",
        ge=1,
        le=20,
    )
    with_companions: bool = setting(
        True,
        "Whether the prediction may be a weighted mean of the networks, of gradient boosting on "
        "what the scanner sees, and of the small source model; the weights are the best ones for "
        "the held-out training cases, at least one half for the networks.",
        only_with={"intervals": True},
    )
    intervals: bool = setting(
        True,
        "Whether each training case is held out once more, to calibrate the intervals.",
    )
    epochs: int = setting(30, "Maximum number of epochs.", ge=1, le=1000)
    batch_size: int = setting(
        32, "Tiles per batch.", ge=1, le=1024, only_with={"architecture": "tile"}
    )
    learning_rate: float = setting(
        1.5e-3, "Learning rate of the optimiser (its maximum with a schedule).", gt=0.0, le=1.0
    )
    schedule: Literal["cosine", "constant"] = setting(
        "cosine",
        "How the learning rate changes during training.",
        choices={"cosine": "warm-up, then cosine decay to zero", "constant": "constant"},
        advanced=True,
    )
    weight_decay: float = setting(
        1e-2, "Decoupled weight decay (0: plain Adam).", ge=0.0, le=1.0, advanced=True
    )
    alpha: float = setting(
        0.05, "Weight of the classification loss (cross-entropy).", ge=0.0, le=10.0
    )
    lambda_: float = setting(
        0.95, "Weight of the SUV loss (mean squared error).", ge=0.0, le=10.0, label="lambda"
    )
    flip_rotate: bool = setting(
        True, "Rotate and flip windows and cluster maps together (8 orientations)."
    )
    ema_decay: float = setting(
        0.98,
        "EMA decay: decay of the running mean of the weights, which becomes the model (0: none).",
        ge=0.0,
        lt=1.0,
        advanced=True,
    )
    curves: Literal["tile", "patient"] = setting(
        "tile",
        "Antibody curves that the network reads: delivery-limited curves of each tile, or those of "
        "the patient, equal for all tiles (paper).",
        choices={"tile": "per tile", "patient": "per patient (paper)"},
    )
    validation: Literal["none", "auto"] = setting(
        "none",
        "Whether one training case validates: it decides when to stop and which weights to keep.",
        choices={"none": "train on every training case", "auto": "validate on one training case"},
    )
    patience: int = setting(
        8,
        "Epochs without improvement of the validation error before stopping (0: never); "
        "only with a validation case.",
        ge=0,
        le=1000,
        advanced=True,
    )
    threads: int = setting(2, "CPU threads; recorded with the result.", ge=1, le=64, advanced=True)
    low_percentile: float = setting(
        0.5, "Percentile of the training SUV that becomes 0.", ge=0.0, lt=50.0, unit="%"
    )
    high_percentile: float = setting(
        99.5, "Percentile of the training SUV that becomes 1.", gt=50.0, le=100.0, unit="%"
    )

    @property
    def clips_targets(self) -> bool:
        """Whether the measured values are clipped to [0, 1]: the paper's head ends there."""
        return self.architecture == "tile"

    @classmethod
    def preset(cls, name: str) -> Self:
        """The settings of a named preset: ``"default"`` (quick cohort) or ``"paper"`` (Table 3)."""
        if name not in PRESETS:
            raise InputError(f"no preset '{name}'; there are: {', '.join(PRESETS)}")
        return cls.parse(PRESETS[name], f"preset {name}")


PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    "paper": {
        "architecture": "tile",
        "branch_channels": (16, 32, 64),
        "spatial_width": 128,
        "proxy_width": 64,
        "temporal_width": 32,
        "fusion_width": 128,
        "members": 1,
        "with_companions": False,
        "intervals": False,
        "window_px": 160,
        "epochs": 25,
        "batch_size": 12,
        "learning_rate": 3e-5,
        "schedule": "constant",
        "weight_decay": 0.0,
        "alpha": 0.3,
        "lambda_": 0.7,
        "flip_rotate": False,
        "validation": "auto",
        "ema_decay": 0.0,
        "curves": "patient",
    },
}
"""Presets by name: what differs from the defaults of `TrainParams`."""
