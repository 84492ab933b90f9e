"""How many files a new layer of an existing step touches."""

from tests.howto.copies import PackageCopy

LAYER = """

def _tile_layers(results: CaseResults, choice: str) -> list[LayerSpec]:
    grid = results.get(TILES)
    if grid is None:
        return []
    from dataclasses import replace

    tiles = layers.tiles_layer(grid)
    return [tiles, replace(tiles, name="Tile rims")]


def _tile_line("""
USE = """
import sys
from pathlib import Path

import numpy as np
import tifffile

from napari_mosaik.io.case import create_case
from napari_mosaik.io.case_file import CaseFile, SlideEntry
from napari_mosaik.view.presentation import specs_of
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until

root = Path(sys.argv[1])
root.mkdir()
rgb = np.full((640, 640, 3), 245, np.uint8)
rgb[64:-64, 64:-64] = (190, 150, 180)
tifffile.imwrite(root / "cd34.tif", rgb, tile=(128, 128), photometric="rgb")
entry = SlideEntry(path="cd34.tif", spacing_um=(8.0, 8.0), spacing_source="user")
case = create_case(root, CaseFile(name="B1", slides={"cd34": entry}))
for _ in run_until(case, read_recipe(root), "tiles"):
    pass
print([layer.name for layer in specs_of(case, "tiles")])
"""


def test_a_new_layer(tmp_path, record_property):
    package = PackageCopy(tmp_path)
    before = package.run(USE, tmp_path / "before")
    name = "view/steps/tissue.py"
    text = (package.root / name).read_text("utf-8")
    start, end = text.index("\ndef _tile_layers("), text.index("def _tile_line(")
    package.edit(name, text[start:end] + "def _tile_line(", LAYER)
    after = package.run(USE, tmp_path / "after")
    assert "Tile rims" not in before
    assert "Tile rims" in after
    record_property("new_layer_files", len(package.touched()))
    assert len(package.touched()) == 1
