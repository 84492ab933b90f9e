"""The annotations on the canvas: a label image of the visible part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import Lattice, palette
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.view.layers import ANNOTATIONS_TITLE, annotation_layer
from napari_mosaik.widgets.canvas.camera import visible_um

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

    from napari_mosaik.annotate import AnnotationDocument, Area

__all__ = ["AnnotationPicture", "Draft"]

LAYER = ANNOTATIONS_TITLE
LONGEST_PX = 1600
OUTLINE = 255
"""Label of the outlines; their one colour stands out on pink tissue."""


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """The area being drawn; an empty label is the eraser."""

    area: Area
    label: str


class AnnotationPicture:
    """A read-only labels layer over the visible part of the H&E slide."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer

    def layer(self) -> Layer | None:
        """The layer, or None before the first annotation."""
        return next((layer for layer in self.viewer.layers if layer.name == LAYER), None)

    def remove(self) -> None:
        """Remove the layer."""
        layer = self.layer()
        if layer is not None:
            self.viewer.layers.remove(layer)

    def paint(
        self,
        document: AnnotationDocument,
        slide: Layer,
        slide_lattice: Lattice,
        draft: Draft | None,
    ) -> None:
        """Draw the visible annotations and the draft."""
        lattice = self._visible(slide, slide_lattice)
        if lattice is None:
            return
        low = lattice.origin_um
        high = (low[0] + lattice.extent_um[0], low[1] + lattice.extent_um[1])
        classes = document.snapshot.classes
        codes = {known.name: code for code, known in enumerate(classes, 1)}
        shapes = document.visible((*low, *high))
        if draft is not None and draft.label:
            shapes = [*shapes, AnnotatedShape("draft", draft.label, draft.area)]
        pixels = rasterise(shapes, lattice, codes)
        if draft is not None and not draft.label:
            cut = AnnotatedShape("draft", "cut", draft.area)
            pixels[rasterise([cut], lattice, {"cut": 1}) > 0] = 0
        pixels[_edges(pixels)] = OUTLINE
        self._put(pixels, lattice, classes, slide)

    def _visible(self, slide: Layer, slide_lattice: Lattice) -> Lattice | None:
        """Pixel grid over the visible part of the slide at about screen resolution."""
        seen_low, seen_high = visible_um(self.viewer)
        corners = product(*zip(seen_low, seen_high, strict=True))
        there = slide_lattice.to_um([slide.world_to_data(c) for c in corners])
        low = np.maximum(there.min(axis=0), 0.0)
        high = np.minimum(there.max(axis=0), slide_lattice.extent_um)
        size = high - low
        if (size <= 0).any():
            return None
        spacing = max(1.0 / self.viewer.scene.camera.zoom, float(size.max()) / LONGEST_PX)
        shape = (int(np.ceil(size[0] / spacing)), int(np.ceil(size[1] / spacing)))
        origin = (float(low[0]), float(low[1]))
        return Lattice(slide_lattice.frame, shape, (spacing, spacing), origin)

    def _put(self, pixels: NDArray[np.uint8], lattice: Lattice, classes: Any, slide: Layer) -> None:
        from napari.layers import Layer as Base

        spec = annotation_layer(pixels, lattice, classes)
        layer = self.layer()
        if layer is None:
            data, options, kind = spec.as_layer_data()
            outline = {OUTLINE: palette.rgba(palette.ANNOTATION_ACCENT)}
            options["colormap"] = {**options["colormap"], **outline}
            layer = Base.create(data, options, kind)
            layer.editable = False
            layer.affine = slide.affine
            self.viewer.add_layer(layer)
            self.viewer.layers.selection.clear()
            return
        layer.data = pixels
        layer.scale, layer.translate = spec.place["scale"], spec.place["translate"]
        layer.affine = slide.affine


def _edges(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask of the pixels at the border of an annotation, same shape as *codes*."""
    edge = np.zeros(codes.shape, bool)
    down, across = codes[1:] != codes[:-1], codes[:, 1:] != codes[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge & (codes > 0)
