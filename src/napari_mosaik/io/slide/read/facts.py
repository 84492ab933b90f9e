"""What a slide is, in plain facts: reader, size, levels, pixel size, what is missing."""

from __future__ import annotations

from typing import Any

from napari_mosaik.io.slide.read.cache import shared_cache
from napari_mosaik.io.slide.read.icc import profile_of
from napari_mosaik.io.slide.read.slide import SlideImage
from napari_mosaik.io.slide.types.base import Slide

__all__ = ["slide_facts"]

_SHOWN = ("why", "warning")


def slide_facts(slide: Slide, *, measured: bool = True) -> dict[str, Any]:
    """JSON-able facts of an open slide.

    Parameters
    ----------
    slide
        An open slide; no pixels of it are read.
    measured
        False where the slide was opened with a stand-in because its pixel size is not known.
    """
    if not isinstance(slide, SlideImage):
        raise TypeError(f"{type(slide).__name__} is not a slide that open_slide opened")
    properties = dict(slide.properties)
    levels = [
        {
            "shape": list(level.shape),
            "downsample": list(level.downsample),
            "tile": list(stored.tile),
            "virtual": level.virtual,
        }
        for level, stored in zip(slide.levels, slide.source.levels, strict=True)
    ]
    return {
        "file": str(slide.path),
        "reader": slide.reader,
        "why": properties.get("why", ""),
        "shape": list(slide.lattice.shape),
        "size_mm": [round(um / 1000, 4) for um in slide.lattice.extent_um] if measured else None,
        "spacing_um": list(slide.lattice.spacing_um) if measured else None,
        "spacing_source": slide.spacing_source if measured else None,
        "levels": levels,
        "loaded": _loaded(slide),
        "missing": _missing(slide, measured),
        "warnings": [properties["warning"]] if "warning" in properties else [],
        "properties": {key: text for key, text in properties.items() if key not in _SHOWN},
    }


def _loaded(slide: SlideImage) -> dict[str, Any]:
    """What opening the slide brings into memory, MiB."""
    shape = slide.levels[-1].shape
    decoded = slide.lattice.shape[0] * slide.lattice.shape[1] * 3 / 2**20
    coarsest = shape[0] * shape[1] * 3 / 2**20
    return {
        "decoded_mib": round(decoded, 3),
        "coarsest_mib": round(coarsest, 3),
        "cache_mib": round(shared_cache().limit / 2**20, 1),
        "whole": slide.reader == "picture",
    }


def _missing(slide: SlideImage, measured: bool) -> list[str]:
    missing = []
    if not measured:
        missing.append("pixel size")
    virtual = [level for level in slide.levels if level.virtual]
    if virtual:
        names = ", ".join(f"1:{max(level.downsample):g}" for level in virtual)
        missing.append(f"levels {names}: made from the level below when they are needed")
    if profile_of(slide.source) is None and "colour" not in slide.properties:
        missing.append("colour profile (ICC): colours are shown as stored")
    if "objective" not in slide.properties:
        missing.append("objective: not stated, and not needed")
    return missing
