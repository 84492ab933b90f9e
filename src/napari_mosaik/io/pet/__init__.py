"""PET images: one slice of a scan with the header of its file."""

from napari_mosaik.io.pet.dicom import choose_series
from napari_mosaik.io.pet.registry import companions, open_pet, open_pet_slices, open_pet_volume

__all__ = ["choose_series", "companions", "open_pet", "open_pet_slices", "open_pet_volume"]
