"""Whole-slide images and pictures of sections, read in µm through one interface."""

from napari_mosaik.io.slide.base import Slide
from napari_mosaik.io.slide.completing import complete_pyramid, lacks_levels
from napari_mosaik.io.slide.opening import open_slide
from napari_mosaik.io.slide.stream import SlideBlocks, View

__all__ = ["Slide", "SlideBlocks", "View", "complete_pyramid", "lacks_levels", "open_slide"]
