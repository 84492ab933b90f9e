"""The names that scripts rely on are there and explain themselves."""

import inspect
from importlib import import_module

import pytest

PUBLIC = {
    "napari_mosaik": ("open_case", "run", "phantom"),
    "napari_mosaik.io": ("open_slide", "open_pet"),
    "napari_mosaik.tissue": ("tissue_mask", "tile_grid", "fit_macenko", "normalise"),
    "napari_mosaik.uptake": ("du_bois_bsa_m2", "decay_factor", "suv_factor", "tile_uptake"),
    "napari_mosaik.segment": (
        "segment_vessels",
        "segment_nuclei",
        "segment_classes",
        "score_caix",
    ),
    "napari_mosaik.features": ("difference_entropy",),
    "napari_mosaik.spatial": ("TileGraph", "inverse_distance", "associate", "local_moran"),
    "napari_mosaik.kinetics": ("ImmunokineticParams", "solve_immunokinetic"),
    "napari_mosaik.dosimetry": (
        "nuclide",
        "dose_per_activity_gy",
        "time_integrated_activity",
        "time_integrated_exponentials",
        "DoseKernel",
        "spread_dose",
        "protraction",
        "RepairState",
        "respond",
        "oxygen_effect",
        "oxygen_from_distance",
        "dose_volume",
        "equivalent_uniform_dose",
        "tumour_control",
        "plan_activity",
    ),
    "napari_mosaik.twin": (
        "Observation",
        "Prior",
        "Posterior",
        "log_linear_posterior",
        "chain_posterior",
        "predict",
        "identifiability",
        "value_of_scan",
        "update",
        "virtual_cohort",
        "wilson_interval",
        "patients_needed",
    ),
    "napari_mosaik.predictor": ("MosaikNetwork", "train", "predict"),
}


@pytest.mark.parametrize(
    ("place", "name"), [(place, name) for place, names in PUBLIC.items() for name in names]
)
def test_a_public_name_is_there_and_documented(place, name):
    module = import_module(place)
    assert name in module.__all__
    assert inspect.getdoc(getattr(module, name))


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        import_module("napari_mosaik").nothing  # noqa: B018


def test_the_rows_of_a_tile_can_be_the_first_that_is_imported():
    """As by `tile` and `predict`: no module of the steps is loaded then."""
    import subprocess
    import sys

    command = [sys.executable, "-c", "import napari_mosaik.view.tile_data"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
