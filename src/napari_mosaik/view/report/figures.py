"""The figures of the report: result board, maps side by side, plots of the errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core import (
    FloatArray,
    InputError,
    Lattice,
    MosaikError,
    Raster,
    TileGrid,
    palette,
)
from napari_mosaik.core.catalogue import (
    ASSOCIATION,
    CLUSTER_NAMES,
    CLUSTERS,
    KINETICS,
    MAPS,
    PARAMETERS,
    PREDICTION_MAP,
    SLIDES,
    SUV,
    TILES,
    TISSUE,
)
from napari_mosaik.view import plots, spatial_plots
from napari_mosaik.view.board import HATCHED, BoardMap, board_legends, board_maps, hatch_lines
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.figure import axis_label, new_figure, note
from napari_mosaik.view.formatting import heading, title_of, uptake_name
from napari_mosaik.view.maps import cluster_codes, common_limits
from napari_mosaik.view.report.dose import dose_figure
from napari_mosaik.view.report.html import ReportFigure
from napari_mosaik.view.report.twin import twin_figure
from napari_mosaik.view.review_figures import REVIEW_FIGURES
from napari_mosaik.view.tile_data import read_tile_data
from napari_mosaik.view.uptake_scale import uptake_limits
from napari_mosaik.workflow.twin import begun_twin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Panel",
    "board_panels",
    "case_figures",
    "cluster_panel",
    "map_notes",
    "map_panel",
    "missing_panel",
    "panels_figure",
    "picture_panel",
    "result_board",
]

_THUMBNAIL_UM = 20.0
_TITLE_LETTERS = 22
"""A longer title of a panel of the result board takes two lines."""
_IMAGING_H = (72.0, 120.0, 168.0, 336.0)


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One map or picture of a figure.

    Parameters
    ----------
    title
        Title above the panel.
    image
        Values (rows, columns) or colours (rows, columns, 3 or 4); None for an empty panel.
    lattice
        Lattice of the samples; None without an image.
    colormap, limits, unit
        Colour scale of values.
    entries
        (name, colour) pairs of a categorical image.
    missing
        Why the panel is empty.
    lines_um
        (n, 2, 2) start and step of lines over the image, (row, column) in µm.
    """

    title: str
    image: NDArray[Any] | None = None
    lattice: Lattice | None = None
    colormap: str = ""
    limits: tuple[float, float] | None = None
    unit: str = ""
    entries: tuple[tuple[str, str], ...] = ()
    missing: str = ""
    lines_um: FloatArray | None = None


def missing_panel(title: str, why: str) -> Panel:
    """An empty panel with the reason."""
    return Panel(title, missing=why)


def picture_panel(title: str, image: NDArray[Any], lattice: Lattice) -> Panel:
    """An RGB thumbnail (rows, columns, 3), 8 bit, or a mask (rows, columns)."""
    if image.dtype == np.bool_:
        shown = np.where(image[..., None], np.uint8(60), np.uint8(255)).repeat(3, axis=2)
        return Panel(title, shown, lattice)
    return Panel(title, image, lattice)


def map_panel(
    raster: Raster,
    title: str,
    *,
    colormap: str = palette.PARAMETER_COLORMAP,
    limits: tuple[float, float] | None = None,
    unit: str = "",
) -> Panel:
    """A map (rows, columns) with its colour scale, in the raster's unit unless *unit* is given.

    NaN stays white.  Raises `InputError` for a map of several channels.
    """
    if raster.values.ndim != 2:
        raise InputError(f"{title}: choose one channel of the map")
    values = np.asarray(raster.values, float)
    scale = limits or common_limits(values)
    return Panel(title, values, raster.lattice, colormap, scale, unit or raster.unit)


def cluster_panel(grid: TileGrid, codes: ArrayLike, proxy: str) -> Panel:
    """The local Moran cluster label of each tile, (n_tiles,), in fixed colours; average is pale."""
    image, lattice = cluster_codes(grid, codes)
    rgba = np.zeros((*image.shape, 4))
    rgba[np.kron(grid.index_map() >= 0, np.ones((12, 12), bool))] = palette.rgba(
        palette.AVERAGE_TILE
    )
    for code, colour in palette.CLUSTER_COLOURS.items():
        rgba[image == code] = palette.rgba(colour)
    present = np.unique(np.asarray(codes))
    entries = [(CLUSTER_NAMES[c], h) for c, h in palette.CLUSTER_COLOURS.items() if c in present]
    return Panel(
        f"clusters of {title_of(proxy)}",
        rgba,
        lattice,
        entries=(*entries, ("average", palette.AVERAGE_TILE)),
    )


def board_panels(maps: Iterable[BoardMap], grid: TileGrid) -> tuple[Panel, ...]:
    """The maps of the review board, one square per tile, on the scales that the window uses."""
    return tuple(
        replace(
            map_panel(
                grid.paint(one.values, one.unit),
                one.heading.partition(",")[0],
                colormap=one.colormap,
                limits=one.limits,
            ),
            lines_um=hatch_lines(grid, one.hatched),
        )
        for one in maps
    )


