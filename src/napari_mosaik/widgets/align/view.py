"""The overlay of manual alignment: section over CD34, outline, landmarks, PET voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_mosaik.core import Raster, Transform, palette
from napari_mosaik.core.catalogue import REFERENCE
from napari_mosaik.view.alignment import checkerboard, circle_lines, voxel_lines
from napari_mosaik.view.maps import pet_layer
from napari_mosaik.view.objects import outline_lines
from napari_mosaik.view.spec import placement, placement_um
from napari_mosaik.widgets.canvas.layout_state import LayoutState

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.widgets.canvas.case_layers import CaseLayers
    from napari_mosaik.workflow.manual_alignment import AlignmentState

__all__ = ["PREFIX", "AlignView", "AlignmentPicture", "OverlayMode"]

PREFIX = "Align: "
OverlayMode = Literal["blend", "checkerboard", "outline"]
OUTLINE, BOARD, PET = f"{PREFIX}outline", f"{PREFIX}checkerboard", f"{PREFIX}PET"
OWN, PARTNERS, GAPS = f"{PREFIX}landmarks", f"{PREFIX}landmarks on CD34", f"{PREFIX}residuals"
VOXELS, CIRCLE = f"{PREFIX}PET voxels", f"{PREFIX}PET resolution"
SQUARES = 12
"""Squares of the checkerboard along the section."""
_OWN, _PARTNER = palette.LANDMARK, palette.REFERENCE_LANDMARK


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentPicture:
    """What is drawn of a section: tissue outline, and overview image or PET slice."""

    frame: str
    tissue: Raster
    fixed: Raster
    picture: Raster
    fwhm_um: float = 0.0


class AlignView:
    """Draws one section at its current alignment and restores the canvas afterwards."""

    def __init__(self, board: CaseLayers) -> None:
        self.board, self.viewer = board, board.viewer
        self.section: AlignmentPicture | None = None
        self.look: OverlayMode = "blend"
        self.opacity = 0.5
        self.marking = ""
        """Section shown alone while a landmark is set: "own", "partner" or "" for both."""
        self._before: LayoutState | None = None
        self._looks: dict[Layer, tuple[float, Any]] = {}

    @property
    def slide(self) -> Layer | None:
        """The layer of the section; for the PET the one made here."""
        if self.section is None:
            return None
        if self.section.frame == "pet":
            return self._own(PET)
        return self.board.slide_layer(self.section.frame)

    def enter(self, section: AlignmentPicture, state: AlignmentState) -> None:
        """Show the section over CD34 and hide all other layers."""
        self._before = LayoutState.of(self.viewer)
        self.section = section
        reference = self.board.slide_layer(REFERENCE)
        for layer in self.viewer.layers:
            layer.visible = layer is reference
        if section.frame == "pet":
            spec = pet_layer(section.picture, state.transform)
            self._put(PET, spec.data, "image", {**spec.place, **spec.style}, opacity=self.opacity)
            low, high = self._pet_extent(section)
            lines = voxel_lines(section.picture.lattice, low, high)
            self._vectors(VOXELS, lines, palette.TILE, state.transform, width_um=15.0)
        for layer in (reference, self.slide):
            if layer is not None:
                self._looks[layer] = (float(layer.opacity), np.array(layer.affine.affine_matrix))
        lines = outline_lines(np.asarray(section.tissue.values, bool), section.tissue.lattice)
        self._vectors(OUTLINE, lines, palette.TISSUE, state.transform, width_um=self._thin_um)
        self.show(state)

    def leave(self) -> None:
        """Restore the canvas."""
        if self._before is None:
            return
        for layer in [one for one in self.viewer.layers if one.name.startswith(PREFIX)]:
            self.viewer.layers.remove(layer)
        for layer, (opacity, affine) in self._looks.items():
            if layer in self.viewer.layers:
                layer.opacity = opacity
                layer.affine = affine
        for layer, shown in self._before.shown.items():
            if layer in self.viewer.layers:
                layer.visible = shown
        self._before, self.section, self._looks, self.marking = None, None, {}, ""

    def show(self, state: AlignmentState) -> None:
        """Draw everything at the current alignment."""
        section, matrix = self.section, np.array(state.transform.matrix)
        if section is None:
            return
        for layer in (self.slide, self._own(OUTLINE), self._own(VOXELS)):
            if layer is not None:
                layer.affine = matrix
        self._show_look(state)
        self._show_marks(state)
        if section.frame == "pet":
            self.show_circle(self._middle(section))

    def show_circle(self, place_um: Any) -> None:
        """Draw the resolution of the PET as a circle about a position on CD34."""
        if self.section is not None and self.section.fwhm_um:
            lines = circle_lines(place_um, self.section.fwhm_um)
            self._vectors(CIRCLE, lines, palette.PSF_CIRCLE, None, width_um=25.0)

    # --- parts ----------------------------------------------------------------------------------
    def _show_look(self, state: AlignmentState) -> None:
        slide, reference = self.slide, self.board.slide_layer(REFERENCE)
        board = self.look == "checkerboard" and self.section is not None and not self.marking
        covered = self.look == "blend" or self.marking == "own"
        if slide is not None:
            slide.visible = covered and self.marking != "partner"
            slide.opacity = 1.0 if self.marking == "own" else self.opacity
        if reference is not None:
            reference.visible = self.marking != "own"
            reference.opacity = 1.0
        if slide is not None and reference is not None:
            self._above(slide, reference)
        if board:
            self._show_board(state)
        elif (made := self._own(BOARD)) is not None:
            made.visible = False

    def _above(self, slide: Layer, reference: Layer) -> None:
        layers = self.viewer.layers
        if layers.index(slide) < layers.index(reference):
            layers.move(layers.index(reference), layers.index(slide))

    def _show_board(self, state: AlignmentState) -> None:
        section = self.section
        assert section is not None
        extent = section.fixed.lattice
        lattice = extent.resized(max(extent.extent_um) / 700)
        square_um = max(extent.extent_um) / SQUARES
        picture = section.picture if section.frame != "pet" else _magma(section.picture)
        data = checkerboard(picture, lattice, state.transform, square_um)
        layer = self._own(BOARD)
        if layer is not None:
            layer.data, layer.visible = data, True
            return
        self._put(BOARD, data, "image", {"rgb": True, **placement(lattice)}, opacity=1.0)
        outline = self._own(OUTLINE)
        if outline is not None:
            layers = self.viewer.layers
            layers.move(layers.index(outline), len(layers))

    def _show_marks(self, state: AlignmentState) -> None:
        own = [*state.moving, *([state.unpaired] if state.unpaired is not None else [])]
        moved = state.transform.apply(np.array(own, float).reshape(-1, 2))
        fixed = np.array(state.fixed, float).reshape(-1, 2)
        gaps = np.stack([moved[: len(fixed)], fixed - moved[: len(fixed)]], axis=1)
        self._points(OWN, moved, _OWN)
        self._points(PARTNERS, fixed, _PARTNER)
        self._vectors(GAPS, gaps, _PARTNER, None, width_um=self._thin_um)

    def _points(self, name: str, places: Any, colour: str) -> None:
        layer = self._own(name)
        if layer is None and not len(places):
            return
        text = {"string": [str(n + 1) for n in range(len(places))], "color": colour, "size": 11,
                "translation": [0, 0], "anchor": "upper_left"}  # fmt: skip
        if layer is not None:
            layer.data = places
            layer.text = text
            return
        style = {"size": 9 / self.viewer.scene.camera.zoom, "face_color": "transparent",
                 "border_color": colour, "border_width": 0.2, "symbol": "disc"}  # fmt: skip
        self._put(name, places, "points", {**placement_um(REFERENCE), **style, "text": text})

    def _vectors(
        self, name: str, lines: Any, colour: str, transform: Transform | None, *, width_um: float
    ) -> None:
        layer = self._own(name)
        if layer is not None:
            layer.data = lines
            return
        if not len(lines):
            return
        frame = REFERENCE if transform is None else transform.source
        style = {"edge_color": colour, "edge_width": width_um, "vector_style": "line"}
        self._put(name, lines, "vectors", {**placement_um(frame, transform), **style})

    def _put(
        self, name: str, data: Any, kind: str, style: dict[str, Any], opacity: float = 0.9
    ) -> None:
        from napari.layers import Layer as Base

        layer = Base.create(data, {"name": name, "opacity": opacity, **style}, kind)
        self.viewer.add_layer(layer)
        self.viewer.layers.selection.clear()

    def _own(self, name: str) -> Layer | None:
        return next((layer for layer in self.viewer.layers if layer.name == name), None)

    @property
    def _thin_um(self) -> float:
        return 2.0 / float(self.viewer.scene.camera.zoom)

    def _pet_extent(self, section: AlignmentPicture) -> tuple[Any, Any]:
        """Lowest and highest position of the specimen on the PET, one voxel wider, in µm."""
        rows, cols = np.nonzero(np.asarray(section.tissue.values, bool))
        corners = section.tissue.lattice.to_um([[rows.min(), cols.min()], [rows.max(), cols.max()]])
        room = np.asarray(section.picture.lattice.spacing_um)
        return corners[0] - room, corners[1] + room

    def _middle(self, section: AlignmentPicture) -> Any:
        rows, cols = np.nonzero(np.asarray(section.fixed.values, bool))
        return section.fixed.lattice.to_um([[rows.mean(), cols.mean()]])[0]


def _magma(pet: Raster) -> Raster:
    """The PET as an RGB image."""
    from matplotlib import colormaps

    values = np.nan_to_num(np.asarray(pet.values, float))
    top = max(float(np.quantile(values, 0.995)), 1e-12)
    rgb = np.asarray(colormaps[palette.UPTAKE_COLORMAP](np.clip(values / top, 0, 1)))[..., :3]
    return Raster(np.rint(255 * rgb).astype(np.uint8), pet.lattice)
