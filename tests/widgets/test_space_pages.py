"""The pages of the uptake, the parameters and the clusters: what they show follows every edit."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mosaik.io import Case

from .test_twin_page import drawn

pytestmark = pytest.mark.gui


def test_every_term_of_the_suv_follows_each_edit_and_is_saved(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort / "B11")
    page = dock.pages["Uptake (PET)"]
    page.set_open(True)
    panel = page.panel
    qtbot.waitUntil(lambda: "factor" in panel.figures.text(), timeout=20_000)
    sources = {name: label.text() for name, label in panel._sources.items()}
    assert sources["weight_kg"] == "entered"
    assert sources["scanned"] == sources["half_life_h"] == "file"
    assert panel.fields["scanned"].placeholderText().startswith("2024-05-27")
    assert not panel.save.isEnabled()
    before = panel.formula.text()
    assert before.startswith("SUV[cm²/mL] = C[Bq/mL] × ")
    assert "half" not in panel.problem.text()
    assert "• The image refers to the start of the scan." in panel.notes.text()

    panel.fields["dose_mbq"].setText("72,4")  # a decimal comma is understood
    assert panel.formula.text() != before
    assert "71.7 MBq" in panel.formula.text().replace("\xa0", " ")
    panel.fields["dose_mbq"].setText("")
    assert panel._sources["dose_mbq"].text() == "file"  # what the file says takes its place
    assert panel.formula.text() != ""
    panel.fields["weight_kg"].setText("")
    assert "weight is missing" in panel.problem.text()
    assert panel.formula.text() == panel.figures.text() == ""
    panel.fields["weight_kg"].setText("70")
    panel.fields["injected"].setText("")
    assert panel._sources["injected"].text() == "file"
    panel.fields["injected"].setText("soon")
    assert "Time of injection: 'soon' is not valid" in panel.problem.text()
    qtbot.mouseClick(panel.discard, Qt.MouseButton.LeftButton)
    assert panel.formula.text() == before

    panel.fields["dose_mbq"].setText("72.4")
    qtbot.mouseClick(panel.save, Qt.MouseButton.LeftButton)
    assert Case(case.root).file.injection.dose_mbq == 72.4
    qtbot.waitUntil(lambda: dock.workspace.states["suv"].word == "stale", timeout=20_000)
    assert "frame_duration_s" not in Case(case.root).file.injection.model_fields_set


def test_the_resolution_of_the_scanner_is_asked_for_with_the_terms(qtbot, dock, opened, own_cohort):
    case = opened(dock, own_cohort / "B11")
    case.update(pet=case.file.pet.model_copy(update={"fwhm_mm": None}))
    page = dock.pages["Uptake (PET)"]
    page.set_open(True)
    panel = page.panel
    panel.read()
    qtbot.waitUntil(lambda: "factor" in panel.figures.text(), timeout=20_000)
    assert panel.resolution.text() == ""
    assert panel.resolution.placeholderText() == "1.5"
    assert panel.resolution_source.text() == "assumed"
    panel.resolution.setText("15")  # in place of 1.5
    panel.resolution.editingFinished.emit()
    assert "resolution of the PET 15 mm: microPET has about 1 to 2 mm" in panel.left.text()
    panel.resolution.setText("150")
    panel.resolution.editingFinished.emit()
    assert "no PET scanner has it" in panel.left.text()
    panel.resolution.setText("1,4")
    panel.resolution.editingFinished.emit()
    assert "resolution" not in panel.left.text()
    assert panel.resolution_source.text() == "entered"
    assert panel.save.isEnabled()
    qtbot.mouseClick(panel.save, Qt.MouseButton.LeftButton)
    assert dock.workspace.problem is None
    assert Case(case.root).file.pet.fwhm_mm == 1.4
    assert Case(case.root).file.injection == case.file.injection
    qtbot.waitUntil(lambda: not panel.save.isEnabled(), timeout=20_000)


def test_an_image_among_several_is_chosen_on_the_page(qtbot, dock, opened, own_cohort):
    from tests.io.test_pet_other import nifti

    root = own_cohort / "B11"
    nifti(root / "scan.nii")
    case = Case(root)
    case.update(pet=case.file.pet.model_copy(update={"paths": ("scan.nii",)}))
    opened(dock, root)
    page = dock.pages["Uptake (PET)"]
    page.set_open(True)
    panel = page.panel
    qtbot.waitUntil(lambda: "2 slices" in panel.choice.heading.text(), timeout=20_000)
    panel.choice.slice_index.setText("1")
    panel.choice.unit.setCurrentIndex(panel.choice.unit.findData("g/mL"))
    qtbot.mouseClick(panel.choice.use, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "not scaled again" in panel.formula.text(), timeout=20_000)
    assert "maximum 23.0" in panel.figures.text()
    assert Case(root).file.pet.unit == "g/mL"


def test_a_series_among_several_is_chosen_on_the_page(qtbot, dock, opened, own_cohort):
    from tests.field.test_pet_files import series

    root = own_cohort / "B11"
    for number, title in enumerate(("PET AC", "PET NAC")):
        series(root / "pet" / title, SeriesDescription=title, RescaleIntercept=100 * number)
    case = Case(root)
    case.update(pet=case.file.pet.model_copy(update={"paths": ("pet",)}))
    opened(dock, root)
    page = dock.pages["Uptake (PET)"]
    page.set_open(True)
    choice = page.panel.choice
    qtbot.waitUntil(lambda: "2 = 'PET NAC'" in choice.heading.text(), timeout=20_000)
    choice.series.setText("2")
    choice.slice_index.setText("0")
    qtbot.mouseClick(choice.use, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(Case(root).file.pet.paths) == 2, timeout=20_000)
    assert Case(root).pet().raster.values[0, 0] == 100


def test_parameters_and_clusters_are_one_selection_with_the_tiles(qtbot, dock, opened, own_cohort):
    opened(dock, own_cohort)
    page = dock.pages["Parameters and maps"]
    page.set_open(True)
    panel = page.panel
    qtbot.waitUntil(lambda: panel.correlations is not None, timeout=30_000)
    assert list(panel.correlations.tables) == ["B11", "B8"]
    assert panel.correlations.matrix("pearson").shape == (25, 2)
    assert "Proxies selected on these 2 cases" in panel.message.text()
    assert "bootstrap samples" in panel.message.text()
    assert "_" not in panel.message.text()
    assert panel.table.rowCount() == 25
    panel.parameter_descriptions.itemClicked.emit(panel.parameter_descriptions.item(2, 0))
    assert "Formula: 2·sqrt(area/π)" in panel.meaning.text()
    panel.kind.setCurrentIndex(2)
    drawn(qtbot, dock, panel.plot)
    panel.table.itemClicked.emit(panel.table.item(3, 0))  # one parameter against the uptake
    assert panel.kind.currentIndex() == 3
    tile_data = dock.workspace.tile_data
    name = panel.parameter.currentData()
    x, y = np.asarray(tile_data.parameters[name], float), tile_data.measured()
    tile = int(np.flatnonzero(np.isfinite(x) & np.isfinite(y))[-1])
    panel._clicked(float(x[tile]), float(y[tile]))
    assert dock.workspace.tile == tile
    qtbot.mouseClick(panel.open, Qt.MouseButton.LeftButton)
    assert panel.figure_window.window.isVisible()
    panel.figure_window.window.close()

    page = dock.pages["Clusters"]
    page.set_open(True)
    panel = page.panel
    qtbot.waitUntil(lambda: panel.points is not None, timeout=20_000)
    assert "p-values by napari-mosaik" in panel.message.text()
    assert "at a border or gap" in panel.message.text()
    points = panel.points
    tile = int(np.nanargmax(points.z))
    panel._clicked(float(points.z[tile]), float(points.lag[tile]))
    assert dock.workspace.tile == tile
    panel.parameter.setCurrentIndex(panel.parameter.findData("caix_h_score"))
    qtbot.waitUntil(lambda: panel.points.name == "caix_h_score", timeout=20_000)
