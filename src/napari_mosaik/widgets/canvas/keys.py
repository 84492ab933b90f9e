"""All keyboard shortcuts of the program: one table, from which keys are bound and help is shown.

A tool of the canvas that stands in this table under ``tool`` needs nothing else: its key, its
button on the View tab and its line in *Help > Keyboard shortcuts* come from here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mosaik.view.measurements import MAGNIFICATIONS

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

__all__ = [
    "CANVAS",
    "SCOPES",
    "SHORTCUTS",
    "KeyMap",
    "Shortcut",
    "bind_widget_keys",
    "key_text",
    "show_shortcuts",
]

CANVAS: Final = "canvas"
_TOOLS: Final = "napari_mosaik.widgets.canvas.tools"
_DIMS_LEFT, _DIMS_RIGHT = "napari:increment_dims_left", "napari:increment_dims_right"

SCOPES: Final = {
    CANVAS: "Canvas",
    "tool": "Any active tool",
    "ruler": "Ruler and calibration",
    "annotation": "Annotation tools",
    "correction": "Manual correction",
    "alignment": "Manual alignment",
    "stain-sampling": "Stain sampling",
    "what if": "Region for a what-if",
    "qa": "Visual QA panel",
    "queue": "Review queue: its panel, and the canvas while it is open and no tool is active",
    "readers": "Two readers panel",
    "inspector": "Tile inspector, and canvas with a selected tile",
}
"""Where a shortcut applies.  Canvas shortcuts always do, with the mouse over the canvas; the others
while that tool is active or that panel has the focus."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One line of the table.

    Parameters
    ----------
    scope
        One of `SCOPES`.
    key
        The key as napari spells it, such as "Shift-D".
    action
        What the owner of the scope calls it; for a tool of the table the mode that it starts.
    text
        What it does, for the help.
    tool
        "module:Class" of the `CanvasTool` that the key switches on and off.
    shadows
        What has the same key elsewhere and is hidden while the scope applies: an action of napari
        or "scope.action" of this table.
    on_layers
        Bound to the layers of the program, too: napari's layers have a use for the key.
    """

    scope: str
    key: str
    action: str
    text: str
    tool: str = ""
    shadows: str = ""
    on_layers: bool = False


SHORTCUTS: Final[tuple[Shortcut, ...]] = (
    *(
        Shortcut(CANVAS, f"Control-{n}", f"magnify {x:g}x", f"magnify {x:g}x about the mouse")
        for n, x in enumerate(MAGNIFICATIONS, 1)
    ),
    Shortcut(CANVAS, "Shift-T", "rotate", "rotate the view by 90° clockwise"),
    Shortcut(CANVAS, "Shift-F", "flip", "flip the view horizontally"),
    Shortcut(CANVAS, "Shift-N", "reset orientation", "reset the orientation to as scanned"),
    Shortcut(CANVAS, "Shift-O", "overview map", "show or hide the overview map"),
    Shortcut(CANVAS, "4", "quad view", "2 × 2 linked views on or off", on_layers=True),
    Shortcut(CANVAS, "H", "hide overlays", "hold to hide all overlays"),
    Shortcut(CANVAS, "Shift-C", "correct", "start or end manual correction"),
    Shortcut(CANVAS, "Shift-D", "length", "measure a length", tool=f"{_TOOLS}.ruler:Ruler"),
    Shortcut(CANVAS, "Shift-S", "area", "measure an area", tool=f"{_TOOLS}.ruler:Ruler"),
    Shortcut(
        "tool", "Space", "pan", "hold to pan with the mouse", shadows="napari:hold_for_pan_zoom"
    ),
    Shortcut("ruler", "Enter", "finish", "finish the line or close the area"),
    Shortcut("ruler", "Escape", "step back", "remove the last point, or end measuring"),
    Shortcut("ruler", "Backspace", "step back", "remove the last point, or end measuring"),
    Shortcut("annotation", "B", "brush", "brush"),
    Shortcut("annotation", "W", "wand", "wand"),
    Shortcut("annotation", "T", "convert", "adopt a predicted region as an annotation"),
    Shortcut("annotation", "P", "polygon", "polygon"),
    Shortcut("annotation", "L", "lasso", "lasso"),
    Shortcut("annotation", "R", "rectangle", "rectangle"),
    Shortcut("annotation", "V", "select", "select", shadows="napari:toggle_selected_visibility"),
    Shortcut("annotation", "X", "split", "split by a line"),
    Shortcut("annotation", "D", "vertices", "edit single vertices"),
    *(
        Shortcut(
            "annotation",
            str(n),
            f"class {n}",
            f"choose class {n}",
            shadows="canvas.quad view" if n == 4 else "",
        )
        for n in range(1, 10)
    ),
    Shortcut("annotation", "Enter", "finish", "close the polygon"),
    Shortcut("annotation", "Escape", "discard", "discard the area being drawn"),
    Shortcut("annotation", "F", "fill holes", "fill the holes of the selected annotations"),
    Shortcut("annotation", "S", "smooth", "smooth the selected annotations"),
    Shortcut("annotation", "Y", "simplify", "simplify the selected annotations"),
    Shortcut("annotation", "=", "dilate", "dilate the selected annotations"),
    Shortcut("annotation", "Shift-=", "dilate", "dilate the selected annotations"),
    Shortcut("annotation", "-", "shrink", "shrink the selected annotations"),
    Shortcut("annotation", "M", "merge", "merge the selected annotations"),
    Shortcut("annotation", "K", "lock", "lock or unlock the selected annotations"),
    Shortcut("annotation", "Shift-L", "lock class", "lock or unlock the chosen class"),
    Shortcut("annotation", "Delete", "delete", "delete the selected annotations"),
    Shortcut("annotation", "Control-Z", "undo", "undo"),
    Shortcut("annotation", "Control-Shift-Z", "redo", "redo"),
    Shortcut("correction", "Delete", "delete", "delete the selected object"),
    Shortcut("correction", "Escape", "end", "end the tool"),
    Shortcut("correction", "Control-Z", "undo", "undo"),
    Shortcut("correction", "Control-Shift-Z", "redo", "redo"),
    Shortcut("alignment", "Up", "up", "move up by 10 µm"),
    Shortcut("alignment", "Down", "down", "move down by 10 µm"),
    Shortcut("alignment", "Left", "left", "move left by 10 µm", shadows=_DIMS_LEFT),
    Shortcut("alignment", "Right", "right", "move right by 10 µm", shadows=_DIMS_RIGHT),
    Shortcut("alignment", "Shift-Up", "far up", "move up by 100 µm"),
    Shortcut("alignment", "Shift-Down", "far down", "move down by 100 µm"),
    Shortcut("alignment", "Shift-Left", "far left", "move left by 100 µm"),
    Shortcut("alignment", "Shift-Right", "far right", "move right by 100 µm"),
    Shortcut("alignment", ",", "rotate left", "rotate anticlockwise by 0.5°"),
    Shortcut("alignment", ".", "rotate right", "rotate clockwise by 0.5°"),
    Shortcut("alignment", "Shift-,", "rotate far left", "rotate anticlockwise by 5°"),
    Shortcut("alignment", "Shift-.", "rotate far right", "rotate clockwise by 5°"),
    Shortcut("alignment", "-", "shrink", "scale down by 1 %"),
    Shortcut("alignment", "=", "enlarge", "scale up by 1 %"),
    Shortcut("alignment", "Shift-=", "enlarge", "scale up by 1 %"),
    Shortcut("alignment", "Control-Z", "undo", "undo"),
    Shortcut("alignment", "Control-Shift-Z", "redo", "redo"),
    Shortcut("stain-sampling", "Escape", "end", "end sampling; the stain vectors stay"),
    Shortcut("what if", "Escape", "end", "end drawing"),
    Shortcut("qa", "C", "correct", "rate the object as correct"),
    Shortcut("qa", "W", "wrong", "rate the object as wrong"),
    Shortcut("qa", "U", "unsure", "rate the object as unsure"),
    Shortcut("queue", "N", "next", "next tile without a decision", on_layers=True),
    Shortcut("queue", "P", "previous", "the previous tile", on_layers=True),
    Shortcut("queue", "A", "accept", "accept the tile", on_layers=True),
    Shortcut("queue", "R", "reject", "reject the tile", on_layers=True),
    Shortcut("queue", "C", "comment", "comment on the tile", on_layers=True),
    Shortcut("queue", "E", "edit", "edit the tile in the annotation tools", on_layers=True),
    Shortcut("queue", "U", "undo", "undo what was done last", on_layers=True),
    Shortcut("readers", "A", "first", "decide as the first reader"),
    Shortcut("readers", "B", "second", "decide as the second reader"),
    Shortcut("readers", "X", "neither", "decide that neither is right"),
    Shortcut("readers", "U", "take back", "take the decision back"),
    Shortcut("readers", "N", "next", "go to the next difference"),
    Shortcut("readers", "P", "back", "go to the previous difference"),
    Shortcut("inspector", "Left", "left", "select the neighbouring tile", shadows=_DIMS_LEFT),
    Shortcut("inspector", "Right", "right", "select the neighbouring tile", shadows=_DIMS_RIGHT),
    Shortcut("inspector", "Up", "up", "select the neighbouring tile"),
    Shortcut("inspector", "Down", "down", "select the neighbouring tile"),
)
"""Every key of the program."""


def key_text(scope: str, action: str) -> str:
    """The key of an action as a person reads it, such as "Shift+D"; empty when it has none."""
    keys = [row.key for row in SHORTCUTS if (row.scope, row.action) == (scope, action)]
    return _readable(keys[0]) if keys else ""


def _readable(key: str) -> str:
    """Control-Shift-Z as Ctrl+Shift+Z; a minus alone stays."""
    return key if key == "-" else key.replace("Control", "Ctrl").replace("-", "+")


class KeyMap(QObject):
    """The keys of the program on one napari viewer.

    A scope that is bound later hides equal keys of those bound before, until it is released.
    """

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._bound: dict[str, list[tuple[Shortcut, Callable[[], Any]]]] = {}
        viewer.layers.events.inserted.connect(self._layer_inserted)

    def bind(self, scope: str, actions: Mapping[str, Callable[[], Any]]) -> None:
        """Bind actions of a scope; `KeyError` for one that is not in the table."""
        for action, act in actions.items():
            rows = [row for row in SHORTCUTS if (row.scope, row.action) == (scope, action)]
            if not rows:
                raise KeyError(f"{scope}: '{action}' is not in the table of shortcuts")
            for row in rows:
                self._bound.setdefault(row.key, []).append((row, act))
                self._install(row.key)

    def release(self, scope: str, actions: Mapping[str, Any] | None = None) -> None:
        """Unbind a scope, or some actions of it; what they had hidden applies again."""
        for key, stack in self._bound.items():
            kept = [
                (row, act)
                for row, act in stack
                if row.scope != scope or (actions is not None and row.action not in actions)
            ]
            if len(kept) != len(stack):
                self._bound[key] = kept
                self._install(key)

    def detach(self) -> None:
        """Unbind everything."""
        self._viewer.layers.events.inserted.disconnect(self._layer_inserted)
        for scope in {row.scope for stack in self._bound.values() for row, _ in stack}:
            self.release(scope)

    def _install(self, key: str) -> None:
        """Bind the top of a key's stack to the viewer, and to layers where the table says so."""
        self._viewer.bind_key(key, self._handler(key), overwrite=True)
        for layer in self._viewer.layers:
            self._install_on(layer, key)

    def _install_on(self, layer: Layer, key: str) -> None:
        stack = self._bound.get(key, [])
        if any(row.on_layers for row, _ in stack) and "mosaik" in layer.metadata:
            layer.bind_key(key, self._handler(key), overwrite=True)

    def _handler(self, key: str) -> Callable[[Any], Any] | None:
        stack = self._bound.get(key)
        if not stack:
            return None
        act = stack[-1][1]
        if not inspect.isgeneratorfunction(act):
            return lambda _target: act()

        def held(_target: Any) -> Iterator[None]:  # napari resumes it when the key is released
            yield from act()

        return held

    def _layer_inserted(self, event: Any) -> None:
        for key in self._bound:
            self._install_on(event.value, key)


