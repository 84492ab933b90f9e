"""Results as layers, each with its style and legend; no window library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.annotate import Difference, TissueClass
from napari_mosaik.annotate.review_queue import QueuedTile
from napari_mosaik.core import FloatArray, LabelImage, Lattice, Raster, TileGrid, palette
from napari_mosaik.core.catalogue import (
    ANNOTATIONS,
    ARTEFACT_MASK,
    CLASS_NAMES,
    CLASS_PROBABILITY,
    CLASSES,
    EXCLUDED_DAB,
    NUCLEI,
    STAIN_TITLES,
    TILES,
    TISSUE,
    VESSELS,
)
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.palette import code_colours, one_colour
from napari_mosaik.core.rasterise import rasterise
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.core.uncertainty import normalised_entropy
from napari_mosaik.view.formatting import number
from napari_mosaik.view.label_levels import Density, LabelLevels, object_density, outline_codes
from napari_mosaik.view.maps import parameter_layer
from napari_mosaik.view.spec import LayerSpec, Legend, placement, placement_um

if TYPE_CHECKING:
    from napari_mosaik.workflow.agreement import Comparison

__all__ = [
    "ANNOTATIONS_TITLE",
    "DISAGREEMENT_TITLE",
    "LAYER_TITLES",
    "NOTHING_DRAWN",
    "OUTLINE",
    "QUEUE_TITLE",
    "annotation_layer",
    "artefact_layer",
    "class_colours",
    "classes_layer",
    "disagreement_layer",
    "excluded_dab_layer",
    "nuclei_layer",
    "queue_layer",
    "slide_layer",
    "tiles_layer",
    "tissue_layer",
    "uncertainty_layer",
    "vessels_layer",
]

LAYER_TITLES: Final = {
    VESSELS.name: "Vessels",
    NUCLEI.name: "Nuclei",
    **{mask.name: f"Tissue on {STAIN_TITLES[stain]}" for stain, mask in TISSUE.items()},
    **{mask.name: f"Artefacts on {STAIN_TITLES[stain]}" for stain, mask in ARTEFACT_MASK.items()},
    EXCLUDED_DAB.name: "Excluded DAB objects",
    CLASSES.name: "Tissue classes",
    CLASS_PROBABILITY.name: "Uncertainty of the tissue class",
    TILES.name: "Tiles",
    ANNOTATIONS.name: "Annotations",
}
"""Title of a layer by the artifact that it shows; maps are named after their parameter."""
QUEUE_TITLE = "Review queue"
ANNOTATIONS_TITLE: Final = LAYER_TITLES[ANNOTATIONS.name]
DISAGREEMENT_TITLE: Final = "Disagreement"
NOTHING_DRAWN: Final = "nothing"
"""In place of a class, where a reader has drawn none."""
OUTLINE: Final = 128
"""Added to the code of a class on the outline of an annotation."""
_TISSUE_PX: Final = 2
"""Width of the outline of the tissue, in pixels of its mask."""
_NUCLEI_PER_MM2: Final = (500.0, 1000.0, 2000.0, 4000.0, 8000.0)
_VESSELS_PER_MM2: Final = (10.0, 25.0, 50.0, 100.0, 200.0)
_NUCLEI_FAR: Final = {"from_um": 4.0, "window_um": 160.0}
_VESSELS_FAR: Final = {"from_um": 8.0, "window_um": 480.0}
"""Pixels so wide show objects per mm², counted in a square of this edge, µm."""
_FAR_ALPHA: Final = 0.7
_HATCH: Final = 0.75
_FILL: Final = 0.4
"""Opacity of an annotated area within its outline."""
_STRIPE_PX: Final = 6
"""Width of the stripes of a region in which readers differ, in pixels of the layer."""
_CHOSEN: Final = 255
_ROWS: Final = 256
"""Rows that are computed at once, so that a large slide needs little memory."""


def slide_layer(
    name: str,
    levels: Sequence[Any],
    lattice: Lattice,
    transform: Transform | None = None,
    *,
    visible: bool = True,
    blending: str = "translucent",
) -> LayerSpec:
    """A slide from its pyramid levels, (rows, columns, 3) sRGB each, from full size to smallest.

    The levels are read when they are drawn; *lattice* is that of the first one.
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


