"""Tile inspector: one tile in three stains, its parameters, uptake, curves and attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSizeF, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPen,
    QPixmap,
    QPolygonF,
)
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QLabel,
    QSizePolicy,
    QTableWidgetItem,
    QTabWidget,
    QWidget,
)

from napari_mosaik.core import Lattice, MosaikError, Raster, Transform, palette
from napari_mosaik.core.catalogue import REFERENCE, STAIN_TITLES, STAINS
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io.case import Case
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import number, uptake_name
from napari_mosaik.view.plots import ATTENTION_MEANS
from napari_mosaik.view.tile_data import NEAREST_COLUMNS, TileData, nearest_rows
from napari_mosaik.widgets.base.case_controller import CaseController
from napari_mosaik.widgets.base.controls import (
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.figure_view import FigureView
from napari_mosaik.workflow.predictors import nearest_training_tiles
from napari_mosaik.workflow.what_if import attention_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ARROWS", "TileInspector"]

ARROWS = "inspector"
"""Scope of the arrow keys in the table of shortcuts."""

_NEAREST_TIPS = (
    "Case of the training set; a click opens it at this tile",
    "Tile in that case",
    "Distance of the standardised tile parameters; 1 is the limit of the training range",
    "Measured SUV of the training tile",
    "SUV that was predicted for it by networks without its case",
)
_IMAGE_PX = 96
_ROUND = 1.15
"""So many times its resolution is shown of the scanner's footprint."""
_OUTLINES = (palette.LANDMARK, palette.PSF_CIRCLE)
_CURVES_PX, _SENTENCE_PX, _WIDEST_PX = 235, 210, 900
_STEPS = {"Up": (-1, 0), "Down": (1, 0), "Left": (0, -1), "Right": (0, 1)}


