"""What is seen on the slides: vessels, nuclei, tissue classes, CAIX per cell.

The compiled parts are loaded on first use, so importing this folder is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mosaik.segment.nuclei import (
        ClassicalNuclei,
        NucleiModel,
        NucleiParams,
        segment_nuclei,
    )
    from napari_mosaik.segment.vessels import VesselParams, segment_vessels

_WHERE = {
    "ClassicalNuclei": "nuclei",
    "NucleiModel": "nuclei",
    "NucleiParams": "nuclei",
    "VesselParams": "vessels",
    "segment_nuclei": "nuclei",
    "segment_vessels": "vessels",
}

__all__ = [
    "ClassicalNuclei",
    "NucleiModel",
    "NucleiParams",
    "VesselParams",
    "segment_nuclei",
    "segment_vessels",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
