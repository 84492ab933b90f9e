"""Cases and cohorts: doubts in the status, moved files, damage, leaks, texts edited by hand."""

import json

import pytest

from napari_mosaik.core import Progress
from napari_mosaik.core.catalogue import PET, STAINING
from napari_mosaik.view.formatting import STATE_MARKS
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.step import Step, StepStatus
from tests.cli.test_commands import call
from tests.workflow.conftest import FIRST, Settings, case, install

__all__ = ["case"]


# --- green without proof --------------------------------------------------------------------------
def doubting(inputs, params):
    yield Progress(0.5, 1)
    inputs.warn("tissue covers 0.1 % of the slide")
    inputs.note(STAINING, {"warnings": ["the stain is faint"]})
    return {FIRST: {"warnings": ["the confidence is low"]}}


def doubtful_steps():
    return (Step("first", "First", "", "", Settings, (PET,), (FIRST,), doubting),)


@pytest.fixture
def doubtful(case, monkeypatch):
    """A case whose only step has run and has doubts."""
    install(monkeypatch, doubtful_steps())
    list(run_until(case, read_recipe(case.root)))
    return case


DOUBTS = ("tissue covers 0.1 % of the slide", "the stain is faint", "the confidence is low")


def test_a_step_with_doubts_is_done_and_not_a_plain_check_mark(doubtful):
    state = case_status(doubtful).states["first"]
    assert (state.word, state.warnings, state.mark) == ("done", DOUBTS, "doubtful")
    assert STATE_MARKS[state.mark][0] == "⚠"
    assert StepStatus("done").mark == "done"
    assert StepStatus("stale", "", DOUBTS).mark == "stale"


def told(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    code = call(*arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_status_shows_doubts_as_text_and_as_json(doubtful, monkeypatch, capsys):
    monkeypatch.setattr("napari_mosaik.workflow.steps.STEPS", doubtful_steps())
    _, out, _ = told(capsys, "status", doubtful.root)
    assert "⚠ the stain is faint" in out
    _, out, _ = told(capsys, "status", doubtful.root, "--json")
    assert json.loads(out)["B11"]["steps"]["first"] == {
        "state": "done",
        "reason": "",
        "warnings": list(DOUBTS),
    }
