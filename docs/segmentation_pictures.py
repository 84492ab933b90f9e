"""Pictures of segmentation in the window: live preview, three masks, visual QA, artefacts.

Run under a display or xvfb, with a cohort on which the demo has been run::

    xvfb-run -a -s "-screen 0 1920x1080x24" python docs/segmentation_pictures.py demo/cohort

The cohort is copied first.  The slide of the live preview is scikit-image's picture
``data.immunohistochemistry()`` (colon, FHL2 in DAB), written as the CD34 slide of a small case.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from screenshots import HERE, Studio
from skimage.data import immunohistochemistry

from napari_mosaik.core.catalogue import VESSEL_OBJECTS
from napari_mosaik.io import CaseFile, SlideEntry, create_case
from napari_mosaik.widgets.canvas.camera import fit, look_at
from napari_mosaik.widgets.canvas.live_layers import PREFIX
from napari_mosaik.workflow.recipe import read_recipe, write_recipe
from napari_mosaik.workflow.run import run_until

_PICTURES = ("masks", "correct", "visual_qa", "artefacts")


class SegmentationStudio(Studio):
    """The pictures of a window with a case."""

    def tuning(self, case: Path) -> None:
        """Vessels of the visible part while a threshold is moved."""
        dock = self.dock
        dock.controller.open(case)
        self.until(lambda: len(dock.board.slides) == 1)
        page = dock.pages["Vessels"]
        page.set_open(True)
        fit(self.viewer, (0.0, 0.0), (256.0, 256.0))
        page.preview_box.setChecked(True)
        self.until(lambda: f"{PREFIX}vessels" in self.viewer.layers)
        form = page.sections["vessels"].form
        form.widget("threshold").value = "fixed"
        form.widget("max_lumen_um2").value = 500.0
        for dab_od in (0.6, 0.8, 1.0):
            form.widget("dab_od").value = dab_od
            self.settle(0.5)
        self.until(lambda: page.preview_line.text().startswith("Here: "))
        dock.page_area.ensureWidgetVisible(page.head, 0, 0)
        self.shoot("tuning")
        page.preview_box.setChecked(False)

    def masks(self) -> None:
        """Tissue classes, nuclei and vessels over the H&E slide, with their legends."""
        dock, board = self.dock, self.dock.board
        dock.tabs.setCurrentIndex(1)
        board.show_steps(("classes", "correct_nuclei", "correct_vessels"))
        for name in ("Tissue classes", "Nuclei", "Vessels"):
            self.until(lambda name=name: board.layer(name) is not None)
            board.set_shown(name, True)
        board.show_slide("he")
        board.layer("Tissue classes").opacity = 0.5
        for layer in board.overlays().values():
            layer.visible = layer.name in ("Tissue classes", "Nuclei", "Vessels")
        look_at(self.viewer, self._middle(), 1.0)
        self.settle(8.0)  # until the slide is sharp
        self.shoot("masks")

    def correct(self) -> None:
        """A selected vessel of middle size with its measurements and the tools."""
        dock, panel = self.dock, self.dock.correct
        vessels = dock.workspace.case.store.read(VESSEL_OBJECTS)
        middle = np.array(self._middle())
        places = vessels.points_um()
        near = np.argsort(np.linalg.norm(places - middle, axis=1))[:60]
        areas = np.asarray(vessels["area_um2"])[near]
        chosen = near[np.argsort(areas)[len(near) * 3 // 4]]
        place = tuple(float(x) for x in places[chosen])
        dock.tabs.setCurrentIndex(dock.review_tab)
        dock.correct_fold.set_open(True)
        for layer in dock.board.overlays().values():
            layer.visible = layer.name == "Vessels"
        look_at(self.viewer, place, 1.6)
        panel.start()
        self.until(lambda: panel.session is not None and not panel._busy)
        panel._clicked(place)
        self.until(lambda: panel.selected is not None)
        dock.tabs.currentWidget().ensureWidgetVisible(panel, 0, 0)
        self.shoot("correct")
        panel.stop()

    def visual_qa(self) -> None:
        """The end of a visual QA: error rates with their intervals and the overall rating."""
        dock, panel = self.dock, self.dock.visual_qa
        dock.tabs.setCurrentIndex(dock.review_tab)
        panel.parentWidget().set_open(True)
        panel.reader.setText("anna")
        panel.start()
        self.until(lambda: panel.session is not None)
        answers = ["correct"] * 28 + ["wrong", "correct", "unsure"]
        number = 0
        while panel._current is not None and panel._current[0] == "object":
            panel._rate(answers[number % len(answers)])
            number += 1
        while panel._current is not None:
            panel.missed.setValue(number % 3 == 0)
            panel.next.click()
            number += 1
        panel.overall_rating.setCurrentIndex(0)
        panel.comment.setText("capillaries complete")
        panel.save.click()
        self.shoot("visual_qa")
        panel.stop()

    def artefacts(self) -> None:
        """A manually marked fold, and the tissue mask without it."""
        dock, panel = self.dock, self.dock.correct
        grid = dock.workspace.tile_data.grid
        assert grid is not None
        panel.target.setCurrentText("Artefacts on CD34")
        panel.kind.setCurrentText("fold")
        panel.toggle("flag")
        self.until(lambda: panel.tool.mode == "flag")
        row, column = grid.centres_um.mean(axis=0)
        along = np.linspace(-1, 1, 25)
        upper = np.stack([row + 300 * along**2 - 60, column + 900 * along], axis=1)
        lower = np.stack([row + 300 * along[::-1] ** 2 + 90, column + 900 * along[::-1]], axis=1)
        panel.tool.drawn.emit(np.concatenate([upper, lower]))
        self.until(lambda: panel.list.count() == 1 and not panel._busy)
        self.until(lambda: dock.workspace.states["tissue_cd34"].word == "stale")
        dock.controller.run_steps(["tissue_cd34"])
        self.until(lambda: dock.workspace.job is None)
        self.until(lambda: dock.board.layer("Artefacts on CD34") is not None)
        for layer in dock.board.overlays().values():
            layer.visible = layer.name in ("Artefacts on CD34", "Tissue on CD34")
        dock.board.show_slide("cd34")
        self.frame()
        self.shoot("artefacts")
        panel.stop()


def dab_case(root: Path) -> Path:
    """A case whose CD34 slide is scikit-image's picture with DAB staining, 0.5 µm per pixel."""
    root.mkdir(parents=True)
    tifffile.imwrite(root / "cd34.tif", immunohistochemistry(), tile=(128, 128), photometric="rgb")
    entry = SlideEntry(path="cd34.tif", spacing_um=(0.5, 0.5), spacing_source="user")
    case = create_case(root, CaseFile(name="IHC", patient="colon", slides={"cd34": entry}))
    recipe = dict(read_recipe(case.root))
    recipe["tissue_cd34"] = recipe["tissue_cd34"].model_copy(update={"min_object_mm2": 0.005})
    recipe["vessels"] = recipe["vessels"].model_copy(update={"spacing_um": 0.5})
    with case.writing():
        write_recipe(case.root, recipe)
    for _ in run_until(case, recipe, "tissue_cd34"):
        pass
    return case.root


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, help="cohort on which the demo has been run")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    parser.add_argument("--only", choices=("tuning", *_PICTURES), nargs="+")
    parser.add_argument("--size", default="1366x768", help="width x height of the window")
    given = parser.parse_args()
    width, height = (int(number) for number in given.size.split("x"))
    given.out.mkdir(parents=True, exist_ok=True)
    wanted = given.only or ("tuning", *_PICTURES)
    with tempfile.TemporaryDirectory() as scratch:
        if "tuning" in wanted:
            studio = SegmentationStudio(None, given.out, (width, height))
            studio.tuning(dab_case(Path(scratch) / "IHC"))
            studio.close()
        if set(wanted) - {"tuning"}:
            copy = shutil.copytree(given.cohort, Path(scratch) / "cohort")
            studio = SegmentationStudio(copy, given.out, (width, height))
            for picture in _PICTURES:
                if picture in wanted:
                    getattr(studio, picture)()
            studio.close()


if __name__ == "__main__":
    main()
