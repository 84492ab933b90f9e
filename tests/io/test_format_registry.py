"""The registry of slide formats: order, suffixes, and the patterns of the napari manifest."""

from importlib.resources import files

import yaml

from napari_mosaik.io.slide import dialog_filter
from napari_mosaik.io.slide.formats.registry import (
    reader_patterns,
    slide_formats,
    slide_only_suffixes,
)


def test_the_formats_are_found_and_asked_in_order():
    titles = [one.title for one in slide_formats()]
    assert titles == [
        "OME-Zarr",
        "a format that OpenSlide reads",
        "TIFF (SVS, OME-TIFF)",
        "PNG or JPEG",
    ]


def test_the_manifest_names_the_suffixes_of_all_formats():
    """If this fails, copy `reader_patterns()` into ``napari.yaml`` (readers, filename_patterns)."""
    manifest = yaml.safe_load(files("napari_mosaik").joinpath("napari.yaml").read_text("utf-8"))
    readers = manifest["contributions"]["readers"]
    stated = next(r for r in readers if r["command"].endswith("read_slide"))["filename_patterns"]
    assert sorted(stated) == sorted(reader_patterns())


def test_file_dialogs_offer_all_suffixes():
    assert all(f"*{suffix}" in dialog_filter() for suffix in slide_only_suffixes())
    assert "*.png" in dialog_filter()
    assert "zarr.json" in dialog_filter()