def tissue_layer(mask: Raster, transform: Transform | None = None) -> LayerSpec:
    """The tissue mask of a slide, (rows, columns), as an outline; NaN is background."""
    result = TISSUE[mask.lattice.frame].name
    title = LAYER_TITLES[result]
    return LayerSpec(
        title,
        "labels",
        outline_codes(np.nan_to_num(np.asarray(mask.values, float)) > 0.5, _TISSUE_PX),
        placement(mask.lattice, transform),
        {"colormap": one_colour(palette.TISSUE)},
        {"contour": _TISSUE_PX},
        legend=Legend(title, entries=(("tissue outline", palette.TISSUE),)),
        result=result,
        space=mask.lattice.frame,
        coded=True,
    )


def artefact_layer(
    mask: Raster, names: Mapping[int, str], transform: Transform | None = None
) -> LayerSpec:
    """The artefact mask of a slide as filled areas.

    *mask* holds label codes (rows, columns): pen, fold, blur, air bubble, other; *names* are their
    titles by code.
    """
    result = ARTEFACT_MASK[mask.lattice.frame].name
    title = LAYER_TITLES[result]
    return LayerSpec(
        title,
        "labels",
        np.asarray(mask.values, np.uint8),
        placement(mask.lattice, transform),
        {"colormap": code_colours(palette.QUALITY_COLOURS)},
        opacity=0.4,
        legend=Legend(
            title,
            entries=tuple((names[code], c) for code, c in palette.QUALITY_COLOURS.items()),
        ),
        result=result,
        space=mask.lattice.frame,
    )


def tiles_layer(grid: TileGrid, transform: Transform | None = None) -> LayerSpec:
    """The tile grid as lines, inner tiles lighter than border tiles.

    One vectors layer: it draws thousands of tiles much faster than shapes.
    """
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
        LAYER_TITLES[TILES.name],
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
        result=TILES.name,
        space=grid.lattice.frame,
    )


def vessels_layer(
    vessels: LabelImage,
    transform: Transform | None = None,
    centres_um: FloatArray | None = None,
) -> LayerSpec:
    """Vessels as green outlines, from a label image (rows, columns) with its pyramid levels.

    Far away their number per mm² in colours, from their centroids (n, 2): row and column, µm.
    """
    far = _density(vessels, centres_um, _VESSELS_PER_MM2, _VESSELS_FAR)
    return _outlined(vessels, transform, VESSELS.name, ("vessel", "vessels"), palette.VESSEL, far)


def excluded_dab_layer(
    objects: LabelImage, reasons: Sequence[str], transform: Transform | None = None
) -> LayerSpec:
    """DAB objects excluded from the vessels, filled, from a label image (rows, columns).

    *reasons* holds the reason of label ``k`` at ``k - 1``; it is shown under the cursor.
    """
    title = LAYER_TITLES[EXCLUDED_DAB.name]
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
        legend=Legend(title, entries=(("excluded", palette.EXCLUDED),), note=note),
        result=EXCLUDED_DAB.name,
        space=objects.lattice.frame,
        coded=bool(objects.levels),
        objects=LabelLevels(objects) if objects.levels else None,
    )


def nuclei_layer(
    nuclei: LabelImage,
    transform: Transform | None = None,
    centres_um: FloatArray | None = None,
) -> LayerSpec:
    """Nuclei as lime outlines, from a label image (rows, columns) with its pyramid levels.

    Far away their number per mm² in colours, from their centroids (n, 2): row and column, µm.
    """
    far = _density(nuclei, centres_um, _NUCLEI_PER_MM2, _NUCLEI_FAR)
    return _outlined(nuclei, transform, NUCLEI.name, ("nucleus", "nuclei"), palette.NUCLEUS, far)


