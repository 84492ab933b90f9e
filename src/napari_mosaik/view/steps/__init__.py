"""One `StepView` for each step: what its results look like, in words and as layers.

A file added here is found by `napari_mosaik.view.presentation`; there is no list to extend.
"""
