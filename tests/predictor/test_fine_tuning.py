"""The uptake network is fine-tuned: on changed tiles and known ones, in the scale of its parent."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.predictor import TrainedModel, train
from tests.predictor.test_training import QUICK, finish, same_weights

PARAMS = QUICK.model_copy(update={"validation": "none", "epochs": 2, "batch_size": 4})


def corrected(cases, n=6):
    """The cases after a correction that changed the classes around a few tiles of the first."""
    codes = np.array(cases[0].codes)
    codes[:n] = (codes[:n] + 1) % 5
    return [replace(cases[0], codes=codes), *cases[1:]]


@pytest.fixture(scope="module")
def parent(tile_cases):
    return finish(train(tile_cases[:2], PARAMS, seed=5))


def test_changed_tiles_are_mixed_with_known_ones_in_the_scale_of_the_parent(tile_cases, parent):
    cases = corrected(tile_cases[:2])
    child = finish(train(cases, PARAMS, seed=1, parent=parent, replay=0.5))
    n_new = int(cases[0].measured[:6].sum())
    assert child.card["replay"] == {"share": 0.5, "tiles": n_new, "new_tiles": n_new}
    assert child.card["n_tiles"] == 2 * n_new
    assert child.card["parent"] == parent.hash
    assert child.card["target"] == parent.card["target"]
    for name in ("window_mean", "curve_sd"):
        np.testing.assert_array_equal(child.weights[f"0.{name}"], parent.weights[f"0.{name}"])
    before, after = (model.card["tile_digests"]["A2"] for model in (parent, child))
    assert len(after) == len(before) + 8 * n_new
    assert child.card["tile_digests"]["A3"] == parent.card["tile_digests"]["A3"]
    with pytest.raises(InputError, match="no tile has changed"):
        next(train(cases, PARAMS, seed=1, parent=child, replay=0.5))
    with pytest.raises(InputError, match="no tile has changed"):
        next(train(tile_cases[:2], PARAMS, seed=1, parent=parent))


def test_other_inputs_than_those_of_the_parent_are_refused(tile_cases, parent):
    other = replace(tile_cases[0], proxies=("one", "two", "three"))
    with pytest.raises(InputError, match="but the model takes"):
        next(train([other], PARAMS, parent=parent))


KILLED = """
import os, signal, sys
from pathlib import Path
from napari_mosaik.predictor import TrainedModel, train
from tests.predictor.synthetic import make_case
from tests.predictor.test_fine_tuning import PARAMS, corrected
sizes = {"size_um": (2700.0, 3300.0), "windows_px": (40, 40, 40)}
cases = [make_case(n, n[0], i, **sizes) for i, n in enumerate(["A2", "A3"])]
parent = TrainedModel.load(Path(sys.argv[1]))
work = train(
    corrected(cases), PARAMS, seed=3, parent=parent, replay=0.5, checkpoint=Path(sys.argv[2])
)
for step in work:
    if step.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_resumed_gives_the_same_bits(tile_cases, parent, tmp_path):
    folder, file = parent.save(tmp_path), tmp_path / "checkpoint.pt"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(file)], env=os.environ, timeout=600
    )
    assert ended.returncode == -signal.SIGKILL
    options = {"seed": 3, "parent": TrainedModel.load(folder), "replay": 0.5}
    cases = corrected(tile_cases[:2])
    work = train(cases, PARAMS, checkpoint=file, **options)
    assert next(work).epoch == 2
    resumed = finish(work)
    whole = finish(train(cases, PARAMS, **options))
    assert same_weights(resumed, whole)
    assert resumed.hash == whole.hash
