"""Whole-slide images and pictures of sections, read in µm through one interface."""

from napari_mosaik.io.slide.formats.registry import dialog_filter, slide_only_suffixes
from napari_mosaik.io.slide.open import open_slide, page_count
from napari_mosaik.io.slide.pyramid.build import complete_pyramid, has_missing_levels
from napari_mosaik.io.slide.read.stream import SlideBlocks
from napari_mosaik.io.slide.types.slide import Slide
from napari_mosaik.io.slide.types.tiles import View

__all__ = [
    "Slide",
    "SlideBlocks",
    "View",
    "complete_pyramid",
    "dialog_filter",
    "has_missing_levels",
    "open_slide",
    "page_count",
    "slide_only_suffixes",
]
