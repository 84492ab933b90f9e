"""Small undamaged slides of many formats, from which damaged ones are made."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from _mutants import mutate
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Seed", "add_scanner_seeds", "make_seeds", "picture"]

SHAPE = (420, 520)
Pixels = NDArray[np.uint8]


def picture(seed: int = 0) -> Pixels:
    """A pink and purple blob on white glass with some grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = ((y - 210) / 160) ** 2 + ((x - 260) / 200) ** 2 < 1
    grain = rng.integers(0, 50, (*SHAPE, 1))
    spots = (np.sin(x / 7) * np.sin(y / 9) > 0.6)[..., None] * np.array([60, 70, 10])
    tissue = np.clip(np.array([225, 150, 190]) - grain - spots, 0, 255)
    return np.where(inside[..., None], tissue, 243).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Seed:
    """An undamaged slide: what is opened, and the folder of all its files where it has several."""

    main: Path
    folder: Path | None = None

    def damaged(self, place: Path, seed: int) -> tuple[str, Path]:
        """Write a damaged copy into an empty folder: name of the damage, and what is opened."""
        if self.folder is None:
            kind, content = mutate(self.main.read_bytes(), seed)
            path = place / f"slide{self.main.suffix}"
            path.write_bytes(content)
            return kind, path
        root = place / f"slide{self.folder.suffix}"
        shutil.copytree(self.folder, root)
        files = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
        chosen = random.Random(seed).choices(files, [f.stat().st_size ** 0.5 for f in files])[0]
        kind, content = mutate(chosen.read_bytes(), seed)
        chosen.write_bytes(content)
        return kind, root / self.main.relative_to(self.folder)


def make_seeds(folder: Path, real: Path | None = None) -> dict[str, Seed]:
    """Undamaged files by the name of their format; *real* is a folder with real slides."""
    folder.mkdir(parents=True, exist_ok=True)
    full = picture()
    half, quarter = full[::2, ::2], full[::4, ::4]
    cm: dict[str, Any] = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}

    def tiff(name: str, description: str = "", writer: Any = None, **options: Any) -> None:
        given = {"photometric": "rgb", "tile": (128, 128), **options}
        with tifffile.TiffWriter(folder / name, **(writer or {})) as file:
            aperio = name.endswith(".svs")
            sub = 0 if aperio else 2
            file.write(full, subifds=sub, description=description or None, metadata=None,
                       **given, **cm)  # fmt: skip
            for level in (half, quarter):
                more = {"description": description or None} if aperio else {"subfiletype": 1}
                file.write(level, metadata=None, **given, **more)

    about = f"Aperio Image Library v12\n{SHAPE[1]}x{SHAPE[0]} (128x128) JPEG/RGB Q=80|MPP = 0.5"
    tiff("jpeg.svs", about, compression="jpeg", compressionargs={"level": 80})
    tiff("jpeg2000.svs", about, compression=33005, compressionargs={"level": 40})
    tiff("deflate.tif", compression="zlib", predictor=2)
    tiff("lzw-strips.tif", compression="lzw", tile=None, rowsperstrip=16)
    tiff("plain.tif")
    tiff("plain-strip.tif", tile=None, rowsperstrip=SHAPE[0])
    tiff("bigtiff-jpeg.tif", writer={"bigtiff": True}, compression="jpeg")
    tiff("bigendian-deflate.tif", writer={"byteorder": ">"}, compression="zlib")
    for name, codec in (("packbits", "packbits"), ("zstd", "zstd"), ("webp", "webp")):
        tiff(f"{name}.tif", compression=codec)
    with tifffile.TiffWriter(folder / "jpeg.ome.tif", ome=True) as file:
        meta = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        options = {"photometric": "rgb", "tile": (128, 128), "compression": "jpeg"}
        file.write(full, subifds=2, metadata=meta, **options)
        for level in (half, quarter):
            file.write(level, subfiletype=1, **options)
    tifffile.imwrite(folder / "planar.tif", np.moveaxis(full, 2, 0), photometric="rgb", **cm,
                     planarconfig="separate", tile=(128, 128), compression="zlib")  # fmt: skip
    Image.fromarray(full).save(folder / "picture.png", dpi=(50800, 50800))
    Image.fromarray(full).save(folder / "picture.jpg", quality=85, dpi=(50800, 50800))
    Image.fromarray(full).save(folder / "progressive.jpg", quality=85, progressive=True)
    found = {path.name: Seed(path) for path in sorted(folder.iterdir()) if path.is_file()}
    if real is not None:
        found |= {f"real {p.name[:10]}": Seed(p) for p in sorted(real.iterdir()) if p.is_file()}
    return found


def add_scanner_seeds(folder: Path, make: Any) -> dict[str, Seed]:
    """Slides in scanners' own layouts, which OpenSlide reads; *make* is tests/io/slide_formats."""
    folder.mkdir(parents=True, exist_ok=True)
    full = picture()[:256, :320]
    levels = [full, np.ascontiguousarray(full[::2, ::2]), np.ascontiguousarray(full[::4, ::4])]
    found = {
        "Hamamatsu": Seed(make.write_ndpi(folder / "a.ndpi", levels)),
        "Leica": Seed(make.write_leica(folder / "a.scn", levels)),
        "Philips": Seed(make.write_philips(folder / "a.tiff", levels)),
        "Ventana": Seed(make.write_ventana(folder / "a.bif", levels)),
        "Aperio JPEG 2000 YCbCr": Seed(make.write_svs(folder / "b.svs", levels, compression=33003)),
    }
    mirax, dicom = folder / "mirax", folder / "dicom"
    mirax.mkdir(exist_ok=True)
    found["MIRAX"] = Seed(make.write_mirax(mirax / "a.mrxs", full), mirax)
    found["DICOM"] = Seed(make.write_dicom(dicom, levels)[0].parent, dicom)
    return found | {"OME-Zarr": _ome_zarr(folder / "a.ome.zarr", levels)}


def _ome_zarr(path: Path, levels: list[Pixels]) -> Seed:
    """OME-Zarr 0.5 of three levels."""
    import zarr

    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    group = zarr.create_group(str(path), zarr_format=3, overwrite=True)
    datasets = []
    for number, level in enumerate(levels):
        planes = np.ascontiguousarray(np.moveaxis(level, 2, 0))
        group.create_array(str(number), data=planes, chunks=(1, 64, 64))
        scale = [1.0, 0.5 * 2**number, 0.5 * 2**number]
        how = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(number), "coordinateTransformations": how})
    image = {"axes": axes, "datasets": datasets, "name": "a"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return Seed(path, path)
