"""The field reports beside the checkout, for tests marked `realdata`."""

from pathlib import Path

import pytest

FIELD_INPUTS = Path(__file__).parents[3] / "shared" / "field-reports" / "inputs"


@pytest.fixture(scope="session")
def field_inputs():
    """The folder with the inputs of the field reports."""
    if not FIELD_INPUTS.is_dir():
        pytest.skip(f"the inputs of the field reports are not at {FIELD_INPUTS}")
    return FIELD_INPUTS
