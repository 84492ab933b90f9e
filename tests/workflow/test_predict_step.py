"""What the prediction of a case refuses before anything is computed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_mosaik.core import InputError, Lattice, TileGrid
from napari_mosaik.core.catalogue import CLUSTERS, PARAMETERS, TILE_KINETICS, TILES
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.table import Table
from napari_mosaik.predictor import TrainedModel, TrainParams, train
from napari_mosaik.workflow.cohort import absent_slides
from napari_mosaik.workflow.steps.predict import OF_SLIDE, PREDICT, PredictParams, tile_inputs
from tests.predictor.synthetic import make_case


def test_a_case_has_a_slide_also_where_what_is_read_off_it_was_given():
    given = SimpleNamespace(is_given="given by the sample")
    computed = SimpleNamespace(is_given="")
    origins = {one: given for own in OF_SLIDE.values() for one in own}
    origins[TILE_KINETICS] = computed  # as in a cohort of label images

    def absent(slides=(), **changed):
        known = {one.name: origin for one, origin in origins.items()} | changed
        store = SimpleNamespace(origin=lambda one: known[one.name])
        case = SimpleNamespace(name="A2", file=SimpleNamespace(slides=slides), store=store)
        return absent_slides([case])

    assert absent() == {}
    assert absent(caix_cells=computed) == {"caix": ["A2"]}
    assert absent(caix_cells=None) == {"caix": ["A2"]}
    assert absent(classes=computed) == {"he": ["A2"]}
    assert absent({"he": 1, "caix": 1}, classes=computed, caix_cells=None) == {}


def test_clusters_that_the_model_reads_and_the_case_lacks_are_named():
    ones, lattice = np.ones(4), Lattice("cd34", (2, 2), (300.0, 300.0), (0.0, 0.0))
    nothing = Table({"a": np.zeros(4)}, {}, {}, "cd34")
    artifacts = {
        TILES: TileGrid(lattice, 400.0, np.arange(4), ones, ones > 0),
        PARAMETERS: nothing,
        CLUSTERS: Table({"a.label": np.zeros(4)}, {}, {}, "cd34"),
    }
    for proxies, lost in ((("b", "a", "caix"), "'b'"), (("a", "c", "caix"), "'c'")):
        with pytest.raises(InputError, match=f"case B11 has no clusters of {lost}, which"):
            tile_inputs(artifacts.__getitem__, "B11", "p", proxies, TrainParams(), ("caix",))


def test_a_model_that_was_trained_outside_a_cohort_is_refused(tmp_path):
    cases = [make_case(name, "p", i, size_um=(2400.0, 2400.0)) for i, name in enumerate("AB")]
    params = TrainParams(epochs=1, members=1, intervals=False, threads=1)
    bare = run_to_end(train(cases, params))
    for part, card in (
        ("suv_unit", bare.card),
        ("split", {**bare.card, "suv_unit": "g/mL"}),
        ("members", {k: v for k, v in bare.card.items() if k != "members"}),
    ):
        stored = TrainedModel(bare.weights, card).save(tmp_path)
        inputs = SimpleNamespace(model_folder=lambda name: tmp_path / name, case_name="B11")
        with pytest.raises(InputError, match=f"'{part}'"):
            run_to_end(PREDICT.body(inputs, PredictParams(model=stored.name)))
