"""Spatial statistics as figures and sentences: correlations with the uptake, Moran scatter plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import InputError, Table, palette
from napari_mosaik.core.catalogue import CLUSTER_NAMES
from napari_mosaik.spatial.association import FEW_EFFECTIVE
from napari_mosaik.view.figure import (
    KEEP_INK,
    axis_label,
    new_figure,
    note,
    paired_values,
    ring_tile,
    separate_labels,
    tidy,
)
from napari_mosaik.view.formatting import heading, number, percent, title_of
from napari_mosaik.workflow.correlations import CohortCorrelations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "correlation_figure",
    "correlation_notes",
    "correlation_summary",
    "mean_correlation_figure",
    "moran_figure",
    "parameter_uptake_figure",
]


def correlation_figure(
    matrix: ArrayLike,
    parameters: Sequence[str],
    cases: Sequence[str],
    kind: str = "Pearson correlation",
    *,
    title: str = "",
    narrow: bool = False,
) -> Figure:
    """Heat map of the correlation of each parameter with the uptake in each case.

    *matrix* has the shape (parameters, cases), dimensionless; NaN is grey with a dash.  Red is
    positive and blue negative, the reverse of the MOSAIK paper's figures.  *narrow* fits it into
    the dock.

    Raises
    ------
    InputError
        The matrix does not have one row per parameter and one column per case.
    """
    values = np.asarray(matrix, float)
    if values.shape != (len(parameters), len(cases)):
        raise InputError(
            f"correlations of shape {values.shape} for {len(parameters)} parameters "
            f"and {len(cases)} cases"
        )
    figure = new_figure(2.6 + 0.62 * len(cases), 1.2 + 0.30 * len(parameters))
    axes = tidy(figure.add_subplot(), "", "", title)
    axes.imshow(np.isnan(values), cmap="Greys", vmin=0, vmax=4, aspect="auto")
    image = axes.imshow(values, cmap=palette.CORRELATION_COLORMAP, vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(len(cases)), labels=list(cases))
    axes.set_yticks(range(len(parameters)), labels=[title_of(name) for name in parameters])
    if narrow:
        axes.tick_params(labelsize=6.5)
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if abs(value) > 0.55 else "black"
        text, size = _coefficient(value, narrow), 5.5 if narrow else 7
        axes.text(
            column, row, text, ha="center", va="center", fontsize=size, color=ink, gid=KEEP_INK
        )
    place = "bottom" if narrow else "right"
    bar = figure.colorbar(image, ax=axes, ticks=[-1, -0.5, 0, 0.5, 1], location=place)
    gap = "\n" if narrow else " "
    bar.set_label(
        f"{kind}{gap}with measured uptake\nred positive, blue negative",
        fontsize=6.5 if narrow else 8,
    )
    bar.ax.tick_params(labelsize=6.5 if narrow else 8)
    separate_labels(figure, axes)
    return figure


def _coefficient(value: float, narrow: bool) -> str:
    """Two decimals with a true minus sign; without the leading zero in a narrow figure."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.2f}".replace("-", "−")
    return text.replace("0.", ".") if narrow else text


def mean_correlation_figure(
    parameters: Sequence[str],
    pearson: ArrayLike,
    spearman: ArrayLike,
    *,
    title: str = "",
    narrow: bool = False,
) -> Figure:
    """Mean Pearson and mean Spearman correlation of each parameter on two axes of equal limits.

    *pearson* and *spearman* are (n_parameters,), dimensionless; NaN is not drawn.  In a *narrow*
    figure the parameters are listed from top to bottom.

    Raises
    ------
    InputError
        The arrays do not have one value per parameter.
    """
    psn, spm = np.asarray(pearson, float), np.asarray(spearman, float)
    if psn.shape != (len(parameters),) or spm.shape != psn.shape:
        raise InputError(f"{psn.shape} and {spm.shape} values for {len(parameters)} parameters")
    both = np.concatenate([psn, spm])
    finite = np.abs(both[np.isfinite(both)])
    reach = 1.1 * max(float(finite.max()), 0.1) if finite.size else 1.0
    names, place = [title_of(n) for n in parameters], np.arange(len(parameters))
    if narrow:
        figure = new_figure(3.4, 1.4 + 0.24 * len(parameters))
        first = tidy(figure.add_subplot(), "mean Pearson r", "", title)
        second = first.twiny()
        second.set_xlabel("mean Spearman ρ", fontsize=9)
        first.set_yticks(place, labels=names, fontsize=6.5)
        first.set_ylim(len(parameters) - 0.5, -0.5)
        first.axvline(0, color=palette.ZERO_LINE, lw=0.8)
        points = (psn, place), (spm, place)
        where = "bottom", "top"
    else:
        figure = new_figure(1.8 + 0.42 * len(parameters), 4.0)
        first = tidy(figure.add_subplot(), "", "mean Pearson r", title)
        second = first.twinx()
        second.set_ylabel("mean Spearman ρ", fontsize=9)
        first.set_xticks(place, labels=names, rotation=60, ha="right")
        first.axhline(0, color=palette.ZERO_LINE, lw=0.8)
        points = (place, psn), (place, spm)
        where = "left", "right"
    second.tick_params(labelsize=8)
    styles = (("o", palette.MEASURED, "Pearson"), ("^", palette.PREDICTED, "Spearman"))
    for axes, at, (marker, colour, word), side in zip(
        (first, second), points, styles, where, strict=True
    ):
        axes.scatter(*at, marker=marker, c=colour, s=20 if narrow else 34, label=f"{word} ({side})")
        (axes.set_xlim if narrow else axes.set_ylim)(-reach, reach)
    marks = [*first.get_legend_handles_labels()[0], *second.get_legend_handles_labels()[0]]
    first.legend(handles=marks, fontsize=7 if narrow else 8, frameon=False, loc="best")
    return figure


