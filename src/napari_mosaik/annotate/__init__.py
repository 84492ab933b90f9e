"""What readers draw and decide: classes, shapes, undo journal, review queue, agreement."""

from napari_mosaik.annotate.agreement import Agreement, agreement
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
from napari_mosaik.annotate.journal import Journal, read_journal
from napari_mosaik.annotate.queue import QueueItem, QueueParams, TileEvidence, review_queue
from napari_mosaik.annotate.state import DEFAULT_CLASSES, Edit, Snapshot, TissueClass

__all__ = [
    "DEFAULT_CLASSES",
    "Agreement",
    "AnnotationDocument",
    "Area",
    "Edit",
    "EventSink",
    "Journal",
    "Overlap",
    "QueueItem",
    "QueueParams",
    "Snapshot",
    "TileEvidence",
    "TissueClass",
    "agreement",
    "clean",
    "cut_region",
    "join_region",
    "lasso_polygon",
    "open_document",
    "read_journal",
    "rectangle_polygon",
    "replay",
    "review_queue",
    "stroke_polygon",
]
