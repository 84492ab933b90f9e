"""Files that are not read: what they are, by their content, and what to do with them."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

__all__ = ["path_slip", "unread_file"]

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself: run `git annex get`"),
    (b"PK\x03\x04", "a ZIP archive: unpack it and give the folder or file inside"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it"),
    (b"BZh", "compressed by bzip2: unpack it"),
    (b"\xfd7zXZ", "compressed by xz: unpack it"),
    (b"MATRIX7", "an ECAT file: convert it to NIfTI or DICOM"),
    (b"!INTERFILE", "an Interfile header: convert the image to NIfTI or DICOM"),
    (b"NRRD000", "an NRRD file: save the image as NIfTI (.nii.gz)"),
    (b"ObjectType", "a MetaImage header: save the image as NIfTI (.nii.gz)"),
    (b"NDims", "a MetaImage header: save the image as NIfTI (.nii.gz)"),
    (b"##TITLE", "a Bruker ParaVision file: export the scan as DICOM or NIfTI"),
    (b"MATLAB", "a MATLAB file: save the image as NIfTI"),
    (b"\x93NUMPY", "a NumPy array: save the image in an image format that states its geometry"),
    (b"\x89HDF", "an HDF5 file (MINC, Imaris ...): convert it to an image format that is read"),
    (b"CDF\x01", "a NetCDF or MINC file: convert the image to NIfTI"),
    (b"\xda\xce\xbe\x0a", "a Nikon ND2 file: convert it to OME-TIFF"),
    (b"p\x00\x00\x00", "a Leica LIF file: convert it to OME-TIFF"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an old Office or OIB file"),
    (b"<?xml", "an XML document, not an image"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture: save it as PNG or tiled TIFF"),
    (b"RIFF", "a WebP picture or a sound: save a picture as PNG or tiled TIFF"),
    (b"SQLite format 3", "a database"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "a Windows shortcut: give the file that it leads to"),
    (b"\x00\x05\x16\x07", "what macOS writes beside a file: give the file whose name lacks `._`"),
    (b"book\x00\x00\x00\x00mark", "a macOS alias: give the file that it leads to"),
    (b"[InternetShortcut]", "a web shortcut: download the file that it leads to"),
    (b"bplist00", "a placeholder of a file in the cloud: download it first"),
    (b"<svg", "a vector drawing: save it as PNG"),
    (b"SIMPLE  =", "a FITS image: convert it to TIFF"),
    (b"8BPS", "a Photoshop picture: save it as TIFF"),
    (b"gimp xcf", "a GIMP picture: save it as TIFF"),
)
_NAMES = (
    (r"\.(tar|tgz|tar\.\w+)$", "an archive: unpack it and give the folder or file inside"),
    (r"\.v$", "an ECAT file: convert it to NIfTI or DICOM"),
    (r"\.(hv|h33|i33|hs|i)$", "an Interfile image: convert it to NIfTI or DICOM"),
    (r"\.(nrrd|nhdr)$", "an NRRD file: save the image as NIfTI (.nii.gz)"),
    (r"\.(mha|mhd)$", "a MetaImage: save the image as NIfTI (.nii.gz)"),
    (r"\.mnc$", "a MINC file: convert the image to NIfTI"),
    (r"^(2dseq|visu_pars|reco|acqp|method)$", "a Bruker scan: export it as DICOM or NIfTI"),
    (r"\.(vsi|ets)$", "an Olympus VSI slide: convert it to OME-TIFF"),
    (r"\.(oir|oib|lif|nd2|czi|lsm|ims)$", "a microscope's own file: convert it to OME-TIFF"),
    (r"\.(vms|vmu)$", "a damaged or incomplete Hamamatsu slide: copy all of its files"),
    (r"\.(bmp|jp2|j2k|jpf|heic|heif|avif|webp)$", "a picture to save as PNG or tiled TIFF first"),
    (r"\.(geo)?json$", "a JSON text, not an image"),
    (r"\.(isyntax|i2syntax)$", "a Philips iSyntax slide: export it as TIFF or DICOM"),
    (r"\.(qpproj|qpdata)$", "a QuPath project: give the slide that it refers to"),
    (r"\.(ya?ml|toml|txt|csv|docx?|xlsx?|md)$", "a text or table, not an image"),
)


def unread_file(path: Path, *, by_name: bool = False) -> str:
    """What a file is that no reader takes, and what to do; empty if that is not known.

    *by_name*: whatever its content looks like.
    """
    if path.is_dir():
        inside = {child.name for child in path.iterdir()}
        bruker = inside & {"2dseq", "visu_pars", "reco", "acqp", "pdata"}
        return "a Bruker scan: export it as DICOM or NIfTI" if bruker else ""
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        return "empty (0 bytes): copy it again"
    if not start.strip(b"\0"):
        return "filled with zeros: copy it again"
    if re.match(rb"\s*(<!doctype html|<html)", start, re.IGNORECASE):
        return "a web page (an error page of a download?): download the file again"
    for beginning, text in () if by_name else _BEGINNINGS:
        if start.startswith(beginning):
            return text
    if b"/annex/objects/" in start[:200]:
        return "a git-annex pointer, not the file itself: run `git annex get`"
    name = path.name.lower()
    return next((text for pattern, text in _NAMES if re.search(pattern, name)), "")


def path_slip(path: Path) -> str:
    """What is probably wrong with a path that leads nowhere: "; " and what to do, or ""."""
    text = str(path)
    if re.match(r"(https?|s3|gs|ftp|omero|smb|dav|sftp):/", text):
        return "; files are not read from the network: download it and give the file"
    if text.startswith("file:"):
        return "; give the path without 'file://'"
    if text[0] in "'\"" or text[-1] in "'\"":
        return "; remove the quotation marks"
    if text.startswith("~"):
        return "; give the path of your home folder instead of ~"
    if re.search(r"%\w+%|\$\w+|\$\{", text):
        return "; give the path with the value of the variable in place of its name"
    odd = [sign for sign in text if unicodedata.category(sign) == "Cf" or sign == "\u00a0"]
    if odd:
        return f"; it holds an invisible character (U+{ord(odd[0]):04X}): type the path again"
    if os.sep == "/" and re.match(r"[A-Za-z]:[\\/]|\\\\|//", text):
        return "; it is a path of Windows or of a network: give that of this computer"
    return "; its name ends with a space" if text != text.strip() else ""
