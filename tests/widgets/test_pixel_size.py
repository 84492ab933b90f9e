"""The pixel size of a slide in the forms of the Case page."""

import numpy as np
import pytest
from PIL import Image

from napari_mosaik.core import InputError
from napari_mosaik.io import Case, CaseFile, SlideEntry, create_case
from napari_mosaik.io import profiles as scanners
from napari_mosaik.workflow.case_status import case_status

pytestmark = pytest.mark.gui


@pytest.fixture(autouse=True)
def own_config(tmp_path, monkeypatch):
    monkeypatch.setenv(scanners.CONFIG_VARIABLE, str(tmp_path / "config"))


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "he.png")
    return tmp_path / "he.png"


def test_a_size_is_typed_or_taken_from_a_profile(qtbot):
    from napari_mosaik.widgets.pages.case_forms import PixelSizeField

    field = PixelSizeField()
    qtbot.addWidget(field)
    assert field.value() is None
    assert field.profile.isHidden()
    for text, size in (("0,25", (0.25, 0.25)), ("0.25 x 0.26", (0.25, 0.26))):
        field.edit.setText(text)
        assert field.value() == (size, "user", "")
    for text in ("a", "0", "1x2x3", "-1", "nan"):
        field.edit.setText(text)
        with pytest.raises(InputError, match="pixel size"):
            field.value()
    scanners.add_profile("lab, 20x", (0.5, 0.502))
    field.show_profiles()
    assert not field.profile.isHidden()
    field.profile.setCurrentText("lab, 20x")
    assert field.value() == ((0.5, 0.502), "profile", "lab, 20x")
    assert field.edit.text() == "0.5 x 0.502"
    assert not field.edit.isEnabled()


def test_a_new_case_keeps_the_source_of_the_pixel_size(qtbot, tmp_path, picture):
    from napari_mosaik.widgets.pages.case_forms import NewCaseForm

    scanners.add_profile("lab", (0.5, 0.5))
    form = NewCaseForm(pytest.fail)
    qtbot.addWidget(form)
    form.folder.edit.setText(str(tmp_path / "case"))
    form.slides["he"].edit.setText(str(picture))
    form.pixels["he"].profile.setCurrentText("lab")
    form.slides["cd34"].edit.setText(str(picture))
    form.pixels["cd34"].edit.setText("0.3")
    _, file = form.value()
    he, cd34 = file.slides["he"], file.slides["cd34"]
    assert (he.spacing_um, he.spacing_source, he.profile) == ((0.5, 0.5), "profile", "lab")
    assert (cd34.spacing_um, cd34.spacing_source) == ((0.3, 0.3), "user")


def test_the_page_reports_an_unknown_size_and_the_source_of_a_known_one(tmp_path, picture):
    from napari_mosaik.widgets.pages.case_forms import unknown_size
    from napari_mosaik.widgets.pages.case_page import _content_lines

    slides = {"he": SlideEntry(path=str(picture))}
    case = create_case(tmp_path / "case", CaseFile(name="A", slides=slides))
    assert unknown_size(case, "he") == "pixel size unknown"
    assert unknown_size(case, "cd34") == ""
    doubts = case_status(case).doubts
    assert doubts == {"he": "H&E slide: pixel size unknown"}
    assert _content_lines(case, doubts)[0] == "⚠ H&E slide: pixel size unknown"
    case.update(slides={"he": slides["he"].spaced((0.5, 0.5), "profile", "lab")})
    assert unknown_size(case, "he") == ""
    line = _content_lines(Case(case.root), {})[0]
    assert line == "✓ H&E: he.png · 0.5 µm/px, from the scanner profile 'lab'"
    case.update(slides={"he": slides["he"].spaced((0.25, 0.25), "ruler")})
    assert _content_lines(case, {})[0].endswith("0.25 µm/px, measured with the ruler")
