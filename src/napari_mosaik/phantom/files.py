"""Writes the files of a sample case other than slides: PET, case file, recipe, records."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from napari_mosaik.core.frame import Transform
from napari_mosaik.core.pet_records import HALF_LIFE_H
from napari_mosaik.core.raster import Raster
from napari_mosaik.phantom.physics import ScannerLaw
from napari_mosaik.phantom.presets import CasePlan, CohortSize, Patient

__all__ = [
    "transform_record",
    "write_case_file",
    "write_npz",
    "write_pet",
    "write_recipe_file",
    "write_record",
]

FINE_ENOUGH_UM = 0.75
"""Slides with larger pixels lack the detail that a network for 0.5 µm needs."""

UID_ROOT = "1.2.826.0.1.3680043.8.498."


def write_record(path: Path, values: Any) -> None:
    """Write a JSON record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays of any shape and unit by name, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def transform_record(transform: Transform) -> dict[str, Any]:
    """JSON-able form of a transform of (row, column, 1) in µm from source to target."""
    return {
        "source": transform.source,
        "target": transform.target,
        "matrix": [[float(v) for v in row] for row in transform.matrix],
        "angle_deg": transform.angle_deg,
        "scale": transform.scale,
    }


def _uid(*parts: object) -> Any:
    """A DICOM identifier derived from the parts of its name."""
    text = "/".join(str(part) for part in parts)
    from pydicom.uid import UID

    return UID(UID_ROOT + str(int(hashlib.blake2b(text.encode(), digest_size=14).hexdigest(), 16)))


def write_pet(path: Path, image: Raster, plan: CasePlan, seed: int, scanner: ScannerLaw) -> None:
    """Write the PET slice (rows, columns), Bq/mL, as anonymous DICOM of a preclinical scanner."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(seed, plan.name, "image", image.lattice.shape)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(UID_ROOT + "1")
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = _uid(seed, plan.patient.name, "study")
    data.SeriesInstanceUID = _uid(seed, plan.name, "series")
    data.FrameOfReferenceUID = _uid(seed, plan.name, "frame")
    _describe(data, plan, scanner)
    _radiopharmaceutical(data, plan.patient)
    _pixels(data, image, scanner)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def _describe(data: Any, plan: CasePlan, scanner: ScannerLaw) -> None:
    scanned = plan.scanned
    data.Modality = "PT"
    data.PatientName = "PHANTOM"
    data.PatientID = plan.patient.name.replace(" ", "-")
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = "synthetic data"
    data.PatientSex = ""
    data.Manufacturer = "napari-mosaik phantom"
    data.SeriesDescription = f"ex vivo microPET of {plan.name} (synthetic)"
    data.SeriesNumber, data.InstanceNumber = "1", "1"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SeriesType = ["STATIC", "IMAGE"]
    date, time = scanned.strftime("%Y%m%d"), scanned.strftime("%H%M%S")
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = date
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = time
    data.Units = "BQML"
    data.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    data.DecayCorrection = "START"
    data.CountsSource = "EMISSION"
    data.AttenuationCorrectionMethod = "CT-derived"
    data.ActualFrameDuration = str(round(scanner.frame_s * 1000))
    rate = np.log(2) / (HALF_LIFE_H["Zr-89"] * 3600.0)
    middle = -np.log((1 - np.exp(-rate * scanner.frame_s)) / (rate * scanner.frame_s)) / rate
    data.FrameReferenceTime = f"{middle * 1000:.1f}"
    data.DecayFactor = f"{np.exp(rate * middle):.8f}"


def _radiopharmaceutical(data: Any, patient: Patient) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
        "C-168A5",
        "SRT",
        "^89^Zirconium",
    )
    drug = Dataset()
    drug.Radiopharmaceutical = "[89Zr]Zr-girentuximab (synthetic)"
    injected = datetime.fromisoformat(patient.injected)
    drug.RadiopharmaceuticalStartDateTime = injected.strftime("%Y%m%d%H%M%S")
    drug.RadiopharmaceuticalStartTime = injected.strftime("%H%M%S")
    drug.RadionuclideTotalDose = f"{(patient.dose_mbq - patient.residual_mbq) * 1e6:.0f}"
    drug.RadionuclideHalfLife = f"{HALF_LIFE_H['Zr-89'] * 3600:.0f}"
    drug.RadionuclidePositronFraction = "0.2274"
    drug.RadionuclideCodeSequence = Sequence([code])
    data.RadiopharmaceuticalInformationSequence = Sequence([drug])


def _pixels(data: Any, image: Raster, scanner: ScannerLaw) -> None:
    slope = float(f"{image.values.max() / 32000.0:.8e}")
    stored = np.rint(image.values / slope).astype("<u2")
    data.Rows, data.Columns = image.lattice.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept = f"{slope:.8e}", "0"
    data.RescaleType = "BQML"
    data.NumberOfSlices = 1
    data.ImageIndex = 1
    mm = [s / 1000.0 for s in image.lattice.spacing_um]
    data.PixelSpacing = [f"{m:g}" for m in mm]
    data.SliceThickness = f"{scanner.voxel_um / 1000.0:g}"
    data.ImagePositionPatient = [f"{mm[1] / 2:g}", f"{mm[0] / 2:g}", "0"]
    data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    data.PixelData = stored.tobytes()


def write_recipe_file(path: Path, size: CohortSize) -> None:
    """Write recipe.toml where a setting other than the default suits the slides better."""
    if size.spacing_um > FINE_ENOUGH_UM and size.rendered:
        lines = (
            f"# The slides have pixels of {size.spacing_um:g} µm. The network reads 0.5 µm, needs "
            "much longer",
            "# for them and finds the same nuclei.",
            "[nuclei]",
            'method = "classical"',
        )
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def write_case_file(path: Path, plan: CasePlan, size: CohortSize) -> None:
    """Write case.toml: slides, PET and injection record."""
    patient = plan.patient
    slide = {"spacing_um": [size.spacing_um, size.spacing_um], "spacing_source": "header"}
    slides = {stain: {"path": f"slides/{stain}.tif", **slide} for stain in ("he", "cd34", "caix")}
    injection = {
        "nuclide": "Zr-89",
        "dose_mbq": patient.dose_mbq,
        "residual_mbq": patient.residual_mbq,
        "injected": datetime.fromisoformat(patient.injected),
        "excised": datetime.fromisoformat(patient.excised),
        "weight_kg": patient.weight_kg,
        "height_cm": patient.height_cm,
        "sex": patient.sex,
        "antibody_mass_mg": patient.antibody_mass_mg,
    }
    record = {
        "format": 1,
        "name": plan.name,
        "patient": patient.name,
        "slides": slides,
        "pet": {"paths": ["pet/slice.dcm"]},
        "injection": injection,
    }
    path.write_bytes(tomli_w.dumps(record).encode())
