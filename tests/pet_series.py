"""PET series and masks written for tests: DICOM, SEG, RTSTRUCT and NIfTI of one set of voxels."""

import struct
from datetime import datetime, timedelta

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

SPACING_MM = (3.0, 2.5, 2.0)
"""Slices, rows, columns."""
ORIGIN_MM = (-20.0, 35.0, 110.0)
REFERENCE = "1.2.840.99.1"
INJECTED = datetime(2024, 3, 4, 10, 30)
SCANNED = datetime(2024, 3, 7, 11, 0)
SLOPE = 0.25


def file_of(sop_class, number):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.{number}"
    return data


def pet_slice(pixels, place, **changes):
    """One classic PET image of stored values (rows, columns), values = SLOPE x stored Bq/mL."""
    data = file_of("1.2.840.10008.5.1.4.1.1.128", place + 1)
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 37e6, 78.41 * 3600
    drug.RadiopharmaceuticalStartDateTime = INJECTED.strftime("%Y%m%d%H%M%S")
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "C-168A5", "SRT"
    code.CodeMeaning = "^89^Zirconium"
    drug.RadionuclideCodeSequence = Sequence([code])
    data.RadiopharmaceuticalInformationSequence = Sequence([drug])
    data.SeriesInstanceUID, data.FrameOfReferenceUID, data.Modality = "1.2.9", REFERENCE, "PT"
    data.PatientName, data.PatientID = "Doe^Jane", "Patient-1"
    data.PatientWeight, data.PatientSize, data.PatientSex = 80, 1.8, "M"
    data.SeriesDate, data.SeriesTime = SCANNED.strftime("%Y%m%d"), SCANNED.strftime("%H%M%S")
    data.AcquisitionDate, data.AcquisitionTime = data.SeriesDate, data.SeriesTime
    data.Units, data.DecayCorrection, data.CorrectedImage = "BQML", "START", ["ATTN", "DECY"]
    data.ActualFrameDuration, data.FrameReferenceTime = 1200000, 600000.0
    deep, high, wide = SPACING_MM
    data.PixelSpacing, data.RescaleSlope, data.RescaleIntercept = [high, wide], SLOPE, 0
    x, y, z = ORIGIN_MM
    data.ImagePositionPatient = [x, y, z + place * deep]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.InstanceNumber = place + 1
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = pixels.astype("<u2").tobytes()
    for name, value in changes.items():
        setattr(data, name, value)
    return data


