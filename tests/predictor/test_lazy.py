from __future__ import annotations

import subprocess
import sys

import pytest

import napari_mosaik.predictor as predictor


def test_importing_the_folder_does_not_load_torch():
    code = (
        "import sys, napari_mosaik.predictor as t; t.TrainParams(); "
        "print([m for m in ('torch', 'monai', 'pandas', 'sklearn', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_exists_and_functions_are_not_hidden_by_modules():
    import napari_mosaik.predictor.prediction
    import napari_mosaik.predictor.training  # noqa: F401

    for name in predictor.__all__:
        assert getattr(predictor, name) is not None
    assert callable(predictor.train)
    assert callable(predictor.predict)
    with pytest.raises(AttributeError, match="nothing"):
        _ = predictor.nothing
