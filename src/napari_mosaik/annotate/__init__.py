"""Annotations of readers: classes, shapes, journal with undo, review priority, agreement."""

from napari_mosaik.annotate.brush import (
    Area,
    clean,
    cut_region,
    join_region,
    lasso_polygon,
    rectangle_polygon,
    stroke_polygon,
)
from napari_mosaik.annotate.document import (
    AnnotationDocument,
    EventSink,
    Overlap,
    open_document,
    replay,
)
from napari_mosaik.annotate.foreign import proposed_class
from napari_mosaik.annotate.journal import Journal, read_journal
from napari_mosaik.annotate.pixel_outline import area_of_pixels, region_of_code
from napari_mosaik.annotate.reshape import (
    insert_vertex,
    move_vertex,
    nearest_edge,
    nearest_vertex,
    offset_outline,
    remove_vertex,
    simplify_outline,
    smooth_outline,
    split_along,
    unite_areas,
    without_holes,
)
from napari_mosaik.annotate.review import (
    ReaderAgreement,
    ReviewItem,
    ReviewQueueParams,
    TileEvidence,
    compare_readers,
    rank_tiles,
)
from napari_mosaik.annotate.state import DEFAULT_CLASSES, LOCK, Edit, Snapshot, TissueClass
from napari_mosaik.annotate.wand import WAND_TOLERANCE, wand_area, wand_field, wand_mask

__all__ = [
    "DEFAULT_CLASSES",
    "LOCK",
    "WAND_TOLERANCE",
    "AnnotationDocument",
    "Area",
    "Edit",
    "EventSink",
    "Journal",
    "Overlap",
    "ReaderAgreement",
    "ReviewItem",
    "ReviewQueueParams",
    "Snapshot",
    "TileEvidence",
    "TissueClass",
    "area_of_pixels",
    "clean",
    "compare_readers",
    "cut_region",
    "insert_vertex",
    "join_region",
    "lasso_polygon",
    "move_vertex",
    "nearest_edge",
    "nearest_vertex",
    "offset_outline",
    "open_document",
    "proposed_class",
    "rank_tiles",
    "read_journal",
    "rectangle_polygon",
    "region_of_code",
    "remove_vertex",
    "replay",
    "simplify_outline",
    "smooth_outline",
    "split_along",
    "stroke_polygon",
    "unite_areas",
    "wand_area",
    "wand_field",
    "wand_mask",
    "without_holes",
]
