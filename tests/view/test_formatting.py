"""Numbers and states as words."""

import math

import numpy as np
import pytest

from napari_mosaik.view.formatting import (
    TileReading,
    count,
    duration,
    heading,
    number,
    percent,
    scaled,
    short_formula,
    tile_line,
    title_of,
)

NB = "\u00a0"
THIN = "\u202f"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.1184, "3.12"),
        (2.8, "2.80"),
        (41.0, "41.0"),
        (0.0123456, "0.0123"),
        (999.6, "1000"),
        (12345.0, f"12{THIN}300"),
        (-0.5, "−0.500"),
        (0.0, "0"),
        (8.33e-4, f"8.33{NB}×{NB}10⁻⁴"),
        (3.5e10, f"3.50{NB}×{NB}10¹⁰"),
        (412, "412"),
        (np.int64(123456), f"123{THIN}456"),
        (9.9999, "10.0"),
    ],
)
def test_three_significant_digits(value, text):
    assert number(value) == text


def test_missing_numbers_are_words():
    for value in (None, math.nan, math.inf, np.float32("nan")):
        assert number(value, "µm") == "not measured"
        assert percent(value) == "not measured"
    assert number(None, missing="no data") == "no data"
    assert duration(math.nan) == duration(None) == "unknown"


def test_units_follow_the_number():
    assert number(31.2, "mm²") == f"31.2{NB}mm²"
    assert number(0.5, "1") == "0.500"


def test_percent_count_and_duration():
    assert percent(0.823) == f"82{NB}%"
    assert percent(0.004) == f"0.4{NB}%"
    assert (count(0, "vessel"), count(1, "tile"), count(412, "tile")) == (
        "no vessels",
        "1 tile",
        "412 tiles",
    )
    assert count(2, "nucleus", "nuclei") == "2 nuclei"
    assert [duration(s) for s in (41, 725, 3900)] == ["0:41", "12:05", "1 h 05 min"]


def test_titles_from_column_names():
    assert title_of("equivalent_diameter_um") == "equivalent diameter"
    assert title_of("caix_score") == "CAIX score"
    assert title_of("density_per_mm2") == "density"
    assert title_of("difference_entropy") == "difference entropy"
    assert title_of("vessel_equivalent_diameter_um") == "vessel equivalent diameter"
    assert heading("vessel_equivalent_diameter_um") == "Vessel equivalent diameter"
    assert title_of("caix_h_score") == heading("caix_h_score") == "CAIX H-score"


def test_the_line_under_the_cursor():
    full = TileReading(217, 0.82, 41.2, 3.12, 2.8, "hot")
    assert tile_line(full).replace(NB, " ") == (
        "tile 217 · neoplastic 82 % · 41 vessels/mm² · SUV 3.12 measured, "
        "2.80 predicted · cluster: hot"
    )


def test_the_line_says_what_is_missing_and_leaves_out_what_was_not_computed():
    nan = math.nan
    line = tile_line(TileReading(3, nan, 0.0, nan, nan))
    assert line == (
        "tile 3 · tissue class not measured · no vessels in this tile · "
        "SUV not measured, not predicted"
    )
    assert tile_line(TileReading(4)) == "tile 4"
    assert "nan" not in tile_line(TileReading(5, measured=1.0, predicted=nan))


def test_an_optical_density_states_its_base():
    assert number(0.4271, "OD") == "0.427\N{NO-BREAK SPACE}OD (natural)"
    assert number(0.4271, "OD10") == "0.427\N{NO-BREAK SPACE}OD (base 10)"


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.0245, "kg", (24.5, "g")),
        (69.0, "kg", (69.0, "kg")),
        (36.2e6, "Bq", (36.2, "MBq")),
        (0.05, "MBq", (50.0, "kBq")),
        (14689.0, "MBq", (14.689, "GBq")),
        (999.96, "MBq", (0.99996, "GBq")),
        (0.0, "MBq", (0.0, "MBq")),
        (78.41, "h", (78.41, "h")),
        (17700.4, "cm²", (1.77004, "m²")),
    ],
)
def test_the_prefix_suits_the_value(value, unit, expected):
    assert scaled(value, unit) == (pytest.approx(expected[0]), expected[1])


def test_a_formula_has_three_significant_digits():
    long = "SUV[cm²/mL] = C[Bq/mL] × 17700.4 cm² / (3.62e+07 Bq × 0.0494321)"
    short = short_formula(long).replace("\N{NO-BREAK SPACE}", " ")
    assert short == "SUV[cm²/mL] = C[Bq/mL] × 1.77 m² / (36.2 MBq × 0.0494)"
    stated = "SUV = value in the file (cm²/mL), not scaled again"
    assert short_formula(stated) == stated


def test_a_changed_parameter_names_the_base_of_its_optical_density():
    from napari_mosaik.view.worth import worth_lines

    change = {"before": 0.391, "after": 0.395, "change": 0.004, "n_changed": 2, "unit": "OD10"}
    record = {
        "n_tiles": 2, "seconds": 1.0, "classes": {}, "error": {}, "prediction": {},
        "clusters": {}, "parameters": {"caix_intensity_od10": change},
    }  # fmt: skip
    lines = "\n".join(worth_lines(record))
    assert "mean in OD (base 10): 0.391 → 0.395 (2 tiles changed)" in lines
