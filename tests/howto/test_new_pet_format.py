"""A new PET format is one file: the case, the SUV and the command line find it by themselves."""

import textwrap

import numpy as np
import pytest

from napari_mosaik.io import pet
from napari_mosaik.io.pet import companions, open_pet
from napari_mosaik.io.pet.registry import pet_formats
from tests.cli.test_commands import call

MODULE = """
    '''Toy PET: b"TPET", rows, columns, then SUV as 32-bit numbers; NAME.facts stands beside it.'''

    import numpy as np

    from napari_mosaik.core import Lattice, Raster
    from napari_mosaik.core.pet_records import PetHeader, PetImage
    from napari_mosaik.io.pet.registry import PetFormat, single_file


    class ToySeries:
        def __init__(self, path):
            shape = np.fromfile(path, "<i4", 2, offset=4)
            self.values = np.fromfile(path, "<f4", offset=12).reshape(*shape).astype(float)

        n_slices = 1

        def n_frames(self, place):
            return 1

        def image(self, place, number):
            lattice = Lattice("pet", self.values.shape, (400.0, 400.0))
            header = PetHeader(reader="toy", unit="g/mL", suv_kind="bw")
            return PetImage(Raster(self.values, lattice, "g/mL"), header)


    def _is_toy(path):
        with path.open("rb") as file:
            return file.read(4) == b"TPET"


    def _beside(path):
        return [path.with_suffix(".facts")]


    FORMAT = PetFormat(
        "toy PET",
        _is_toy,
        lambda files, sidecar: ToySeries(single_file(files, "toy PET")),
        companions=_beside,
    )
"""


@pytest.fixture
def toy_format(tmp_path, monkeypatch):
    """The module in a folder of its own that is searched like ``io/pet``."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "toy_pet.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(pet, "__path__", [*pet.__path__, str(folder)])
        yield folder


def test_a_new_pet_format(toy_format, tmp_path, capsys, record_property):
    values = np.random.default_rng(0).random((5, 7)).astype("<f4")
    path = tmp_path / "scan" / "mouse.tpet"
    path.parent.mkdir()
    path.write_bytes(b"TPET" + np.array([5, 7], "<i4").tobytes() + values.tobytes())
    path.with_suffix(".facts").write_text("")

    for given in (path, path.parent):
        image = open_pet(given)
        assert image.header.reader == "toy"
        assert np.array_equal(image.raster.values, values)
    assert companions([path]) == [path.with_suffix(".facts")]

    assert call("suv", path, "--json") == 0
    assert str(float(values.max()))[:6] in capsys.readouterr().out

    touched = list(toy_format.glob("*.py"))
    assert len(touched) == 1
    record_property("new_pet_format_files", len(touched))


def test_nothing_is_left_of_it():
    assert [one.title for one in pet_formats()] == ["DICOM", "NIfTI", "Inveon"]
