"""What a reader sees in the window: texts inside their boxes, groups, scales of colours."""

import numpy as np
import pytest

from napari_mosaik.widgets.canvas.view_keys import READOUT

pytestmark = pytest.mark.gui


def test_the_text_on_the_canvas_lies_inside_its_box(dock, qtbot):
    blank = np.zeros((400, 600))
    dock.viewer.add_image(blank, scale=(1, 1), units=("um", "um"), name="blank", opacity=0)
    overlay = dock.viewer.canvas.overlays[READOUT]
    overlay.box_color, overlay.color = "red", "lime"
    dock.viewer.canvas.overlays.scale_bar.visible = False
    for times in (2.5, 10, 40):
        dock.view_tools.keys.zoom_to(times)
        qtbot.waitUntil(lambda times=times: f"{times:g}x" in overlay.text)
        pixels = dock.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        text = np.argwhere((pixels[..., 1] > 200) & (pixels[..., 0] < 90))
        box = np.argwhere((pixels[..., 0] > 120) & (pixels[..., 1] < 90))
        assert len(text) > 50
        assert (box.min(axis=0) < text.min(axis=0)).all()
        assert (box.max(axis=0) > text.max(axis=0)).all()
