"""One description of everything that can be drawn on the canvas, without a window library.

A sample covers an area whose outer corner is the origin of its lattice; napari puts the *centre* of
sample 0 at ``translate``.  Only `placement` converts one into the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_mosaik.core import FrameMismatch, Lattice, Transform

if TYPE_CHECKING:
    from napari_mosaik.view.label_levels import LabelLevels

__all__ = ["AXES", "UNITS", "LayerKind", "LayerSpec", "Legend", "placement", "placement_um"]

LayerKind = Literal["image", "labels", "points", "shapes", "vectors"]
UNITS = ("um", "um")
"""Units of both axes in the spelling of napari (pint)."""
AXES = ("row", "column")


@dataclass(frozen=True, slots=True)
class Legend:
    """The meaning of the colours of a layer: either named colours or a colour scale with limits.

    Parameters
    ----------
    title
        Name of the quantity or of the classes.
    unit
        Unit of the colour scale; empty for dimensionless numbers and categories.
    entries
        (name, "#rrggbb") pairs.
    colormap
        Name of the colour scale (known to napari and matplotlib).
    limits
        Values at its two ends.
    note
        A remark, such as the number of tiles without data.
    """

    title: str
    unit: str = ""
    entries: tuple[tuple[str, str], ...] = ()
    colormap: str = ""
    limits: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class LayerSpec:
    """A layer: its data, their position and their appearance.

    Parameters
    ----------
    name
        Title in the layer list.
    kind
        Type of napari layer.
    data
        Array, list of arrays (multiscale) or coordinates in µm (points, shapes, vectors).
    place
        Scale, translate, affine, units and axis labels, from `placement`.
    style
        Arguments of that kind of layer ("colormap", "contrast_limits", "edge_color"...).
    attributes
        Attributes to set once the layer exists: napari takes "contour" of labels in no other way.
    opacity, blending, visible
        As in napari.
    legend
        Meaning of the colours; None for slides.
    result
        Name of the artifact that is shown; empty for others.
    space
        Coordinate space of the data: the section or the PET whose alignment moves the layer.
    coded
        Whether the data of a label image are codes of `label_levels`, in which outlines are drawn
        already: "contour" then says whether the inside of an object is left clear.
    objects
        Object labels that the canvas reads as codes, piece by piece, in place of *data*.
    """

    name: str
    kind: LayerKind
    data: Any
    place: Mapping[str, Any]
    style: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opacity: float = 1.0
    blending: str = "translucent"
    visible: bool = True
    legend: Legend | None = None
    result: str = ""
    space: str = ""
    coded: bool = False
    objects: LabelLevels | None = None

    @property
    def multiscale(self) -> bool:
        """Whether the data are the levels of a pyramid."""
        return isinstance(self.data, list | tuple) and self.kind in ("image", "labels")

    def as_layer_data(self) -> tuple[Any, dict[str, Any], str]:
        """Data, arguments and type, as napari's readers return them."""
        arguments: dict[str, Any] = {
            "name": self.name,
            "opacity": self.opacity,
            "blending": self.blending,
            "visible": self.visible,
            "metadata": {"mosaik": self.result},
            **self.place,
            **self.style,
        }
        if self.kind in ("image", "labels"):
            arguments["multiscale"] = self.multiscale
        data = list(self.data) if self.multiscale else self.data
        return data, arguments, self.kind


def placement(lattice: Lattice, transform: Transform | None = None) -> dict[str, Any]:
    """Position of the samples of a lattice as arguments of a napari layer.

    Parameters
    ----------
    lattice
        The lattice (level 0 of a multiscale image).
    transform
        From the space of the lattice to that of the canvas; None when they are the same, or before
        registration.

    Raises
    ------
    FrameMismatch
        The transform does not start at the space of the lattice.
    """
    spacing, origin = np.asarray(lattice.spacing_um), np.asarray(lattice.origin_um)
    place = placement_um(lattice.frame, transform)
    return {
        **place,
        "scale": tuple(spacing.tolist()),
        "translate": tuple((origin + spacing / 2).tolist()),
    }


def placement_um(frame: str, transform: Transform | None = None) -> dict[str, Any]:
    """The same for coordinates in µm of the space *frame* (points, shapes, vectors)."""
    if transform is not None and transform.source != frame:
        raise FrameMismatch(
            f"a layer of '{frame}' cannot be placed by a transform from '{transform.source}'"
        )
    matrix = np.eye(3) if transform is None else np.array(transform.matrix)
    return {
        "scale": (1.0, 1.0),
        "translate": (0.0, 0.0),
        "affine": matrix,
        "units": UNITS,
        "axis_labels": AXES,
    }