class TileInspector(QWidget):
    """Shows the selected tile of the workspace; arrow keys select its neighbours.

    ``wanted`` is emitted when a crop is clicked: the place is to be shown in all stains.
    """

    wanted = Signal()

    def __init__(self, controller: CaseController) -> None:
        super().__init__()
        self._controller = controller
        self._requested = -1
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.title = wrapped_label("Click a tile in the canvas.", bold=True)
        self.title.setToolTip("Position on the CD34 slide from its upper left corner: row, column")
        self.footprint = QCheckBox("Footprint of the PET")
        self.footprint.setToolTip(
            "Shows what the scanner sees of this tile: the circle is its resolution (full width at "
            "half maximum) on the section, the upright square the tile, the other one the PET voxel"
        )
        self.footprint.setChecked(True)
        self.footprint.toggled.connect(self._show)
        self.images = {stain: _TileImage(STAIN_TITLES[stain]) for stain in STAINS}
        for view in self.images.values():
            view.clicked.connect(self.wanted)
        rank = "Rank among the tiles of this case; 1 is the highest value"
        titles = ("Parameter", "Value", "Unit", "Rank")
        self.table = table_of(titles, ("", "", "", rank), wide=0)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.nearest = table_of(NEAREST_COLUMNS, _NEAREST_TIPS, wide=0)
        self.nearest.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.nearest.cellClicked.connect(self._open_nearest)
        self.nearest_line = wrapped_label(small=True)
        self._found: Any = None
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        near = QWidget()
        near.setLayout(column(self.nearest_line, self.nearest, spacing=2))
        self.tabs.addTab(self.table, "Tile")
        self.tabs.addTab(near, "Nearest training tiles")
        self.tabs.currentChanged.connect(self._seek_nearest)
        self.curves = FigureView()
        self.kind = shrinkable(QComboBox())
        self.kind.addItems(["Antibody curves", "Attention of the network"])
        self.kind.setToolTip("Of the selected tile")
        self.kind.activated.connect(self._curves)
        self.means = wrapped_label(ATTENTION_MEANS, small=True)
        self._attention: Any = None
        self._asked: object = None
        self._right = QWidget()
        self._right.setLayout(column(self.kind, row(self.curves, self.means), spacing=2))
        self.means.setFixedWidth(_SENTENCE_PX)
        self.means.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
        self.table.setMinimumWidth(330)
        images = row(*self.images.values(), spacing=4)
        left = column(self.title, images, self.footprint, 1)
        layout = row(spacing=8)
        layout.addLayout(left)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self._right)
        layout.setContentsMargins(6, 4, 6, 4)
        self.setLayout(layout)
        self.setMinimumHeight(138)
        events = controller.workspace.events
        events.tile.connect(self._show)
        events.tile_data.connect(self._show_all)
        self._show_all()

    def _show_all(self, *_: object) -> None:
        self._found = None
        self.footprint.setEnabled(self._controller.workspace.tile_data.scanner_um is not None)
        self._attention = self._asked = None
        self._curves()
        self._show()

    def _show(self, *_: object) -> None:
        tile_data, tile = self._controller.workspace.tile_data, self._controller.workspace.tile
        if tile_data.grid is None or not 0 <= tile < tile_data.n_tiles:
            self.title.setText("Click a tile in the canvas.")
            self.table.setRowCount(0)
            self._fill_nearest()
            for view in self.images.values():
                view.show_pixels(None, "")
            return
        row_um, column_um = (float(v) for v in tile_data.grid.centres_um[tile])
        position = f"at {number(row_um / 1000)}, {number(column_um / 1000, 'mm')}"
        self.title.setText(f"Tile {tile} · {position}")
        self._fill(tile_data, tile)
        self._read_images(tile, (row_um, column_um), tile_data.grid.size_um)
        self._curves()
        self._seek_nearest()

    def _seek_nearest(self, *_: object) -> None:
        """Show the training tiles most like this one; they are sought for the whole case once."""
        case = self._controller.workspace.case
        if self.tabs.currentIndex() == 0 or case is None or self._found is not None:
            self._fill_nearest()
            return
        if self._controller.workspace.tile_data.prediction is None:
            self._fill_nearest("The case is not predicted yet.")
            return
        self._fill_nearest("Searching the training tiles…")

        def work() -> Any:
            try:
                return nearest_training_tiles(case)
            except MosaikError as error:
                return str(error)

        def then(found: Any) -> None:
            self._found = None if isinstance(found, str) else found
            self._fill_nearest(found if isinstance(found, str) else "")

        self._controller.read_for(case, "Nearest training tiles", work, then)

    def _fill_nearest(self, line: str = "") -> None:
        tile, found = self._controller.workspace.tile, self._found
        known = found is not None and 0 <= tile < len(found.tile)
        rows = nearest_rows(found, tile) if known and found is not None else []
        fill_table(self.nearest, rows)
        self.nearest.setVisible(bool(rows))
        if rows and found is not None:
            unit = uptake_name(self._controller.workspace.tile_data.unit)
            line = f"{unit} · distance 1: limit of the range · click opens it"
        self.nearest_line.setText(line)

    def _open_nearest(self, row: int, _: int) -> None:
        """Open the case of a training tile at that tile, where the cohort holds it."""
        space, found = self._controller.workspace, self._found
        if found is None or not 0 <= space.tile < len(found.tile):
            return
        one = found.of(space.tile)[row]
        path = next((p for p in space.cohort if p.name == one["case"]), None)
        if space.case is not None and space.case.name == one["case"]:
            space.tile = one["tile"]
        elif path is None:
            self.nearest_line.setText(f"Case {one['case']} is not in the cohort that is open.")
        else:
            self._controller.switch(path, one["tile"])

    def _fill(self, tile_data: TileData, tile: int) -> None:
        if self.isVisible() and tile_data.measured() is not None:
            self._controller.saw_measured("the measured uptake of a tile")
        rows = tile_data.rows(tile)
        self.table.setRowCount(len(rows))
        for i, entry in enumerate(rows):
            for j, text in enumerate((entry.parameter, entry.value, entry.unit, entry.rank)):
                item = QTableWidgetItem(text)
                item.setToolTip(entry.about or entry.parameter)
                if j == 1:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.table.setItem(i, j, item)

    def _read_images(self, tile: int, centre_um: tuple[float, float], size_um: float) -> None:
        case, scanner_um = self._controller.workspace.case, None
        if self.footprint.isChecked():
            scanner_um = self._controller.workspace.tile_data.scanner_um
        self._requested = tile
        if case is None:
            return
        field_um = size_um if scanner_um is None else max(size_um, _ROUND * scanner_um)
        voxel, corners = self._controller.workspace.tile_data.voxel(tile), None
        if voxel is not None:
            corners = (voxel[0] - np.array(centre_um)) / field_um + 0.5

        def then(crops: dict[str, NDArray[np.uint8] | None]) -> None:
            if self._requested != tile:
                return
            for stain, pixels in crops.items():
                aligned = stain == REFERENCE or stain not in case.file.slides
                reason = "no slide" if aligned else "not registered"
                self.images[stain].show_pixels(pixels, reason)
                if scanner_um is not None:
                    self.images[stain].draw(size_um / field_um, scanner_um / field_um, corners)

        self._controller.read("Tile", partial(crops_of, case, centre_um, field_um), then)

    def _curves(self, *_: object) -> None:
        """Show the curves, or the attention; each where there is any."""
        space = self._controller.workspace
        curves, predicted = space.tile_data.curves(space.tile), space.tile_data.prediction
        attention = self.kind.currentIndex() == 1 and predicted is not None
        self.kind.setVisible(predicted is not None)
        self.means.setVisible(attention)
        self._right.setVisible(curves is not None or predicted is not None)
        self._right.setMaximumWidth(_WIDEST_PX if attention else _CURVES_PX)
        self.tabs.setVisible(not attention)  # there is no room for both
        if not attention:
            self.curves.show_when_seen(self._figure)
        elif self._attention is not None:
            self.curves.show_when_seen(self._attention_figure)
        else:
            self.curves.show_figure(None)
            self._ask_attention()

    def _ask_attention(self) -> None:
        """Compute the attention around all tiles of the case, once, on a thread."""
        case, asked = self._controller.workspace.case, object()
        if case is None or self._asked is not None:
            return
        self._asked = asked
        self.means.setText("Reading what the network reads…")

        def then(found: Any) -> None:
            if asked is self._asked:
                self._attention = found
                self.means.setText(ATTENTION_MEANS)
                self._curves()

        def back(_: object) -> None:
            self._asked = None
            self.kind.setCurrentIndex(0)
            self.means.setText(ATTENTION_MEANS)
            self._curves()

        work = partial(_attention_of, case)
        self._controller.read_for(case, "Attention", work, then).failed.connect(back)

    def _attention_figure(self) -> Figure | None:
        """The weights of the cluster maps around the tile; none without a tile."""
        from napari_mosaik.view.plots import attention_figure

        found, tile = self._attention, self._controller.workspace.tile
        if found is None or not 0 <= tile < len(found.within):
            return None
        weights = dict(zip(found.proxies, found.within[tile], strict=True))
        return attention_figure(weights, found.shares[tile].tolist())

    def _figure(self) -> Figure | None:
        """The curves of the tile, or of the patient without a tile or without curves of tiles."""
        from napari_mosaik.view.plots import kinetics_figure

        found = self._controller.workspace.tile_data.curves(self._controller.workspace.tile)
        return None if found is None else kinetics_figure(*found)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Select the neighbouring tile with the arrow keys."""
        act = self.arrows().get(Qt.Key(event.key()).name.removeprefix("Key_").lower())
        if act is None:
            super().keyPressEvent(event)
        else:
            act()

    def arrows(self) -> Mapping[str, Callable[[], None]]:
        """What the arrow keys do, also on the canvas while a tile is selected."""
        return {name.lower(): partial(self._step, *step) for name, step in _STEPS.items()}

    def _step(self, rows: int, columns: int) -> None:
        space = self._controller.workspace
        space.tile = space.tile_data.neighbour(space.tile, rows, columns)


class _TileImage(QWidget):
    """A small image of the tile with the name of its stain; ``clicked`` with the mouse."""

    clicked = Signal()

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self.image = QLabel()
        self.image.setFixedSize(_IMAGE_PX, _IMAGE_PX)
        self.image.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.image.setWordWrap(True)
        self.label = QLabel(title)
        self.label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setLayout(column(self.label, self.image, spacing=1))
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip("Click to show this place in all stains")

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Report a click."""
        if event.button() == Qt.MouseButton.LeftButton:
            self.clicked.emit()

    def show_pixels(self, pixels: NDArray[np.uint8] | None, reason: str) -> None:
        """Show 8-bit RGB pixels, shape (rows, columns, 3), or the reason why there are none."""
        if pixels is None:
            self.image.setPixmap(QPixmap())
            self.image.setText(reason)
            return
        data = np.ascontiguousarray(pixels)
        height, width = data.shape[:2]
        image = QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        pixmap = QPixmap.fromImage(image).scaled(
            _IMAGE_PX,
            _IMAGE_PX,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        self.image.setPixmap(pixmap)

    def draw(self, tile: float, scanner: float, voxel: NDArray[np.float64] | None = None) -> None:
        """Outline the tile and the footprint of the scanner, each a share of the width.

        *voxel* are the corners (4, 2) of the PET voxel as shares of height and width.
        """
        pixmap = self.image.pixmap()
        if pixmap.isNull():
            return
        painter = QPainter(pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        side, size = float(pixmap.width()), QSizeF(pixmap.size())
        middle = QPointF(size.width() / 2, size.height() / 2)
        for width, colours in ((3.0, (palette.FOOTPRINT_EDGE,) * 2), (1.4, _OUTLINES)):
            for share, colour, drawn in zip(
                (tile, scanner), colours, (painter.drawRect, painter.drawEllipse), strict=True
            ):
                painter.setPen(QPen(QColor(colour), width))
                half = QPointF(share * side / 2, share * side / 2)
                drawn(QRectF(middle - half, middle + half))
            if voxel is not None:
                edge = colours is not _OUTLINES
                colour = palette.FOOTPRINT_EDGE if edge else palette.REFERENCE_LANDMARK
                painter.setPen(QPen(QColor(colour), width))
                points = [QPointF(float(c) * side, float(r) * side) for r, c in voxel]
                painter.drawPolygon(QPolygonF(points))
        painter.end()
        self.image.setPixmap(pixmap)


def _attention_of(case: Case) -> Any:
    return run_to_end(attention_of(case))


CROP_PX = 200


def crops_of(
    case: Case, centre_um: tuple[float, float], size_um: float
) -> dict[str, NDArray[Any] | None]:
    """Pixels (`CROP_PX`, `CROP_PX`, 3) of each stain around a position on the reference section.

    None for a stain that is missing, cannot be read, or is not aligned yet.
    """
    return {stain: crop_of(case, stain, centre_um, size_um) for stain in STAINS}


def crop_of(
    case: Case, stain: str, centre_um: tuple[float, float], size_um: float
) -> NDArray[Any] | None:
    """The crop of one stain."""
    if stain not in case.file.slides:
        return None
    try:
        transform = transform_to_reference(case, stain)
        if transform is None:
            if stain != REFERENCE:
                return None
            transform = Transform.identity(stain, REFERENCE)
        return _read(case, stain, transform, centre_um, size_um)
    except MosaikError:
        return None


def _read(
    case: Case, stain: str, transform: Transform, centre_um: tuple[float, float], size_um: float
) -> NDArray[Any]:
    spacing = size_um / CROP_PX
    top_left = (centre_um[0] - size_um / 2, centre_um[1] - size_um / 2)
    lattice = Lattice(REFERENCE, (CROP_PX, CROP_PX), (spacing, spacing), top_left)
    half = size_um / 2
    corners = [(centre_um[0] + r, centre_um[1] + c) for r in (-half, half) for c in (-half, half)]
    there = transform.inverse().apply(corners)
    low, high = there.min(axis=0), there.max(axis=0)
    with case.slide(stain) as slide:
        finest = max(slide.lattice.spacing_um)
        wanted = max(finest, spacing / transform.scale)
        size = (float(high[0] - low[0]), float(high[1] - low[1]))
        raster: Raster = slide.read((float(low[0]), float(low[1])), size, wanted)
    turned = raster.onto(lattice, transform, outside=255.0)
    return np.asarray(np.clip(turned.values, 0, 255), np.uint8)
