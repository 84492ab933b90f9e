"""Case files: what they hold, what they lack, what is wrong with them."""

import pytest

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import ANNOTATIONS, INJECTION, LANDMARKS, PET, SLIDES
from napari_mosaik.core.pet_records import InjectionRecord
from napari_mosaik.io import Case, CaseFile, PetEntry, SlideEntry, create_case, find_cases

FILE = CaseFile(
    name="B11",
    patient="patient 2",
    slides={"he": SlideEntry(path="he.tif", spacing_um=(0.5, 0.5), spacing_source="user")},
    pet=PetEntry(paths=("pet.dcm",)),
    injection=InjectionRecord(dose_mbq=37.0, injected="2024-03-04T10:30:00", weight_kg=80),
)


def test_a_case_comes_back_as_it_was_made(tmp_path):
    create_case(tmp_path / "B11", FILE)
    assert Case(tmp_path / "B11").file == FILE


def test_a_case_is_never_overwritten(tmp_path):
    create_case(tmp_path / "B11", FILE)
    with pytest.raises(InputError, match="already contains a case"):
        create_case(tmp_path / "B11", FILE)


def test_what_is_missing_is_said(tmp_path):
    case = create_case(tmp_path / "B11", FILE)
    assert case.missing_reason(SLIDES["he"]) == f"the H&E slide is not at {case.path('he.tif')}"
    assert case.missing_reason(SLIDES["cd34"]) == "no CD34 slide given"
    assert case.missing_reason(PET) == f"the PET file is not at {case.path('pet.dcm')}"
    assert case.missing_reason(INJECTION) == ""
    assert case.missing_reason(ANNOTATIONS) == "nothing annotated yet"
    assert case.missing_reason(LANDMARKS) == "no landmarks given"
    assert case.digest(SLIDES["he"]) == ""


def test_a_changed_injection_changes_its_digest_only(tmp_path):
    case = create_case(tmp_path / "B11", FILE)
    before = case.digest(INJECTION)
    case.update(injection={**FILE.injection.model_dump(), "dose_mbq": 36.0})
    assert Case(tmp_path / "B11").digest(INJECTION) != before


def test_what_was_not_given_of_the_injection_stays_not_given(tmp_path):
    record = InjectionRecord(dose_mbq=7.0, weight_kg=None)
    file = FILE.model_copy(update={"injection": record})
    case = create_case(tmp_path / "B11", file)
    before = case.digest(INJECTION)
    case.update(patient="another")
    found = Case(tmp_path / "B11")
    assert found.file.injection.model_fields_set == {"dose_mbq"}
    assert found.digest(INJECTION) == before
    found.update(injection=record)
    assert found.digest(INJECTION) == before
    found.update(injection=InjectionRecord(dose_mbq=7.0, nuclide="Zr-89"))
    assert found.digest(INJECTION) != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "not valid TOML"),
        ('name = "x"\nformat = 2', "format = 2"),
        ('name = "x"\n[injection]\ndose_mbq = -3', "injection.dose_mbq = -3"),
        ('name = "x"\ncolour = 1', "colour"),
    ],
)
def test_a_wrong_case_file_is_told_with_the_place(tmp_path, text, words):
    (tmp_path / "case.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        Case(tmp_path)


def test_cases_are_found_alone_and_in_a_cohort(tmp_path):
    for name in ("A2", "B11"):
        create_case(tmp_path / name, FILE.model_copy(update={"name": name}))
    assert [p.name for p in find_cases([tmp_path])] == ["A2", "B11"]
    assert find_cases([tmp_path / "A2"]) == [tmp_path / "A2"]
    with pytest.raises(InputError, match="contains no case"):
        find_cases([_empty(tmp_path)])
    with pytest.raises(InputError, match="there is no folder"):
        find_cases([tmp_path / "nothing"])


def _empty(folder):
    made = folder / "empty"
    made.mkdir()
    return made
