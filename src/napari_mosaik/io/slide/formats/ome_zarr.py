"""OME-Zarr slides (0.4 and 0.5, Zarr 2 and 3), read chunk by chunk from their folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.formats.registry import OpenedFormat, SlideCandidate, SlideFormat
from napari_mosaik.io.slide.read.colours import over_white, padding_whitened
from napari_mosaik.io.slide.types.damage import first_line
from napari_mosaik.io.slide.types.tiles import Pixels, StoredLevel, tile_edge

__all__ = ["FORMAT", "ZarrSource"]

_SAMPLED_CHUNKS = 48
_SMALL_CHUNK = 64
_MAX_CHUNK_BYTES = 512 << 20
_UM_PER = {
    "micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6,
    "angstrom": 1e-4, "picometer": 1e-6, "inch": 25400.0, "foot": 304800.0,
    "µm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3,
}  # fmt: skip
_RGB = ("FF0000", "00FF00", "0000FF")


class ZarrSource:
    """The first multiscale image of an OME-Zarr folder: 8-bit grey, RGB or RGBA."""

    reader = "zarr"

    def __init__(self, path: Path) -> None:
        self.path = path
        group, image = _multiscale(path)
        axes = _axes(path, image)
        self._arrays, scales = _datasets(path, group, image, len(axes))
        self._order = _order(path, axes, self._arrays[0])
        _check_colours(path, group, self._channels(self._arrays[0]))
        y, x = axes.index("y"), axes.index("x")
        self._yx = (y, x)
        self.levels = _levels(path, self._arrays, scales, (y, x))
        self.header_spacing_um = (
            _spacing(image, scales[0], (y, x)) if _has_scale(image, len(axes)) else None
        )
        version = str(image.get("version") or _ome(group).get("version", "unknown version"))
        self.properties = {"vendor": f"OME-Zarr {version}"}

    def tile(self, level: int, row: int, column: int) -> Pixels | None:
        """One tile on white, shape (rows, columns, 3), uint8."""
        (height, width), (th, tw) = self.levels[level].shape, self.levels[level].tile
        rows = slice(row * th, min((row + 1) * th, height))
        columns = slice(column * tw, min((column + 1) * tw, width))
        window: list[Any] = [0] * self._arrays[level].ndim
        window[self._yx[0]], window[self._yx[1]] = rows, columns
        if self._order is not None:
            window[self._order[2]] = slice(None)
        pixels = np.asarray(self._arrays[level][tuple(window)])
        return padding_whitened(_rgb(self._rows_first(pixels)))

    def fingerprint(self) -> Mapping[str, Any]:
        """Metadata, the size of every stored chunk, and the bytes of some of them."""
        structure, samples = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        for array in self._arrays:
            place = Path(array.store.root) / array.path
            files = sorted(p for p in place.rglob("*") if p.is_file())
            facts = [array.shape, str(array.dtype), array.chunks]
            sizes = [(p.relative_to(place).as_posix(), p.stat().st_size) for p in files]
            structure.update(json.dumps([facts, sizes]).encode())
            for n in sorted({int(i) for i in np.linspace(0, len(files) - 1, _SAMPLED_CHUNKS)}):
                with files[n].open("rb") as file:
                    samples.update(file.read(1 << 20))
        return {"structure": structure.hexdigest(), "samples": samples.hexdigest()}

    def close(self) -> None:
        """Nothing stays open."""

    def _channels(self, array: Any) -> int:
        return 1 if self._order is None else int(array.shape[self._order[2]])

    def _rows_first(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels (rows, columns, channels) for any stored order of axes."""
        if self._order is None:
            return (pixels if self._yx[0] < self._yx[1] else pixels.T)[..., None]
        kept = sorted(self._order)
        return pixels.transpose([kept.index(axis) for axis in self._order])


def _rgb(pixels: NDArray[Any]) -> Pixels:
    if pixels.shape[2] == 4:
        return over_white(pixels)
    if pixels.shape[2] == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.ascontiguousarray(pixels)


