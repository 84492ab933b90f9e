"""Plans of the dose what-if: what they refuse, how they are stored, and the published regimen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from napari_mosaik.core.errors import InputError
from napari_mosaik.workflow.dose import read_time_course
from napari_mosaik.workflow.plan_presets import PRESETS
from napari_mosaik.workflow.plan_record import (
    Course,
    Plan,
    PlanProblem,
    activity_doubt,
    half_times_as_rates,
    parse_fractions,
    parse_plan,
    plan_warnings,
)
from napari_mosaik.workflow.plans import (
    free_plan_name,
    plan_files,
    read_plan,
    read_plans,
    remove_plan,
    rename_plan,
    restore_plans,
    write_plan,
)

LUTETIUM = {"nuclide": "177Lu", "activity": 7400.0}


def made(name: str = "A", **values: Any) -> Plan:
    return parse_plan({"name": name, "courses": [LUTETIUM], **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"courses": []}, "neither a course nor a fraction"),
        ({"courses": [{"activity": 3, "nuclide": "Xx-1"}]}, "one of: Zr-89"),
        ({"courses": [{"activity": 0}]}, "Lu-177 on day 0 has no activity"),
        ({"courses": [{"activity": 3, "day": -2}]}, "day -2 lies before day 0"),
        (
            {"courses": [{**LUTETIUM, "day": 84}, {**LUTETIUM, "day": 7}]},
            "day 7 follows day 84",
        ),
        ({"courses": [LUTETIUM, LUTETIUM]}, "two courses of Lu-177 on day 0"),
        ({"courses": [{"activity": 3, "dai": 2}]}, "did you mean 'day'"),
        ({"courses": [{"activity": 3, "unit": "kBq"}]}, "courses.unit (entry 1) = 'kBq'"),
        ({"fractions": [{"number": 5, "dose_gy": 2, "day": -1}]}, "day -1, before day 0"),
        ({"alpha": 0}, "alpha/beta 0"),
        ({"within_cv": 0.6}, "within_cv = 0.6"),
        ({"repair": [[0.5, 1.0]]}, "add up to 1, not 0.5"),
        ({"repair": [[1.0, 0.0]]}, "above 0 h, not 0 h"),
        ({"doubling_days": 5}, "needs until_days"),
        ({"name": "A.B"}, "may not contain '.'"),
        ({"name": "con"}, "Windows"),
        ({"name": " A"}, "spaces"),
        ({"retained": 1.5}, "retained = 1.5"),
    ],
)
def test_what_a_plan_refuses_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_plan({"name": "A", "courses": [LUTETIUM], **values})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_fractions_are_read_as_typed() -> None:
    first, second = parse_fractions("5x2@72, 3 x 1.5 @ 80")
    assert (first.number, first.dose_gy, first.day) == (5, 2.0, 72.0)
    assert first.times_h == (1728.0, 1752.0, 1776.0, 1800.0, 1824.0)
    assert str(second) == "3x1.5@80"
    for wrong in ("5x2", "x2@3", "5x2@-3", "0x2@3", "5 2 72"):
        with pytest.raises(InputError, match=r"fraction"):
            parse_fractions(wrong)


def test_activities_come_in_three_units() -> None:
    assert Course(activity=7.4, unit="GBq").activity_mbq() == pytest.approx(7400)
    surface = Course(activity=2405, unit="MBq/m2")
    assert surface.activity_mbq(1.9) == pytest.approx(4569.5)
    with pytest.raises(InputError, match="body surface"):
        surface.activity_mbq()


def test_the_published_regimen_falls_to_75_percent_each_time() -> None:
    preset = PRESETS["177Lu-girentuximab phase 1"]
    plan = preset.plan
    assert [c.activity for c in plan.courses] == pytest.approx([2405, 1803.75, 1352.8125])
    assert [c.day for c in plan.courses] == [0, 84, 168]
    assert {c.unit for c in plan.courses} == {"MBq/m2"}
    assert "Stillebroer" in plan.sources[0]
    assert "Muselaers" in plan.sources[1]
    assert plan.limits
    assert not plan_warnings(plan)


def test_clonogens_are_those_of_the_whole_tumour_and_half_times_become_rates() -> None:
    assert made().number_of_clonogens is None
    assert made(tumour_ml=40, clonogens_per_ml=2e6).number_of_clonogens == 8e7
    assert made(tumour_ml=40, clonogens=5e8).number_of_clonogens == 5e8
    rates = half_times_as_rates(((0.6, 0.5), (0.4, 4.0)))
    assert [share for share, _ in rates] == [0.6, 0.4]
    assert [
        0.5 ** (rate * half / math.log(2)) for (_, rate), half in zip(rates, (0.5, 4), strict=True)
    ] == pytest.approx([0.5, 0.5])


def test_units_that_may_be_meant_otherwise_are_asked_for() -> None:
    actinium = made(courses=[{"nuclide": "Ac-225", "activity": 8000.0}])
    assert "in kBq?" in plan_warnings(actinium)[0]
    assert not plan_warnings(made(courses=[{"nuclide": "Ac-225", "activity": 8.0}]))
    assert "in GBq?" in plan_warnings(made(courses=[{"activity": 7.4}]))[0]
    assert not plan_warnings(made())


def test_a_plan_is_stored_and_read_as_it_was(tmp_path: Path) -> None:
    plan = made(fractions=[{"number": 5, "dose_gy": 2, "day": 72}], clonogens=1e9, oxygen=True)
    assert write_plan(tmp_path, plan) == plan
    assert read_plans(tmp_path) == {"A": plan}
    assert read_plan(tmp_path, "A") == plan
    with pytest.raises(InputError, match=r"has the name 'A' already, which differs"):
        write_plan(tmp_path, made("a"))
    with pytest.raises(InputError, match=r"has the name 'A' already;"):
        write_plan(tmp_path, plan)
    changed = write_plan(tmp_path, made(alpha=0.2), replace=True)
    assert read_plan(tmp_path, "A") == changed != plan


def test_at_most_four_plans_are_kept(tmp_path: Path) -> None:
    for name in ("B2", "B11", "C", "D"):
        write_plan(tmp_path, made(name))
    assert list(read_plans(tmp_path)) == ["B2", "B11", "C", "D"]
    with pytest.raises(InputError, match="'E' would be plan 5"):
        write_plan(tmp_path, made("E"))
    remove_plan(tmp_path, "C")
    write_plan(tmp_path, made("E"))
    (tmp_path / "plans" / "F.toml").write_text(made("F").text())
    with pytest.raises(InputError, match="holds 5 plans"):
        read_plans(tmp_path)
    with pytest.raises(InputError, match="there is no plan 'x'"):
        read_plan(tmp_path, "x")


def test_files_that_a_plan_names_lie_beside_it(tmp_path: Path) -> None:
    curve = tmp_path / "curve.csv"
    curve.write_text("time_h,activity_mbq_ml\n24,1\n")
    case = tmp_path / "case"
    case.mkdir()
    stored = write_plan(case, made(shape=str(curve)))
    curve.unlink()
    assert (case / "plans" / stored.shape).read_text().startswith("time_h")
    assert write_plan(case, stored, replace=True) == stored
    remove_plan(case, "A")
    assert not list((case / "plans").iterdir())
    for rows, words in (
        ("72,1\n24,1", r"curve.csv: times must ascend, but 24 h follows 72 h"),
        ("-4,1", r"curve.csv: times must be 0 h or more"),
        ("24,-1", r"curve.csv: activities must be 0 or more"),
        ("24,0", r"curve.csv: the curve has no activity"),
    ):
        curve.write_text(f"time_h,activity_mbq_ml\n{rows}\n")
        with pytest.raises(InputError, match=words):
            write_plan(case, made(shape=str(curve)))
    curve.write_text("r_um,E_keV\n1,2\n")
    with pytest.raises(InputError, match=r"the header must be r_cm,E_MeV"):
        write_plan(case, made(kernel=str(curve)))
    assert not list((case / "plans").iterdir())
    with pytest.raises(InputError, match=r"kernel 'none.csv' is neither a file nor one of: local"):
        write_plan(case, made(kernel="none.csv"))


def test_a_time_course_may_be_a_table_of_values_in_vivo(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    head = "time_h,region,mean,sd,unit,decay_reference\n"
    rows = ["120,tumour,5,0.2", "72,blood,3,0.2", "72,tumour,4,0.2"]
    table.write_text(head + "".join(f"{row},SUVbw,injection\n" for row in rows))
    assert read_time_course(table) == ([72.0, 120.0], [4.0, 5.0], None)
    case = tmp_path / "case"
    case.mkdir()
    stored = write_plan(case, made(shape=str(table)))
    assert (case / "plans" / stored.shape).read_bytes() == table.read_bytes()
    table.write_text(head + "72,blood,3,0.2,SUVbw,injection\n")
    with pytest.raises(InputError, match="no row of the region 'tumour'"):
        write_plan(case, made("B", shape=str(table)))


def test_draws_of_a_time_course_stand_in_columns_of_their_own(tmp_path: Path) -> None:
    table = tmp_path / "drawn.csv"
    table.write_text("time_h,activity_mbq_ml,draw_1,draw_2\n0,1,2,3\n24,4,5,6\n", "utf-8")
    times, values, drawn = read_time_course(table)
    assert (times, values) == ([0.0, 24.0], [1.0, 4.0])
    assert drawn is not None
    assert drawn.tolist() == [[2.0, 5.0], [3.0, 6.0]]
    table.write_text("time_h,activity_mbq_ml,draw_1,draw_3\n0,1,2,3\n", "utf-8")
    with pytest.raises(InputError, match="must be draw_1, draw_2 and so on, not draw_3"):
        read_time_course(table)
    table.write_text("time_h,activity_mbq_ml,draw_1,draw_2\n0,1,2\n", "utf-8")
    with pytest.raises(InputError, match="not a time and an activity for each column"):
        read_time_course(table)


def test_a_problem_names_its_setting_and_its_row() -> None:
    with pytest.raises(PlanProblem) as refused:
        parse_plan({"name": "A", "courses": [LUTETIUM, {"activity": -3, "day": 5}]}, "")
    assert (refused.value.entry, refused.value.row) == ("courses", 1)
    assert str(refused.value).startswith("courses.activity (entry 2) = -3")
    with pytest.raises(PlanProblem) as refused:
        parse_plan({"name": "A", "courses": [LUTETIUM], "within_cv": 0.6}, "")
    assert (refused.value.entry, refused.value.row) == ("within_cv", -1)
    with pytest.raises(PlanProblem) as refused:
        parse_plan({"name": "A", "courses": [LUTETIUM], "doubling_days": 5}, "plan")
    assert refused.value.entry == ""


def test_a_doubtful_activity_comes_with_what_may_be_meant() -> None:
    kilo = activity_doubt(Course(nuclide="Ac-225", activity=8000, unit="MBq"))
    assert kilo is not None
    assert kilo[0].endswith("is the activity in kBq?")
    assert kilo[1] == Course(nuclide="Ac-225", activity=8, unit="MBq")
    giga = activity_doubt(Course(nuclide="Lu-177", activity=7.4, unit="MBq"))
    assert giga is not None
    assert giga[1].activity_mbq() == 7400
    assert activity_doubt(Course(nuclide="Ac-225", activity=8)) is None


def test_a_renamed_plan_keeps_its_files_and_takes_no_name_of_another(tmp_path: Path) -> None:
    curve = tmp_path / "curve.csv"
    curve.write_text("time_h,activity_mbq_ml\n4,1\n", "utf-8")
    root = tmp_path / "case"
    (root / "plans").mkdir(parents=True)
    stored = write_plan(root, made("A", shape=str(curve)))
    write_plan(root, made("B"))
    rename_plan(root, "A", "C")
    assert list(read_plans(root)) == ["B", "C"]
    renamed = read_plan(root, "C")
    assert renamed == stored.model_copy(update={"name": "C", "shape": "C shape.csv"})
    assert sorted(plan_files(root)) == ["B.toml", "C shape.csv", "C.toml"]
    assert plan_files(root)["C shape.csv"] == curve.read_bytes()
    before = plan_files(root)
    with pytest.raises(InputError, match="has the name 'B' already"):
        rename_plan(root, "C", "b")
    with pytest.raises(InputError, match="may not contain"):
        rename_plan(root, "C", "c.d")
    assert plan_files(root) == before
    rename_plan(root, "C", "c")  # another spelling of its own name
    assert list(read_plans(root)) == ["B", "c"]


def test_the_plans_of_before_come_back_whole(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    write_plan(tmp_path, made("A"))
    before, plans = plan_files(tmp_path), read_plans(tmp_path)
    write_plan(tmp_path, made("A", alpha=0.2), replace=True)
    write_plan(tmp_path, made("B"))
    remove_plan(tmp_path, "A")
    restore_plans(tmp_path, before)
    assert read_plans(tmp_path) == plans
    assert plan_files(tmp_path) == before


def test_a_free_name_is_taken_by_nobody() -> None:
    assert free_plan_name("Plan", []) == "Plan"
    assert free_plan_name("Plan", ["plan", "Plan 2"]) == "Plan 3"
