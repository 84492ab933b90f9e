"""The nuclei step with a network: weights by their hash, and a record that names them."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_mosaik.core.blocks import cut
from napari_mosaik.core.catalogue import (
    CLASS_PROBABILITY,
    CLASSES,
    NUCLEI,
    NUCLEUS_OBJECTS,
    TISSUE,
)
from napari_mosaik.core.compiled import processor_record
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.raster import Raster
from napari_mosaik.io.case import Case
from napari_mosaik.segment.stardist import save_stardist
from napari_mosaik.view.report.content import gather_report
from napari_mosaik.workflow.model_weights import WEIGHTS_VARIABLE, install_weights
from napari_mosaik.workflow.recipe import changed, read_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.slide_blocks import stage_on
from napari_mosaik.workflow.slide_nuclei import share_before
from napari_mosaik.workflow.steps.classes import _classified_before
from tests.segment.test_stardist_nuclei import random_weights


def nuclei_of(case, **settings):
    recipe = changed(read_recipe(case.root), "nuclei", **settings)
    for _ in run_until(case, recipe, "nuclei"):
        pass
    return case.store.read(NUCLEI), case.store.read(NUCLEUS_OBJECTS)


def test_a_network_finds_the_nuclei_of_a_slide(tiny_cohort, tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    shutil.copytree(tiny_cohort / "A2", tmp_path / "A2")
    case = Case(tmp_path / "A2")
    with pytest.raises(InputError, match="weights --fetch"):
        nuclei_of(case, method="stardist", weights="other")
    coarse = replace(random_weights(), spacing_um=3.0, prob_threshold=0.6)
    save_stardist(coarse, tmp_path / "net")
    weights = install_weights(tmp_path / "net")
    with pytest.raises(InputError, match=f"one of: {weights.hash}"):
        nuclei_of(case, method="stardist", weights="other")
    labels, table = nuclei_of(case, method="stardist", weights=weights.hash)
    assert f"stardist method, network random (weights {weights.hash})" in table.about["method"]
    found = np.unique(labels.array())
    assert len(found) - 1 == len(table) > 100
    assert np.asarray(table["area_um2"]).min() > 0
    shown = [cell for part in gather_report(case).tables for row in part.rows for cell in row]
    assert any(weights.hash in str(cell) for cell in shown)
    on = {"device": "CPU", "precision": "32 bit", "torch": torch.__version__}
    assert case.store.record(NUCLEI)["computed_on"] == on
    made = gather_report(case).provenance["Results"]["nuclei"]
    assert f"computed on CPU with 32 bit (torch {torch.__version__})" in made


def test_little_of_the_nuclei_of_a_large_slide_is_done_when_its_blocks_begin():
    """2 s of 3 min there; on a small slide a third of the bar at most."""
    shares = []
    for side in (3, 100, 1500):
        lattice = Lattice("he", (side, side), (10.0, 10.0), (0.0, 0.0))
        shares.append(share_before(Raster(np.ones((side, side), bool), lattice), 0.5))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 0.3
    assert 0.005 < shares[-1] < 0.015


def test_nothing_is_taken_over_from_another_device(computed_cohort):
    """Neither the blocks of a run that ended early nor the classes of an earlier one."""
    here = {"device": "CPU", "precision": "32 bit", "torch": "2.9"}
    assert stage_on("nuclei", here) == stage_on("nuclei", dict(reversed(here.items())))
    others = [{**here, "device": "Some GPU"}, {**here, "torch": "2.8"}]
    assert len({stage_on("nuclei", one) for one in (here, *others)}) == 3
    store = Case(computed_cohort / "A2").store
    made = store.record(CLASSES)["computed_on"]
    assert made == processor_record()
    stored, mask = store.read(CLASS_PROBABILITY), store.read(TISSUE["he"])
    blocks = cut(stored.lattice, 128, 0.0)
    for record, some in (
        ({"computed_on": made}, True),
        ({}, False),
        ({"computed_on": here}, False),
    ):
        inputs = SimpleNamespace(
            previous_result=lambda *_: stored,
            previous_input=lambda _: mask,
            previous_record=lambda record=record: record,
        )
        model = SimpleNamespace(classes=stored.channels, computed_on=made)
        kept, known = _classified_before(inputs, stored.lattice, blocks, model)
        assert kept.any() == bool(known) == some
