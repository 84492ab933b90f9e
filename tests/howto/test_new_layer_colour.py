"""How many files a new layer colour touches: every colour of the package stands in one file."""

import re
from pathlib import Path

import napari_mosaik

SOURCE = Path(napari_mosaik.__file__).parent
HOME = SOURCE / "core" / "palette.py"
COLOUR = re.compile(r"""["']#[0-9a-fA-F]{3,8}["']""")


def test_a_colour_is_written_in_one_file(record_property):
    homes = {path for path in SOURCE.rglob("*.py") if COLOUR.search(path.read_text("utf-8"))}
    record_property("layer_colour_files", len(homes))
    assert homes == {HOME}