def moran_figure(
    z: ArrayLike,
    lag: ArrayLike,
    label: ArrayLike,
    global_i: float,
    *,
    name: str = "",
    selected: int | None = None,
) -> Figure:
    """Moran scatter plot: value of each tile against the mean of its neighbours, by cluster.

    The line through the origin has the slope of global Moran's I.

    Parameters
    ----------
    z, lag, label
        Standardised value (dimensionless), mean of the neighbours (dimensionless) and cluster
        label of each tile, (n,) each; see `moran_points`.
    global_i
        Global Moran's I.
    name
        Name of the parameter.
    selected
        Index of the tile to ring.

    Raises
    ------
    InputError
        The arrays differ in shape.
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
        note(axes, "no tile and its neighbours have values")
        return figure
    axes.axhline(0, color=palette.ZERO_LINE, lw=0.8, zorder=0)
    axes.axvline(0, color=palette.ZERO_LINE, lw=0.8, zorder=0)
    for code, cluster in CLUSTER_NAMES.items():
        shown = both & (codes == code)
        if shown.any():
            colour = palette.CLUSTER_COLOURS.get(code, palette.PALE_LINE)
            size = 10 if code in (0, 5) else 18
            label_text = f"{cluster}: {shown.sum()}"
            axes.scatter(x[shown], y[shown], s=size, c=colour, lw=0, alpha=0.8, label=label_text)
    span = np.array([x[both].min(), x[both].max()])
    slope = f"I = {number(global_i)}"
    axes.plot(span, global_i * span, color=palette.REFERENCE_LINE, lw=1.2, ls="--", label=slope)
    ring_tile(axes, x, y, selected)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
    axes.legend(fontsize=7.5, loc="upper left", frameon=False, ncols=2)
    return figure


def parameter_uptake_figure(
    values: ArrayLike,
    uptake: ArrayLike,
    *,
    name: str = "",
    unit: str = "1",
    uptake_unit: str = "1",
    title: str = "",
    selected: int | None = None,
) -> Figure:
    """Measured uptake against one parameter, one point per tile.

    Parameters
    ----------
    values, uptake
        (n_tiles,), in *unit* (e.g. µm) and SUV in *uptake_unit*; pairs with NaN are excluded.
    name, unit, uptake_unit
        Name of the parameter, its unit and the unit of the uptake.
    title
        Title, such as `correlation_summary`.
    selected
        Index of the tile to ring.

    Raises
    ------
    InputError
        The arrays differ in shape.
    """
    x, y = paired_values(values, uptake)
    figure = new_figure(5.0, 4.0)
    axes = tidy(
        figure.add_subplot(),
        axis_label(heading(name), unit),
        axis_label("measured SUV", uptake_unit),
        title,
    )
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        note(axes, "no tile has both values")
        return figure
    axes.scatter(x[both], y[both], s=11, c=palette.MEASURED, alpha=0.6, lw=0)
    ring_tile(axes, x, y, selected)
    return figure


def correlation_summary(table: Table | None, name: str) -> str:
    """The correlation of one parameter with the uptake in two lines; empty without one."""
    if table is None:
        return ""
    rows = np.flatnonzero(np.asarray(table["parameter"]) == name)
    if not len(rows):
        return ""
    i = int(rows[0])
    r, rho = float(table["pearson"][i]), float(table["spearman"][i])
    return (
        f"r {number(r)}, ρ {number(rho)}\nn {int(table['n'][i])}, "
        f"ESS {number(float(table['ess_pearson'][i]))}, "
        f"p {number(float(table['p_msr_pearson'][i]))} (MSR)"
    )


def correlation_notes(correlations: CohortCorrelations | None, own: Table | None) -> list[str]:
    """Sentences on sample size, chosen proxies, selection stability, and warnings."""
    if correlations is None:
        return ["Run this page to correlate the parameters with the measured uptake."]
    lines = []
    if own is not None:
        sizes = np.asarray(own["ess_pearson"], float)
        few = int((sizes < FEW_EFFECTIVE).sum())
        if few:
            lines.append(
                f"⚠ {few} of {sizes.size} correlations have an effective sample size below "
                f"{FEW_EFFECTIVE:g} tiles: their p-values are approximate."
            )
        n = np.asarray(own["n"])
        lines.append(f"{n.min()} to {n.max()} tiles of this case have both parameter and uptake.")
    if correlations.stability is not None:
        lines += _proxy_lines(correlations)
    return lines + [
        f"⚠ {_in_words(text, correlations.parameters)}" for text in correlations.warnings
    ]


def _in_words(text: str, parameters: tuple[str, ...]) -> str:
    """The sentence with the titles of parameters in place of their names."""
    for name in sorted(parameters, key=len, reverse=True):
        text = text.replace(name, title_of(name))
    return text


def _proxy_lines(correlations: CohortCorrelations) -> list[str]:
    table = correlations.stability
    assert table is not None
    n = len(correlations.tables)
    lines = [f"Proxies selected on these {n} cases (training excludes the test case):"]
    for group, proxy in correlations.proxies.items():
        of = (np.asarray(table["group"]) == group) & (np.asarray(table["parameter"]) == proxy)
        share = float(np.asarray(table["frequency"])[of][0])
        lines.append(
            f"• {title_of(group)}: {title_of(proxy)}, selected in {percent(share)} "
            "of the bootstrap samples"
        )
    return lines
