from __future__ import annotations

import pytest

from napari_mosaik.predictor import TileInputs
from tests.predictor.synthetic import make_case


@pytest.fixture(scope="session")
def small_cases() -> list[TileInputs]:
    """Three small cases of two patients, about 50 tiles each."""
    return [
        make_case(name, name[0], i, size_um=(2700.0, 3300.0), level=1.0 + 0.3 * (name[0] == "B"))
        for i, name in enumerate(["A2", "A3", "B8"])
    ]


@pytest.fixture(scope="session")
def tile_cases() -> list[TileInputs]:
    """The same cases with the windows of the network that reads tile by tile."""
    return [
        make_case(
            name,
            name[0],
            i,
            size_um=(2700.0, 3300.0),
            level=1.0 + 0.3 * (name[0] == "B"),
            windows_px=(40, 40, 40),
        )
        for i, name in enumerate(["A2", "A3", "B8"])
    ]
