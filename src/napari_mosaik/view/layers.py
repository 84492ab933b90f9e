"""Results as layers: what each looks like, with its legend; no window library is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.annotate import ReviewItem, TissueClass
from napari_mosaik.core import FloatArray, LabelImage, Lattice, Raster, TileGrid, palette
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.palette import code_colours, one_colour
from napari_mosaik.view.class_layers import classes_layer, uncertainty_layer
from napari_mosaik.view.maps import (
    cluster_codes,
    clusters_layer,
    common_limits,
    difference_layer,
    parameter_layer,
    pet_layer,
    sensitivity_layer,
    uptake_layers,
    width_layer,
)
from napari_mosaik.view.spec import LayerSpec, Legend, placement, placement_um

__all__ = [
    "annotation_layer",
    "classes_layer",
    "cluster_codes",
    "clusters_layer",
    "common_limits",
    "difference_layer",
    "left_out_layer",
    "nuclei_layer",
    "parameter_layer",
    "pet_layer",
    "quality_layer",
    "queue_layer",
    "sensitivity_layer",
    "slide_layer",
    "tiles_layer",
    "tissue_layer",
    "uncertainty_layer",
    "uptake_layers",
    "vessels_layer",
    "width_layer",
]


def slide_layer(
    name: str,
    levels: Sequence[Any],
    lattice: Lattice,
    transform: Transform | None = None,
    *,
    visible: bool = True,
    blending: str = "translucent",
) -> LayerSpec:
    """A slide: levels (rows, columns, 3) from full size to smallest, read when they are needed.

    *lattice* is that of the first level.
    """
    return LayerSpec(
        name,
        "image",
        list(levels),
        placement(lattice, transform),
        {"rgb": True},
        blending=blending,
        visible=visible,
        space=lattice.frame,
    )


def tissue_layer(mask: Raster, transform: Transform | None = None, name: str = "") -> LayerSpec:
    """The tissue mask as an outline."""
    title = name or "Tissue"
    return LayerSpec(
        title,
        "labels",
        (np.nan_to_num(np.asarray(mask.values, float)) > 0.5).astype(np.uint8),
        placement(mask.lattice, transform),
        {"colormap": one_colour(palette.TISSUE)},
        {"contour": 2},
        legend=Legend(title, entries=(("tissue outline", palette.TISSUE),)),
        artifact=f"tissue_{mask.lattice.frame}",
        space=mask.lattice.frame,
    )


def quality_layer(
    quality: Raster, names: Mapping[int, str], transform: Transform | None = None, name: str = ""
) -> LayerSpec:
    """Pen, folds, blur and air bubbles as filled areas; *names* are the words of the codes."""
    title = name or "Left out of the tissue"
    return LayerSpec(
        title,
        "labels",
        np.asarray(quality.values, np.uint8),
        placement(quality.lattice, transform),
        {"colormap": code_colours(palette.QUALITY_COLOURS)},
        opacity=0.4,
        legend=Legend(
            title,
            entries=tuple((names[code], c) for code, c in palette.QUALITY_COLOURS.items()),
        ),
        artifact=f"artefacts_{quality.lattice.frame}",
        space=quality.lattice.frame,
    )


def tiles_layer(grid: TileGrid, transform: Transform | None = None) -> LayerSpec:
    """The tile grid as lines: inner tiles lighter, border tiles darker; fast for many tiles."""
    top_left = grid.corners_um
    size = grid.size_um
    right, down = np.array([0.0, size]), np.array([size, 0.0])
    starts = [top_left, top_left + down, top_left, top_left + right]
    steps = [right, right, down, down]
    lines = np.concatenate(
        [np.stack([s, np.broadcast_to(d, s.shape)], 1) for s, d in zip(starts, steps, strict=True)]
    )
    shade = np.where(
        np.tile(grid.inner, 4)[:, None],
        palette.rgba(palette.INNER_TILE, 0.8),
        palette.rgba(palette.TILE),
    )
    return LayerSpec(
        "Tiles",
        "vectors",
        lines,
        placement_um(grid.lattice.frame, transform),
        {
            "edge_color": shade,
            "edge_width": max(1.0, size / 60),
            "length": 1.0,
            "vector_style": "line",
        },
        opacity=0.6,
        legend=Legend(
            f"Tiles of {size:.0f} µm",
            entries=(("inner tile", palette.INNER_TILE), ("border tile", palette.TILE)),
        ),
        artifact="tiles",
        space=grid.lattice.frame,
    )


def vessels_layer(vessels: LabelImage, transform: Transform | None = None) -> LayerSpec:
    """Vessels as orange outlines."""
    return _outlined(vessels, transform, "Vessels", "vessel", palette.VESSEL, "vessels")


def left_out_layer(
    objects: LabelImage, reasons: Sequence[str], transform: Transform | None = None
) -> LayerSpec:
    """Brown objects that are no vessels, filled; the reason (by label) shows under the mouse."""
    title = "Brown left out"
    counts = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    features = {"index": np.arange(len(reasons) + 1), "reason": ["", *reasons]}
    note = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
    return LayerSpec(
        title,
        "labels",
        _levels(objects),
        placement(objects.lattice, transform),
        {"colormap": one_colour(palette.EXCLUDED), "features": features},
        opacity=0.6,
        legend=Legend(title, entries=(("no vessel", palette.EXCLUDED),), note=note),
        artifact="excluded_dab",
        space=objects.lattice.frame,
    )


def nuclei_layer(nuclei: LabelImage, transform: Transform | None = None) -> LayerSpec:
    """Nuclei as blue outlines; read-only levels, quick for a hundred thousand."""
    return _outlined(nuclei, transform, "Nuclei", "nucleus", palette.NUCLEUS, "nuclei")


def _outlined(
    labels: LabelImage,
    transform: Transform | None,
    name: str,
    word: str,
    colour: str,
    artifact: str,
) -> LayerSpec:
    return LayerSpec(
        name,
        "labels",
        _levels(labels),
        placement(labels.lattice, transform),
        {"colormap": one_colour(colour)},
        {"contour": 1},
        legend=Legend(name, entries=((word, colour),)),
        artifact=artifact,
        space=labels.lattice.frame,
    )


def annotation_layer(
    codes: NDArray[np.uint8],
    lattice: Lattice,
    classes: Sequence[TissueClass],
    transform: Transform | None = None,
) -> LayerSpec:
    """Annotations drawn over the visible region: code ``k`` is ``classes[k - 1]``, 0 is nothing."""
    return LayerSpec(
        "Annotations",
        "labels",
        codes,
        placement(lattice, transform),
        {"colormap": code_colours({k: c.colour for k, c in enumerate(classes, 1)})},
        opacity=0.55,
        legend=Legend("Annotations", entries=tuple((c.name, c.colour) for c in classes)),
        artifact="annotations:he",
        space=lattice.frame,
    )


def queue_layer(
    items: Iterable[ReviewItem], grid: TileGrid, transform: Transform | None = None
) -> LayerSpec:
    """The tiles of the review queue as numbered rings, the most valuable first."""
    tiles = [item.tile for item in items]
    points: FloatArray = grid.centres_um[tiles]
    return LayerSpec(
        "Review queue",
        "points",
        points,
        placement_um(grid.lattice.frame, transform),
        {
            "size": grid.size_um * 0.5,
            "face_color": "transparent",
            "border_color": palette.TISSUE,
            "border_width": 0.12,
            "symbol": "disc",
            "text": {
                "string": [str(i) for i in range(1, len(tiles) + 1)],
                "color": palette.TISSUE,
                "size": 9,
            },
        },
        legend=Legend("Review queue", entries=(("tile to review", palette.TISSUE),)),
        artifact="queue",
        space=grid.lattice.frame,
    )


def _levels(labels: LabelImage) -> Any:
    """The image itself, or the list of its levels from full size to smallest."""
    return [labels.values, *labels.levels] if labels.levels else labels.values
