"""Annotations of a case open for editing, and what a retraining has changed."""

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.view.worth import retraining_lines
from napari_mosaik.workflow.annotations import (
    AnnotationResults,
    annotation_results,
    retraining_effect,
)


def test_a_case_without_results_has_nothing_to_compare(case):
    nothing = annotation_results(case)
    effect = retraining_effect(nothing, nothing)
    assert not effect.any_change
    assert retraining_lines(effect) == ("Nothing to compare yet.",)


def test_the_change_is_that_within_the_tissue():
    before = AnnotationResults(np.array([[0, 1, 2, 2]]), {"stroma": 1.0}, 0.2, 1.5, "cm²/mL")
    after = AnnotationResults(np.array([[0, 1, 1, 2]]), {"stroma": 2.0, "fat": 3.0}, 0.1, 1.0, "")
    effect = retraining_effect(before, after)
    assert effect.changed_fraction == pytest.approx(1 / 3)
    assert effect.any_change
    lines = retraining_lines(effect)
    assert "33" in lines[0]
    assert lines[1].startswith("stroma: 1")
    assert "→" in lines[1]
    assert "→" not in lines[2]
    assert "normalised" in lines[3]
    assert not retraining_effect(before, before).any_change
    other = retraining_effect(before, AnnotationResults(np.zeros((2, 2))))
    assert other.any_change
    assert "size of the tissue class map" in retraining_lines(other)[0]


def test_annotating_needs_a_slide(case):
    from napari_mosaik.workflow.annotations import OpenAnnotations

    with pytest.raises(InputError, match="no he slide"):
        OpenAnnotations(case, "anna")
