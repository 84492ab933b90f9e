"""The nuclei step with a network: weights by their hash, and a record that names them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core.catalogue import NUCLEI, NUCLEUS_OBJECTS
from napari_mosaik.core.errors import InputError
from napari_mosaik.io.case import Case
from napari_mosaik.segment.stardist import save_stardist
from napari_mosaik.view.report.content import gather_report
from napari_mosaik.workflow.model_weights import WEIGHTS_VARIABLE, install_weights
from napari_mosaik.workflow.recipe import changed, read_recipe
from napari_mosaik.workflow.run import run_until
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
