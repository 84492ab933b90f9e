"""Results as layers, texts, figures and reports; no window library."""

from napari_mosaik.view.spec import LayerSpec, Legend, placement, placement_um

__all__ = ["LayerSpec", "Legend", "placement", "placement_um"]