def pet_series(folder, stored, skip=(), each=lambda place: {}):
    """A folder with one file a slice; *each* gives changes of the header of a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, pixels in enumerate(stored):
        if place not in skip:
            data = pet_slice(pixels, place, **each(place))
            data.save_as(folder / f"{97 * place % 100:02d}.dcm", enforce_file_format=True)
    return folder


def segmentation(path, mask, reference=REFERENCE, shift_mm=0.0, upward=False):
    """A binary DICOM SEG of the mask (slices, rows, columns) as segment 1, its mirror as 2.

    With *upward* the rows of its frames run to the front of the patient.
    """
    data = file_of("1.2.840.10008.5.1.4.1.1.66.4", 500)
    data.Modality, data.SegmentationType, data.FrameOfReferenceUID = "SEG", "BINARY", reference
    segments = []
    for number in (1, 2):
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel = number, f"part {number}"
        segments.append(item)
    data.SegmentSequence = Sequence(segments)
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(SPACING_MM[1:])
    turn.ImageOrientationPatient = [1, 0, 0, 0, -1 if upward else 1, 0]
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([turn])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, planes = [], []
    for number, one in ((1, mask), (2, mask[:, ::-1])):
        for place in np.flatnonzero(one.any(axis=(1, 2))):
            frame, where, which = Dataset(), Dataset(), Dataset()
            x, y, z = ORIGIN_MM
            y += (one.shape[1] - 1) * SPACING_MM[1] if upward else 0
            where.ImagePositionPatient = [x + shift_mm, y, z + int(place) * SPACING_MM[0]]
            which.ReferencedSegmentNumber = number
            frame.PlanePositionSequence = Sequence([where])
            frame.SegmentIdentificationSequence = Sequence([which])
            frames.append(frame)
            planes.append(one[place, ::-1] if upward else one[place])
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.NumberOfFrames, (data.Rows, data.Columns) = len(frames), mask.shape[1:]
    data.BitsAllocated = data.BitsStored = 1
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 0, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    bits = np.packbits(np.stack(planes).ravel(), bitorder="little").tobytes()
    data.PixelData = bits + b"\0" * (len(bits) % 2)
    data.save_as(path, enforce_file_format=True)
    return path


def contours(path, regions, reference=REFERENCE, kind="CLOSED_PLANAR"):
    """An RTSTRUCT of regions: number -> list of contours (n, 3) in mm."""
    data = file_of("1.2.840.10008.5.1.4.1.1.481.3", 600)
    data.Modality = "RTSTRUCT"
    names, items = [], []
    for number, found in regions.items():
        name, item = Dataset(), Dataset()
        name.ROINumber, name.ROIName = number, f"region {number}"
        name.ReferencedFrameOfReferenceUID = reference
        names.append(name)
        item.ReferencedROINumber, parts = number, []
        for points in found:
            part = Dataset()
            part.ContourGeometricType, part.NumberOfContourPoints = kind, len(points)
            part.ContourData = [round(float(value), 6) for value in np.ravel(points)]
            parts.append(part)
        item.ContourSequence = Sequence(parts)
        items.append(item)
    data.StructureSetROISequence, data.ROIContourSequence = Sequence(names), Sequence(items)
    data.save_as(path, enforce_file_format=True)
    return path


def nifti_volume(path, values, origin_mm=ORIGIN_MM, spacing_mm=SPACING_MM, sform=True):
    """A NIfTI of values (slices, rows, columns) whose voxels lie as those of the DICOM series.

    Rows are stored from the front of the patient's back on, as most converters do.
    """
    stored = np.asarray(values)[:, ::-1]
    deep, high, wide = spacing_mm
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *stored.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 16, 32)
    struct.pack_into("<8f", head, 76, 1, wide, high, deep, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[123] = 2
    x, y, z = origin_mm
    last = -(y + (stored.shape[1] - 1) * high)
    if sform:  # columns to the left (x falls), rows to the front (y rises), slices to the head
        struct.pack_into("<h", head, 254, 1)
        rows = [[-wide, 0, 0, -x], [0, high, 0, last], [0, 0, deep, z]]
        struct.pack_into("<12f", head, 280, *np.ravel(rows))
    else:  # the same by a quaternion: half a turn about y, with the third axis mirrored
        struct.pack_into("<h", head, 252, 1)
        struct.pack_into("<f", head, 76, -1.0)
        struct.pack_into("<6f", head, 256, 0, 1, 0, -x, last, z)
    head[344:348] = b"n+1\0"
    path.write_bytes(bytes(head) + stored.astype("<f4").tobytes())
    return path


def nifti_in_order(path, values, order, flips):
    """The voxels of `nifti_volume` stored with axes (x, y, z) in another order and flipped."""
    stored = np.asarray(values, "<f4").transpose(2, 1, 0)
    deep, high, wide = SPACING_MM
    affine = np.diag([-wide, -high, deep, 1.0])  # right, front, head
    affine[:3, 3] = np.array(ORIGIN_MM) * [-1, -1, 1]
    stored, affine[:, :3] = stored.transpose(order), affine[:, list(order)]
    for axis in np.flatnonzero(flips):
        affine[:, 3] += affine[:, axis] * (stored.shape[axis] - 1)
        affine[:, axis] *= -1
        stored = np.flip(stored, axis)
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *stored.shape, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 16, 32)
    steps = np.abs(affine[:3, :3]).max(axis=0)
    struct.pack_into("<8f", head, 76, 1, *steps, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[123] = 2
    struct.pack_into("<h", head, 254, 1)
    struct.pack_into("<12f", head, 280, *np.ravel(affine[:3]))
    head[344:348] = b"n+1\0"
    path.write_bytes(bytes(head) + stored.tobytes(order="F"))
    return path


def later(hours):
    return SCANNED + timedelta(hours=hours)
