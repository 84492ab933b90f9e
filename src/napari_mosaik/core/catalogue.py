"""The sources that a case can hold, the artifacts that steps write, and the codes in them."""

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
"""The three sections; "cd34" is the reference section of a case."""
REFERENCE: Final = "cd34"
STAIN_TITLES: Final = {"he": "H&E", "cd34": "CD34", "caix": "CAIX"}

UNCLASSIFIED, BACKGROUND, NEOPLASTIC, NON_NEOPLASTIC = 0, 1, 2, 3
"""Codes of the built-in tissue classes; 0 lies outside the tissue mask."""
MEASURED_CLASSES: Final = (NEOPLASTIC, NON_NEOPLASTIC)
"""Codes of the classes whose area is measured, in the order of their columns and channels."""
CLASS_NAMES: Final = {
    UNCLASSIFIED: "not classified",
    BACKGROUND: "background",
    NEOPLASTIC: "neoplastic",
    NON_NEOPLASTIC: "non-neoplastic",
}
"""Names of the built-in tissue classes by code."""
CLUSTER_NAMES: Final = {
    0: "average",
    1: "hot",
    2: "cold",
    3: "high-low",
    4: "low-high",
    5: "not testable",
}
"""Codes of the local Moran clusters."""

# --- sources: what the user adds to a case -------------------------------------------------------
SLIDES: Final = {
    stain: Source(f"slide:{stain}", f"{STAIN_TITLES[stain]} slide") for stain in STAINS
}
PET: Final = Source("pet", "microPET slice")
INJECTION: Final = Source("injection", "injection record")
LANDMARKS: Final = Source("landmarks", "landmark files")
GIVEN_ALIGNMENT: Final = {
    frame: Source(f"given_alignment:{frame}", f"given alignment of {title} to CD34")
    for frame, title in (("he", "H&E"), ("caix", "CAIX"), ("pet", "the PET"))
}
PLANS: Final = Source("plans", "plan of the dose what-if")
DEVELOPMENT: Final = Source(
    "development", "measured uptake that ranked a review or preceded a correction"
)
ANNOTATIONS: Final = Source("annotations:he", "tissue annotations on the H&E slide")
CORRECTIONS: Final = {
    target: Source(
        f"corrections:{target}",
        f"manual corrections of the {target.partition('_')[0]}"
        + (f" on {STAIN_TITLES[frame]}" if "_" in target else ""),
    )
    for target, frame in CORRECTED_FRAMES.items()
}
"""By corrected result: "vessels", "nuclei", "tissue_cd34", "artefacts_cd34" and so on."""

DAMAGED: Final = "damaged"
"""Entry of a tissue result's record: the damaged tiles of the slide that were excluded."""
WARNINGS: Final = "warnings"
"""Entry of a record or document: doubts about the results, one sentence each."""
RECOMPUTED: Final = "recomputed_tiles"
"""Entry of a record: number of tiles of which an input had changed; the others are as before."""
COMPUTED_ON: Final = "computed_on"
"""Entry of a record: the device, its precision, and the versions of the packages that computed."""
STAINING: Final = "staining"
"""Entry of a record: the stain vectors of a slide with their source, and warnings."""
ARTEFACT_AREAS: Final = "artefact_mm2"
"""Entry of a tissue result's record: area of each type of artefact, mm²."""
ARTEFACTS_MANUAL: Final = "artefacts_manual"
"""Entry of a tissue result's record: artefacts marked (mm² by type) and cleared (mm²) manually."""
EXCLUDED: Final = "excluded"
"""Entry of the vessels' record: number of excluded DAB objects by reason."""
CORRECTED: Final = "corrections"
"""Entry of a record: number of corrections applied, and those lost with the reason."""

