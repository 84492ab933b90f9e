"""The network for nuclei on H&E in this package; its card records the training."""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

from napari_mosaik.segment.stardist.weights import StarDistWeights, load_stardist

__all__ = ["EMBEDDED", "embedded_weights"]

EMBEDDED = "mosaik_he"


@cache
def embedded_weights() -> StarDistWeights:
    """Weights, thresholds and card of the network in the package."""
    with as_file(files(__package__) / EMBEDDED) as folder:
        return load_stardist(folder)
