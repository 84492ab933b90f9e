"""Which tests must stay in one process when the suite is run by several (`pytest -n`)."""

import os

import hypothesis
import pytest

# Threads that wait for one another must not occupy the cores that the other test process needs:
# small operations of a network take a hundred times as long otherwise.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The first example may compile kernels: no example has a time limit.
hypothesis.settings.register_profile("mosaik", deadline=None)
hypothesis.settings.load_profile("mosaik")


def pytest_collection_modifyitems(items):
    """Tests of one file share its fixtures; window tests a screen, predictor tests a cohort."""
    for item in items:
        folder = item.path.parent.name
        if item.get_closest_marker("gui"):
            group = "window"
        elif folder == "predictor":
            group = folder
        else:
            group = f"{folder}/{item.path.name}"
        item.add_marker(pytest.mark.xdist_group(group))