def bind_widget_keys(widget: QWidget, scope: str, actions: Mapping[str, Callable[[], Any]]) -> None:
    """Bind actions of a scope to a panel, for as long as it or a part of it has the focus."""
    for row in SHORTCUTS:
        if row.scope == scope and row.action in actions:
            shortcut = QShortcut(QKeySequence(_readable(row.key)), widget)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(actions[row.action])


# --- help ---------------------------------------------------------------------------------------
class ShortcutsDialog(QDialog):
    """The table of shortcuts, by where they apply."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("MOSAIK keyboard shortcuts")
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Key", "Action"])
        self.tree.setRootIsDecorated(False)
        self.tree.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        for scope, title in SCOPES.items():
            group = QTreeWidgetItem(self.tree, [title])
            group.setFirstColumnSpanned(True)
            font = group.font(0)
            font.setBold(True)
            group.setFont(0, font)
            for row in SHORTCUTS:
                if row.scope == scope:
                    QTreeWidgetItem(group, [_readable(row.key), row.text])
        self.tree.expandAll()
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(self.tree)
        layout.addWidget(buttons)
        self.resize(460, 600)


def show_shortcuts(parent: QWidget | None = None) -> ShortcutsDialog:
    """Open the help for keyboard shortcuts."""
    dialog = ShortcutsDialog(parent)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.show()
    return dialog
