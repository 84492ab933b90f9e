"""Take the pictures of the documentation from the running program, on the sample cohort.

Run on a real display or under xvfb, with a cohort on which the demo has been run::

    xvfb-run -a -s "-screen 0 1920x1080x24" python docs/screenshots.py demo/cohort

The cohort is copied first: what is drawn for the pictures does not change it.  ``--slide`` names
the public slide CMU-1-Small-Region.svs for the picture of a slide that is opened alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "xcb")

import napari
import numpy as np
from napari.settings import get_settings
from PIL import Image
from qtpy.QtWidgets import QApplication, QWidget
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from napari_mosaik.annotate import stroke_polygon
from napari_mosaik.core.catalogue import CLASSES, VESSEL_OBJECTS
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io import Case
from napari_mosaik.widgets.canvas.camera import fit, look_at
from napari_mosaik.widgets.dock import MosaikDock
from napari_mosaik.workflow.corrections import CorrectionSession
from napari_mosaik.workflow.update import update

HERE = Path(__file__).parent
_PICTURES = (
    "main_window", "four_slides", "align", "space", "review", "dose", "twin", "loop",
    "find_and_correct", "fine_tuned", "review_small",
)  # fmt: skip


_EXACT_COLOURS = 24
_QUICK_S = 0.01
_QUICK_TURNS = 20
"""So many turns of the event loop of so little computing, one after the other, are rest."""


class Studio:
    """A napari window with the dock, driven by program."""

    def __init__(self, cohort: Path | None, out: Path, size: tuple[int, int]) -> None:
        self.out = out
        self.viewer = napari.Viewer(title="MOSAIK", show=True)
        self.window = self.viewer.window._qt_window
        self.dock = MosaikDock(self.viewer)
        self.dock.workspace.reader = "anna"
        self.viewer.window.add_dock_widget(self.dock, name="MOSAIK", area="right")
        self.window.setGeometry(0, 0, *size)
        if cohort is None:
            return
        self.dock.controller.open(cohort, prefer="B11")
        self.until(lambda: len(self.dock.board.slides) == 3 and bool(self.dock.board.specs))

    def until(self, ready: Callable[[], bool], timeout_s: float = 1800.0) -> None:
        """Process events until a condition holds."""
        end = time.monotonic() + timeout_s
        while not ready():
            problem = self.dock.workspace.problem
            if problem is not None:
                raise RuntimeError(problem.details)
            if time.monotonic() > end:
                raise TimeoutError("the window did not reach the expected state")
            QApplication.processEvents()
            time.sleep(0.01)

    def settle(self, seconds: float = 1.5) -> None:
        """Wait for slides and drawings to load, and on a busy machine until the window rests."""
        end, quick = time.monotonic() + seconds, 0

        def rests() -> bool:
            nonlocal quick, before
            now = time.thread_time()
            quick = quick + 1 if now - before < _QUICK_S else 0
            before = now
            return time.monotonic() > end and quick >= _QUICK_TURNS

        before = time.thread_time()
        self.until(rests)

    def frame(self, share: float = 0.94) -> None:
        """Fit the tissue of the reference section into the view, once the docks have their sizes.

        napari's *home* fits all layers: registered slides are rotated, and their glass is large.
        """
        grid = self.dock.workspace.tile_data.grid
        assert grid is not None
        self.settle()
        low, high = grid.centres_um.min(axis=0), grid.centres_um.max(axis=0)
        fit(self.viewer, low - grid.stride_um, high + grid.stride_um, share)

    def hide_overlays(self) -> None:
        """Show the slide alone."""
        for layer in self.dock.board.overlays().values():
            layer.visible = False

    def shoot(self, name: str) -> None:
        """Save the whole window in 256 colours, once nothing is being read or drawn."""
        self.settle()
        self.until(lambda: not self.dock.controller._tasks)
        self.settle(0.3)
        path = self.out / f"{name}.png"
        self.window.grab().save(str(path))
        with Image.open(path) as picture:
            few = in_few_colours(picture.convert("RGB"))
        few.save(path, optimize=True)
        print(f"{path} {self.window.width()} x {self.window.height()}")

    def _middle(self) -> tuple[float, float]:
        """The middle of the tile nearest to the middle of the section, µm."""
        grid = self.dock.workspace.tile_data.grid
        assert grid is not None
        middle = grid.centres_um.mean(axis=0)
        nearest = np.argsort(np.linalg.norm(grid.centres_um - middle, axis=1))
        row, column = grid.centres_um[nearest[0]]
        return float(row), float(column)

    # --- the pictures ---------------------------------------------------------------------------
    def main_window(self) -> None:
        """Slides, tissue classes and vessels, a page, and a tile."""
        board, dock = self.dock.board, self.dock
        board.show_steps(("classes",))
        self.until(lambda: board.layer("Tissue classes") is not None)
        dock.pages["Vessels"].set_open(True)
        grid = dock.workspace.tile_data.grid
        assert grid is not None
        dock.workspace.tile = dock.workspace.tile_data.tile_at(tuple(grid.centres_um.mean(axis=0)))
        inspector = dock.show_inspector()
        self.until(lambda: inspector.curves.canvas is not None)
        dock.page_area.verticalScrollBar().setValue(0)
        self.frame()
        self.shoot("main")

    def four_slides(self) -> None:
        """The three stains and the PET with linked cameras, vessels drawn over each."""
        board, tools = self.dock.board, self.dock.view_tools
        self.dock.tabs.setCurrentIndex(2)
        board.show_steps(("vessels",))
        self.until(lambda: board.layer("Vessels") is not None)
        self.settle()
        tools.quad_view.enter()
        self.until(lambda: tools.quad_view.is_whole)
        tools.map.set_shown(True)
        tools.keys.zoom_to(2.5)
        look_at(self.viewer, self._middle())
        self.shoot("four")
        tools.map.set_shown(False)
        tools.quad_view.leave()

    def space(self) -> None:
        """The terms of the SUV, the correlations over the cases, the Moran scatter plot."""
        dock = self.dock
        dock.tabs.setCurrentIndex(0)
        dock.board.show_steps(("uptake_clusters",))
        self.frame()
        for title, name, ready in (
            ("Uptake (PET)", "suv", lambda panel: "factor" in panel.figures.text()),
            ("Parameters and maps", "correlations", lambda panel: panel.correlations is not None),
            ("Clusters", "moran", lambda panel: panel.points is not None),
        ):
            page = dock.pages[title]
            page.set_open(True)
            panel = page.panel  # type: ignore[attr-defined]
            self.until(lambda panel=panel, ready=ready: ready(panel))
            self.settle()
            self._scroll_to(panel)
            self.shoot(name)

    def review(self) -> None:
        """Measured, predicted, difference and interval width; swipe; attention; a what-if."""
        dock = self.dock
        dock.show_review()
        dock.review.worst.selectRow(0)
        inspector = dock.show_inspector()
        self.until(lambda: inspector.curves.canvas is not None)
        self.settle(5.0)
        self.shoot("review")
        dock.side_by_side.compare("Swipe")
        dock.side_by_side.set_divider(0.45)
        inspector.kind.setCurrentIndex(1)
        inspector.kind.activated.emit(1)
        self.until(lambda: inspector.curves.canvas is not None)
        self.shoot("swipe")
        dock.side_by_side.compare("Side by side")
        dock.what_if_fold.set_open(True)
        self.settle()
        panel = dock.what_if
        self.until(lambda: panel.label.count() > 0)
        panel.label.setCurrentText("neoplastic")
        grid = dock.workspace.tile_data.grid
        assert grid is not None
        middle, half = grid.centres_um[dock.workspace.tile], 2.4 * grid.stride_um
        ring = middle + half * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
        panel.tool.drawn.emit(ring)
        panel.compute()
        self.until(lambda: panel.found is not None)
        area = dock.tabs.currentWidget()
        area.ensureWidgetVisible(panel, 0, panel.height())  # type: ignore[union-attr]
        self.shoot("what_if")
        panel.maps.leave()
        panel.discard.click()
        inspector.kind.setCurrentIndex(0)
        inspector.kind.activated.emit(0)

    def review_small(self) -> None:
        """The same maps in a small window."""
        self.window.resize(1366, 768)
        self.dock.show_review()
        self.dock.review.worst.selectRow(0)
        inspector = self.dock.show_inspector()
        self.until(lambda: inspector.curves.canvas is not None)
        self.settle(3.0)
        self.shoot("review_small")

    def loop(self) -> None:
        """Draw, retrain, update, see what changed."""
        dock = self.dock
        dock.show_annotate()
        drawing = dock.annotate.drawing
        self.hide_overlays()
        for name in ("neoplastic", "non-neoplastic", "background"):
            drawing.choose_class(name)
            for path, radius_um in _deepest(dock.workspace.case, name):
                drawing.take("brush")
                drawing.commit(stroke_polygon(path, radius_um))
        self.frame()
        self.shoot("annotate")
        dock.annotate.annotation.retrain()
        self.until(lambda: dock.workspace.job is None)
        self.until(dock.annotate.update_button.isEnabled)
        dock.annotate.annotation.update()
        self.until(lambda: dock.workspace.job is None)
        self.until(lambda: "mean absolute error" in dock.annotate.change.text())
        self.until(
            lambda: all(s.word in ("done", "blocked") for s in dock.workspace.states.values())
        )
        dock.board.set_shown("Tissue classes", True)
        self._scroll_to(dock.annotate.undo)
        self.shoot("loop")

    def find_and_correct(self) -> None:
        """The queue, a converted region with the live prediction, what a model changed, two models.

        Nobody else's case is needed: the present model is the one that the annotations replace.
        """
        dock = self.dock
        before = dock.workspace.recipe["classes"].model  # type: ignore[attr-defined]
        dock.tabs.setCurrentIndex(dock.review_tab)
        dock.queue_fold.set_open(True)
        dock.queue.start()
        self.until(lambda: dock.queue.session is not None)
        dock.queue.decide("accept")
        dock.queue.decide("reject")
        self.until(lambda: not dock.controller._tasks)
        self.shoot("find")
        dock.queue.edit()
        self.until(lambda: dock.annotate.drawing.is_active)
        drawing, document = dock.annotate.drawing, dock.annotate.annotation.document
        assert document is not None
        n = len(document)
        drawing.take("convert")
        drawing._convert(tuple(float(x) for x in self.viewer.scene.camera.center[-2:]))
        self.until(lambda: len(document) > n)
        dock.annotate.live_box.setChecked(True)
        self.viewer.scene.camera.zoom /= 2.5
        self.until(lambda: " in all, " in dock.annotate.live_line.text())
        self.until(lambda: not dock.annotate.live._busy)
        self.shoot("correct_region")
        dock.annotate.live_box.setChecked(False)
        dock.queue.stop()
        drawing.release()
        dock.annotate.annotation.retrain()
        self.until(lambda: dock.workspace.job is None)
        self.until(dock.annotate.update_button.isEnabled)
        dock.annotate.annotation.update()
        self.until(lambda: dock.workspace.job is None)
        self.until(lambda: "Recomputed" in dock.annotate.change.text())
        self.until(lambda: "Changed tissue classes" in dock.board.specs)
        dock.board.set_shown("Changed tissue classes", True)
        self.frame()
        self._scroll_to(dock.annotate.change)
        self.shoot("changed")
        dock.tabs.setCurrentIndex(dock.models_tab)
        page = dock.models
        after = dock.workspace.recipe["classes"].model  # type: ignore[attr-defined]
        self.until(lambda: {before, after} <= {one.hash for one in page._models})
        for place, one in enumerate(page._models):
            if one.hash in (before, after):
                page._select(place)
        page.compare.click()
        self.until(lambda: page.maps.is_on)
        self.shoot("compare")
        page.maps.leave()

    def fine_tuned(self) -> None:
        """A training case is corrected; the uptake network learns on, and both are compared."""
        dock, page = self.dock, self.dock.models
        other = Case(next(path for path in dock.workspace.cohort if path.name == "A2"))
        places = other.store.read(VESSEL_OBJECTS).points_um()[::9]
        with CorrectionSession(other, "vessels", "anna") as session:
            for chosen in filter(None, map(session.select, places)):
                session.delete(chosen)
        run_to_end(update(other))
        dock.tabs.setCurrentIndex(dock.models_tab)
        before = dock.workspace.recipe["predict"].model  # type: ignore[attr-defined]
        self.until(lambda: before in {one.hash for one in page._models})
        page._select(next(n for n, one in enumerate(page._models) if one.hash == before))
        page.fold.set_open(True)
        page.learn.click()
        self.until(lambda: dock.workspace.job is None)
        self.until(lambda: any(one.training.get("parent") == before for one in page._models))
        new = next(n for n, one in enumerate(page._models) if one.training.get("parent") == before)
        page._select(new)
        page.fold.set_open(False)
        page.compare.click()
        self.until(lambda: page.maps.is_on)
        self.shoot("fine_tuned")
        page.maps.leave()

    def twin(self) -> None:
        """The scans of days 3, 5 and 7, each predicted and then taken in."""
        dock = self.dock
        dock.tabs.setCurrentIndex(0)
        page = dock.twin
        self.hide_overlays()
        self.frame()

        def idle() -> bool:
            return dock.workspace.job is None and page.picture is not None

        page.set_open(True)
        self.until(idle)
        for day in (3, 5, 7):
            page.predict.click()
            self.until(idle)
            if day == 5:
                self.settle()
                self._scroll_to(page.limits)
                self.until(lambda: page.curve.figure is not None)
                self.shoot("twin_predicted")
            page.take.click()
            self.until(idle)
        self.settle()
        self._scroll_to(page.scans)
        self.until(lambda: page.strip.figure is not None)
        self.shoot("twin_learnt")
        self._virtual_cohort()

    def _virtual_cohort(self) -> None:
        """One or three courses in the same simulated patients."""
        dock = self.dock
        page = dock.simulated
        page.set_open(True)
        self.until(lambda: page.choice is not None)
        page.presets.menu().actions()[1].trigger()
        arms = ("177Lu one course", "177Lu three courses")
        self.until(lambda: set(arms) <= set(page.arms) and dock.workspace.job is None)
        self.until(lambda: page.choice is not None)
        for name, box in page.arms.items():
            box.setChecked(name in arms)
        page.run.click()
        self.until(lambda: dock.workspace.job is None and page.results.isVisible())
        self.settle()
        self._scroll_to(page.mark)
        self.shoot("virtual_cohort")

    def dose(self) -> None:
        """The published regimen as a plan, its results, and two plans side by side."""
        dock = self.dock
        dock.tabs.setCurrentIndex(0)
        page = dock.pages["Dose what-if"]
        page.set_open(True)
        panel = page.panel
        self.until(lambda: not panel._busy)
        panel.new.menu().actions()[1].trigger()
        self._compute_plan(page)
        self.settle()
        self._scroll_to(panel.limits)
        self.shoot("dose_plan")
        panel.copy.click()
        panel.editor.name.setText("with Tb-161")
        panel.editor.rows[0].kind.setCurrentText("Tb-161")
        panel.editor.fields["tumour_ml"].field.setText("40")
        self._compute_plan(page)
        view = panel.results
        self.settle()
        view.beside.setCurrentIndex(1)
        view.side.click()
        self.settle()
        self._scroll_to(view.state)
        self.shoot("dose_compare")
        view.maps.leave()

    def _compute_plan(self, page: Any) -> None:
        """Run the plan that is shown, and wait for its results."""
        page.run_button.click()
        self.until(lambda: self.dock.workspace.job is not None)
        self.until(lambda: self.dock.workspace.job is None)
        self.until(lambda: page.panel.results.plan_dose is not None)

    def _scroll_to(self, widget: QWidget) -> None:
        """Let the tab begin at a widget."""
        self.settle(0.5)
        area: Any = self.dock.tabs.currentWidget()
        area.verticalScrollBar().setValue(widget.mapTo(area.widget(), widget.rect().topLeft()).y())

    def align(self) -> None:
        """A section aligned manually with landmarks, and the PET with its voxels."""
        self.dock.tabs.setCurrentIndex(0)
        page = self.dock.pages["Registration"]
        page.set_open(True)
        panel = page.panel
        for frame, look in (("he", "checkerboard"), ("pet", "blend")):
            panel.target.setCurrentIndex(panel.target.findData(frame))
            panel.start()
            self.until(lambda: panel.alignment is not None)
            panel.look.setCurrentIndex(panel.look.findData(look))
            self.frame(0.94 if frame == "he" else 0.7)
            if frame == "he":
                self._mark(panel)
            self.until(lambda: panel.figures.text()[-1:] not in ("", "…"))
            self.shoot(f"align_{frame}")
            panel.leave()

    def _mark(self, panel: Any) -> None:
        """Six landmarks on both sections, two of them swapped, and a shifted section."""
        alignment = panel.alignment
        extent = np.array(panel.inputs.assessment.fixed.lattice.extent_um)
        rng = np.random.default_rng(2)
        for share in ((0.3, 0.35), (0.3, 0.6), (0.45, 0.75), (0.7, 0.6), (0.65, 0.35), (0.5, 0.25)):
            place = extent * share
            alignment.add_landmark(place)
            alignment.add_landmark(place + rng.normal(0, 15, 2))
        alignment.swap_landmarks(1, 3)
        alignment.shift((60.0, -90.0))
        panel._again()

    def close(self) -> None:
        """Close the window."""
        self.dock.close()
        self.viewer.close()


def slide_alone(slide: Path, out: Path, size: tuple[int, int]) -> None:
    """A slide without a case: overview map, magnification, ruler."""
    studio = Studio(None, out, size)
    studio.viewer.open(slide, plugin="napari-mosaik")
    studio.settle()
    tools = studio.dock.view_tools
    studio.dock.tabs.setCurrentIndex(2)
    tools.map.set_shown(True)
    studio.viewer.reset_view()
    tools.keys.zoom_to(10.0)
    for kind, corners in _MEASURED.items():
        tools.ruler.take(kind)
        for row, column in corners:
            tools.ruler.add_point((row, column))
        tools.ruler.finish()
    tools.ruler.release()
    studio.shoot("slide")
    studio.close()


def in_few_colours(picture: Image.Image) -> Image.Image:
    """A picture in 256 colours: the most frequent ones, those of the window, stay as they are."""
    counts = picture.getcolors(picture.width * picture.height) or []
    kept = [colour for _, colour in sorted(counts, reverse=True)[:_EXACT_COLOURS]]
    others = picture.quantize(256 - len(kept), Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = np.array([level for colour in kept for level in colour] + others).reshape(-1, 3)
    codes = np.asarray(picture).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, places = np.unique(codes, return_inverse=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    nearest = cKDTree(palette).query(colours)[1].astype(np.uint8)  # Pillow's search is coarser
    few = Image.fromarray(nearest[places].reshape(picture.height, picture.width), "P")
    few.putpalette(palette.astype(np.uint8).tobytes())
    return few


_MEASURED = {
    "length": ((640.0, 520.0), (730.0, 740.0)),
    "area": ((430.0, 480.0), (430.0, 620.0), (520.0, 630.0), (510.0, 470.0)),
}
"""Lengths and areas of the picture, (row, column) in µm."""


def _deepest(case: Case, name: str, n: int = 4) -> list[tuple[list[tuple[float, float]], float]]:
    """Short brush strokes in the middle of the largest areas of a class: a path and a radius."""
    classes = case.store.read(CLASSES)
    code = next(code for code, known in classes.names.items() if known == name)
    inside = np.pad(classes.array() == code, 1)
    strokes = []
    for _ in range(n):
        depth = distance_transform_edt(inside)
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        deep = depth[row, column]
        where = classes.lattice.to_um([[row - 1, column - 1]])[0]
        radius_um = 0.4 * deep * classes.lattice.spacing_um[0]
        end = (float(where[0]) + radius_um, float(where[1]) + 0.5 * radius_um)
        strokes.append(([(float(where[0]), float(where[1])), end], radius_um))
        rows, columns = np.ogrid[: depth.shape[0], : depth.shape[1]]
        inside &= (rows - row) ** 2 + (columns - column) ** 2 > (1.5 * deep) ** 2
    return strokes


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, help="cohort on which the demo has been run")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    parser.add_argument("--slide", type=Path, help="CMU-1-Small-Region.svs")
    parser.add_argument("--only", choices=_PICTURES, nargs="+", default=_PICTURES)
    parser.add_argument("--size", default="1600x1000", help="width x height of the window")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    options = parser.parse_args()
    get_settings().appearance.theme = options.theme
    width, height = (int(number) for number in options.size.split("x"))
    options.out.mkdir(parents=True, exist_ok=True)
    if options.slide is not None:  # first: napari opens files in the first window of a process only
        slide_alone(options.slide, options.out, (width, height))
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(options.cohort, Path(scratch) / "cohort")
        studio = Studio(copy, options.out, (width, height))
        for picture in options.only:
            getattr(studio, picture)()
        studio.close()


if __name__ == "__main__":
    main()
