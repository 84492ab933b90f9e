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
from napari_mosaik.annotate.review import (
    ReaderAgreement,
    ReviewItem,
    ReviewQueueParams,
    TileEvidence,
    compare_readers,
    rank_tiles,
)
from napari_mosaik.annotate.state import DEFAULT_CLASSES, Edit, Snapshot, TissueClass

__all__ = [
    "DEFAULT_CLASSES",
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
    "clean",
    "compare_readers",
    "cut_region",
    "join_region",
    "lasso_polygon",
    "open_document",
    "proposed_class",
    "rank_tiles",
    "read_journal",
    "rectangle_polygon",
    "replay",
    "stroke_polygon",
]
