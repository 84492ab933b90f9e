"""Reading and writing: slides, PET, annotations, cases and their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mosaik.io.case import Case, CaseFile, PetEntry, SlideEntry, create_case, find_cases

if TYPE_CHECKING:
    from napari_mosaik.io.annotations import read_geojson, write_geojson
    from napari_mosaik.io.pet import open_pet
    from napari_mosaik.io.slide import Slide, View, open_slide

__all__ = [
    "Case",
    "CaseFile",
    "PetEntry",
    "Slide",
    "SlideEntry",
    "View",
    "create_case",
    "find_cases",
    "open_pet",
    "open_slide",
    "read_geojson",
    "write_geojson",
]

_LAZY = {
    "Slide": "slide",
    "View": "slide",
    "open_slide": "slide",
    "open_pet": "pet",
    "read_geojson": "annotations",
    "write_geojson": "annotations",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
