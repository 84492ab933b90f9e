"""A case with a white slide; the field reports beside the checkout, for tests marked `realdata`."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mosaik.io import CaseFile, SlideEntry, create_case

FIELD_INPUTS = Path(__file__).parents[3] / "shared" / "field-reports" / "inputs"


@pytest.fixture(scope="session")
def field_inputs():
    """The folder with the inputs of the field reports."""
    if not FIELD_INPUTS.is_dir():
        pytest.skip(f"the inputs of the field reports are not at {FIELD_INPUTS}")
    return FIELD_INPUTS


def white_case(folder, size, pixel_um):
    """The case B1 with a white, square H&E slide of so many pixels a side."""
    root = folder / "B1"
    root.mkdir()
    pixels = np.full((size, size, 3), 240, np.uint8)
    tifffile.imwrite(root / "he.tif", pixels, tile=(256, 256), photometric="rgb")
    slide = SlideEntry(path="he.tif", spacing_um=(pixel_um, pixel_um), spacing_source="user")
    return create_case(root, CaseFile(name="B1", slides={"he": slide}))
