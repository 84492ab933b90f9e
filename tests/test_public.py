"""The names that scripts rely on are there and explain themselves."""

import ast
import inspect
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW, STEPS = "napari_mosaik.workflow", "napari_mosaik/workflow/steps"

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


def loaded_by(module, done):
    """Modules of the workflow that importing one loads, without those loaded inside functions."""
    if module in done:
        return done
    done.add(module)
    place = ROOT / "src" / module.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    for part in ast.parse(path.read_text("utf-8")).body:
        if isinstance(part, ast.ImportFrom) and (part.module or "").startswith(WORKFLOW):
            loaded_by(part.module, done)
    return done


@pytest.mark.parametrize("path", sorted((ROOT / "src" / STEPS).glob("*.py")), ids=lambda p: p.stem)
def test_what_a_step_is_made_of_can_be_the_first_that_is_imported(path):
    """It loads no step itself: all steps are loaded with the first, and they would wait for it."""
    own = STEPS.replace("/", ".")
    for part in ast.parse(path.read_text("utf-8")).body:
        module = part.module or "" if isinstance(part, ast.ImportFrom) else ""
        if module.startswith(WORKFLOW) and not module.startswith(own):
            assert not [one for one in loaded_by(module, set()) if one.startswith(own)], module


def imported(tree):
    """First names of what a module imports, also by name, except for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            name = ast.unparse(node.args[0]).strip("f'\"")
            if name[0] not in "{" and "." in name:
                yield name.partition(".")[0]
        yield from imported(node)


def test_the_package_declares_what_it_imports():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras, found = stated["optional-dependencies"], packages_distributions()

    def names(lines):
        return {re.split(r"[^\w.-]", line)[0].replace("_", "-").lower() for line in lines}

    core = names(stated["dependencies"])
    window = core | names(extras["gui"]) | names(extras["all"]) | {"vispy", "app-model", "pyopengl"}
    missing = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        tops = set(imported(ast.parse(path.read_text("utf-8")))) - set(sys.stdlib_module_names)
        shows = {"widgets", "cli", "plugin.py"} & set(path.parts)  # `view` says what it lacks
        declared = window if shows else core
        for top in tops - {"napari_mosaik"}:
            from_any = {one.replace("_", "-").lower() for one in found.get(top, [top])}
            if not from_any & declared:
                missing.add((path.name, top))
    assert not missing
