"""SUV factors against published values, hand calculations and identities."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from napari_mosaik.core import InjectionRecord, InputError
from napari_mosaik.uptake import (
    decay_factor,
    du_bois_bsa_m2,
    frame_factor,
    lean_mass_kg,
    suv_factor,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "pet"
INJECTED = datetime(2024, 5, 3, 9, 30)
RECORD = InjectionRecord(
    dose_mbq=37.0,
    injected=INJECTED,
    scanned=INJECTED + timedelta(days=14),
    decay_correction="START",
    weight_kg=70.0,
    height_cm=175.0,
    sex="M",
)


def test_du_bois_by_logarithms():
    expected = math.exp(math.log(0.007184) + 0.425 * math.log(70) + 0.725 * math.log(175))
    assert du_bois_bsa_m2(70, 175) == pytest.approx(expected, rel=1e-12)
    assert du_bois_bsa_m2(70, 175) == pytest.approx(1.8481, abs=1e-3)  # nomogram


def test_decay_halves_and_matches_the_exponential():
    assert decay_factor(78.41, 78.41) == 0.5
    assert decay_factor(78.41, 336) == pytest.approx(math.exp(-math.log(2) / 78.41 * 336))
    assert decay_factor(78.41, 0) == 1


def test_frame_factor_by_quadrature_and_limit():
    half_life, duration = 1.8295, 3600.0
    n = 20000
    mean = sum(2 ** (-((i + 0.5) / n) * (duration / 3600) / half_life) for i in range(n)) / n
    assert frame_factor(half_life, duration) == pytest.approx(1 / mean, rel=1e-8)
    assert frame_factor(half_life, 1e-9) == pytest.approx(1, abs=1e-12)
    assert frame_factor(half_life, 0) == 1


def test_the_three_references_give_one_suv():
    """The same specimen, stored in the three ways that scanners store it."""
    half_life, dt = 78.41, 1800.0
    lam = math.log(2) / half_life / 3600
    at_injection = 5000.0  # Bq/mL if nothing decayed
    elapsed = 14 * 86400.0
    at_start = at_injection * math.exp(-lam * elapsed)
    mean_in_frame = at_start * (1 - math.exp(-lam * dt)) / (lam * dt)
    suv = {}
    for mode, value in (("ADMIN", at_injection), ("START", at_start), ("NONE", mean_in_frame)):
        record = RECORD.model_copy(update={"decay_correction": mode, "frame_duration_s": dt})
        suv[mode] = value * suv_factor(record, "bw")
    assert suv["ADMIN"] == pytest.approx(5000 * 70_000 / 37e6, rel=1e-12)
    assert suv["START"] == pytest.approx(suv["ADMIN"], rel=1e-12)
    assert suv["NONE"] == pytest.approx(suv["ADMIN"], rel=1e-12)


def test_bsa_over_bw_identity_and_residual():
    ratio = suv_factor(RECORD, "bsa") / suv_factor(RECORD, "bw")
    assert ratio == pytest.approx(10 * du_bois_bsa_m2(70, 175) / 70, rel=1e-12)
    half = RECORD.model_copy(update={"residual_mbq": 18.5})
    assert suv_factor(half, "bw") == pytest.approx(2 * suv_factor(RECORD, "bw"), rel=1e-12)


def test_lean_mass_by_hand():
    bmi = 70 / 1.75**2
    assert lean_mass_kg(70, 175, "M") == pytest.approx(9270 * 70 / (6680 + 216 * bmi))
    assert lean_mass_kg(70, 175, "F") == pytest.approx(9270 * 70 / (8780 + 244 * bmi))
    assert lean_mass_kg(70, 175, "M", "james") == pytest.approx(77 - 128 * 0.16)
    assert lean_mass_kg(70, 175, "F", "james") == pytest.approx(74.9 - 148 * 0.16)
    mean = (9270 * 70 / (6680 + 216 * bmi) + 9270 * 70 / (8780 + 244 * bmi)) / 2
    assert lean_mass_kg(70, 175, "O") == pytest.approx(mean)
    ratio = suv_factor(RECORD, "lbm") / suv_factor(RECORD, "bw")
    assert ratio == pytest.approx(lean_mass_kg(70, 175, "M") / 70)


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"dose_mbq": None}, "bw", "dose_mbq"),
        ({"dose_mbq": 37e6}, "bw", "Bq"),
        ({"dose_mbq": 37e-6}, "bw", "Bq"),
        ({"residual_mbq": 40.0}, "bw", "residual_mbq"),
        ({"injected": None}, "bw", "injected"),
        ({"scanned": None}, "bw", "scanned"),
        ({"scanned": INJECTED - timedelta(hours=1)}, "bw", "after"),
        ({"scanned": INJECTED.replace(tzinfo=UTC)}, "bw", "zone"),
        ({"decay_correction": None}, "bw", "decay_correction"),
        ({"decay_correction": "NONE"}, "bw", "frame_duration_s"),
        ({"weight_kg": None}, "bw", "weight_kg"),
        ({"weight_kg": 0.0}, "bw", "plausible"),
        ({"weight_kg": 70_000.0}, "bw", "grammes"),
        ({"height_cm": None}, "bsa", "height_cm"),
        ({"height_cm": 1.75}, "bsa", "metres"),
        ({"sex": None}, "lbm", "sex"),
        ({"nuclide": "Xx-1"}, "bw", "half_life_h"),
    ],
)
def test_a_missing_or_absurd_item_is_named(change, kind, word):
    with pytest.raises(InputError, match=word):
        suv_factor(RECORD.model_copy(update=change), kind)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SIEMENS", 4.2748316187e-4),
        ("GE_MEDICAL_AND_BQML", 5.3673876818e-4),
        ("PHILIPS_BQML", 7.4637470139e-4),
    ],
)
def test_published_factors(name, expected):
    path = SHARED / "suv-factor-metadata" / f"{name}-instances.json"
    if not path.exists():
        pytest.skip("the real test files are not beside the checkout")
    first = json.loads(path.read_text())[0]
    record = InjectionRecord(
        nuclide="C-11",
        half_life_h=first["RadionuclideHalfLife"] / 3600,
        dose_mbq=first["RadionuclideTotalDose"] / 1e6,
        injected=_time(first["RadiopharmaceuticalStartDateTime"]),
        scanned=_time(first["SeriesDate"] + first["SeriesTime"]),
        decay_correction=first["DecayCorrection"],
        weight_kg=first["PatientWeight"],
    )
    assert suv_factor(record, "bw") == pytest.approx(expected, rel=1e-6)


@pytest.mark.realdata
def test_published_factor_of_the_acrin_slice():
    path = SHARED / "acrin-flt-1.dcm"
    if not path.exists():
        pytest.skip("the real test files are not beside the checkout")
    import pydicom

    dicom = pydicom.dcmread(path)
    given = dicom.RadiopharmaceuticalInformationSequence[0]
    record = InjectionRecord(
        nuclide="F-18",
        half_life_h=float(given.RadionuclideHalfLife) / 3600,
        dose_mbq=float(given.RadionuclideTotalDose) / 1e6,
        injected=_time(dicom.SeriesDate + str(given.RadiopharmaceuticalStartTime)),
        scanned=_time(dicom.SeriesDate + dicom.SeriesTime),
        decay_correction=dicom.DecayCorrection,
        weight_kg=float(dicom.PatientWeight),
    )
    factor = suv_factor(record, "bw")
    assert factor == pytest.approx(5.94248531e-4, rel=1e-6)
    top = float(dicom.pixel_array.max()) * float(dicom.RescaleSlope) * factor
    assert top == pytest.approx(7.19433, rel=1e-5)


def _time(text: str) -> datetime:
    text = text.strip()
    return datetime.strptime(text, "%Y%m%d%H%M%S.%f" if "." in text else "%Y%m%d%H%M%S")
