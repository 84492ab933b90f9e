"""Make the pictures of the documentation from the running program, on the sample cohort.

Run on a real display or under xvfb, with a cohort on which the demo has been run::

    xvfb-run -a -s "-screen 0 1920x1080x24" python docs/screenshots.py demo/cohort

The cohort is copied first: what is drawn for the pictures does not change it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "xcb")

import napari
from qtpy.QtWidgets import QApplication

from napari_mosaik.annotate import lasso_polygon, stroke_polygon
from napari_mosaik.widgets.dock import MosaikDock

HERE = Path(__file__).parent


class Studio:
    """A napari window with the dock, driven by program."""

    def __init__(self, cohort: Path, out: Path, size: tuple[int, int]) -> None:
        self.out = out
        self.viewer = napari.Viewer(title="MOSAIK", show=True)
        self.window = self.viewer.window._qt_window
        self.dock = MosaikDock(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="MOSAIK", area="right")
        self.window.setGeometry(0, 0, *size)
        self.dock.desk.open(cohort, prefer="B11")
        self.until(lambda: len(self.dock.board.slides) == 3 and bool(self.dock.board.specs))

    def until(self, ready: Callable[[], bool], timeout_s: float = 300.0) -> None:
        """Let the window work until something is so."""
        end = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > end:
                raise TimeoutError("the window did not get there")
            QApplication.processEvents()
            time.sleep(0.01)

    def settle(self, seconds: float = 1.5) -> None:
        """Give slides and drawings time to arrive."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def shoot(self, name: str) -> None:
        """Save the whole window."""
        self.settle()
        path = self.out / f"{name}.png"
        self.window.grab().save(str(path))
        print(f"{path} {self.window.width()} x {self.window.height()}")

    # --- the pictures ---------------------------------------------------------------------------
    def main_window(self) -> None:
        """Slides, tissue classes and vessels, a page, the reading, a tile."""
        board, dock = self.dock.board, self.dock
        board.show_steps(("classes",))
        self.until(lambda: board.layer("Tissue classes") is not None)
        dock.pages["Vessels"].set_open(True)
        grid = dock.workspace.facts.grid
        assert grid is not None
        dock.workspace.tile = dock.workspace.facts.tile_at(tuple(grid.centres_um.mean(axis=0)))
        self.viewer.reset_view()
        self.shoot("main")
        dock.tabs.setCurrentIndex(1)
        board.show_steps(("vessels",))
        board.set_shown("Measured SUV (body surface)", True)
        board.put(board.specs["Measured SUV (body surface)"]).opacity = 0.4
        self.shoot("overlays")

    def review(self) -> None:
        """Measured, predicted, difference; figures, plot and a tile."""
        dock = self.dock
        dock.show_review()
        dock.workspace.tile = int(dock.review.worst.item(0).data(256))
        self.shoot("review")
        dock.side_by_side.leave()

    def loop(self) -> None:
        """Draw, retrain, update, see what changed."""
        dock = self.dock
        dock.show_annotate()
        drawing = dock.annotate.drawing
        height, width = dock.board.slides["he"].lattices[0].extent_um
        dock.board.overlays()
        for layer in dock.board.overlays().values():
            layer.visible = False
        drawing.choose_class("neoplastic")
        path = [(0.42, 0.30), (0.46, 0.34), (0.52, 0.33), (0.58, 0.30)]
        drawing.commit(stroke_polygon([(r * height, c * width) for r, c in path], 0.02 * height))
        drawing.take("lasso")
        drawing.choose_class("non-neoplastic")
        path = [(0.30, 0.52), (0.33, 0.60), (0.41, 0.62), (0.43, 0.55), (0.36, 0.50)]
        drawing.commit(lasso_polygon([(r * height, c * width) for r, c in path]))
        drawing.choose_class("background")
        path = [(0.03, 0.03), (0.03, 0.15), (0.08, 0.15), (0.08, 0.03)]
        drawing.commit(lasso_polygon([(r * height, c * width) for r, c in path]))
        self.shoot("annotate")
        dock.annotate.annotation.retrain()
        self.until(lambda: dock.workspace.job is None)
        self.until(dock.annotate.update_button.isEnabled)
        dock.annotate.annotation.update()
        self.settle()
        self.shoot("updating")
        self.until(lambda: dock.workspace.job is None)
        self.until(lambda: "mean error" in dock.annotate.change.text())
        self.until(lambda: all(s.word == "done" for s in dock.workspace.states.values()))
        dock.board.set_shown("Tissue classes", True)
        self.shoot("loop")

    def close(self) -> None:
        """Close the window."""
        self.dock.close()
        self.viewer.close()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, help="cohort on which the demo has been run")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    parser.add_argument("--size", default="1600x1000", help="width x height of the window")
    options = parser.parse_args()
    width, height = (int(number) for number in options.size.split("x"))
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(options.cohort, Path(scratch) / "cohort")
        studio = Studio(copy, options.out, (width, height))
        studio.main_window()
        studio.review()
        studio.loop()
        studio.close()


if __name__ == "__main__":
    main()
