"""Predicted against measured antibody uptake of one tumour, in napari and on the command line."""

__version__ = "0.1.0"