def _density(
    labels: LabelImage,
    centres_um: FloatArray | None,
    bounds: Sequence[float],
    far: Mapping[str, float],
) -> Density | None:
    if centres_um is None or not labels.levels:
        return None
    n_levels = 1 + len(labels.levels)
    return object_density(
        centres_um,
        labels.lattice,
        n_levels,
        from_um=far["from_um"],
        window_um=far["window_um"],
        bounds=bounds,
    )


def _outlined(
    labels: LabelImage,
    transform: Transform | None,
    result: str,
    words: tuple[str, str],
    colour: str,
    far: Density | None,
) -> LayerSpec:
    name, colours = LAYER_TITLES[result], one_colour(colour)
    entries, note = [(words[0], colour)], ""
    if far is not None:
        shown = density_colours(len(far.bounds) + 1)
        colours |= {far.code(k): palette.rgba(c, _FAR_ALPHA) for k, c in enumerate(shown)}
        entries += zip(_classes_of(far.bounds), shown, strict=True)
        window = number(far.window_um, "µm")
        note = f"zoomed out: {words[1]} per mm² of the slide, in squares of {window}"
    return LayerSpec(
        name,
        "labels",
        _levels(labels),
        placement(labels.lattice, transform),
        {"colormap": colours},
        {"contour": 1},
        legend=Legend(name, entries=tuple(entries), note=note),
        result=result,
        space=labels.lattice.frame,
        coded=bool(labels.levels),
        objects=LabelLevels(labels, far) if labels.levels else None,
    )


def density_colours(n: int) -> list[str]:
    """Colours of n classes from low to high, "#rrggbb"."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[palette.PARAMETER_COLORMAP](x)) for x in np.linspace(0, 1, n)]


def _classes_of(bounds: Sequence[float]) -> list[str]:
    """Classes of objects per mm² in words, from low to high."""
    words = [number(int(bound)) for bound in bounds]
    inner = [f"{low} to {high} per mm²" for low, high in pairwise(words)]
    return [f"under {words[0]} per mm²", *inner, f"{words[-1]} per mm² and more"]


def class_colours(names: Mapping[int, str]) -> dict[int, str]:
    """Colour of each class code; the user's own classes have the further colours in turn."""
    own = [code for code in sorted(names) if code > 0 and code not in palette.CLASS_COLOURS]
    turns = {
        code: palette.OWN_CLASS_COLOURS[i % len(palette.OWN_CLASS_COLOURS)]
        for i, code in enumerate(own)
    }
    return {**palette.CLASS_COLOURS, **turns}


def classes_layer(classes: LabelImage, transform: Transform | None = None) -> LayerSpec:
    """Tissue classes as filled areas, from a label image (rows, columns) of class codes."""
    names = {**CLASS_NAMES, **classes.names}
    shown = class_colours(names)
    title = LAYER_TITLES[CLASSES.name]
    return LayerSpec(
        title,
        "labels",
        _levels(classes),
        placement(classes.lattice, transform),
        {"colormap": code_colours(shown)},
        opacity=0.45,
        legend=Legend(title, entries=tuple((names[code], c) for code, c in shown.items())),
        result=CLASSES.name,
        space=classes.lattice.frame,
    )


def uncertainty_layer(
    probability: Raster, classes: LabelImage, transform: Transform | None = None
) -> LayerSpec:
    """Uncertainty of the tissue classifier, from 0 (certain) to 1 (all classes equally likely).

    The normalised entropy (dimensionless) of *probability*, (rows, columns, classes) in 0 to 255;
    transparent where *classes*, (rows, columns) class labels, is 0.  Hidden at first, because it
    covers the classes.
    """
    values: Any = probability.values
    codes: Any = classes.values
    parts = []
    for row in range(0, values.shape[0], _ROWS):
        strip = slice(row, row + _ROWS)
        entropy = normalised_entropy(values[strip]).astype(np.float32)
        parts.append(np.where(np.asarray(codes[strip]) > 0, entropy, np.float32(np.nan)))
    spec = parameter_layer(
        Raster(np.concatenate(parts), probability.lattice, "1"),
        LAYER_TITLES[CLASS_PROBABILITY.name],
        limits=(0.0, 1.0),
        colormap=palette.UNCERTAINTY_COLORMAP,
        transform=transform,
        visible=False,
        result=CLASS_PROBABILITY.name,
    )
    if spec.legend is None:
        return spec
    note = "0: one class is certain; 1: all classes are equally likely"
    return replace(spec, legend=replace(spec.legend, note=note), opacity=0.7)


