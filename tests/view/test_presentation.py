"""One presentation record per step: found by itself, empty without results, and consistent."""

import numpy as np
import pytest

from napari_mosaik.core import LabelImage, Lattice, Table
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    NUCLEI,
    NUCLEUS_OBJECTS,
    STAINS,
)
from napari_mosaik.io.store import CaseStore
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.display_settings import STAINS_OF_SLIDE
from napari_mosaik.view.presentation import (
    choices_of,
    display_stains,
    report_tables,
    result_lines,
    specs_for,
    specs_of,
    step_view,
    step_views,
)
from napari_mosaik.workflow.step import StepStatus
from napari_mosaik.workflow.steps import STEPS
from tests.view.test_case_report import case, commit, everything

__all__ = ["case"]

NAMES = [step.name for step in STEPS]


@pytest.fixture
def complete(case):
    commit(case, everything())
    return case


def test_every_step_has_a_record():
    assert list(step_views()) == NAMES
    for name, view in step_views().items():
        assert view.step.name == name
        assert view.base_slide in ("", *STAINS)
    assert {view.step.writes[0].name for view in step_views().values() if view.aligns} == {
        artifact.name for artifact in ALIGNMENT.values()
    }


def test_a_case_without_results_has_nothing_to_show(case):
    assert specs_for(case, NAMES) == []
    assert report_tables(CaseResults(case)) == []
    assert set(choices_of(case).values()) == {()}
    missing = dict.fromkeys(NAMES, StepStatus("missing"))
    assert result_lines(case, missing) == {}
    assert display_stains(case, "he") == STAINS_OF_SLIDE["he"]


def test_layers_know_their_space_and_legend(complete):
    specs = specs_for(complete, NAMES)
    assert len({spec.name for spec in specs}) == len(specs) > 5
    for spec in specs:
        assert spec.space in ("he", "cd34", "caix", "pet")
        assert spec.legend is not None
        assert spec.result


def test_a_choice_selects_the_parameter(complete):
    choices = {name: values for name, values in choices_of(complete).items() if values}
    assert len(choices) == 2
    for name, values in choices.items():
        assert step_view(name).choice_title
        titles = [specs_of(complete, name, value)[0].name for value in values]
        assert len(set(titles)) == len(values) > 1
        assert specs_of(complete, name)[0].name == titles[0]


def test_result_lines_of_stored_steps_are_words(complete):
    stored = [name for name in NAMES if CaseResults(complete).has(*step_view(name).step.writes)]
    lines = result_lines(complete, dict.fromkeys(stored, StepStatus("done")))
    assert len(lines) > 5
    for line in lines.values():
        assert line
        assert "nan" not in line
        assert "None" not in line


def test_no_table_of_objects_is_read_whole_to_say_how_many_there_are(case, monkeypatch):
    """A slide has millions of nuclei: a case opens without their measurements."""
    lattice = Lattice("he", (30, 40), (1.0, 1.0))
    labels = LabelImage(np.eye(30, 40, dtype=np.int32), lattice)
    columns = {name: np.array([3.0, 9.0]) for name in ("row_um", "column_um", "area_um2")}
    table = Table(columns, {}, {"method": "network"}, "he")
    commit(case, {NUCLEI: labels, NUCLEUS_OBJECTS: table, CAIX_CELLS: table})
    asked = []
    monkeypatch.setattr(CaseStore, "read", _noting(asked, CaseStore.read))
    steps = ("nuclei", "caix")
    lines = result_lines(case, dict.fromkeys(steps, StepStatus("done")))
    assert lines == {"nuclei": "2 nuclei\nnetwork", "caix": "2 cells"}
    assert [spec.name for spec in specs_for(case, steps)] == ["Nuclei"]
    report_tables(CaseResults(case))
    assert set(asked) == {"nuclei"}  # the labels, which stay on the disk


def _noting(asked, read):
    def noted(store, artifact):
        asked.append(artifact.name)
        return read(store, artifact)

    return noted


def test_tables_of_one_title_are_one_table(complete):
    tables = report_tables(CaseResults(complete))
    titles = [table.title for table in tables]
    assert len(set(titles)) == len(titles)
    assert {"Registration", "SUV inputs", "Tile parameters"} <= set(titles)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
