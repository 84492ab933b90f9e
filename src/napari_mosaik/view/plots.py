"""Figures of predicted against measured uptake, kinetics, training and coverage.

Each function returns a new matplotlib `Figure`.  Pairs with a missing value are excluded.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, palette
from napari_mosaik.view.figure import (
    axis_label,
    new_figure,
    note,
    paired_values,
    ring_tile,
    separate_labels,
    tidy,
)
from napari_mosaik.view.formatting import count, heading, number, uptake_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ATTENTION_MEANS",
    "LiveCurves",
    "attention_figure",
    "bland_altman_figure",
    "calibration_figure",
    "coverage_figure",
    "error_by_distance_figure",
    "error_by_group_figure",
    "kinetics_figure",
    "scatter_figure",
    "training_figure",
]


def scatter_figure(
    measured: ArrayLike,
    predicted: ArrayLike,
    unit: str = "1",
    *,
    selected: int | None = None,
    title: str = "",
) -> Figure:
    """Predicted against measured uptake with identity line and least-squares regression.

    Parameters
    ----------
    measured, predicted
        Uptake per tile, (n_tiles,), SUV in *unit*; NaN where it is missing.
    selected
        Index of the tile to ring.

    Raises
    ------
    InputError
        The arrays differ in shape.
    """
    x, y = paired_values(measured, predicted)
    both = np.isfinite(x) & np.isfinite(y)
    figure = new_figure()
    axes = tidy(figure.add_subplot(), *_uptake_axes(unit, "measured", "predicted"), title)
    if not both.any():
        note(axes, "no tile has both a measured and a predicted uptake")
        return figure
    axes.scatter(x[both], y[both], s=11, c=palette.PREDICTED, alpha=0.6, lw=0, zorder=2)
    _lines(axes, x[both], y[both])
    ring_tile(axes, x, y, selected)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(fontsize=8, loc="best", frameon=False)
    return figure


def _lines(axes: Axes, x: FloatArray, y: FloatArray) -> None:
    """Identity and least-squares line over the range of the data."""
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
    axes.plot(ends, ends, color=palette.REFERENCE_LINE, lw=1, ls="--", label="identity")
    if x.size > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
        slope, intercept = np.polyfit(x, y, 1)
        r = float(np.corrcoef(x, y)[0, 1])
        words = f"slope {number(slope)}, r {number(r)}, n {x.size}"
        span = np.array([x.min(), x.max()])
        axes.plot(span, slope * span + intercept, color=palette.FITTED_LINE, lw=1.4, label=words)


def bland_altman_figure(
    measured: ArrayLike,
    predicted: ArrayLike,
    unit: str = "1",
    *,
    selected: int | None = None,
    title: str = "",
) -> Figure:
    """Bland-Altman plot: difference against mean, with bias and limits of agreement.

    *measured* and *predicted* are (n_tiles,) SUV in *unit*, NaN where it is missing.  The limits
    are bias ± 1.96 SD (divisor n - 1).  Raises `InputError` when the shapes differ.
    """
    x, y = paired_values(measured, predicted)
    both = np.isfinite(x) & np.isfinite(y)
    mean, difference = (x + y) / 2, y - x
    figure = new_figure()
    name = uptake_name(unit)
    axes = tidy(
        figure.add_subplot(),
        axis_label(f"mean of measured and predicted {name}", unit),
        _difference(unit),
        title,
    )
    if both.sum() < 2:
        note(axes, "fewer than two tiles have both a measured and a predicted uptake")
        return figure
    axes.scatter(mean[both], difference[both], s=11, c=palette.PREDICTED, alpha=0.6, lw=0)
    bias, spread = float(difference[both].mean()), float(difference[both].std(ddof=1))
    for level, style, text in (
        (bias, "-", f"bias {number(bias)}"),
        (bias + 1.96 * spread, "--", f"limits of agreement ± {number(1.96 * spread)}"),
        (bias - 1.96 * spread, "--", None),
    ):
        axes.axhline(level, color=palette.FITTED_LINE, ls=style, lw=1.2, label=text)
    axes.axhline(0, color=palette.ZERO_LINE, lw=0.8, zorder=0)
    ring_tile(axes, mean, difference, selected)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.22 * (high - low))
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    return figure


def calibration_figure(
    measured: ArrayLike, predicted: ArrayLike, unit: str = "1", *, groups: int = 10, title: str = ""
) -> Figure:
    """Mean measured against mean predicted uptake of groups of equally many tiles.

    *measured* and *predicted* are (n_tiles,) SUV in *unit*, NaN where it is missing.  The groups
    are in the order of the predicted uptake; bars are the SD of the measured uptake in a group.
    Raises `InputError` when the shapes differ.
    """
    x, y = paired_values(predicted, measured)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    figure = new_figure()
    axes = tidy(figure.add_subplot(), *_uptake_axes(unit, "predicted", "measured"), title)
    if not x.size:
        note(axes, "no tile has both a measured and a predicted uptake")
        return figure
    parts = np.array_split(np.argsort(x, kind="stable"), min(groups, x.size))
    across, up, spread = (
        [float(of(values[part])) for part in parts]
        for of, values in ((np.mean, x), (np.mean, y), (np.std, y))
    )
    ends = np.array([min(across + up), max(across + up)])
    axes.plot(ends, ends, color=palette.REFERENCE_LINE, lw=1, ls="--", label="identity")
    label = f"mean ± SD of {count(len(parts), 'group')} of tiles"
    axes.errorbar(across, up, spread, fmt="o", ms=5, lw=1, color=palette.PREDICTED, label=label)
    axes.legend(fontsize=8, loc="best", frameon=False)
    return figure


def kinetics_figure(
    time_h: ArrayLike,
    curves_um: Mapping[str, ArrayLike],
    imaging_h: Sequence[float] = (),
    *,
    title: str = "",
) -> Figure:
    """Antibody concentrations over time on a logarithmic scale, with the imaging times.

    Parameters
    ----------
    time_h
        (t,) time after injection, h; the axis is logarithmic when it spans three decades.
    curves_um
        (t,) concentrations by name ("free", "bound", "internalised" or others), µM.
    imaging_h
        Imaging times, h.
    """
    time = np.asarray(time_h, float)
    figure = new_figure(5.6, 3.8)
    axes = tidy(
        figure.add_subplot(),
        axis_label("time after injection", "h"),
        axis_label("concentration", "µM"),
        title,
    )
    peak = max((float(np.nanmax(np.asarray(c, float))) for c in curves_um.values()), default=0.0)
    if not (peak > 0 and (time > 0).any()):
        note(axes, "no concentration above zero")
        return figure
    floor = peak * 1e-6
    for name, curve in curves_um.items():
        values = np.asarray(curve, float)
        shown = (time > 0) & (values >= floor)
        axes.plot(time[shown], values[shown], lw=1.8, label=name, color=palette.KINETICS.get(name))
    for i, hour in enumerate(imaging_h):
        label = "imaging times" if i == 0 else None
        axes.axvline(hour, color=palette.GUIDE_LINE, lw=0.9, ls=":", label=label)
    if time[time > 0].min() < time.max() / 1000:
        axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.legend(fontsize=8, frameon=False)
    return figure


class LiveCurves:
    """Curves of antibody whose data change in place, drawn over a background that stays.

    ``lines`` are *animated*: whoever shows ``figure`` draws them over the stored background.
    """

    def __init__(self) -> None:
        self.figure = new_figure(3.4, 2.6)
        self._axes = tidy(
            self.figure.add_subplot(),
            axis_label("time after injection", "h"),
            axis_label("concentration", "µM"),
        )
        self._axes.set_xscale("log")
        self._axes.set_yscale("log")
        names = ("total", "free", "bound", "internalised")
        self.lines = {name: self._axes.plot([], [], label=name, animated=True)[0] for name in names}
        for name, line in self.lines.items():
            line.set_color(palette.KINETICS[name])
            line.set_linewidth(4.0 if name == "total" else 1.6)
            line.set_alpha(0.5 if name == "total" else 1.0)
        self._axes.legend(
            fontsize=8, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.45, 1.0),
            handlelength=1.2, columnspacing=1.0,
        )  # fmt: skip
        self._times = self._axes.vlines([], 0, 1, transform=self._axes.get_xaxis_transform())
        self._wanted: tuple[int, float, float, tuple[float, ...]] = (0, 0.1, 1.0, ())
        self._framed: object = None

    @property
    def is_framed(self) -> bool:
        """Whether the background is that of the curves that were taken last."""
        return self._framed == self._wanted

    def show(
        self, time_h: FloatArray, curves_um: Mapping[str, FloatArray], imaging_h: Sequence[float]
    ) -> None:
        """Take curves (t,), µM, at times (t,), h; `frame` makes the background that they need.

        Seven decades below the peak are shown, rounded to whole ones, so that it changes seldom.
        """
        peak = max(float(np.max(curve)) for curve in curves_um.values())
        decade = int(np.ceil(np.log10(peak))) if peak > 0 else 0
        for name, line in self.lines.items():
            curve = curves_um[name]
            line.set_data(time_h, np.where(curve > 10.0 ** (decade - 8), curve, np.nan))
        self._wanted = (decade, float(time_h[0]), float(time_h[-1]), tuple(imaging_h))

    def frame(self) -> None:
        """Give the background its limits and imaging times; it may be drawn on another thread."""
        self._framed = decade, first, last, imaging = self._wanted
        self._axes.set_xlim(first, last)
        self._axes.set_ylim(10.0 ** (decade - 7), 10.0**decade)
        self._times.remove()
        self._times = self._axes.vlines(
            list(imaging), 0, 1, transform=self._axes.get_xaxis_transform(),
            color=palette.GUIDE_LINE, lw=0.9, ls=":",
        )  # fmt: skip


ATTENTION_MEANS: Final = (
    "Attention is a weight in a mean inside the network. It is not importance and not a cause: a "
    "large weight may change nothing, and a small one much."
)
"""What attention maps do not mean; shown wherever they are."""


def attention_figure(
    weights: Mapping[str, ArrayLike], shares: Sequence[float], *, title: str = ""
) -> Figure:
    """Attention over the cluster maps around a tile, one small map for each proxy.

    *weights* holds a fraction for each cell, (11, 11), by the name of the proxy; *shares* the
    fraction that each proxy has.  One colour scale from 0 to the largest weight.
    """
    figure = new_figure(7.0, 2.6)
    found = {name: np.asarray(values, float) for name, values in weights.items()}
    top = max((float(values.max()) for values in found.values()), default=0.0)
    all_axes = figure.subplots(1, max(1, len(found)), squeeze=False)[0]
    for axes, (name, values), share in zip(all_axes, found.items(), shares, strict=True):
        picture = axes.imshow(100 * values, vmin=0.0, vmax=100 * top, cmap="cividis")
        middle = (values.shape[0] - 1) / 2
        square = [middle + end for end in (-0.5, 0.5)]
        axes.plot(
            [square[i] for i in (0, 1, 1, 0, 0)], [square[i] for i in (0, 0, 1, 1, 0)],
            color=palette.LANDMARK, lw=1.2,
        )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        words = "\n".join(textwrap.wrap(heading(name), 20))
        axes.set_title(f"{words}\nweight {100 * share:.0f} %", fontsize=7)
    if found:
        bar = figure.colorbar(picture, ax=list(all_axes), shrink=0.9, pad=0.02)
        bar.set_label("% per tile", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def training_figure(
    losses: Mapping[str, Sequence[ArrayLike]], best_epoch: int | None = None, *, title: str = ""
) -> Figure:
    """Loss per epoch, counted from 1, with the epoch whose weights were kept.

    *losses* holds dimensionless values by name ("training", "validation"...): (n_epochs,) for each
    member of an ensemble, NaN where it is missing.
    """
    figure = new_figure(5.2, 3.4)
    axes = tidy(figure.add_subplot(), "epoch", "loss", title)
    line_colours = {"training": palette.MEASURED, "validation": palette.PREDICTED}
    drawn = False
    for name, members in losses.items():
        label: str | None = name if len(members) < 2 else f"{name}, {len(members)} members"
        for loss in members:
            values = np.asarray(loss, float)
            shown = np.isfinite(values)
            if shown.any():
                epochs = np.arange(1, values.size + 1)
                colour = line_colours.get(name)
                axes.plot(epochs[shown], values[shown], lw=1.4, label=label, color=colour)
                drawn, label = True, None
    if not drawn:
        note(axes, "no loss was recorded")
        return figure
    if best_epoch is not None:
        label = f"best epoch: {best_epoch}"
        axes.axvline(best_epoch, color=palette.GUIDE_LINE, ls=":", lw=1, label=label)
    axes.legend(fontsize=8, frameon=False)
    return figure


def error_by_group_figure(
    errors: Mapping[str, ArrayLike], unit: str = "1", *, title: str = "", group_title: str = ""
) -> Figure:
    """Box plot of predicted minus measured by group, with the number of tiles.

    *errors* holds (n,) differences in *unit* by group; NaN and empty groups are excluded.
    *group_title* names the groups.
    """
    figure = new_figure(max(5.2, 1.0 + 0.85 * len(errors)), 3.8)
    axes = tidy(figure.add_subplot(), group_title, _difference(unit), title)
    finite = {name: _finite(values) for name, values in errors.items()}
    finite = {name: values for name, values in finite.items() if values.size}
    if not finite:
        note(axes, "no tile has both a measured and a predicted uptake")
        return figure
    labels = [f"{name}\n{count(values.size, 'tile')}" for name, values in finite.items()]
    grey = {"color": palette.FAINT_TEXT}
    axes.boxplot(
        list(finite.values()),
        tick_labels=labels,
        showfliers=False,
        medianprops={"color": palette.PREDICTED, "lw": 1.6},
        boxprops=grey,
        whiskerprops=grey,
        capprops=grey,
    )
    axes.axhline(0, color=palette.ZERO_LINE, lw=0.8)
    separate_labels(figure, axes)
    return figure


def coverage_figure(
    groups: Sequence[str],
    observed: Mapping[str, ArrayLike],
    nominal: float = 0.9,
    *,
    title: str = "",
) -> Figure:
    """Share of the measured tiles that lie in their interval, beside the nominal share.

    *observed* holds (n_groups,) fractions by kind of interval, NaN where it is missing.  Raises
    `InputError` when a kind has not one value for each of the *groups*.
    """
    figure = new_figure(max(4.4, 0.95 * len(groups)), 3.8)
    axes = tidy(figure.add_subplot(), "", "share of tiles in their interval", title)
    place = np.arange(len(groups), dtype=float)
    marks = ("o", "s", "^")
    drawn = False
    for number_, (kind, values) in enumerate(observed.items()):
        places, share = paired_values(place, values)
        known = np.isfinite(share)
        drawn = drawn or bool(known.any())
        shift = 0.12 * (number_ - (len(observed) - 1) / 2)
        axes.plot(places[known] + shift, share[known], marks[number_ % 3], ms=6, label=kind)
    if not drawn:
        note(axes, "no interval has a measured value")
    axes.axhline(nominal, color=palette.REFERENCE_LINE, lw=1, ls="--", label=f"nominal {nominal:g}")
    axes.set_xticks(place, list(groups))
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(0, 1.05)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    separate_labels(figure, axes)
    return figure


def error_by_distance_figure(
    distance_um: ArrayLike,
    error: ArrayLike,
    unit: str = "1",
    *,
    selected: int | None = None,
    title: str = "",
) -> Figure:
    """Predicted minus measured against the distance to the edge, with the median of each fifth.

    *distance_um* is (n_tiles,) in µm, *error* (n_tiles,) in *unit*; NaN where it is missing.
    Raises `InputError` when the shapes differ.
    """
    x, y = paired_values(distance_um, error)
    both = np.isfinite(x) & np.isfinite(y)
    figure = new_figure()
    names = (axis_label("distance to the edge of the tiles", "µm"), _difference(unit))
    axes = tidy(figure.add_subplot(), *names, title)
    if not both.any():
        note(axes, "no tile has both a measured and a predicted uptake")
        return figure
    axes.scatter(x[both], y[both], s=11, c=palette.PREDICTED, alpha=0.6, lw=0)
    axes.axhline(0, color=palette.ZERO_LINE, lw=0.8, zorder=0)
    cuts = np.unique(np.quantile(x[both], np.linspace(0, 1, 6)))
    band = np.clip(np.searchsorted(cuts, x[both], side="right") - 1, 0, max(0, len(cuts) - 2))
    middles = [
        (float(np.median(x[both][band == one])), float(np.median(y[both][band == one])))
        for one in np.unique(band)
    ]
    across, up = zip(*middles, strict=True)
    axes.plot(across, up, "o-", color=palette.FITTED_LINE, lw=1.4, label="median of each fifth")
    ring_tile(axes, x, y, selected)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _difference(unit: str) -> str:
    return axis_label("predicted minus measured", unit)


def _finite(values: ArrayLike) -> FloatArray:
    array: FloatArray = np.asarray(values, float).ravel()
    finite: FloatArray = array[np.isfinite(array)]
    return finite


def _uptake_axes(unit: str, first: str, second: str) -> tuple[str, str]:
    name = uptake_name(unit)
    return axis_label(f"{first} {name}", unit), axis_label(f"{second} {name}", unit)
