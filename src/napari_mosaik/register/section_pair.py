"""Two sections and the ways to lay one on the other."""

from __future__ import annotations

from dataclasses import dataclass

from napari_mosaik.core.frame import Transform
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.blocks import (
    InlierStatistics,
    fit_matches,
    inlier_statistics,
    match_blocks,
    tissue_size_um,
    working_step_um,
)
from napari_mosaik.register.params import AlignKind
from napari_mosaik.register.quality import dice
from napari_mosaik.register.rotation_search import outline_is_whole

__all__ = ["SectionPair", "SectionWay"]

_PLACES = 400
"""Places that are compared for the last word."""


@dataclass(frozen=True, slots=True)
class SectionWay:
    """One way to lay the moving section on the fixed one, and how far inside and outline agree."""

    transform: Transform
    inside: InlierStatistics
    dice: float

    @property
    def share(self) -> float:
        """Share of places inside that agree; 0 where there is too little to judge by."""
        return self.inside.share if self.inside.is_enough else 0.0

    def rank(self, whole: bool, mirror_margin: float) -> float:
        """What the best way has most of; a mirror image must be better by its margin."""
        outline = 0.25 * self.dice if whole else 0.0
        return self.share + outline - mirror_margin * self.transform.mirrored


@dataclass(frozen=True, slots=True, eq=False)
class SectionPair:
    """The two sections."""

    moving: Raster
    fixed: Raster
    moving_tissue: Raster
    fixed_tissue: Raster

    @property
    def size_um(self) -> float:
        """Longer side of the fixed tissue, µm."""
        return tissue_size_um(self.fixed_tissue)

    @property
    def frames(self) -> tuple[str, str]:
        """Frames of the moving and the fixed section."""
        return self.moving.lattice.frame, self.fixed.lattice.frame

    @property
    def whole(self) -> bool:
        """Whether both outlines lie within their pictures."""
        return outline_is_whole(self.moving_tissue) and outline_is_whole(self.fixed_tissue)

    def way(self, transform: Transform, *, most: int = _PLACES) -> SectionWay:
        """A way with what inside and outline say of it."""
        overlap = dice(self.moving_tissue, self.fixed_tissue, transform, pixels=384)
        inside = inlier_statistics(self.moving, self.fixed, self.fixed_tissue, transform, most=most)
        return SectionWay(transform, inside, overlap)

    def matched(self, transform: Transform, kind: AlignKind, pixels: int, reach: int) -> Transform:
        """One round of block matching."""
        found = match_blocks(
            self.moving,
            self.fixed,
            self.fixed_tissue,
            transform,
            step_um=working_step_um(self.fixed_tissue, self.fixed, pixels),
            reach=reach,
        )
        return fit_matches(found, transform, kind)
