"""One `StepView` for each step: its results as layers, texts and tables.

A file added here is found by `napari_mosaik.view.presentation`; there is no list to extend.
"""
