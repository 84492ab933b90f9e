"""Cohorts that every test process shares, and which tests must stay in one process."""

import importlib.util
import os
import shutil
import sys

import hypothesis
import pytest
from filelock import FileLock

from napari_mosaik.io.seen_uptake import SHOWN

# Threads that wait for one another must not occupy the cores that the other test process needs:
# small operations of a network take a hundred times as long otherwise.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The first example may compile kernels: no example has a time limit.
hypothesis.settings.register_profile("mosaik", deadline=None)
hypothesis.settings.load_profile("mosaik")


LONGEST = ("window", "workflow/test_sample_case.py", "workflow/test_update.py", "predictor")
"""Groups that are begun first, so that no process is left alone with one of them."""


def pytest_configure(config):
    """Hand the groups out in the order of `LONGEST`, not by the number of their tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def _group(item):
    """Tests of one file share its fixtures; window tests a screen, predictor tests a cohort."""
    folder = item.path.parent.name
    if item.get_closest_marker("gui"):
        return "window"
    return folder if folder == "predictor" else f"{folder}/{item.path.name}"


def why_no_window() -> str:
    """Why no window can be shown here; empty if one can."""
    if any(importlib.util.find_spec(name) is None for name in ("napari", "qtpy")):
        return "napari or Qt is not installed"
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        return "no display: run under xvfb-run, or on a desktop"
    return ""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items):
    """Group and order the tests; Qt ends the process without a display, so skip before it does."""
    why, groups = why_no_window(), {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
        if why and group == "window":
            item.add_marker(pytest.mark.skip(reason=why))
    items.sort(key=lambda item: (*LONGEST, groups[item]).index(groups[item]))


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """Makes a folder in one test process; the others wait for it. What it holds is only read."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def build(name, make):
        folder, unfinished = root / name, root / f"{name}-unfinished"
        with FileLock(root / f"{name}.lock"):
            if not folder.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def tiny_cohort(built_once):
    """The tiny sample cohort as it is written, nothing computed; copy it before use."""
    from napari_mosaik.core.progress import run_to_end
    from napari_mosaik.phantom import sample

    def make(folder):
        run_to_end(sample(folder, "tiny", 0, ("A2", "B8", "B11")))

    return built_once("tiny", make)


@pytest.fixture(scope="session")
def computed_cohort(built_once, tiny_cohort):
    """The tiny cohort with all that can be had without a network; copy it before use."""
    from napari_mosaik.core.progress import run_to_end
    from napari_mosaik.io import Case
    from napari_mosaik.workflow.classifier import retrain
    from napari_mosaik.workflow.recipe import read_recipe
    from napari_mosaik.workflow.run import run_until

    def make(folder):
        shutil.copytree(tiny_cohort, folder)
        cases = [Case(folder / name) for name in ("A2", "B8", "B11")]
        for case in cases[:2]:
            run_to_end(run_until(case, read_recipe(case.root), "stain"))
        run_to_end(retrain(cases[:2], cases))
        for case in cases:
            run_to_end(run_until(case, read_recipe(case.root)))

    return built_once("computed", make)


@pytest.fixture(scope="session")
def cohort(built_once, computed_cohort):
    """Two tiny sample cases with everything run, the network trained for two epochs."""
    from napari_mosaik.core.progress import run_to_end
    from napari_mosaik.io import Case
    from napari_mosaik.predictor import TrainParams
    from napari_mosaik.workflow.cohort import train_network
    from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
    from napari_mosaik.workflow.run import run_until

    def make(folder):
        for name in ("B8", "B11"):
            shutil.copytree(computed_cohort / name, folder / name)
        cases = [Case(folder / name) for name in ("B8", "B11")]
        run_to_end(train_network(cases, "B11", TrainParams(epochs=2, threads=1)))
        recipe = changed(read_recipe(cases[1].root), "input_spread", draws=18)
        write_recipe(cases[1].root, recipe)
        run_to_end(run_until(cases[1], read_recipe(cases[1].root)))

    return built_once("predicted", make)


@pytest.fixture
def own_cohort(cohort, tmp_path):
    """A copy of the cohort that a test may change; nobody has seen anything of it so far."""
    own = shutil.copytree(cohort, tmp_path / "cohort")
    for journal in own.glob("*/journal/runs.jsonl"):  # what a window showed of the common one
        lines = journal.read_text("utf-8").splitlines(keepends=True)
        journal.write_text("".join(line for line in lines if f'"{SHOWN}"' not in line), "utf-8")
    return own
