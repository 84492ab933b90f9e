"""Small slides in scanners' own layouts, made for tests: just what OpenSlide needs to know them."""

import io
import struct

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WSI_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"


def smooth(rows, columns, seed=0):
    """A picture that JPEG keeps nearly as it is, different everywhere."""
    r, c = np.mgrid[:rows, :columns]
    waves = [
        128 + 90 * np.sin(r / (23 + 5 * k) + seed) * np.cos(c / (31 - 4 * k)) for k in (0, 1, 2)
    ]
    return np.stack(waves, axis=-1).astype(np.uint8)


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    settings = {"quality": 95, "subsampling": 0, **options}
    Image.fromarray(pixels).save(buffer, format="JPEG", **settings)
    return buffer.getvalue()


def unjpeg(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def tiles_of(pixels, edge):
    """Tiles in raster order, the last ones filled with white."""
    rows, columns = (-(-n // edge) for n in pixels.shape[:2])
    full = np.full((rows * edge, columns * edge, 3), 255, np.uint8)
    full[: pixels.shape[0], : pixels.shape[1]] = pixels
    return [
        full[i * edge : (i + 1) * edge, j * edge : (j + 1) * edge]
        for i in range(rows)
        for j in range(columns)
    ]


# --- DICOM ----------------------------------------------------------------------------------------
def write_dicom(folder, levels, edge=64, *, sparse=False, compressed=False, um=0.5, seed=1):
    """One DICOM slide: a file per level; frames in a scrambled order where *sparse*."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame_uid = generate_uid(), generate_uid(), generate_uid()
    paths = []
    for number, pixels in enumerate(levels):
        scale = levels[0].shape[1] / pixels.shape[1]
        path = folder / f"level{number}.dcm"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = WSI_CLASS
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = JPEGBaseline8Bit if compressed else ExplicitVRLittleEndian
        ds = Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = WSI_CLASS, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.FrameOfReferenceUID, ds.Modality = frame_uid, "SM"
        ds.PatientName, ds.PatientID = "Doe^Jane", "4711"
        kind = ["ORIGINAL" if number == 0 else "DERIVED", "PRIMARY", "VOLUME"]
        ds.ImageType = [*kind, "NONE" if number == 0 else "RESAMPLED"]
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
        ds.PhotometricInterpretation = "YBR_FULL_422" if compressed else "RGB"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.Rows = ds.Columns = edge
        ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = pixels.shape[:2]
        ds.TotalPixelMatrixFocalPlanes = 1
        ds.ImagedVolumeWidth = levels[0].shape[1] * um / 1000
        ds.ImagedVolumeHeight = levels[0].shape[0] * um / 1000
        ds.DimensionOrganizationType = "TILED_SPARSE" if sparse else "TILED_FULL"
        measures, groups = Dataset(), Dataset()
        measures.PixelSpacing = [um * scale / 1000] * 2
        groups.PixelMeasuresSequence = Sequence([measures])
        ds.SharedFunctionalGroupsSequence = Sequence([groups])
        tiles = tiles_of(pixels, edge)
        order = list(range(len(tiles)))
        if sparse:
            np.random.default_rng(seed).shuffle(order)
            columns = -(-pixels.shape[1] // edge)
            ds.PerFrameFunctionalGroupsSequence = Sequence(
                [_position(n // columns * edge, n % columns * edge) for n in order]
            )
        ds.NumberOfFrames = len(tiles)
        frames = [tiles[n] for n in order]
        if compressed:
            ds.PixelData = encapsulate([jpeg(frame, subsampling=1) for frame in frames])
            ds["PixelData"].is_undefined_length = True
        else:
            ds.PixelData = b"".join(frame.tobytes() for frame in frames)
        pydicom.dcmwrite(path, ds, enforce_file_format=True)
        paths.append(path)
    return paths


def _position(row, column):
    place, group = Dataset(), Dataset()
    place.RowPositionInTotalImagePixelMatrix = row + 1
    place.ColumnPositionInTotalImagePixelMatrix = column + 1
    place.XOffsetInSlideCoordinateSystem = 0.0
    place.YOffsetInSlideCoordinateSystem = 0.0
    place.ZOffsetInSlideCoordinateSystem = 0.0
    group.PlanePositionSlideSequence = Sequence([place])
    return group


# --- TIFF in a scanner's layout -------------------------------------------------------------------
def write_philips(path, levels, edge=64, um=0.5):
    """Philips TIFF: XML in the description, levels as pages, JPEG tiles."""
    import tifffile

    spacing = [f'"{um * levels[0].shape[1] / p.shape[1] / 1000:.8f}"' for p in levels]
    name = (
        'Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray"'
    )
    representations = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation"><{name}>{s} {s}</Attribute></DataObject>'
        for s in spacing
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" '
        'PMSVR="IDataObjectArray"><Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI'
        f"</Attribute><{name}>{spacing[0]} {spacing[0]}</Attribute>"
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" '
        f'Element="0x8B01" PMSVR="IDataObjectArray"><Array>{representations}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels):
            tiff.write(
                pixels, tile=(edge, edge), photometric="rgb", compression="jpeg",
                compressionargs={"level": 95}, description=xml if number == 0 else None,
                software="Philips DP v1.0", metadata=None,
                subfiletype=0 if number == 0 else 1,
            )  # fmt: skip
    return path


def write_leica(path, levels, corner=(20, 40), canvas=(400, 600), edge=64, nm=500):
    """Leica SCN: the scanned part lies within a larger canvas, which OpenSlide states as bounds."""
    import tifffile

    dimensions = "".join(
        f'<dimension sizeX="{p.shape[1]}" sizeY="{p.shape[0]}" r="{n}" ifd="{n}"/>'
        for n, p in enumerate(levels)
    )
    rows, columns = levels[0].shape[:2]
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" sizeX="{canvas[1] * nm}" sizeY="{canvas[0] * nm}"><image name="i">'
        f'<pixels sizeX="{columns}" sizeY="{rows}">{dimensions}</pixels>'
        f'<view sizeX="{columns * nm}" sizeY="{rows * nm}" offsetX="{corner[1] * nm}" '
        f'offsetY="{corner[0] * nm}"/><device model="L" version="1"/><scanSettings>'
        "<objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield"
        "</illuminationSource></illuminationSettings></scanSettings></image></collection></scn>"
    )
    per_cm = 1e7 / nm
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, pixels in enumerate(levels):
            scale = columns / pixels.shape[1]
            tiff.write(
                pixels, tile=(edge, edge), photometric="rgb", compression="jpeg",
                compressionargs={"level": 95}, description=xml if number == 0 else None,
                metadata=None, resolution=(per_cm / scale, per_cm / scale),
                resolutionunit="CENTIMETER",
            )  # fmt: skip
    return path


def write_ndpi(path, levels, um=0.5):
    """Hamamatsu NDPI: one JPEG strip a level with restart markers; a TIFF with 64-bit links."""
    data, directories = bytearray(12), []
    for pixels in levels:
        stream = jpeg(pixels, subsampling=0, restart_marker_rows=1)
        place = len(data)
        data += stream + bytes(-len(stream) % 4)
        scale = levels[0].shape[1] / pixels.shape[1]
        resolution = len(data)
        data += struct.pack("<II", round(10000 / (um * scale) * 1000), 1000)
        make = len(data)
        data += b"Hamamatsu\0\0\0"
        lens = struct.unpack("<I", struct.pack("<f", 20 / scale))[0]
        directories.append([
            (254, 4, 1, 0), (256, 4, 1, pixels.shape[1]), (257, 4, 1, pixels.shape[0]),
            (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 6), (271, 2, 10, make),
            (273, 4, 1, place), (277, 3, 1, 3), (278, 4, 1, pixels.shape[0]),
            (279, 4, 1, len(stream)), (282, 5, 1, resolution), (283, 5, 1, resolution),
            (296, 3, 1, 3), (65420, 4, 1, 1), (65421, 11, 1, lens), (65424, 9, 1, 0),
        ])  # fmt: skip
    data[:12] = b"II*\0" + struct.pack("<Q", len(data))
    for number, entries in enumerate(directories):
        block = struct.pack("<H", len(entries))
        block += b"".join(struct.pack("<HHII", *entry) for entry in entries)
        size = len(block) + 8 + 4 * len(entries)
        after = len(data) + size + size % 2
        last = number == len(directories) - 1
        block += struct.pack("<Q", 0 if last else after) + bytes(4 * len(entries) + size % 2)
        data += block
    path.write_bytes(data)
    return path


def write_ventana(path, levels, edge=64, um=0.5):
    """Ventana BIF: XML in the XMP tag, one scanned area without overlaps, tiles in serpentine."""
    import tifffile

    rows, columns = (-(-n // edge) for n in levels[0].shape[:2])
    joints = []
    for i in range(rows):
        for j in range(columns):
            for other, side in (((i, j + 1), "RIGHT"), ((i + 1, j), "UP")):
                if other[0] < rows and other[1] < columns:
                    pair = ((i, j), other) if side == "RIGHT" else (other, (i, j))
                    one, two = (_serpentine(rows, columns, *place) for place in pair)
                    joints.append(
                        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="{side}" '
                        f'Tile1="{one}" Tile2="{two}" OverlapX="0" OverlapY="0"/>'
                    )
    encode = (
        '<EncodeInfo Ver="2"><SlideInfo/><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" '
        f'Width="{edge}" Height="{edge}" NumRows="{rows}" NumCols="{columns}" Pos-X="0" Pos-Y="0">'
        f'{"".join(joints)}</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/>'
        "</AoiOrigin></EncodeInfo>"
    )
    scan = f'<Metadata><iScan Magnification="20" ScanRes="{um}" UnitNumber="1"/></Metadata>'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        label = np.full((32, 32, 3), 200, np.uint8)
        tiff.write(label, photometric="rgb", description="Label Image", metadata=None,
                   extratags=[(700, 1, len(scan), scan.encode(), True)])  # fmt: skip
        for number, pixels in enumerate(levels):
            more = [(700, 1, len(encode), encode.encode(), True)] if number == 0 else []
            tiff.write(
                pixels, tile=(edge, edge), photometric="rgb", compression="jpeg",
                compressionargs={"level": 95}, metadata=None, extratags=more,
                description=f"level={number} mag={20 * pixels.shape[1] / levels[0].shape[1]:g} "
                "quality=95",
            )  # fmt: skip
    return path


def _serpentine(rows, columns, row, column):
    """Number of a tile (from 1): from the bottom row upward, every second row backward."""
    up = rows - 1 - row
    return up * columns + (column if up % 2 == 0 else columns - 1 - column) + 1


def write_mirax(path, pixels, edge=64, margin=(2, 3), um=0.5):
    """MIRAX (3DHISTECH): an index and a data file beside an empty-named one, two levels.

    *margin* is the number of unscanned tiles (rows, columns) on every side.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    inner = tiles_of(pixels, edge)
    grid = [-(-n // edge) for n in pixels.shape[:2]]
    across = [grid[0] + 2 * margin[0], grid[1] + 2 * margin[1]]
    places = [
        (i + margin[0]) * across[1] + j + margin[1] for i in range(grid[0]) for j in range(grid[1])
    ]
    identity = "0" * 32
    data, entries = bytearray(), []
    for place, tile in zip(places, inner, strict=True):
        stream = jpeg(tile)
        entries.append((place, len(data), len(stream), 0))
        data += stream
    (folder / "Data0000.dat").write_bytes(data)
    index = bytearray(b"01.02" + identity.encode())
    root = len(index)
    index += bytes(8)
    table = len(index)
    index += bytes(4)
    first = len(index)
    page = first + 8
    index += struct.pack("<ii", 0, page)
    index += struct.pack("<ii", len(entries), 0)
    index += b"".join(struct.pack("<iiii", *entry) for entry in entries)
    struct.pack_into("<ii", index, root, table, 0)
    struct.pack_into("<i", index, table, first)
    (folder / "Index.dat").write_bytes(index)
    (folder / "Slidedat.ini").write_text(
        f"[GENERAL]\nSLIDE_VERSION = 01.02\nSLIDE_ID = {identity}\nIMAGENUMBER_X = {across[1]}\n"
        f"IMAGENUMBER_Y = {across[0]}\nOBJECTIVE_MAGNIFICATION = 20\n"
        "CameraImageDivisionsPerSide = 1\n"
        "[HIERARCHICAL]\nINDEXFILE = Index.dat\nHIER_COUNT = 1\nNONHIER_COUNT = 0\n"
        "HIER_0_NAME = Slide zoom level\nHIER_0_COUNT = 1\nHIER_0_VAL_0_SECTION = LEVEL_0\n"
        "[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = Data0000.dat\n"
        "[LEVEL_0]\nOVERLAP_X = 0\nOVERLAP_Y = 0\n"
        f"MICROMETER_PER_PIXEL_X = {um}\nMICROMETER_PER_PIXEL_Y = {um}\n"
        "IMAGE_FORMAT = JPEG\nIMAGE_FILL_COLOR_BGR = 16777215\nIMAGE_CONCAT_FACTOR = 0\n"
        f"DIGITIZER_WIDTH = {edge}\nDIGITIZER_HEIGHT = {edge}\n"
    )
    path.write_bytes(b"")
    return path


def write_svs(path, levels, edge=64, compression="jpeg", um=0.5):
    """Aperio SVS: its description, levels as pages, a thumbnail and a label among them."""
    import tifffile

    known = {"jpeg": "JPEG/RGB Q=95", 33005: "J2K/KDU Q=95", 33003: "J2K/YUV16 Q=95"}
    options = {"compressionargs": {"level": 95}} if compression == "jpeg" else {}
    rows, columns = levels[0].shape[:2]
    head = f"Aperio Image Library v11.2.1\n{columns}x{rows} [0,0 {columns}x{rows}] ({edge}x{edge}) "
    more = f"|AppMag = 20|MPP = {um}|User = Doe|Filename = 4711"
    label = np.full((40, 50, 3), 7, np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels):
            tiff.write(
                _ycbcr(pixels) if compression == 33003 else pixels, tile=(edge, edge),
                photometric="rgb", compression=compression, metadata=None,
                description=head + known[compression] + more, **options,
            )  # fmt: skip
            if number == 0:
                tiff.write(pixels[::8, ::8].copy(), photometric="rgb", compression="jpeg",
                           description=head, metadata=None)  # fmt: skip
        tiff.write(label, photometric="rgb", compression="lzw", subfiletype=1, metadata=None,
                   description="Aperio Image Library v11.2.1\nlabel 50x40")  # fmt: skip
    return path


def _ycbcr(pixels):
    """Full-range YCbCr, as in JPEG."""
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"))