def _ome(group: Any) -> dict[str, Any]:
    """The OME metadata: under "ome" since 0.5, at the top before."""
    attributes = dict(group.attrs)
    inner = attributes.get("ome")
    return dict(inner) if isinstance(inner, Mapping) else attributes


def _multiscale(path: Path) -> tuple[Any, dict[str, Any]]:
    """The group and description of the first image of the folder."""
    import zarr

    try:
        group: Any = zarr.open_group(str(path), mode="r")
        attributes = _ome(group)
        if not attributes.get("multiscales") and "bioformats2raw.layout" in attributes:
            group = group["0"]
            attributes = _ome(group)
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be read as OME-Zarr: its metadata are damaged or missing "
            f"({first_line(error)})"
        ) from error
    images = attributes.get("multiscales")
    if not isinstance(images, list) or not images or not isinstance(images[0], Mapping):
        more = "; it is a plate: give one of its images" if "plate" in attributes else ""
        raise InputError(f"{path.name} is a Zarr folder without an OME-Zarr image{more}")
    return group, dict(images[0])


def _listed(image: Mapping[str, Any], name: str) -> list[Any]:
    """A list of the metadata; empty where it is none."""
    found = image.get(name)
    return found if isinstance(found, list) else []


def _axes(path: Path, image: Mapping[str, Any]) -> list[str]:
    """Names of the axes, slowest first; (t, c, z, y, x) in files older than 0.3."""
    stated = _listed(image, "axes") or list("tczyx")
    axes = [str(a.get("name") if isinstance(a, Mapping) else a).lower() for a in stated]
    if not {"y", "x"} <= set(axes) or len(set(axes)) < len(axes) or set(axes) - set("tczyx"):
        raise InputError(
            f"{path.name}: its axes are {', '.join(axes)}; a slide needs y and x, and may have c"
        )
    return axes


def _datasets(
    path: Path, group: Any, image: Mapping[str, Any], n_axes: int
) -> tuple[list[Any], list[list[float]]]:
    """The arrays from fine to coarse and the scale of each, per axis."""
    arrays, scales = [], []
    common = _scale(image.get("coordinateTransformations"), n_axes)
    for entry in _listed(image, "datasets"):
        name = entry.get("path") if isinstance(entry, Mapping) else None
        try:
            array = group[name]
            shape = array.shape
        except Exception as error:
            raise InputError(
                f"{path.name}: the level '{name}' is listed but cannot be read; the folder is "
                "damaged or was not copied completely"
            ) from error
        if len(shape) != n_axes or array.dtype != np.uint8 or min(shape) < 1:
            raise InputError(
                f"{path.name}: level '{name}' holds {array.dtype} pixels of shape {shape}; a slide "
                f"must be 8-bit colour with {n_axes} axes (export it as 8-bit RGB)"
            )
        if math.prod(array.chunks) > _MAX_CHUNK_BYTES:
            raise InputError(
                f"{path.name}: level '{name}' is stored in chunks of {array.chunks}, which are too "
                "large to read it piece by piece; store it with chunks of about 512 x 512"
            )
        own = _scale(entry.get("coordinateTransformations"), n_axes)
        arrays.append(array)
        scales.append([a * b for a, b in zip(own, common, strict=True)])
    if not arrays:
        raise InputError(f"{path.name} lists no levels; the folder is damaged")
    return arrays, scales


def _scale(transforms: Any, n_axes: int) -> list[float]:
    """The product of all scales of a list of transformations; 1 where none is stated."""
    found = [1.0] * n_axes
    for transform in transforms if isinstance(transforms, list) else ():
        values = transform.get("scale") if isinstance(transform, Mapping) else None
        if isinstance(values, list) and len(values) == n_axes:
            numbers = [float(v) if isinstance(v, int | float) else math.nan for v in values]
            found = [a * b for a, b in zip(found, numbers, strict=True)]
    return found


def _order(path: Path, axes: list[str], array: Any) -> tuple[int, int, int] | None:
    """Positions of (y, x, c); None without channels.  Other axes must have length 1."""
    for name, length in zip(axes, array.shape, strict=True):
        if name in "tz" and length != 1:
            what = "times" if name == "t" else "planes"
            raise InputError(f"{path.name} holds {length} {what}; a slide has one")
    return (axes.index("y"), axes.index("x"), axes.index("c")) if "c" in axes else None


