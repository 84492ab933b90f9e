"""The window finds moved slides again, lists a cohort as people sort, and marks doubts."""

import shutil

import pytest

from napari_mosaik.core import InjectionRecord
from napari_mosaik.io import Case

from .test_missing_levels import case, page

__all__ = ["case", "page"]

pytestmark = pytest.mark.gui


def opened(qtbot, page, root):
    page.set_open(True)
    page.controller.open(root)
    space, turns = page.controller.workspace, page.controller._turns
    # the states are known some turns of the event loop before the case is shown
    qtbot.waitUntil(lambda: space.case is not None and not turns.is_busy)


def test_a_moved_slide_is_found_again_with_one_click(qtbot, page, case, tmp_path, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    moved = tmp_path / "elsewhere.tif"
    shutil.move(tmp_path / "he.tif", moved)
    opened(qtbot, page, case.root)
    assert list(page.lost.buttons) == ["he"]
    assert "H&E" not in page.contents.text()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(moved), ""))
    page.lost.buttons["he"].click()
    qtbot.waitUntil(lambda: not page.lost.buttons)
    assert Case(case.root).file.slides["he"].path == str(moved)
    assert "✓ H&E: elsewhere.tif" in page.contents.text()


def test_another_slide_is_refused_in_the_banner(qtbot, page, case, tmp_path, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    shutil.move(tmp_path / "he.tif", tmp_path / "other.tif")
    content = bytearray((tmp_path / "other.tif").read_bytes())
    content[3000:3500] = bytes(500)
    (tmp_path / "other.tif").write_bytes(content)
    opened(qtbot, page, case.root)
    monkeypatch.setattr(
        QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "other.tif"), "")
    )
    page.lost.buttons["he"].click()
    workspace = page.controller.workspace
    qtbot.waitUntil(lambda: workspace.problem is not None)
    assert "is another H&E slide" in str(workspace.problem)
    assert list(page.lost.buttons) == ["he"]


def test_an_empty_record_is_no_plain_check_mark(qtbot, page, case):
    case.update(injection=InjectionRecord())
    opened(qtbot, page, case.root)
    assert "⚠ the injection record is empty" in page.contents.text()


def test_the_cohort_is_listed_as_people_sort_whatever_the_names(qtbot, page, case, tmp_path):
    for folder, name in (("B11", "B11"), ("B2", "B2"), ("copy", "B11")):
        copy = tmp_path / "cohort" / folder
        shutil.copytree(case.root, copy)
        text = (copy / "case.toml").read_text("utf-8")
        (copy / "case.toml").write_text(text.replace('"A"', f'"{name}"'), "utf-8")
    opened(qtbot, page, tmp_path / "cohort")
    lines = [page.cohort.item(row).text().split(" · ") for row in range(page.cohort.count())]
    assert [line[0] for line in lines] == ["B2", "B11 (copy)", "B11"]
    assert lines[0][2] == "not run"
    assert lines[0][3].startswith("next: ")


def test_settings_that_another_program_changed_meanwhile_are_kept(qtbot, page, case):
    from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe

    opened(qtbot, page, case.root)
    controller = page.controller
    other = changed(read_recipe(case.root), "vessels", min_area_um2=41.0)
    write_recipe(case.root, other)
    own = controller.workspace.recipe["nuclei"].model_copy(update={"min_area_um2": 21.0})
    controller.set_params("nuclei", own)
    recipe = controller._recipe_to_run(case)
    assert recipe["vessels"].min_area_um2 == 41.0
    assert recipe["nuclei"].min_area_um2 == 21.0
    assert controller.workspace.recipe == recipe
    (case.root / "recipe.toml").write_text("[vessels\n", "utf-8")
    assert controller.run_missing() is None
    assert "recipe.toml, line 1" in str(controller.workspace.problem)
    assert (case.root / "recipe.toml").read_text("utf-8") == "[vessels\n"
