"""Parts that all figures share: size, fonts, light and dark themes, PNG bytes."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from napari_mosaik.core import FloatArray, InputError, palette
from napari_mosaik.view.formatting import unit_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "KEEP_INK",
    "as_png",
    "axis_label",
    "fit_axis_labels",
    "new_figure",
    "note",
    "paint",
    "paired_values",
    "ring_tile",
    "separate_labels",
    "tidy",
]

_FONT = 9
_SMALLEST = 6
_BESIDE_PX = 36
"""What the labels of the ticks and of the other axis take beside an axis."""
_GAP_PX = 4
"""Least distance of two labels of an axis."""
KEEP_INK = "ink"
"""Group id of texts that lie on data colours and keep their own colour."""


def new_figure(width: float = 5.2, height: float = 4.0) -> Figure:
    """An empty figure (inches) with its own Agg canvas; pyplot's global state is not used."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # on first use: half a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, x: str = "", y: str = "", title: str = "") -> Axes:
    """Label the axes in small type and remove the frame at the top and right."""
    axes.set_xlabel(x, fontsize=_FONT)
    axes.set_ylabel(y, fontsize=_FONT)
    axes.set_title(title, fontsize=_FONT + 1)
    axes.tick_params(labelsize=_FONT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def separate_labels(figure: Figure, axes: Axes) -> None:
    """Turn the labels of the x axis upright where two would touch."""
    figure.draw_without_rendering()
    labels = axes.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    if any(right.x0 - left.x1 < _GAP_PX for left, right in pairwise(boxes)):
        for label in labels:
            label.set_rotation(90)


def fit_axis_labels(figure: Figure) -> None:
    """Break the labels of axes before their unit, and shrink them, where the figure is too small.

    A label stands beside the middle of its axis, which is above that of the figure: the labels of
    the ticks and of the other axis lie below.
    """
    sizes = figure.bbox.height - _BESIDE_PX, figure.bbox.width - _BESIDE_PX
    for axes in figure.axes:
        for label, room in zip((axes.yaxis.label, axes.xaxis.label), sizes, strict=True):
            whole = label.get_text().replace("\n[", " [")
            for text in (whole, whole.replace(" [", "\n[")):
                label.set_fontsize(_FONT)
                label.set_text(text)
                box = label.get_window_extent()
                length = box.height if label is axes.yaxis.label else box.width
                if length <= room:
                    break
            else:
                label.set_fontsize(max(_SMALLEST, _FONT * room / length))


def axis_label(words: str, unit: str = "") -> str:
    """The label with its unit in brackets; dimensionless quantities have none."""
    return words if unit in ("", "1") else f"{words} [{unit_words(unit)}]"


def note(axes: Axes, text: str) -> None:
    """A text in the middle of an empty plot that says why it is empty."""
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=_FONT,
        color=palette.FAINT_TEXT,
        wrap=True,
    )


def paired_values(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Two series with one value per tile index, (n_tiles,) each; NaN where it is missing.

    Raises `InputError` when their shapes differ.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"pairs are needed, not arrays of shape {a.shape} and {b.shape}")
    return a, b


def ring_tile(axes: Axes, x: FloatArray, y: FloatArray, tile: int | None) -> None:
    """Ring the point of the tile with this index; *x* and *y* are (n_tiles,), NaN is not drawn."""
    if tile is None or not 0 <= tile < x.size or not np.isfinite(x[tile] + y[tile]):
        return
    edge = palette.SELECTED_TILE
    axes.scatter(x[tile], y[tile], s=90, facecolors="none", edgecolors=edge, lw=1.8, zorder=5)


def paint(figure: Figure, foreground: str, background: str) -> Figure:
    """Recolour background and text for a theme of the window; data colours stay."""
    from matplotlib.text import Text

    figure.set_facecolor(background)
    for axes in figure.axes:
        axes.set_facecolor(background)
        axes.tick_params(colors=foreground, which="both")
        for spine in axes.spines.values():
            spine.set_edgecolor(foreground)
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set_facecolor(background)
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_gid() != KEEP_INK:
            text.set_color(foreground)
    return figure


def as_png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file without time or version: equal figures give equal bytes."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}}
    figure.savefig(buffer, format="png", dpi=dpi, **options)
    return buffer.getvalue()
