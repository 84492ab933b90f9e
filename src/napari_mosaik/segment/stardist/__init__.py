"""StarDist without TensorFlow: the network in torch, with StarDist's own compiled geometry.

Source: Schmidt et al. 2018, MICCAI; Weigert and Schmidt 2022, ISBI Challenges.
"""

from __future__ import annotations

from napari_mosaik.segment.stardist.model import (
    NEIGHBOURS_PX,
    READING_SHARE,
    StarDistNuclei,
    intensity_range,
)
from napari_mosaik.segment.stardist.network import Architecture, StarDistNetwork, predict_maps
from napari_mosaik.segment.stardist.weights import (
    EMBEDDED,
    StarDistWeights,
    embedded_weights,
    load_stardist,
    save_stardist,
)

__all__ = [
    "EMBEDDED",
    "NEIGHBOURS_PX",
    "READING_SHARE",
    "Architecture",
    "StarDistNetwork",
    "StarDistNuclei",
    "StarDistWeights",
    "embedded_weights",
    "intensity_range",
    "load_stardist",
    "predict_maps",
    "save_stardist",
]
