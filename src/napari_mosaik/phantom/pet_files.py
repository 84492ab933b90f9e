"""The sample's PET as anonymous DICOM files of one image each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.pet_records import HALF_LIFE_H
from napari_mosaik.core.raster import Raster
from napari_mosaik.phantom.physics import ScannerLaw
from napari_mosaik.phantom.presets import CasePlan, Patient

__all__ = ["PetFile", "frame_middle_s", "write_specimen_pet"]

UID_ROOT = "1.2.826.0.1.3680043.8.498."


def write_specimen_pet(
    path: Path, image: Raster, plan: CasePlan, seed: int, scanner: ScannerLaw
) -> None:
    """Write the slice of the specimen (rows, columns), Bq/mL, of a preclinical scanner."""
    mm = [size / 1000.0 for size in image.lattice.spacing_um]
    PetFile(
        values=np.asarray(image.values),
        spacing_mm=(mm[0], mm[1]),
        thickness_mm=scanner.voxel_um / 1000.0,
        position_mm=(mm[1] / 2, mm[0] / 2, 0.0),
        identity=((seed, plan.name, "image", image.lattice.shape), (seed, plan.name, "series"),
                  (seed, plan.name, "frame"), (seed, plan.patient.name, "study")),
        title=f"ex vivo microPET of {plan.name} (synthetic)",
        patient=plan.patient,
        scanned=plan.scanned,
        frame_s=scanner.frame_s,
    ).write(path)  # fmt: skip


def frame_middle_s(frame_s: float) -> float:
    """Time in a frame at which the decaying activity has its mean, s after its start."""
    rate = np.log(2) / (HALF_LIFE_H["Zr-89"] * 3600.0)
    return float(-np.log((1 - np.exp(-rate * frame_s)) / (rate * frame_s)) / rate)


@dataclass(frozen=True, slots=True, eq=False)
class PetFile:
    """One PET image and what its header states.

    Parameters
    ----------
    values
        (rows, columns) activity concentration, Bq/mL at the start of the scan.
    spacing_mm, thickness_mm, position_mm
        Distances of rows and columns, of slices, and centre of the first pixel in the patient.
    identity
        What the identifiers of image, series, frame of reference and study are made from.
    title
        Description of the series.
    patient
        The patient; *body* states weight, height and sex.
    scanned, frame_s
        Start of the scan, and duration of the frame, s.
    number, count
        Number of the slice from 1, and number of slices.
    """

    values: FloatArray
    spacing_mm: tuple[float, float]
    thickness_mm: float
    position_mm: tuple[float, float, float]
    identity: tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]
    title: str
    patient: Patient
    scanned: datetime
    frame_s: float
    number: int = 1
    count: int = 1
    body: bool = False

    def write(self, path: Path) -> None:
        """Write the DICOM file."""
        import pydicom  # noqa: F401 - a part alone would not wait for another thread to load all
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

        image, series, frame, study = (_uid(*parts) for parts in self.identity)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        meta.MediaStorageSOPInstanceUID = image
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = UID(UID_ROOT + "1")
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID = meta.MediaStorageSOPClassUID
        data.SOPInstanceUID = image
        data.StudyInstanceUID = study
        data.SeriesInstanceUID = series
        data.FrameOfReferenceUID = frame
        self._describe(data)
        _radiopharmaceutical(data, self.patient)
        self._pixels(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(path, enforce_file_format=True)

    def _describe(self, data: Any) -> None:
        data.Modality = "PT"
        data.PatientName = "PHANTOM"
        data.PatientID = self.patient.name.replace(" ", "-")
        data.PatientIdentityRemoved = "YES"
        data.DeidentificationMethod = "synthetic data"
        data.PatientSex = self.patient.sex if self.body else ""
        if self.body:
            data.PatientWeight = f"{self.patient.weight_kg:g}"
            data.PatientSize = f"{self.patient.height_cm / 100:g}"
        data.Manufacturer = "napari-mosaik phantom"
        data.SeriesDescription = self.title
        data.SeriesNumber, data.InstanceNumber = "1", str(self.number)
        data.ImageType = ["ORIGINAL", "PRIMARY"]
        data.SeriesType = ["STATIC", "IMAGE"]
        date, time = self.scanned.strftime("%Y%m%d"), self.scanned.strftime("%H%M%S")
        data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = date
        data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = time
        data.Units = "BQML"
        data.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
        data.DecayCorrection = "START"
        data.CountsSource = "EMISSION"
        data.AttenuationCorrectionMethod = "CT-derived"
        data.ActualFrameDuration = str(round(self.frame_s * 1000))
        rate = np.log(2) / (HALF_LIFE_H["Zr-89"] * 3600.0)
        middle = frame_middle_s(self.frame_s)
        data.FrameReferenceTime = f"{middle * 1000:.1f}"
        data.DecayFactor = f"{np.exp(rate * middle):.8f}"

    def _pixels(self, data: Any) -> None:
        slope = float(f"{self.values.max() / 32000.0:.8e}")
        stored = np.rint(self.values / slope).astype("<u2")
        data.Rows, data.Columns = self.values.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleSlope, data.RescaleIntercept = f"{slope:.8e}", "0"
        data.RescaleType = "BQML"
        data.NumberOfSlices = self.count
        data.ImageIndex = self.number
        data.PixelSpacing = [f"{size:g}" for size in self.spacing_mm]
        data.SliceThickness = f"{self.thickness_mm:g}"
        data.ImagePositionPatient = [f"{part:g}" for part in self.position_mm]
        data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        data.PixelData = stored.tobytes()


def _uid(*parts: object) -> Any:
    """A DICOM identifier derived from the parts of its name."""
    text = "/".join(str(part) for part in parts)
    from pydicom.uid import UID

    return UID(UID_ROOT + str(int(hashlib.blake2b(text.encode(), digest_size=14).hexdigest(), 16)))


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