def panels_figure(
    panels: Sequence[Panel], columns: int = 3, *, title: str = "", numbered: bool = False
) -> Figure:
    """Panels in rows of *columns*, each with its legend and a scale bar of 1 mm."""
    rows = -(-len(panels) // columns)
    figure = new_figure(3.1 * min(columns, len(panels)), 2.9 * rows + (0.3 if title else 0))
    if title:
        figure.suptitle(title, fontsize=11)
    for i, panel in enumerate(panels, 1):
        name = f"{i}  {panel.title}" if numbered else panel.title
        _draw(figure, figure.add_subplot(rows, columns, i), panel, name)
    return figure


def result_board(
    case: str,
    *,
    thumbnail: Panel | None = None,
    tissue: Panel | None = None,
    parameters: Sequence[tuple[Panel, Panel]] = (),
    pet: Panel | None = None,
    predicted: Panel | None = None,
) -> Figure:
    """Panels 1 to 7 of a case: H&E, tissue mask, three parameter maps, PET, prediction.

    Parameters
    ----------
    parameters
        (map, clusters) of each proxy, in the order vascular, nuclear, CAIX; they are panels 3-5.
    """
    not_made = "not computed yet"
    pairs = list(parameters)[:3]
    empty = (missing_panel("parameter", not_made), missing_panel("clusters", not_made))
    pairs += [empty] * (3 - len(pairs))
    above = [("1", thumbnail or missing_panel("H&E section", not_made))]
    below = [("2", tissue or missing_panel("tissue mask", not_made))]
    for n, (values, clusters) in enumerate(pairs, 3):
        above.append((str(n), values))
        below.append((str(n), clusters))
    above.append(("6", pet or missing_panel("measured uptake", not_made)))
    below.append(("7", predicted or missing_panel("predicted uptake", not_made)))
    figure = new_figure(12.0, 5.6)
    figure.suptitle(f"{case}: result board (predictor, research use only)", fontsize=11)
    for place, (mark, panel) in enumerate([*above, *below], 1):
        title = fill(f"{mark}  {panel.title}", _TITLE_LETTERS)
        _draw(figure, figure.add_subplot(2, 5, place), panel, title)
    return figure


def _draw(figure: Figure, axes: Axes, panel: Panel, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if panel.image is None or panel.lattice is None:
        axes.set_box_aspect(0.75)
        note(axes, panel.missing or "not computed yet")
        return
    (top, left), (height, width) = panel.lattice.origin_um, panel.lattice.extent_um
    extent = (left, left + width, top + height, top)
    if panel.limits is None:
        axes.imshow(panel.image, extent=extent, interpolation="nearest")
    else:
        low, high = panel.limits
        image = axes.imshow(
            np.ma.masked_invalid(panel.image),
            extent=extent,
            cmap=panel.colormap,
            vmin=low,
            vmax=high,
            interpolation="nearest",
        )
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label(axis_label("", panel.unit).strip(), fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.ax.locator_params(nbins=5)
    if panel.lines_um is not None:
        from matplotlib.collections import LineCollection

        ends = np.stack([panel.lines_um[:, 0], panel.lines_um.sum(axis=1)], axis=1)[..., ::-1]
        axes.add_collection(LineCollection(list(ends), colors=palette.NOT_TESTABLE, lw=0.7))
    _legend(axes, panel)
    _scale_bar(axes, extent)


def _legend(axes: Axes, panel: Panel) -> None:
    if not panel.entries:
        return
    from matplotlib.patches import Patch

    marks = [
        Patch(facecolor=c, edgecolor=palette.GUIDE_LINE, lw=0.4, label=w) for w, c in panel.entries
    ]
    axes.legend(
        handles=marks,
        fontsize=6.5,
        ncols=2,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
    )


def _scale_bar(axes: Axes, extent: tuple[float, float, float, float]) -> None:
    """A scale bar of 1 mm (shorter for a narrow image) in the lower left corner."""
    left, right, bottom, top = extent
    length = 1000.0 if right - left > 2000 else 10 ** np.floor(np.log10((right - left) / 2))
    x, y = left + 0.04 * (right - left), bottom - 0.04 * (bottom - top)
    axes.plot([x, x + length], [y, y], color=palette.FAINT_TEXT, lw=2.2, solid_capstyle="butt")
    words = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    axes.text(
        x, y - 0.02 * (bottom - top), words, fontsize=6.5, va="bottom", color=palette.FAINT_TEXT
    )


def case_figures(results: CaseResults) -> tuple[ReportFigure, ...]:
    """The figures that the results of a case allow, in the order of the report."""
    made = [_board(results), _maps(results), *_review(results)]
    made += [_kinetics(results), _correlation(results), dose_figure(results)]
    made += [twin_figure(begun_twin(results.case))]
    return tuple(figure for figure in made if figure is not None)


def _board(results: CaseResults) -> ReportFigure:
    pet, predicted = _uptake_panels(results)
    figure = result_board(
        results.case.name,
        thumbnail=_thumbnail(results),
        tissue=_tissue(results),
        parameters=[_parameter(results, name) for name in results.proxies()],
        pet=pet,
        predicted=predicted,
    )
    text = (
        "All maps are in the coordinate space of the CD34 section; the H&E section is in its own."
    )
    return ReportFigure("Result board.", figure, text, wide=True)


def _thumbnail(results: CaseResults) -> Panel:
    title = "H&E section"
    lack = results.case.missing_reason(SLIDES["he"])
    if lack:
        return missing_panel(title, lack)
    try:
        with results.case.slide("he") as slide:
            picture = slide.thumbnail(max(_THUMBNAIL_UM, min(slide.lattice.extent_um) / 400))
    except MosaikError as error:
        return missing_panel(title, str(error))
    return picture_panel(title, picture.values, picture.lattice)


def _tissue(results: CaseResults) -> Panel | None:
    mask = results.get(TISSUE["cd34"])
    if mask is None:
        return None
    inside = np.nan_to_num(np.asarray(mask.values, float)) > 0.5
    return picture_panel("tissue mask", inside, mask.lattice)


def _parameter(results: CaseResults, name: str) -> tuple[Panel, Panel]:
    title = title_of(name)
    empty = missing_panel(title, "not computed yet")
    maps, table, grid = results.get(MAPS), results.get(PARAMETERS), results.get(TILES)
    codes = results.column(CLUSTERS, f"{name}.label")
    drawn, clusters = empty, missing_panel(f"clusters of {title}", "not computed yet")
    if maps is not None and name in maps.channels:
        unit = "" if table is None else table.unit(name)
        drawn = map_panel(maps.channel(name), title, unit=unit)
    if codes is not None and grid is not None:
        clusters = cluster_panel(grid, codes.astype(int), name)
    return drawn, clusters


def _uptake_panels(results: CaseResults) -> tuple[Panel | None, Panel | None]:
    """The PET and the predicted map on a common scale."""
    suv, predicted = results.get(SUV), results.get(PREDICTION_MAP)
    measured = suv
    if suv is not None and predicted is not None:
        measured = results.onto_tissue(suv, "pet", predicted) or suv
    limits = uptake_limits(results)
    drawn = [
        None
        if raster is None
        else map_panel(
            raster,
            f"{word} {uptake_name(raster.unit)}",
            colormap=palette.UPTAKE_COLORMAP,
            limits=limits,
        )
        for word, raster in (("measured", measured), ("predicted", predicted))
    ]
    return drawn[0], drawn[1]


def map_notes(notes: Iterable[str]) -> list[str]:
    """What the legends of the maps say, each sentence once: they all name what is hatched."""
    whole = list(notes)
    own = [note.replace(HATCHED, "").removesuffix("; ") for note in whole]
    hatched = [HATCHED] if any(HATCHED in note for note in whole) else []
    return list(dict.fromkeys([*filter(None, own), *hatched]))


def _maps(results: CaseResults) -> ReportFigure | None:
    tile_data = read_tile_data(results.case)
    maps, grid = board_maps(tile_data, uptake_limits(results)), tile_data.grid
    if not maps or grid is None:
        return None
    notes = map_notes(legend.note for legend in board_legends(maps.values()))
    words = "One square per tile; a tile without a value is empty. Maps of the uptake share a scale"
    caption = f"{words}; red tiles are overestimated. " + "".join(
        f"{text[:1].upper()}{text[1:]}. " for text in notes
    )
    panels = board_panels(maps.values(), grid)
    titles = ", ".join(panel.title for panel in panels)
    return ReportFigure(
        f"{titles[:1].upper()}{titles[1:]}.",
        panels_figure(panels, 2 if len(panels) == 4 else 3),
        caption.strip(),
        wide=True,
    )


def _review(results: CaseResults) -> list[ReportFigure]:
    """What the window shows in the review, from the same code."""
    tile_data = read_tile_data(results.case)
    return [
        ReportFigure(f"{one.title}.", one.draw(tile_data, None), one.caption)
        for one in REVIEW_FIGURES
        if one.possible(tile_data)
    ]


def _correlation(results: CaseResults) -> ReportFigure | None:
    table = results.get(ASSOCIATION)
    if table is None or not len(table):
        return None
    names = [str(name) for name in table["parameter"]]
    matrix = table.matrix(["pearson", "spearman"])
    figure = spatial_plots.correlation_figure(matrix, names, ["Pearson", "Spearman"], "Correlation")
    return ReportFigure(
        "Correlation of each parameter with the measured uptake.",
        figure,
        "Within this case. Red is positive, the reverse of the colours in the MOSAIK paper.",
    )


def _kinetics(results: CaseResults) -> ReportFigure | None:
    table: Any = results.get(KINETICS)
    if table is None:
        return None
    curves = {name: table[f"{name}_um"] for name in ("free", "bound", "internalised")}
    time = np.asarray(table["time_h"], float)
    shown = [hour for hour in _IMAGING_H if hour <= time.max()]
    figure = plots.kinetics_figure(time, curves, shown, title=heading(results.case.patient))
    return ReportFigure(
        "Kinetics of the antibody.",
        figure,
        "One set of curves per patient, equal for all tiles.",
    )
