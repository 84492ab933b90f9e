"""What is shown of a dose what-if: words of a tile, one scale for all plans, figures, files."""

import csv
from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.core import InputError, Lattice, Table, TileGrid
from napari_mosaik.view.dose import (
    DOSE_FIGURES,
    DOSE_MAPS,
    DoseResults,
    PlanDose,
    dose_volume_figure,
    index_tips,
    monte_carlo_lines,
    organ_lines,
)

N = 4


def plan_dose(name="A", scale=1.0, alpha=0.0, **more):
    gray = scale * np.array([10.0, 20.0, 30.0, np.nan])
    columns = {
        f"{name}.{quantity}_{end:02d}": factor * width * gray
        for quantity, factor in (("dose_gy", 1.0), ("alpha_particle_gy", alpha), ("bed_gy", 1.2))
        for end, width in ((5, 0.5), (50, 1.0), (95, 1.5))
    }
    columns[f"{name}.tia_mbq_h_ml_50"] = gray / 10
    columns[f"{name}.ln_survival_50"] = -gray / 2
    columns[f"{name}.hypoxic_share"] = np.array([0.12, 0.0, np.nan, 0.1])
    drawn = {
        "d98_gy": [scale * 9.0] * 3,
        "d50_gy": [scale * x for x in (19.0, 20.0, 21.0)],
        "d2_gy": [scale * 31.0] * 3,
        "eud_gy": [scale * 15.0] * 3,
    }
    record = {
        "indices": {
            key: {"low": min(v), "median": sorted(v)[1], "high": max(v)} for key, v in drawn.items()
        },
        "drawn": drawn,
        "plan": {"draws": 3, "seed": 0},
        "shares": {"total": {"ln_survival_mean": {"time_course": 0.62, "alpha": 0.2}}},
        "largest_source": "time_course",
        "histogram": {
            "dose_gy": [0.0, 20.0, 40.0],
            **{end: [100.0, 50.0, 0.0] for end in ("low", "median", "high")},
        },
        "time_course": {
            "tile": 1,
            "time_h": [0.0, 24.0, 240.0],
            "electron_gy_h": [0.0, 0.2, 0.1],
            "alpha_particle_gy_h": [0.0, 0.0, 0.0],
            "unrepaired_gy": [0.0, 0.4, 0.2],
        },
        "unseen_variation": [
            {"cv": 0.0, "eud_gy": 20.0, "tcp": 0.5},
            {"cv": 0.5, "eud_gy": 15.0, "tcp": 0.1},
        ],
        "uptake": "predicted",
        "n_tiles": 3,
        "n_without_uptake": 1,
        "weight": "neoplastic area",
        "warnings": ["a doubt"],
        "not_available": [],
        "constants": [
            {"name": "alpha", "value": 0.3, "source": "illustrative"},
            {"name": "living_scale", "value": 0.75, "source": "registration"},
        ],
        **more,
    }
    return PlanDose(name, record, Table(columns))


def results(*plans):
    columns = {k: v for one in plans for k, v in one.table.columns.items()}
    lattice = Lattice("cd34", (2, 2), (300.0, 300.0))
    grid = TileGrid(lattice, 300.0, np.arange(N), np.ones(N), np.ones(N, bool))
    known = {one.name: PlanDose(one.name, one.record, Table(columns)) for one in plans}
    return DoseResults(known, grid, ("No treatment plan.",))


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_tile_is_one_line_of_words():
    one = plan_dose()
    assert plain(one.line(0)) == "10 Gy (5.0 to 15), BED 12 Gy, 12 % hypoxic"
    assert plain(one.line(2)) == "30 Gy (15 to 45), BED 36 Gy"
    assert one.line(3) == one.line(N) == one.line(-1) == ""
    both = plain(plan_dose(alpha=2.0).line(0))
    assert both.startswith("10 Gy (5.0 to 15), 20 Gy alpha particles (10 to 30), BED")


def test_all_plans_have_one_scale_and_layers_that_tell_the_plan():
    found = results(plan_dose("A"), plan_dose("B", 3.0))
    first, second = (found.layer(name, "dose") for name in "AB")
    assert first.name == "Absorbed dose · A"
    assert first.style["contrast_limits"] == second.style["contrast_limits"]
    assert first.style["contrast_limits"][1] > 80
    assert "plan A" in first.legend.note
    width = found.layer("A", "width")
    assert np.nanmax(width.data) == 30
    assert "of electrons" in width.legend.note
    survival = found.layer("A", "survival")
    assert np.nanmin(survival.data) == pytest.approx(-15 / np.log(10), rel=1e-6)
    assert survival.legend.unit == ""
    assert found.keys("A", "B") == ["dose", "bed", "survival", "width"]
    assert found.layer("A", "alpha") is None
    alone = results(plan_dose("A", alpha=5.0))
    assert alone.layer("A", "dose").name == DOSE_MAPS["dose"]
    assert "of alpha particles" in alone.layer("A", "width").legend.note
    assert np.nanmax(alone.layer("A", "width").data) == 150


