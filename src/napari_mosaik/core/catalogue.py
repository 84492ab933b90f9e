"""Every source that a case can hold and every artifact that the program can make, in one list."""

from __future__ import annotations

from typing import Any, Final

from napari_mosaik.core.artifact import Artifact, Source
from napari_mosaik.core.corrections import CORRECTED_FRAMES
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.core.tiles import TileGrid

Document = dict[str, Any]
"""A JSON record."""


def _document(name: str, about: str) -> Artifact[Document]:
    return Artifact(name, dict, about)


STAINS: Final = ("he", "cd34", "caix")
"""Frames of the three sections; "cd34" is the reference frame of a case."""
REFERENCE: Final = "cd34"
STAIN_TITLES: Final = {"he": "H&E", "cd34": "CD34", "caix": "CAIX"}

CLASS_NAMES: Final = {0: "not classified", 1: "background", 2: "neoplastic", 3: "non-neoplastic"}
"""Tissue class codes; 0 lies outside the tissue mask."""
CLUSTER_NAMES: Final = {
    0: "average",
    1: "hot",
    2: "cold",
    3: "high-low",
    4: "low-high",
    5: "not testable",
}
"""Codes of the local Moran labels."""

# --- what a person gives ------------------------------------------------------------------------
SLIDES: Final = {
    stain: Source(f"slide:{stain}", f"{STAIN_TITLES[stain]} slide") for stain in STAINS
}
PET: Final = Source("pet", "microPET slice")
INJECTION: Final = Source("injection", "injection record")
LANDMARKS: Final = Source("landmarks", "landmarks set by hand")
PLACED: Final = {
    frame: Source(f"placed:{frame}", f"position of {title} on CD34 as given by hand or by a file")
    for frame, title in (("he", "H&E"), ("caix", "CAIX"), ("pet", "the PET"))
}
ANNOTATIONS: Final = Source("annotations:he", "tissue classes drawn on the H&E slide")
_CORRECTED_WORDS = {"tissue": "tissue", "quality": "bad places"}
CORRECTIONS: Final = {
    what: Source(
        f"corrections:{what}",
        f"corrections of the {_CORRECTED_WORDS.get(what.partition('_')[0], what)} by hand"
        + (f" on {STAIN_TITLES[frame]}" if "_" in what else ""),
    )
    for what, frame in CORRECTED_FRAMES.items()
}
"""By what is corrected: "vessels", "nuclei", "tissue_cd34", "quality_cd34" and so on."""

DAMAGED: Final = "damaged"
"""Entry of a tissue result's record: the damaged tiles of the slide that were left out."""
STAINING: Final = "staining"
"""Entry of a record: the stains of a slide with their source, what it looks like, warnings."""
QUALITY_AREAS: Final = "quality_mm2"
"""Entry of a tissue result's record: area of each kind of bad place, mm²."""
QUALITY_BY_HAND: Final = "quality_by_hand"
"""Entry of a tissue result's record: what a reader flagged (mm² by kind) and cleared (mm²)."""
LEFT_OUT: Final = "left_out"
"""Entry of the vessels' record: how many brown objects were left out, by reason."""
CORRECTED: Final = "corrections"
"""Entry of a record: how many corrections by hand were made, and which could not be, with why."""

