"""The View tab: magnification, orientation, overview map, layouts, ruler and other tools."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QListWidget,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_mosaik.view.measurements import MAGNIFICATIONS
from napari_mosaik.view.orientation import Turn
from napari_mosaik.widgets.base.controls import (
    Collapsible,
    button,
    column,
    row,
    show_field,
    wrapped_label,
)
from napari_mosaik.widgets.canvas.active_tool import CanvasTool
from napari_mosaik.widgets.canvas.keys import CANVAS, SHORTCUTS, key_text, show_shortcuts
from napari_mosaik.widgets.canvas.layout import Composite, QuadView
from napari_mosaik.widgets.canvas.overview_map import OverviewMap
from napari_mosaik.widgets.canvas.tools.calibration import Calibration
from napari_mosaik.widgets.canvas.tools.ruler import Ruler
from napari_mosaik.widgets.canvas.view_keys import ViewKeys

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["ViewTools"]

_ROW_PX = 18
_PER_ROW = 2
"""Buttons of tools side by side."""


class ViewTools(QWidget):
    """Owns the tools of the canvas that need no case, and shows them.

    The tools are those of the table of shortcuts: each has a button, in the order of the table.
    """

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._link = link
        self.keys = ViewKeys(link.viewer, link.keys, self)
        self.map = OverviewMap(link.viewer, link.keys)
        self.quad_view = QuadView(link)
        self.composite = Composite(link)
        self.ruler = link.tool(Ruler)
        self.calibration = Calibration(link)
        self.calibration_fold = Collapsible("Pixel size calibration", self.calibration)
        self.readout = wrapped_label()
        self.map_button = _toggle("Overview map", self.map.toggle, "overview map")
        self.quad_button = _toggle("2 × 2 linked views", self.quad_view.toggle, "quad view")
        self.composite_button = _toggle("Composite overlay", self.composite.toggle)
        self.composite_button.setToolTip("All slides in one picture, below a semi-transparent PET")
        self.tool_buttons: dict[str, tuple[CanvasTool, QPushButton]] = {}
        for known in SHORTCUTS:
            if known.tool:
                self._add_tool(link.tool_at(known.tool), known.action)
        self.hint = wrapped_label(small=True)
        self.list = QListWidget()
        self.list.itemClicked.connect(lambda item: self.ruler.go_to(self.list.row(item)))
        self.delete = button("Delete", self._delete, "Deletes the selected measurement")
        self.delete_all = button("Delete all", self.ruler.clear)
        self.copy = button("Copy", self._copy, "Copies the measurements as text")
        self.help_button = button(
            "Keyboard shortcuts…", lambda: show_shortcuts(self), "All keys of MOSAIK"
        )
        self._build()
        self.keys.changed.connect(self.readout.setText)
        self.map.toggled.connect(self.map_button.setChecked)
        self.quad_view.changed.connect(self.quad_button.setChecked)
        self.composite.changed.connect(self.composite_button.setChecked)
        self.ruler.edited.connect(self._show_ruler)
        link.events.active_tool.connect(self._show_tools)
        link.workspace.events.case.connect(self._case_changed)
        self._case_changed()
        self._show_tools()
        self._show_ruler()

    def _add_tool(self, tool: CanvasTool, mode: str) -> None:
        """A button and the key for one mode of a tool."""
        toggle = partial(tool.toggle, mode)
        made = _toggle(tool.modes[mode].title, toggle, mode)
        self._link.keys.bind(CANVAS, {mode: toggle})
        tool.changed.connect(self._show_tools)
        self.tool_buttons[mode] = tool, made

    def _build(self) -> None:
        times = [
            button(f"{x:g}x", partial(self.keys.zoom_to, x), key_text(CANVAS, f"magnify {x:g}x"))
            for x in MAGNIFICATIONS
        ]
        turns = (
            button("⟲", lambda: self.keys.turn(Turn.anticlockwise), "Rotate 90° anticlockwise"),
            _keyed("⟳", lambda: self.keys.turn(Turn.clockwise), "Rotate 90° clockwise", "rotate"),
            _keyed("Flip", lambda: self.keys.turn(Turn.mirrored), "Flip horizontally", "flip"),
            _keyed("Reset", self.keys.reset, "Reset orientation", "reset orientation"),
        )
        tools = QGridLayout()
        tools.setContentsMargins(0, 0, 0, 0)
        for i, (_, made) in enumerate(self.tool_buttons.values()):
            made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            tools.addWidget(made, i // _PER_ROW, i % _PER_ROW)
        self.setLayout(
            column(
                wrapped_label("Magnification", bold=True),
                self.readout,
                _even(*times),
                wrapped_label("Orientation", bold=True),
                _even(*turns),
                wrapped_label("Layout", bold=True),
                _even(self.quad_button, self.composite_button),
                _even(self.map_button),
                wrapped_label("Tools", bold=True),
                tools,
                self.hint,
                self.list,
                row(self.delete, self.delete_all, self.copy, 1),
                self.calibration_fold,
                row(self.help_button, 1),
                1,
                margin=4,
                spacing=6,
            )
        )

    def calibrate(self, stain: str) -> None:
        """Measure the pixel size of a slide of the open case."""
        self.calibration_fold.set_open(True)
        self.calibration.begin_stain(stain)
        show_field(self.calibration.length)

    def _case_changed(self, *_: Any) -> None:
        opened = self._link.workspace.case is not None
        self.quad_button.setEnabled(opened)
        self.composite_button.setEnabled(opened)

    # --- tools ----------------------------------------------------------------------------------
    def _show_tools(self, *_: Any) -> None:
        hint = ""
        for mode, (tool, made) in self.tool_buttons.items():
            made.setChecked(tool.is_active and tool.mode == mode)
            hint = tool.hint if tool.is_active else hint
        self.hint.setText(hint)
        self.hint.setVisible(bool(hint))

    def _show_ruler(self) -> None:
        self._show_tools()
        chosen, measured = self.list.currentRow(), self.ruler.measurements
        self.list.clear()
        self.list.addItems([f"{i}: {one.words}" for i, one in enumerate(measured, 1)])
        self.list.setCurrentRow(min(chosen, self.list.count() - 1))
        self.list.setFixedHeight(8 + _ROW_PX * min(6, self.list.count()))
        for widget in (self.list, self.delete, self.delete_all, self.copy):
            widget.setVisible(bool(measured))

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
        self.calibration.shut()
        self.composite.leave()
        for part in (self.quad_view, self.map, self.keys):
            part.detach()


def _keyed(text: str, act: Any, tip: str, action: str) -> QPushButton:
    return button(text, act, f"{tip} ({key_text(CANVAS, action)})")


def _toggle(text: str, act: Any, action: str = "") -> QPushButton:
    made = button(text, act, f"Key {key_text(CANVAS, action)}" if action else "")
    made.setCheckable(True)
    return made


def _even(*widgets: QWidget) -> QHBoxLayout:
    """Buttons that share the width, however narrow."""
    for widget in widgets:
        widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return row(*widgets)