def test_indices_and_the_difference_draw_by_draw():
    one, other = plan_dose("A"), plan_dose("B", 2.0)
    rows = one.index_rows()
    assert [row[0] for row in rows] == ["D98, Gy", "D50, Gy", "D2, Gy", "EUD, Gy"]
    assert rows[1][1] == "20.0\n(19 to 21)"
    row = one.index_rows(other)[1]
    assert row[3].startswith("−20.0\n(−21")
    assert len(index_tips(one, other)) == 4
    another = plan_dose("C", 2.0, plan={"draws": 3, "seed": 1})
    assert one.index_rows(another)[1][3] == "not available"  # their draws are not the same ones


def test_words_name_the_largest_source_and_what_pet_cannot_see():
    one = plan_dose()
    assert one.source_line.startswith("Largest source of uncertainty: time course, 62 % of")
    none = plan_dose(largest_source="", shares={"not_available": "every spread is 0"})
    assert none.source_line == "Largest source of uncertainty: every spread is 0"
    assert "EUD 17.5 Gy instead of 20.0 Gy; TCP 0.300 instead of 0.500" in plain(
        one.unseen_line(0.25)
    )
    assert one.unseen_line(0.0).startswith("CV 0.3")  # none: what a usual one would do
    assert one.basis_line.endswith("weighted by neoplastic area; 1 tile without uptake")
    assert one.doubts == ["a doubt"]
    assert one.constant_rows()[0] == ("α, 1/Gy", "0.300", "illustrative")


def test_files_of_other_programs_are_put_into_words():
    index = {"d98_gy": 1.0, "d50_gy": 2.0, "d2_gy": 3.0, "mean_gy": 2.0}
    found = {"file": "mc.nii", "n_tiles": 3, "plan": index, "monte_carlo": {**index, "d2_gy": 4.0}}
    lines = [plain(x) for x in monte_carlo_lines({**found, "mean_ratio": None, "largest_gy": 1.0})]
    assert lines[0] == "mc.nii, 3 tiles: Monte Carlo beside the plan"
    assert lines[3] == "D2: 4.00 Gy beside 3.00 Gy"
    assert lines[5] == "Ratio of the means not available; largest difference of a tile 1.00 Gy"
    organs = {"organ": "kidney", "gy": 11.5, "limit_gy": 23.0, "share_of_limit": 0.5}
    record = {"largest_mbq": 9000.0, "confident_mbq": 7000.0, "plan_mbq": 4500.0}
    text = plain("\n".join(organ_lines({
        **record, "organs": [organs], "organ": "kidney", "file": "o.csv", "nuclide": "Lu-177"
    })))  # fmt: skip
    assert "kidney: 11.5 Gy of 23.0 Gy (50 % of the limit)" in text
    assert "up to 9000 MBq (kidney)" in text
    assert "no recommendation" in text


def test_figures_are_drawn_for_one_plan_and_two():
    for draw in DOSE_FIGURES.values():
        for plans in ([plan_dose()], [plan_dose(), plan_dose("B", 2.0)]):
            lines = [line for axes in draw(plans).axes for line in axes.lines]
            assert len(lines) >= len(plans)
    beam = plan_dose(indices={"eud_gy": {"low": 1, "median": 2, "high": 3}})
    texts = [text.get_text() for text in dose_volume_figure([beam]).axes[0].texts]
    assert texts == ["external beam only: no absorbed dose of a nuclide"]


class _Case:
    name = "B11"


def test_the_files_hold_every_number_and_the_limits(tmp_path: Path):
    found = results(plan_dose("A"), plan_dose("B", 2.0))
    folder = found.export("B", tmp_path, _Case())
    lines = (folder / "tiles.csv").read_text("utf-8").splitlines()
    assert lines[:2] == ["# case B11, plan B", "# No treatment plan."]
    rows = list(csv.DictReader(lines[2:]))
    assert [row["dose_gy_50"] for row in rows] == ["20", "40", "60", ""]
    assert rows[1]["column_um"] == "450"
    from napari_mosaik.io.ome import open_group

    own, arrays = open_group(folder / "BED.ome.zarr")
    assert own["unit"] == "Gy"
    assert np.nanmax(arrays[0][...]) == 72
    with pytest.raises(InputError, match="exists already"):
        found.export("B", tmp_path, _Case())
