"""Correcting segmentations and visual QA."""
