"""Case and header put together: who wins, what is said, what is refused."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from napari_mosaik.core import InjectionRecord, InputError, Lattice, Raster
from napari_mosaik.core.pet_records import PetHeader, PetImage
from napari_mosaik.uptake import SuvTerms, combine_terms, suv_factor, to_suv

INJECTED = datetime(2024, 5, 3, 9, 30)
CASE = InjectionRecord(
    nuclide="Zr-89",
    dose_mbq=37.0,
    injected=INJECTED,
    excised=INJECTED + timedelta(days=13, hours=20),
    weight_kg=70.0,
    height_cm=175.0,
)
HEADER = PetHeader(
    reader="test",
    unit="Bq/mL",
    decay_correction="START",
    corrected=("DECY", "ATTN"),
    scanned=INJECTED + timedelta(days=14),
    frame_duration_s=1800.0,
    half_life_s=78.41 * 3600,
    nuclide="^89^Zirconium",
)


def sources(terms: SuvTerms) -> dict[str, str]:
    return {term.name: term.source for term in terms.terms}


def image(header: PetHeader) -> PetImage:
    values = np.array([[1000.0, np.nan], [0.0, 2000.0]])
    return PetImage(Raster(values, Lattice("pet", (2, 2), (400, 400)), str(header.unit)), header)


def test_gaps_are_filled_from_the_header_and_every_source_is_stated():
    terms = combine_terms(CASE, HEADER)
    where = sources(terms)
    assert where["dose_mbq"] == where["weight_kg"] == where["nuclide"] == "user"
    assert where["scanned"] == where["decay_correction"] == where["half_life_h"] == "header"
    assert where["sex"] == "missing"
    assert terms.warnings == ()
    said = " ".join(terms.assumptions)
    assert "336.000 h" in said
    assert "residual" in said
    assert "Ex vivo" in said
    assert terms.factor("bsa") == suv_factor(terms.record, "bsa")


def test_the_specimen_s_weight_in_the_file_loses_with_a_warning():
    terms = combine_terms(CASE, HEADER.model_copy(update={"weight_kg": 0.05, "dose_bq": 37e6}))
    assert terms.record.weight_kg == 70
    assert len(terms.warnings) == 1
    assert "0.05" in terms.warnings[0]


def test_a_half_life_of_another_nuclide_is_replaced_by_the_table_s():
    terms = combine_terms(CASE, HEADER.model_copy(update={"half_life_s": 6586.2}))
    assert terms.record.half_life_h == 78.41
    assert sources(terms)["half_life_h"] == "table"
    assert "half-life" in terms.warnings[0]


def test_the_header_names_the_nuclide_when_the_case_does_not():
    header = HEADER.model_copy(update={"nuclide": "18F", "half_life_s": 6586.2})
    terms = combine_terms(InjectionRecord(weight_kg=70), header)
    assert terms.record.nuclide == "F-18"
    assert terms.record.half_life_h == pytest.approx(6586.2 / 3600)
    with pytest.raises(InputError, match="dose_mbq"):
        terms.factor("bw")


def test_zoned_and_local_times_do_not_mix():
    header = HEADER.model_copy(update={"scanned": (INJECTED + timedelta(14)).replace(tzinfo=UTC)})
    with pytest.raises(InputError, match="zone"):
        combine_terms(CASE, header)


def test_excision_before_injection_is_refused():
    with pytest.raises(InputError, match="excision"):
        combine_terms(CASE.model_copy(update={"excised": INJECTED - timedelta(1)}), HEADER)


def test_a_dose_in_mbq_where_dicom_says_bq_is_refused():
    terms = combine_terms(
        InjectionRecord(weight_kg=70, injected=INJECTED),
        HEADER.model_copy(update={"dose_bq": 37.0}),
    )
    with pytest.raises(InputError, match="plausible"):
        terms.factor("bw")


def test_decay_correction_that_the_file_contradicts_needs_the_user_s_word():
    header = HEADER.model_copy(update={"corrected": ("ATTN",)})
    with pytest.raises(InputError, match="DECY"):
        combine_terms(CASE, header)
    terms = combine_terms(CASE.model_copy(update={"decay_correction": "NONE"}), header)
    assert terms.record.decay_correction == "NONE"


def test_a_missing_unit_is_refused():
    with pytest.raises(InputError, match="unit"):
        combine_terms(CASE, HEADER.model_copy(update={"unit": None}))
    with pytest.raises(InputError, match="PROPCNTS"):
        combine_terms(CASE, HEADER.model_copy(update={"unit": "PROPCNTS"}))


def test_values_become_suv_and_nan_stays():
    terms = combine_terms(CASE, HEADER)
    suv = to_suv(image(HEADER), terms, "bsa")
    assert suv.unit == "cm²/mL"
    assert suv.values[1, 1] == pytest.approx(2000 * terms.factor("bsa"))
    assert np.isnan(suv.values[0, 1])
    assert "3.7e+07 Bq" in terms.formula("bsa")


@pytest.mark.parametrize(("unit", "kind"), [("g/mL", "bw"), ("cm²/mL", "bsa")])
def test_suv_in_the_file_is_never_scaled_again(unit, kind):
    header = PetHeader(reader="test", unit=unit, weight_kg=99.0)
    terms = combine_terms(InjectionRecord(), header)
    suv = to_suv(image(header), terms, "bsa")
    assert (suv.unit, terms.kind("bsa")) == (unit, kind)
    np.testing.assert_array_equal(suv.values, image(header).raster.values)


def test_an_uncorrected_frame_starts_where_the_file_says():
    """The frame time of a short frame is its middle; the dose is decayed to the frame's start."""
    header = HEADER.model_copy(
        update={
            "decay_correction": "NONE",
            "corrected": ("ATTN",),
            "frame_reference_s": 7200.0 + 30,
        }
    )
    header = header.model_copy(update={"frame_duration_s": 60.0})
    terms = combine_terms(CASE, header)
    start = HEADER.scanned + timedelta(seconds=7200)
    assert abs((terms.record.scanned - start).total_seconds()) < 0.01


