import numpy as np
import platformdirs
import pytest
import tifffile
from PIL import Image
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from napari_mosaik.core import InputError, MissingPixelSize
from napari_mosaik.core.catalogue import SLIDES
from napari_mosaik.io import Case, CaseFile, SlideEntry, create_case, open_slide
from napari_mosaik.io import profiles as scanners

PIXELS = np.random.default_rng(5).integers(0, 256, (120, 160, 3), np.uint8)


@pytest.fixture(autouse=True)
def own_config(tmp_path, monkeypatch):
    monkeypatch.setenv(scanners.CONFIG_VARIABLE, str(tmp_path / "config"))


@pytest.fixture
def case(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "he.png")
    entry = SlideEntry(path="../he.png")
    return create_case(tmp_path / "case", CaseFile(name="A", slides={"he": entry}))


def test_profiles_are_kept_by_name_in_a_file_that_can_be_edited():
    assert scanners.read_profiles() == {}
    scanners.add_profile("Slide scanner, 20x", (0.5, 0.502), "stage micrometer")
    scanners.add_profile("other", (0.25, 0.25))
    known = scanners.read_profiles()
    assert list(known) == ["Slide scanner, 20x", "other"]
    assert known["Slide scanner, 20x"].spacing_um == (0.5, 0.502)
    assert known["Slide scanner, 20x"].note == "stage micrometer"
    file = scanners.profiles_file()
    file.write_text(file.read_text() + '\n["by hand"]\nspacing_um = 0.23\n')
    assert scanners.profile_named("by hand").spacing_um == (0.23, 0.23)
    scanners.remove_profile("other")
    assert sorted(scanners.read_profiles()) == ["Slide scanner, 20x", "by hand"]


def test_what_is_wrong_with_profiles_is_said():
    with pytest.raises(InputError, match=r"no scanner profile 'x'.*none yet.*profiles --add"):
        scanners.profile_named("x")
    with pytest.raises(InputError, match=r"between 0\.05 and 20 µm"):
        scanners.add_profile("a", (352.8, 352.8))
    with pytest.raises(InputError, match="name"):
        scanners.add_profile(" ", (0.5, 0.5))
    file = scanners.profiles_file()
    file.parent.mkdir()
    file.write_text("[a]\nspacing = 0.5\n")
    with pytest.raises(InputError, match=r"'a' \(scanners\.toml\)"):
        scanners.read_profiles()
    file.write_text("[a\n")
    with pytest.raises(InputError, match="cannot be read"):
        scanners.read_profiles()


def test_the_settings_folder_is_that_of_the_system(monkeypatch):
    monkeypatch.setenv(scanners.CONFIG_VARIABLE, "/own/settings")
    assert scanners.config_folder().as_posix() == "/own/settings"
    monkeypatch.delenv(scanners.CONFIG_VARIABLE)
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x/.config")
    assert scanners.config_folder().as_posix() == "/x/.config/napari-mosaik"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert scanners.config_folder().parts[-2:] == (".config", "napari-mosaik")
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    assert scanners.config_folder().parts[-3:-1] == ("Library", "Application Support")
    assert scanners.config_folder().name == "napari-mosaik"


def test_three_ways_on_are_stored_with_their_source(case):
    with pytest.raises(MissingPixelSize, match=r"--spacing UM.*--profile NAME.*ruler"):
        case.slide("he")
    digests = []
    for source, size, profile in (
        ("user", (0.5, 0.51), ""), ("profile", (0.25, 0.25), "ours"), ("ruler", (0.3, 0.3), ""),
    ):  # fmt: skip
        spaced = case.file.slides["he"].spaced(size, source, profile)
        case.update(slides={"he": spaced})
        entry = Case(case.root).file.slides["he"]
        assert (entry.spacing_um, entry.spacing_source, entry.profile) == (size, source, profile)
        with case.slide("he") as slide:
            assert slide.lattice.spacing_um == size
            assert slide.spacing_source == source
        digests.append(case.digest(next(s for s in SLIDES.values() if s.name == "slide:he")))
    assert len(set(digests)) == 3


def readers(folder):
    """One slide per reader that states 0.25 µm per row and 0.5 µm per column."""
    import zarr

    size = {"resolution": (20000, 40000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(folder / "a.tif", PIXELS, tile=(64, 64), photometric="rgb", **size)
    Image.fromarray(PIXELS).save(folder / "a.png", dpi=(25400 / 0.5, 25400 / 0.25))
    group = zarr.create_group(str(folder / "a.zarr"), zarr_format=3)
    group.create_array("0", data=np.moveaxis(PIXELS, 2, 0), chunks=(3, 64, 64))
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": n, "type": "space", "unit": "nanometer"} for n in "yx"
    ]
    scale = [{"type": "scale", "scale": [1.0, 250.0, 500.0]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return [folder / "a.tif", folder / "a.png", folder / "a.zarr"]


def test_row_and_column_sizes_may_differ_in_every_reader(tmp_path):
    for path in readers(tmp_path):
        with open_slide(path) as slide:
            assert slide.lattice.spacing_um == pytest.approx((0.25, 0.5), rel=1e-4), path
            assert slide.spacing_source == "header"
            lattice = slide.working_lattice(1.0)
            assert lattice.shape == (30, 80)
            want = PIXELS.reshape(30, 4, 80, 2, 3).astype(int).sum((1, 3))
            np.testing.assert_array_equal(slide.read_lattice(lattice).values, (want + 4) // 8)
