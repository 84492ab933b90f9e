"""Load a tissue classifier of either method: the forest, or the paper's network."""

from __future__ import annotations

from pathlib import Path

from napari_mosaik.segment.model_files import read_card
from napari_mosaik.segment.tissue_classifier import TissueModel, load_fast

__all__ = ["load_tissue_model"]


def load_tissue_model(folder: Path) -> TissueModel:
    """Read a saved model of the method that its card names."""
    card, _ = read_card(folder)
    if card["model"] == "fast":
        return load_fast(folder)
    from napari_mosaik.segment.densenet.network import load_densenet  # torch loads here

    return load_densenet(folder)