def test_a_dynamic_scan_begun_before_the_injection():
    header = HEADER.model_copy(
        update={"scanned": INJECTED - timedelta(seconds=208), "frame_reference_s": 3000.0}
    )
    terms = combine_terms(CASE.model_copy(update={"excised": None}), header)
    assert terms.dynamic
    expected = 70_000 / (37e6 * 2 ** (208 / 3600 / 78.41))
    assert terms.factor("bw") == pytest.approx(expected, rel=1e-12)
    single = header.model_copy(update={"frame_reference_s": None})
    with pytest.raises(InputError, match="after"):
        combine_terms(CASE.model_copy(update={"excised": None}), single).factor("bw")


def test_terms_are_json_able():
    import json

    text = json.dumps(combine_terms(CASE, HEADER).to_dict())
    assert "table" not in text
    assert "START" in text


def test_a_scan_across_midnight():
    late = datetime(2024, 5, 3, 23, 50)
    record = CASE.model_copy(update={"injected": late, "excised": None})
    terms = combine_terms(
        record, HEADER.model_copy(update={"scanned": datetime(2024, 5, 4, 0, 20)})
    )
    assert terms.factor("bw") == pytest.approx(70e3 / (37e6 * 2 ** (-0.5 / 78.41)), rel=1e-12)


def test_dates_after_which_nothing_would_be_left_are_refused():
    terms = combine_terms(
        CASE, HEADER.model_copy(update={"scanned": INJECTED + timedelta(days=400)})
    )
    with pytest.raises(InputError, match="half-lives"):
        terms.factor("bw")


def test_a_decay_factor_that_does_not_fit_is_stated():
    """The file multiplied its frame by 2 ** (frame time / half-life) if it refers to the start."""
    header = HEADER.model_copy(
        update={"frame_reference_s": 36000.0, "decay_factor": 2 ** (10 / 78.41)}
    )
    assert combine_terms(CASE, header).warnings == ()
    as_if = combine_terms(CASE.model_copy(update={"decay_correction": "ADMIN"}), header)
    assert any("decay factor" in text for text in as_if.warnings)


def test_without_a_nuclide_the_half_life_says_it_and_without_both_it_is_asked_for():
    bare = {"nuclide": None, "corrected": ("DECY", "ATTN")}
    found = combine_terms(
        InjectionRecord(weight_kg=70), HEADER.model_copy(update={**bare, "half_life_s": 6586.2})
    )
    assert found.record.nuclide == "F-18"
    other = combine_terms(InjectionRecord(), HEADER.model_copy(update={**bare, "half_life_s": 7e3}))
    assert (other.record.nuclide, sources(other)["half_life_h"]) == ("unknown", "header")
    none = combine_terms(InjectionRecord(), HEADER.model_copy(update={**bare, "half_life_s": None}))
    assert sources(none)["nuclide"] == "missing"
    dosed = InjectionRecord(dose_mbq=37, weight_kg=70, injected=INJECTED)
    bare |= {"half_life_s": None, "decay_correction": "START"}
    with pytest.raises(InputError, match="give nuclide"):
        combine_terms(dosed, HEADER.model_copy(update=bare)).factor("bw")


def test_notes_of_the_file_are_among_the_warnings():
    header = HEADER.model_copy(update={"notes": ("the scan's start is GE's own item",)})
    assert combine_terms(CASE, header).warnings == header.notes
