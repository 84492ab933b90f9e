"""How do I add a tool: a counter for spots is added, used with the mouse, and removed again.

It takes one file in ``widgets/canvas/tools`` and one row of the table of shortcuts, nothing else.
"""

import importlib
import sys

import pytest

from tests.widgets.conftest import dock  # noqa: F401

pytestmark = pytest.mark.gui

TOOL = '''
"""Counts spots that are clicked."""

import numpy as np

from napari_mosaik.widgets.canvas.active_tool import CanvasTool, ToolMode


class SpotCounter(CanvasTool):
    """Counts clicks."""

    name = "spots"
    modes = {"count": ToolMode("Count spots", "Click each spot.", pans=True)}
    spots = ()

    def released(self, pointer):
        """A click adds a spot."""
        if pointer.is_click:
            self.spots = (*self.spots, pointer.start_um)
            self.show_draft(np.array([[spot, (10.0, 0.0)] for spot in self.spots]))
'''
PACKAGE = "napari_mosaik.widgets.canvas.tools"
ROW = (
    "canvas", "Shift-K", "count", "count spots",
    f"{PACKAGE}.spot_counter:SpotCounter",
)  # fmt: skip


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Adds the tool to the package, and gives the files that this takes besides the table."""
    from napari_mosaik.widgets.canvas import keys, tools, view_tools

    (tmp_path / "spot_counter.py").write_text(TOOL)
    monkeypatch.setattr(tools, "__path__", [*tools.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    table = (*keys.SHORTCUTS, keys.Shortcut(*ROW))
    for module in (keys, view_tools):  # both read the one table
        monkeypatch.setattr(module, "SHORTCUTS", table)
    yield list(tmp_path.glob("*.py"))
    sys.modules.pop(f"{PACKAGE}.spot_counter", None)


def test_a_tool_is_one_file_and_one_row(files, request, qtbot, record_property):
    from qtpy.QtCore import Qt

    record_property("new_tool_files", len(files))
    assert len(files) == 1
    dock = request.getfixturevalue("dock")  # noqa: F811
    tool, button = dock.view_tools.tool_buttons["count"]
    assert button.text() == "Count spots"
    assert button.toolTip() == "Key Shift+K"

    # its key switches it on, and the tool that was active off
    dock.view_tools.ruler.take("length")
    canvas = dock.viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_K, Qt.KeyboardModifier.ShiftModifier)
    assert dock.canvas.active_tool is tool
    assert not dock.view_tools.ruler.is_active
    assert button.isChecked()
    assert dock.view_tools.hint.text() == "Click each spot."

    # a real click reaches it
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    assert len(tool.spots) == 1
    assert tool.draft_layer in dock.viewer.layers

    # its button switches it off again
    button.click()
    assert dock.canvas.active_tool is None
    assert tool.draft_layer not in dock.viewer.layers
