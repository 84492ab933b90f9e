"""Plots of space: the Moran scatter plot, and one parameter against the uptake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import CLUSTER_NAMES
from napari_mosaik.view import colours
from napari_mosaik.view.figure import axis_label, new_figure, note, tidy
from napari_mosaik.view.words import heading, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["moran_figure", "relation_figure"]

_AVERAGE = "#BBBBBB"
_RING = "#009E73"


def moran_figure(
    z: ArrayLike,
    lag: ArrayLike,
    label: ArrayLike,
    global_i: float,
    *,
    name: str = "",
    selected: int | None = None,
) -> Figure:
    """Each tile's standardised value against the mean of its neighbours, coloured by its label.

    The four quarters are high among high, low among low, high among low and low among high; the
    line through the middle has the slope of global Moran's I.

    Parameters
    ----------
    z, lag, label
        (n,) values of `moran_points`.
    global_i
        Slope of the line.
    name
        The parameter.
    selected
        Tile to ring.
    """
    x, y, codes = np.asarray(z, float), np.asarray(lag, float), np.asarray(label)
    if not x.shape == y.shape == codes.shape or x.ndim != 1:
        raise InputError(f"values of shape {x.shape}, {y.shape} and labels of {codes.shape}")
    figure = new_figure(5.0, 4.2)
    axes = tidy(
        figure.add_subplot(),
        "value of the tile (standardised)",
        "mean of its neighbours (standardised)",
        heading(name) if name else "",
    )
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        note(axes, "no tile has a value and neighbours with one")
        return figure
    axes.axhline(0, color="#999999", lw=0.8, zorder=0)
    axes.axvline(0, color="#999999", lw=0.8, zorder=0)
    for code, words in CLUSTER_NAMES.items():
        shown = both & (codes == code)
        if shown.any():
            colour = colours.CLUSTER_COLOURS.get(code, _AVERAGE)
            size = 10 if code in (0, 5) else 18
            said = f"{words}: {shown.sum()}"
            axes.scatter(x[shown], y[shown], s=size, c=colour, lw=0, alpha=0.8, label=said)
    span = np.array([x[both].min(), x[both].max()])
    said = f"I = {number(global_i)}"
    axes.plot(span, global_i * span, color="#555555", lw=1.2, ls="--", label=said)
    _ring(axes, x, y, both, selected)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
    axes.legend(fontsize=7.5, loc="upper left", frameon=False, ncols=2)
    return figure


def relation_figure(
    values: ArrayLike,
    uptake: ArrayLike,
    *,
    name: str = "",
    unit: str = "1",
    uptake_unit: str = "1",
    words: str = "",
    selected: int | None = None,
) -> Figure:
    """The measured uptake against one parameter, one point per tile.

    Parameters
    ----------
    values, uptake
        (n,) values per tile; pairs with a missing value are left out.
    name, unit, uptake_unit
        The parameter, its unit and the unit of the uptake.
    words
        What is said of their correlation.
    selected
        Tile to ring.
    """
    x, y = np.asarray(values, float), np.asarray(uptake, float)
    if x.shape != y.shape or x.ndim != 1:
        raise InputError(f"pairs are needed, not arrays of shape {x.shape} and {y.shape}")
    figure = new_figure(5.0, 4.0)
    axes = tidy(
        figure.add_subplot(),
        axis_label(heading(name), unit),
        axis_label("measured SUV", uptake_unit),
        words,
    )
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        note(axes, "no tile has both values")
        return figure
    axes.scatter(x[both], y[both], s=11, c=colours.MEASURED, alpha=0.6, lw=0)
    _ring(axes, x, y, both, selected)
    return figure


def _ring(axes: Axes, x: ArrayLike, y: ArrayLike, both: ArrayLike, selected: int | None) -> None:
    x, y, both = np.asarray(x), np.asarray(y), np.asarray(both)
    if selected is not None and 0 <= selected < x.size and both[selected]:
        at = (x[selected], y[selected])
        axes.scatter(*at, s=90, facecolors="none", edgecolors=_RING, lw=1.8, zorder=5)