def annotation_layer(
    codes: NDArray[np.uint8],
    lattice: Lattice,
    classes: Sequence[TissueClass],
    transform: Transform | None = None,
) -> LayerSpec:
    """Annotations of the visible region, from label codes (rows, columns).

    Code ``k`` is ``classes[k - 1]``, 0 is not annotated; ``k + OUTLINE`` is the outline of an
    annotation of that class, in the colour of the class.
    """
    colours = {k: c.colour for k, c in enumerate(classes, 1)}
    outlines = code_colours({k + OUTLINE: colour for k, colour in colours.items()})
    return LayerSpec(
        ANNOTATIONS_TITLE,
        "labels",
        codes,
        placement(lattice, transform),
        {"colormap": code_colours(colours, _FILL) | outlines},
        legend=Legend(ANNOTATIONS_TITLE, entries=tuple((c.name, c.colour) for c in classes)),
        result=ANNOTATIONS.name,
        space=lattice.frame,
    )


def disagreement_layer(
    found: Comparison,
    regions: Sequence[Difference],
    lattice: Lattice,
    chosen: Difference | None = None,
) -> LayerSpec:
    """Some *regions* of a comparison, hatched in the colours of the classes of both readers.

    Where one of them has drawn nothing, every other stripe is grey.  *chosen* is outlined.
    *lattice* is that of the visible region, one sample per pixel of the screen.
    """
    drawn_classes = {n for one in regions for n in (one.first, one.second) if n}
    names = [*sorted(drawn_classes), NOTHING_DRAWN]
    codes = {name: code for code, name in enumerate(names, 1)}
    drawn = [
        rasterise(
            [AnnotatedShape("", label or NOTHING_DRAWN, area) for label, area in shapes],
            lattice,
            codes,
        )
        for shapes in (
            [(one.first, one.geometry) for one in regions],
            [(one.second, one.geometry) for one in regions],
        )
    ]
    row, col = np.indices(lattice.shape, sparse=True)
    pixels = np.where((row + col) // _STRIPE_PX % 2 == 0, *drawn)
    if chosen is not None:
        width = 3 * min(lattice.spacing_um)
        edge = chosen.geometry.boundary.buffer(width)
        pixels[rasterise([AnnotatedShape("", "edge", edge)], lattice, {"edge": 1}) > 0] = _CHOSEN
    shown = {codes[name]: found.colours.get(name, palette.UNKNOWN_CLASS) for name in names}
    hatch = code_colours(shown, _HATCH) | code_colours({_CHOSEN: palette.TISSUE})
    return LayerSpec(
        DISAGREEMENT_TITLE,
        "labels",
        pixels,
        placement(lattice),
        {"colormap": hatch},
        legend=Legend(
            DISAGREEMENT_TITLE,
            entries=tuple((name, shown[codes[name]]) for name in names),
            note=f"stripes in the classes of {found.readers[0]} and {found.readers[1]}",
        ),
        space=lattice.frame,
    )


def queue_layer(
    items: Sequence[QueuedTile], grid: TileGrid, transform: Transform | None = None
) -> LayerSpec:
    """Tiles of the review queue as rings with their places in the queue."""
    tiles = [item.tile for item in items]
    points: FloatArray = grid.centres_um[tiles]
    return LayerSpec(
        QUEUE_TITLE,
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
                "string": [str(item.rank) for item in items],
                "color": "black",  # legible on every stain; the ring is not, as thin as a digit
                "size": 9,
            },
        },
        legend=Legend(QUEUE_TITLE, entries=(("tile to review", palette.TISSUE),)),
        result="queue",
        space=grid.lattice.frame,
    )


def _levels(labels: LabelImage) -> Any:
    """The labels, or the list of their pyramid levels from full size to smallest."""
    return [labels.values, *labels.levels] if labels.levels else labels.values