def _check_colours(path: Path, group: Any, channels: int) -> None:
    """Refuse anything that is not a colour image of a stained section."""
    omero = _ome(group).get("omero")
    listed = omero.get("channels") if isinstance(omero, Mapping) else None
    colours = tuple(
        str(c.get("color", "")).upper() if isinstance(c, Mapping) else "" for c in listed or ()
    )
    odd = channels == 3 and len(colours) == 3 and all(colours) and colours != _RGB
    if channels not in (1, 3, 4) or odd:
        shown = f" ({', '.join(colours)})" if odd else ""
        raise InputError(
            f"{path.name} has {channels} channels{shown}; a slide must be a colour (RGB) image "
            "of a stained section, not a fluorescence image"
        )


def _levels(
    path: Path, arrays: list[Any], scales: list[list[float]], yx: tuple[int, int]
) -> tuple[StoredLevel, ...]:
    """Shapes and tiles; the ratios come from the scales where these fit the shapes."""
    levels: list[StoredLevel] = []
    native = arrays[0].shape
    for array, scale in zip(arrays, scales, strict=True):
        shape, ratio = [], []
        for axis in yx:
            shape.append(int(array.shape[axis]))
            stated = scale[axis] / scales[0][axis] if scales[0][axis] else math.nan
            by_shape = native[axis] / array.shape[axis]
            near = abs(stated - by_shape) <= 0.02 * by_shape + stated / array.shape[axis]
            ratio.append(_rounded(stated) if near else by_shape)
        if levels and (shape[0] > levels[-1].shape[0] or shape[1] > levels[-1].shape[1]):
            raise InputError(f"{path.name}: its levels do not go from fine to coarse")
        tile = (_chunk(array, yx[0]), _chunk(array, yx[1]))
        exact = (ratio[0], ratio[1])
        levels.append(StoredLevel((shape[0], shape[1]), tile, exact if levels else None))
    return tuple(levels)


def _chunk(array: Any, axis: int) -> int:
    """Edge of the tiles: that of the chunks; only very small ones are joined."""
    chunk = int(array.chunks[axis])
    return tile_edge(chunk) if chunk < _SMALL_CHUNK else chunk


def _rounded(ratio: float) -> float:
    return float(round(ratio)) if abs(ratio - round(ratio)) < 1e-6 * ratio else ratio


def _spacing(
    image: Mapping[str, Any], scale: list[float], yx: tuple[int, int]
) -> tuple[float, float] | None:
    """Pixel size (row, column) in µm; None where the axes name no unit of length."""
    axes = _listed(image, "axes")
    pair = []
    for axis in yx:
        entry = axes[axis] if len(axes) > axis else None
        unit = entry.get("unit") if isinstance(entry, Mapping) else None
        factor = _UM_PER.get(str(unit).lower()) if unit else None
        if factor is None or not (math.isfinite(scale[axis]) and scale[axis] > 0):
            return None
        pair.append(scale[axis] * factor)
    return pair[0], pair[1]


def _has_scale(image: Mapping[str, Any], n_axes: int) -> bool:
    """Whether a transformation of the first level or of the image states a scale."""
    first: Any = next(iter(_listed(image, "datasets")), {})
    stated = [*_listed(image, "coordinateTransformations")]
    stated += _listed(first, "coordinateTransformations") if isinstance(first, Mapping) else []
    scales = [one.get("scale") for one in stated if isinstance(one, Mapping)]
    return any(isinstance(scale, list) and len(scale) == n_axes for scale in scales)


_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""Files that make a folder a Zarr group or array."""


def _open(candidate: SlideCandidate) -> OpenedFormat | None:
    path = candidate.path
    if not candidate.is_folder or not any((path / name).is_file() for name in _METADATA):
        return None
    return ZarrSource(path), "the folder is an OME-Zarr image"


FORMAT = SlideFormat("OME-Zarr", _open, suffixes=(".zarr",), inner_files=_METADATA, order=10)
