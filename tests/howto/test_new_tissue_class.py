"""How many files a new built-in tissue class touches; a reader's own class touches none."""

from tests.howto.copies import PackageCopy

USE = """
import numpy as np

from napari_mosaik.annotate.state import DEFAULT_CLASSES
from napari_mosaik.core import Lattice
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.segment.tissue_classifier import CLASSES
from napari_mosaik.view.layers import classes_layer

added = next(entry for entry in DEFAULT_CLASSES if entry.name == "necrosis")
assert (added.colour, added.key) == ("#332288", "3")
assert "necrosis" in CLASSES
assert DEFAULT_CLASSES[-1].name == "background"

labels = LabelImage(np.full((4, 4), 4, np.uint8), Lattice("he", (4, 4), (8.0, 8.0)))
layer = classes_layer(labels, None)
assert ("necrosis", "#332288") in layer.legend.entries
print("ok")
"""


def test_a_new_tissue_class(tmp_path, record_property):
    package = PackageCopy(tmp_path)
    package.edit(
        "core/catalogue.py",
        '    NON_NEOPLASTIC: "non-neoplastic",\n',
        '    NON_NEOPLASTIC: "non-neoplastic",\n    4: "necrosis",\n',
    )
    package.edit(
        "core/palette.py",
        '    "non-neoplastic": "#009E73",\n',
        '    "non-neoplastic": "#009E73",\n    "necrosis": "#332288",\n',
    )
    assert package.run(USE).strip() == "ok"
    record_property("new_tissue_class_files", len(package.touched()))
    assert len(package.touched()) == 2
