"""Tissue classes as layers: the map, and how undecided the classifier was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from napari_mosaik.core import LabelImage, Raster
from napari_mosaik.core.catalogue import CLASS_NAMES
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.palette import (
    CLASS_COLOURS,
    OWN_CLASS_COLOURS,
    UNCERTAINTY_COLORMAP,
    code_colours,
)
from napari_mosaik.core.uncertainty import normalised_entropy
from napari_mosaik.view.maps import parameter_layer
from napari_mosaik.view.spec import LayerSpec, Legend, placement

__all__ = ["class_colours", "classes_layer", "uncertainty_layer"]

_ROWS: Final = 256
"""Rows of the map that are worked out at once, so that a large slide needs little memory."""


def class_colours(names: Mapping[int, str]) -> dict[int, str]:
    """Colour of each class code; classes of the user's own have colours in turn."""
    own = [code for code in sorted(names) if code > 0 and code not in CLASS_COLOURS]
    turns = {code: OWN_CLASS_COLOURS[i % len(OWN_CLASS_COLOURS)] for i, code in enumerate(own)}
    return {**CLASS_COLOURS, **turns}


def classes_layer(classes: LabelImage, transform: Transform | None = None) -> LayerSpec:
    """Tissue classes as filled areas, each in its colour."""
    names = {**CLASS_NAMES, **classes.names}
    shown = class_colours(names)
    return LayerSpec(
        "Tissue classes",
        "labels",
        [classes.values, *classes.levels] if classes.levels else classes.values,
        placement(classes.lattice, transform),
        {"colormap": code_colours(shown)},
        opacity=0.45,
        legend=Legend(
            "Tissue classes", entries=tuple((names[code], c) for code, c in shown.items())
        ),
        artifact="classes",
        space=classes.lattice.frame,
    )


def uncertainty_layer(
    probability: Raster, classes: LabelImage, transform: Transform | None = None
) -> LayerSpec:
    """How undecided the tissue classifier was, from 0 (certain) to 1 (all classes alike).

    The entropy of the class probabilities over its largest value; transparent without class.
    Hidden at first, since it covers the classes.
    """
    values: Any = probability.values
    codes: Any = classes.values
    parts = []
    for row in range(0, values.shape[0], _ROWS):
        strip = slice(row, row + _ROWS)
        found = normalised_entropy(values[strip]).astype(np.float32)
        parts.append(np.where(np.asarray(codes[strip]) > 0, found, np.float32(np.nan)))
    spec = parameter_layer(
        Raster(np.concatenate(parts), probability.lattice, "1"),
        "Uncertainty of the tissue class",
        limits=(0.0, 1.0),
        colormap=UNCERTAINTY_COLORMAP,
        transform=transform,
        visible=False,
        artifact="class_probability",
    )
    if spec.legend is None:
        return spec
    note = "0: one class is certain; 1: all classes are equally likely"
    return replace(spec, legend=replace(spec.legend, note=note), opacity=0.7)