# --- what the program makes ---------------------------------------------------------------------
TISSUE: Final = {
    stain: Artifact(f"tissue_{stain}", Raster, f"tissue mask of the {STAIN_TITLES[stain]} slide")
    for stain in STAINS
}
QUALITY: Final = {
    stain: Artifact(
        f"quality_{stain}",
        Raster,
        f"pen, folds, blur and bubbles of the {STAIN_TITLES[stain]} slide",
    )
    for stain in STAINS
}
CORRECTED_QUALITY: Final = {
    stain: Artifact(
        f"corrected_quality_{stain}",
        Raster,
        f"bad places of the {STAIN_TITLES[stain]} slide with the corrections made by hand",
    )
    for stain in STAINS
}
ALIGNMENT: Final = {
    frame: _document(f"alignment_{frame}", f"transform of {title} to CD34, with its quality")
    for frame, title in (("he", "H&E"), ("caix", "CAIX"), ("pet", "the PET"))
}
TILES: Final = Artifact("tiles", TileGrid, "tile grid on the CD34 section")
STAIN_FIT: Final = _document("stain_fit", "stain vectors of the H&E slide (Macenko)")
SUV: Final = Artifact("suv", Raster, "measured SUV on the PET's own voxels")
SUV_RECORD: Final = _document("suv_record", "every term of the SUV with its source")
UPTAKE: Final = Artifact("uptake", Table, "measured SUV per tile")
UPTAKE_SENSITIVITY: Final = Artifact(
    "uptake_sensitivity", Table, "change of each tile's SUV by a small shift or turn of the PET"
)
VESSELS: Final = Artifact("vessels", LabelImage, "CD34-positive vessels, lumen filled")
VESSEL_OBJECTS: Final = Artifact("vessel_objects", Table, "one row per vessel")
BROWN_LEFT_OUT: Final = Artifact("brown_left_out", LabelImage, "brown objects that are no vessels")
BROWN_OBJECTS: Final = Artifact(
    "brown_objects", Table, "one row per brown object that is no vessel, with the reason"
)
CLASSES: Final = Artifact("classes", LabelImage, "tissue classes")
CLASS_PROBABILITY: Final = Artifact("class_probability", Raster, "probability of each tissue class")
CLASS_RECORD: Final = Artifact(
    "class_record", dict, "which model made the classes, and their areas"
)
NUCLEI: Final = Artifact("nuclei", LabelImage, "nuclei on H&E")
NUCLEUS_OBJECTS: Final = Artifact("nucleus_objects", Table, "one row per nucleus")
CORRECTED_VESSELS: Final = Artifact(
    "corrected_vessels", LabelImage, "vessels with the corrections made by hand"
)
CORRECTED_VESSEL_OBJECTS: Final = Artifact(
    "corrected_vessel_objects", Table, "one row per vessel, corrections by hand included"
)
CORRECTED_NUCLEI: Final = Artifact(
    "corrected_nuclei", LabelImage, "nuclei with the corrections made by hand"
)
CORRECTED_NUCLEUS_OBJECTS: Final = Artifact(
    "corrected_nucleus_objects", Table, "one row per nucleus, corrections by hand included"
)
OBJECTS: Final = {
    "vessels": ((VESSELS, VESSEL_OBJECTS), (CORRECTED_VESSELS, CORRECTED_VESSEL_OBJECTS)),
    "nuclei": ((NUCLEI, NUCLEUS_OBJECTS), (CORRECTED_NUCLEI, CORRECTED_NUCLEUS_OBJECTS)),
}
"""Labels and table of what is found as objects: as found, and with corrections by hand."""
CAIX_CELLS: Final = Artifact("caix_cells", Table, "one row per cell of the CAIX slide")
PARAMETERS: Final = Artifact("parameters", Table, "vascular, nuclear and CAIX parameters per tile")
MAPS: Final = Artifact("maps", Raster, "parameters interpolated over the mask, one channel each")
ASSOCIATION: Final = Artifact("association", Table, "correlation of each parameter with the uptake")
CLUSTERS: Final = Artifact("clusters", Table, "local Moran label, statistic and p-value per tile")
UPTAKE_CLUSTERS: Final = Artifact("uptake_clusters", Table, "local Moran label of the measured SUV")
KINETICS: Final = Artifact("kinetics", Table, "immunokinetic curves of the patient")
TILE_KINETICS: Final = Artifact(
    "tile_kinetics", Table, "delivery-limited retained antibody per tile"
)
PREDICTION: Final = Artifact("prediction", Table, "predicted uptake per tile")
PREDICTION_MAP: Final = Artifact(
    "prediction_map", Raster, "predicted uptake interpolated over the mask"
)
PREDICTION_RECORD: Final = Artifact(
    "prediction_record", dict, "which model predicted, and how it was taught"
)
METRICS: Final = _document("metrics", "error of the prediction beside the baselines'")

ARTIFACTS: Final[tuple[Artifact[Any], ...]] = (
    *TISSUE.values(),
    *QUALITY.values(),
    *CORRECTED_QUALITY.values(),
    *ALIGNMENT.values(),
    TILES,
    STAIN_FIT,
    SUV,
    SUV_RECORD,
    UPTAKE,
    UPTAKE_SENSITIVITY,
    VESSELS,
    VESSEL_OBJECTS,
    BROWN_LEFT_OUT,
    BROWN_OBJECTS,
    CLASSES,
    CLASS_PROBABILITY,
    CLASS_RECORD,
    NUCLEI,
    NUCLEUS_OBJECTS,
    CORRECTED_VESSELS,
    CORRECTED_VESSEL_OBJECTS,
    CORRECTED_NUCLEI,
    CORRECTED_NUCLEUS_OBJECTS,
    CAIX_CELLS,
    PARAMETERS,
    MAPS,
    ASSOCIATION,
    CLUSTERS,
    UPTAKE_CLUSTERS,
    KINETICS,
    TILE_KINETICS,
    PREDICTION,
    PREDICTION_MAP,
    PREDICTION_RECORD,
    METRICS,
)
SOURCES: Final[tuple[Source, ...]] = (
    *SLIDES.values(),
    PET,
    INJECTION,
    LANDMARKS,
    *PLACED.values(),
    ANNOTATIONS,
    *CORRECTIONS.values(),
)
