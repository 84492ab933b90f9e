"""A new slide format is one file: the window, napari and the command line find it by themselves."""

import json
import textwrap

import numpy as np
import pytest

from napari_mosaik.io.slide import dialog_filter, formats, open_slide
from napari_mosaik.io.slide.formats.registry import reader_patterns, slide_formats
from tests.cli.test_commands import call

MODULE = """
    '''Toy slides: b"TOY1", rows and columns, then the RGB pixels.'''

    import hashlib

    import numpy as np

    from napari_mosaik.io.slide.formats.registry import SlideFormat
    from napari_mosaik.io.slide.types.tiles import StoredLevel


    class ToySource:
        reader = "toy"

        def __init__(self, path):
            self.path = path
            rows, columns = map(int, np.fromfile(path, "<i4", 2, offset=4))
            self.pixels = np.fromfile(path, np.uint8, offset=12).reshape(rows, columns, 3)
            self.levels = (StoredLevel((rows, columns), (rows, columns)),)
            self.header_spacing_um = (0.5, 0.5)
            self.properties = {"vendor": "toy"}

        def tile(self, level, row, column):
            return self.pixels

        def fingerprint(self):
            return {"pixels": hashlib.blake2b(self.pixels.tobytes()).hexdigest()}

        def close(self):
            pass


    def _open(candidate):
        if not candidate.start.startswith(b"TOY1"):
            return None
        return ToySource(candidate.path), "it starts with TOY1"


    FORMAT = SlideFormat("a toy slide", _open, suffixes=(".toy",), slides_only=(".toy",))
"""


@pytest.fixture
def toy_format(tmp_path, monkeypatch):
    """The module in a folder of its own that is searched like ``io/slide/formats``."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "toy_format.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
        yield folder


def test_a_new_slide_format(toy_format, tmp_path, capsys, record_property):
    pixels = np.random.default_rng(0).integers(1, 255, (40, 60, 3), np.uint8)
    path = tmp_path / "section.toy"
    path.write_bytes(b"TOY1" + np.array([40, 60], "<i4").tobytes() + pixels.tobytes())

    with open_slide(path) as slide:
        assert slide.reader == "toy"
        assert np.array_equal(slide.read_lattice(slide.lattice).values, pixels)
    assert "*.toy" in dialog_filter()
    assert "*.toy" in reader_patterns()

    from napari_mosaik.plugin import slide_reader

    assert slide_reader(str(path)) is not None
    path.with_name("torn.toy").write_bytes(b"")
    assert slide_reader(str(path.with_name("torn.toy"))) is not None  # its error is reported

    assert call("slide", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["why"] == "it starts with TOY1"

    touched = list(toy_format.glob("*.py"))
    assert len(touched) == 1
    record_property("new_slide_format_files", len(touched))


def test_nothing_is_left_of_it():
    assert not any(one.title == "a toy slide" for one in slide_formats())
