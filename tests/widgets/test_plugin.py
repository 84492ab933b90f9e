"""Contributions to napari: the manifest, the readers, and the manifest in the built wheel."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parents[2]


def test_the_manifest_names_functions_that_exist():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(ROOT / "src/napari_mosaik/napari.yaml")
    manifest.validate_imports()
    assert (ROOT / "napari.yaml").resolve() == ROOT / "src/napari_mosaik/napari.yaml"
    assert not any(command.icon for command in manifest.contributions.commands)


@pytest.mark.skipif(not importlib.util.find_spec("build"), reason="'build' is not installed")
def test_the_wheel_carries_the_manifest(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "napari_mosaik/napari.yaml" in names
    entry = next(n for n in names if n.endswith("entry_points.txt"))
    assert "napari_mosaik:napari.yaml" in zipfile.ZipFile(wheel).read(entry).decode()


def test_images_that_are_not_slides_are_left_to_napari(tmp_path):
    from napari_mosaik.plugin import case_reader, slide_reader

    path = tmp_path / "note.tif"
    path.write_text("not a picture")
    assert slide_reader(str(path)) is None
    assert case_reader(str(tmp_path)) is None


@pytest.mark.gui
def test_a_slide_without_pixel_size_opens_uncalibrated(tmp_path, monkeypatch):
    import napari
    from napari.utils import notifications

    from napari_mosaik.plugin import slide_reader
    from napari_mosaik.widgets.canvas.view_keys import UNCALIBRATED

    told = []
    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    monkeypatch.setattr(notifications, "show_warning", told.append)
    path = str(tmp_path / "plain.tif")
    tifffile.imwrite(path, np.full((64, 96, 3), 200, np.uint8), photometric="rgb")
    ((_, options, kind),) = slide_reader(path)(path)
    assert (kind, options["name"]) == ("image", "plain.tif (uncalibrated)")
    assert options["metadata"][UNCALIBRATED] is True
    assert "plain.tif has no pixel size" in told[0]


@pytest.mark.gui
def test_a_script_gets_the_pixels_themselves_and_the_file_is_closed(tmp_path, monkeypatch):
    import napari

    from napari_mosaik.io.slide.read.slide import SlideImage
    from napari_mosaik.plugin import slide_reader

    closed, close = [], SlideImage.close
    monkeypatch.setattr(SlideImage, "close", lambda self: (closed.append(self.path), close(self)))
    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (2200, 2400, 3)).astype(np.uint8)
    about = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}  # 0.5 µm
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), **about)
    ((levels, options, _),) = slide_reader(str(path))(str(path))
    closed.clear()  # the reader looked at it before
    assert options["scale"] == pytest.approx((0.5, 0.5))
    assert np.array_equal(levels[0][1000:1400, 700:900], pixels[1000:1400, 700:900])
    assert np.array_equal(levels[0][2199, ::7], pixels[2199, ::7])
    assert levels[-1].shape[0] < 1100
    means = pixels.reshape(1100, 2, 1200, 2, 3).mean((1, 3))
    assert np.abs(np.asarray(levels[1]) - means).max() <= 1
    assert closed == []
    del levels
    assert closed == [path]


def test_folders_are_claimed_only_when_they_are_slides(tmp_path):
    from napari_mosaik.plugin import slide_reader
    from tests.io import slide_formats as make
    from tests.io.test_slide_formats import write_zarr

    pixels = make.smooth(64, 96)
    assert slide_reader(str(write_zarr(tmp_path / "a.zarr", "0.5"))) is not None
    assert slide_reader(str(make.write_dicom(tmp_path / "d", [pixels])[0].parent)) is not None
    assert slide_reader(str(make.write_mirax(tmp_path / "a.mrxs", pixels))) is not None
    (tmp_path / "pet.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    (tmp_path / "empty").mkdir()
    for name in ("pet.dcm", "empty", "a"):
        assert slide_reader(str(tmp_path / name)) is None
    (tmp_path / "b.svs").write_text("not a slide")
    assert slide_reader(str(tmp_path / "b.svs")) is not None  # reading it reports what is wrong


@pytest.mark.gui
def test_the_slide_reader_gives_a_lazy_layer_in_micrometres(dock, cohort):
    from napari_mosaik.plugin import slide_reader

    path = str(cohort / "B11" / "slides" / "he.tif")
    ((levels, options, kind),) = slide_reader(path)(path)
    assert kind == "image"
    assert options["units"] == ("um", "um")
    assert options["multiscale"]
    pixels = levels[0][10:20, 30:40]
    assert pixels.shape == (10, 10, 3)
    levels[0]._slide.close()


@pytest.mark.gui
def test_napari_opens_the_dock_and_the_sample_cohort(dock, qtbot, cohort, tmp_path, monkeypatch):
    shutil.copytree(cohort, tmp_path / "napari-mosaik-sample-tiny")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    viewer = dock.viewer
    _, ours = viewer.window.add_plugin_dock_widget("napari-mosaik", "MOSAIK")
    assert type(ours) is type(dock)
    viewer.open_sample("napari-mosaik", "tiny")

    def opened():
        return ours.workspace.case is not None and ours.workspace.job is None

    qtbot.waitUntil(opened, timeout=120_000)
    assert ours.workspace.case.name == "B11"
    assert "MOSAIK sample cohort" not in viewer.layers
    ours.close()


def test_a_file_that_is_no_slide_is_one_sentence_in_the_window(dock, tmp_path):
    from napari.utils.notifications import NotificationSeverity, notification_manager

    path = tmp_path / "wrong.svs"
    path.write_text("no slide")
    before = list(dock.viewer.layers)
    dock.viewer.open(path, plugin="napari-mosaik")
    told = notification_manager.records[-1]
    assert told.severity == NotificationSeverity.ERROR
    assert told.message.startswith("wrong.svs is not a slide: ")
    assert list(dock.viewer.layers) == before
