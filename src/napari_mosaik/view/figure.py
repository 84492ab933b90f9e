"""What all figures share: size, type, colours for a light or a dark window, PNG bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_mosaik.core import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["KEEP_INK", "as_png", "axis_label", "new_figure", "note", "paint", "tidy"]

_FONT = 9
KEEP_INK = "ink"
"""Mark of texts that lie on data colours and keep their own."""


def new_figure(width: float = 5.2, height: float = 4.0) -> Figure:
    """An empty figure (inches) that knows how to draw itself; no global state is touched."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, x: str = "", y: str = "", title: str = "") -> Axes:
    """Axis names, small type, no frame at the top and right."""
    axes.set_xlabel(x, fontsize=_FONT)
    axes.set_ylabel(y, fontsize=_FONT)
    axes.set_title(title, fontsize=_FONT + 1)
    axes.tick_params(labelsize=_FONT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def axis_label(words: str, unit: str = "") -> str:
    """Words with the unit in brackets, unless the quantity has none."""
    return words if unit in ("", "1") else f"{words} [{unit}]"


def note(axes: Axes, text: str) -> None:
    """Words in the middle of an empty plot: why there is nothing to see."""
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


def paint(figure: Figure, foreground: str, background: str) -> Figure:
    """Recolour paper and ink, for a window in another theme; data colours stay."""
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
    """The figure as a PNG file, without the time or the program's version in it."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}}
    figure.savefig(buffer, format="png", dpi=dpi, **options)
    return buffer.getvalue()
