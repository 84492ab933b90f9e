"""The View tab: magnification, orientation, overview map, layouts and ruler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QHBoxLayout, QListWidget, QPushButton, QSizePolicy, QWidget

from napari_mosaik.view.measurements import MAGNIFICATIONS
from napari_mosaik.view.orientation import Turn
from napari_mosaik.widgets.base.controls import Collapsible, button, column, row, wrapped_label
from napari_mosaik.widgets.canvas.calibrate import Calibration
from napari_mosaik.widgets.canvas.composite import AllInOne
from napari_mosaik.widgets.canvas.overview_map import OverviewMap
from napari_mosaik.widgets.canvas.quad_view import FourUp
from napari_mosaik.widgets.canvas.ruler import Ruler
from napari_mosaik.widgets.canvas.view_keys import ViewKeys

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink
    from napari_mosaik.widgets.canvas.side_by_side import SideBySide

__all__ = ["ViewTools"]

_KEYS = (
    "Keys, with the mouse over the picture: Ctrl+1 to Ctrl+4 magnify about the mouse; Shift+T "
    "turns, Shift+F mirrors, Shift+N is as scanned; Shift+O overview map; 4 four slides; Shift+D "
    "length, Shift+S area; hold H to hide all overlays."
)

_ROW_PX = 18


class ViewTools(QWidget):
    """Owns the tools of the canvas and shows them; works without a case too."""

    def __init__(self, link: CanvasLink, side_by_side: SideBySide) -> None:
        super().__init__()
        viewer = link.viewer
        self._link = link
        self.keys = ViewKeys(viewer, self)
        self.map = OverviewMap(viewer)
        self.four_up = FourUp(viewer, link.board)
        self.all_in_one = AllInOne(link.board)
        self.ruler = Ruler(link, self)
        self.calibration = Calibration(link, self.ruler)
        layouts = (self.four_up, self.all_in_one, side_by_side)
        for layout in layouts:  # one at a time
            for other in layouts:
                if other is not layout:
                    layout.entering.connect(other.leave)
        side_by_side.changed.connect(self._marked_elsewhere)
        self.readout = wrapped_label()
        self.length = _toggle("Length", lambda: self.ruler.toggle("length"), "Shift+D")
        self.area = _toggle("Area", lambda: self.ruler.toggle("area"), "Shift+S")
        self.map_button = _toggle("Overview map", self._toggle_map, "Shift+O")
        self.four_button = _toggle("2 × 2 linked views", self.four_up.toggle, "4")
        self.one_button = _toggle("Composite overlay", self.all_in_one.toggle, "")
        self.one_button.setToolTip("All slides in one picture, below a semi-transparent PET")
        self.hint = wrapped_label(small=True)
        self.list = QListWidget()
        self.list.itemClicked.connect(lambda item: self.ruler.go_to(self.list.row(item)))
        self.delete = button("Delete", self._delete, "Deletes the selected measurement")
        self.delete_all = button("Delete all", self.ruler.clear)
        self.copy = button("Copy", self._copy, "Copies the measurements as text")
        self._build()
        self.keys.changed.connect(self.readout.setText)
        self.map.toggled.connect(self.map_button.setChecked)
        self.four_up.changed.connect(self.four_button.setChecked)
        self.all_in_one.changed.connect(self.one_button.setChecked)
        self.ruler.changed.connect(self._show_ruler)
        link.workspace.events.case.connect(self._case_changed)
        self._case_changed()
        self._show_ruler()

    def _build(self) -> None:
        times = [
            button(f"{t:g}x", lambda t=t: self.keys.zoom_to(t), f"Ctrl+{i}")
            for i, t in enumerate(MAGNIFICATIONS, 1)
        ]
        turns = (
            button("⟲", lambda: self.keys.turn(Turn.anticlockwise), "Rotate 90° anticlockwise"),
            button("⟳", lambda: self.keys.turn(Turn.clockwise), "Rotate 90° clockwise (Shift+T)"),
            button("Flip", lambda: self.keys.turn(Turn.mirrored), "Flip horizontally (Shift+F)"),
            button("Reset", self.keys.reset, "Reset orientation to as scanned (Shift+N)"),
        )
        self.setLayout(
            column(
                wrapped_label("Magnification", bold=True),
                self.readout,
                _even(*times),
                wrapped_label("Orientation", bold=True),
                _even(*turns),
                wrapped_label("Layout", bold=True),
                _even(self.map_button, self.four_button, self.one_button),
                wrapped_label("Ruler", bold=True),
                _even(self.length, self.area),
                self.hint,
                self.list,
                row(self.delete, self.delete_all, self.copy, 1),
                Collapsible("Pixel size calibration", self.calibration),
                wrapped_label(_KEYS, small=True),
                1,
                margin=4,
                spacing=6,
            )
        )

    def _case_changed(self, *_: Any) -> None:
        opened = self._link.workspace.case is not None
        self.four_button.setEnabled(opened)
        self.one_button.setEnabled(opened)

    def _marked_elsewhere(self, shown: bool) -> None:
        self._link.marked_elsewhere = shown

    def _toggle_map(self) -> None:
        self.map.set_shown(not self.map.is_shown)

    # --- ruler ----------------------------------------------------------------------------------
    def _show_ruler(self) -> None:
        ruler = self.ruler
        self.length.setChecked(ruler.kind == "length")
        self.area.setChecked(ruler.kind == "area")
        self.hint.setText(ruler.hint)
        self.hint.setVisible(ruler.is_on)
        chosen = self.list.currentRow()
        self.list.clear()
        self.list.addItems([f"{i}: {one.words}" for i, one in enumerate(ruler.measurements, 1)])
        self.list.setCurrentRow(min(chosen, self.list.count() - 1))
        self.list.setFixedHeight(8 + _ROW_PX * min(6, self.list.count()))
        for widget in (self.list, self.delete, self.delete_all, self.copy):
            widget.setVisible(bool(ruler.measurements))

    def _delete(self) -> None:
        number = self.list.currentRow()
        self.ruler.remove(number if number >= 0 else self.list.count() - 1)

    def _copy(self) -> None:
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            lines = (self.list.item(i).text() for i in range(self.list.count()))
            clipboard.setText("\n".join(lines))

    def shut(self) -> None:
        """Leave the viewer as it was found; called when the window closes."""
        self.calibration.cancel()
        self.all_in_one.leave()
        for tool in (self.four_up, self.ruler, self.map, self.keys):
            tool.detach()


def _toggle(text: str, act: Any, key: str) -> QPushButton:
    made = button(text, act, f"Key {key}")
    made.setCheckable(True)
    return made


def _even(*widgets: QWidget) -> QHBoxLayout:
    """Buttons that share the width, however narrow."""
    for widget in widgets:
        widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return row(*widgets)