# --- artifacts: what the steps write ------------------------------------------------------------
# Their order is that of the pipeline: `workflow.steps` sorts the steps by what they write.
TISSUE: Final = {
    stain: Artifact(f"tissue_{stain}", Raster, f"tissue mask of the {STAIN_TITLES[stain]} slide")
    for stain in STAINS
}
ARTEFACT_MASK: Final = {
    stain: Artifact(
        f"artefacts_{stain}",
        Raster,
        f"artefacts of the {STAIN_TITLES[stain]} slide (pen, folds, blur, bubbles)",
    )
    for stain in STAINS
}
CORRECTED_ARTEFACT_MASK: Final = {
    stain: Artifact(
        f"corrected_artefacts_{stain}",
        Raster,
        f"artefacts of the {STAIN_TITLES[stain]} slide after manual correction",
    )
    for stain in STAINS
}
TILES: Final = Artifact("tiles", TileGrid, "tile grid on the CD34 section")
ALIGNMENT: Final = {
    frame: _document(f"alignment_{frame}", f"registration of {title} to CD34 and its quality")
    for frame, title in (("he", "H&E"), ("caix", "CAIX"), ("pet", "the PET"))
}
SUV: Final = Artifact("suv", Raster, "measured SUV on the voxel grid of the PET")
SUV_RECORD: Final = _document("suv_record", "terms of the SUV with their sources")
UPTAKE: Final = Artifact("uptake", Table, "measured SUV per tile")
UPTAKE_SENSITIVITY: Final = Artifact(
    "uptake_sensitivity",
    Table,
    "change of each tile's SUV under a small shift or rotation of the PET",
)
VESSELS: Final = Artifact("vessels", LabelImage, "CD34-positive vessels, lumen filled")
VESSEL_OBJECTS: Final = Artifact("vessel_objects", Table, "one row per vessel")
EXCLUDED_DAB: Final = Artifact(
    "excluded_dab", LabelImage, "DAB-positive objects excluded from the vessels"
)
EXCLUDED_DAB_OBJECTS: Final = Artifact(
    "excluded_dab_objects", Table, "one row per excluded DAB object, with the reason"
)
CORRECTED_VESSELS: Final = Artifact(
    "corrected_vessels", LabelImage, "vessels after manual correction"
)
CORRECTED_VESSEL_OBJECTS: Final = Artifact(
    "corrected_vessel_objects", Table, "one row per vessel after manual correction"
)
STAIN_FIT: Final = _document("stain_fit", "stain vectors of the H&E slide (Macenko)")
CLASSES: Final = Artifact("classes", LabelImage, "tissue classes")
CLASS_PROBABILITY: Final = Artifact("class_probability", Raster, "probability of each tissue class")
CLASS_RECORD: Final = Artifact("class_record", dict, "tissue classifier and area of each class")
NUCLEI: Final = Artifact("nuclei", LabelImage, "nuclei on H&E")
NUCLEUS_OBJECTS: Final = Artifact("nucleus_objects", Table, "one row per nucleus")
CORRECTED_NUCLEI: Final = Artifact("corrected_nuclei", LabelImage, "nuclei after manual correction")
CORRECTED_NUCLEUS_OBJECTS: Final = Artifact(
    "corrected_nucleus_objects", Table, "one row per nucleus after manual correction"
)
OBJECTS: Final = {
    "vessels": ((VESSELS, VESSEL_OBJECTS), (CORRECTED_VESSELS, CORRECTED_VESSEL_OBJECTS)),
    "nuclei": ((NUCLEI, NUCLEUS_OBJECTS), (CORRECTED_NUCLEI, CORRECTED_NUCLEUS_OBJECTS)),
}
"""Labels and table of the segmented objects: automatic, and after manual correction."""
CAIX_CELLS: Final = Artifact("caix_cells", Table, "one row per cell of the CAIX slide")
PARAMETERS: Final = Artifact("parameters", Table, "vascular, nuclear and CAIX parameters per tile")
MAPS: Final = Artifact("maps", Raster, "parameters interpolated over the tissue, one channel each")
ASSOCIATION: Final = Artifact("association", Table, "correlation of each parameter with the uptake")
CLUSTERS: Final = Artifact("clusters", Table, "local Moran cluster, statistic and p-value per tile")


def label_column(parameter: str) -> str:
    """Column of `CLUSTERS` that holds the labels of a parameter ("suv" for the uptake)."""
    return f"{parameter}.label"


UPTAKE_CLUSTERS: Final = Artifact(
    "uptake_clusters", Table, "local Moran cluster of the measured SUV per tile"
)
KINETICS: Final = Artifact("kinetics", Table, "immunokinetic curves of the patient")
KINETICS_RECORD: Final = _document(
    "kinetics_record", "what the images determine of the patient's curves, and checks of the solver"
)
TILE_KINETICS: Final = Artifact(
    "tile_kinetics", Table, "delivery-limited retained antibody per tile"
)
TILE_KINETICS_RECORD: Final = _document(
    "tile_kinetics_record", "what the images determine of the delivery, with Sobol indices"
)
PREDICTION: Final = Artifact("prediction", Table, "predicted uptake per tile")
PREDICTION_MAP: Final = Artifact(
    "prediction_map", Raster, "predicted uptake interpolated over the tissue"
)
PREDICTION_RECORD: Final = Artifact("prediction_record", dict, "prediction model and its training")
INPUT_SPREAD: Final = Artifact(
    "input_spread", Table, "spread of the predicted uptake per tile that comes from its inputs"
)
INPUT_SPREAD_RECORD: Final = _document(
    "input_spread_record", "how the inputs of the prediction were drawn, and what they contribute"
)
METRICS: Final = _document("metrics", "prediction error and that of the baselines")
DOSE: Final = Artifact("dose", Table, "dose what-if per tile, by plan, with 90 % intervals")
DOSE_RECORD: Final = _document(
    "dose_record", "dose what-if of each plan: indices, sources of uncertainty, constants, limits"
)
