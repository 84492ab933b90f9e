"""A small CD34 scene in which it is known what is vessel and what is only brown.

Vessels as rings and bent tubes in counterstained tissue, and beside them golden and black pigment,
red cells, ink, a stained edge and a smeared fold.  It is not part of the sample cohort: tests and
benchmarks measure on it what the segmentation of vessels finds and leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, WHITE_INTENSITY
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.raster import Raster

__all__ = ["KINDS", "BrownScene", "brown_scene"]

KINDS: Final = ("golden", "black", "red cells", "ink", "edge", "fold")
"""What is planted beside the vessels."""

_COLOURS: Final = {
    "golden": (0.20, 0.39, 0.90),
    "black": (0.52, 0.58, 0.63),
    "red cells": (0.10, 0.44, 0.89),
    "ink": (0.03, 0.80, 0.60),
}
"""OD directions (R, G, B): haemosiderin, melanin or formalin pigment, haemoglobin, red ink."""
_MARGIN_UM: Final = 14.0


@dataclass(frozen=True, slots=True, eq=False)
class BrownScene:
    """A picture and what lies in it.

    Attributes
    ----------
    image
        (rows, columns, 3) 8-bit RGB in the frame ``cd34``.
    tissue
        (rows, columns) True where tissue lies.
    vessels
        (rows, columns) labels of the vessels with their lumen.
    others
        (rows, columns) labels of what is brown without being a vessel.
    kinds
        Kind of each of them, in the order of the labels; one of `KINDS`.
    haematoxylin, dab
        Unit OD directions of the two stains.
    """

    image: Raster
    tissue: NDArray[np.bool_]
    vessels: NDArray[np.int32]
    others: NDArray[np.int32]
    kinds: tuple[str, ...]
    haematoxylin: FloatArray
    dab: FloatArray


def brown_scene(
    seed: int = 0,
    spacing_um: float = 1.0,
    shape_um: tuple[float, float] = (1500.0, 1700.0),
    n_vessels: int = 110,
    n_each: int = 10,
    turn: float = 0.05,
) -> BrownScene:
    """Paint a scene; equal arguments give equal bytes.

    Parameters
    ----------
    seed
        Of everything random.
    spacing_um
        Pixel size, µm.
    shape_um
        Height and width, µm.
    n_vessels
        Vessels that are tried; those that would touch another object are left out.
    n_each
        Golden and black clumps, groups of red cells and drops of ink that are tried.
    turn
        Standard deviation by which the stains differ from the usual ones, per channel.
    """
    rng = np.random.default_rng(seed)
    return _Painter(rng, spacing_um, shape_um, turn).painted(n_vessels, n_each)


class _Painter:
    """Amounts of both stains and of other absorbers, filled object by object."""

    def __init__(
        self,
        rng: np.random.Generator,
        spacing_um: float,
        shape_um: tuple[float, float],
        turn: float,
    ) -> None:
        self.rng, self.spacing, self.shape_um = rng, spacing_um, shape_um
        self.shape = (round(shape_um[0] / spacing_um), round(shape_um[1] / spacing_um))
        self.y, self.x = ((np.indices(self.shape) + 0.5) * spacing_um).astype(np.float32)
        self.blue, self.brown = (
            np.abs(np.asarray(v) + rng.normal(0, turn, 3)) for v in (HAEMATOXYLIN, DAB)
        )
        self.blue, self.brown = (v / np.linalg.norm(v) for v in (self.blue, self.brown))
        self.h, self.d = np.zeros(self.shape), np.zeros(self.shape)
        self.extra = np.zeros((*self.shape, 3))
        self.vessels = np.zeros(self.shape, np.int32)
        self.others = np.zeros(self.shape, np.int32)
        self.kinds: list[str] = []
        self.inside = self._outline()

    def painted(self, n_vessels: int, n_each: int) -> BrownScene:
        """The whole scene."""
        self._ground()
        self._edge()
        self._fold()
        for kind in _COLOURS:
            for _ in range(n_each):
                self._place(partial(self._clump, kind))
        for _ in range(n_vessels):
            self._place(self._vessel)
        od = self.h[..., None] * self.blue + self.d[..., None] * self.brown + self.extra
        sigma = 0.45 / self.spacing
        light = ndimage.gaussian_filter(WHITE_INTENSITY * np.exp(-od), (sigma, sigma, 0))
        noisy = light - 1 + self.rng.normal(0, 1.5, light.shape)
        rgb = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        lattice = Lattice("cd34", self.shape, (self.spacing, self.spacing))
        return BrownScene(
            Raster(rgb, lattice), self.inside > 0, self.vessels, self.others, tuple(self.kinds),
            self.blue, self.brown,
        )  # fmt: skip

    def _noise(self, size_um: float) -> FloatArray:
        """Smooth noise of mean 0 and standard deviation 1."""
        field = ndimage.gaussian_filter(self.rng.normal(size=self.shape), size_um / self.spacing)
        return np.asarray(field / field.std(), float)

    def _outline(self) -> FloatArray:
        """Distance to the edge of the tissue, µm; 0 and less outside."""
        height, width = self.shape_um
        angle = np.arctan2(self.y - height / 2, self.x - width / 2)
        radius = np.hypot(
            (self.y - height / 2) / (0.43 * height), (self.x - width / 2) / (0.43 * width)
        )
        wobble = 1 + 0.04 * np.sin(3 * angle + 1) + 0.02 * np.sin(7 * angle)
        mask = radius < wobble
        away = ndimage.distance_transform_edt(mask, sampling=self.spacing)
        return np.asarray(away, float)

    def _ground(self) -> None:
        """Stroma with nuclei in a jittered lattice."""
        tissue = self.inside > 0
        fine = self._noise(1.5)
        self.h[tissue] = (0.12 + 0.02 * fine)[tissue]
        self.d[tissue] = np.maximum(0.03 + 0.015 * fine, 0)[tissue]
        pitch = 17.0
        nuclei = np.zeros(self.shape)
        for cy in np.arange(pitch, self.shape_um[0] - pitch, pitch):
            for cx in np.arange(pitch, self.shape_um[1] - pitch, pitch):
                y, x = np.array([cy, cx]) + self.rng.normal(0, 2.5, 2)
                window = self._window(y, x, 8.0)
                if self.rng.random() < 0.75:
                    r = np.hypot(self.y[window] - y, self.x[window] - x)
                    dark = self.rng.uniform(0.5, 1.0)
                    nuclei[window] = np.maximum(nuclei[window], dark * (r < 3.4))
        self.h[tissue] += nuclei[tissue]

    def _window(self, y: float, x: float, reach_um: float) -> tuple[slice, slice]:
        first = [max(0, math.floor((v - reach_um) / self.spacing)) for v in (y, x)]
        last = [math.ceil((v + reach_um) / self.spacing) + 1 for v in (y, x)]
        return slice(first[0], last[0]), slice(first[1], last[1])

    def _edge(self) -> None:
        """An evenly stained rim along a third of the edge."""
        angle = np.arctan2(self.y - self.shape_um[0] / 2, self.x - self.shape_um[1] / 2)
        rim = (self.inside > 0) & (self.inside < 24) & (angle > 0.3) & (angle < 2.3)
        self.d[rim] = 1.0 + 0.15 * self._noise(9.0)[rim]
        self._plant("edge", rim)

    def _fold(self) -> None:
        """Two layers of tissue with stain caught between them."""
        y, x = self.y - 0.36 * self.shape_um[0], self.x - 0.42 * self.shape_um[1]
        along, across = 0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x + 8 * np.sin(x / 40)
        fold = (np.abs(along) < 180) & (np.abs(across) < 26)
        self.h[fold] *= 1.9
        self.d[fold] = 0.95 + 0.10 * self._noise(12.0)[fold]
        self._plant("fold", fold)

    def _plant(self, kind: str, where: NDArray[np.bool_]) -> None:
        self.kinds.append(kind)
        self.others[where] = len(self.kinds)

    def _place(self, paint: Callable[[float, float], None]) -> None:
        """Paint an object at a free place, or none if none is found soon."""
        for _ in range(200):
            y, x = self.rng.uniform(0, 1, 2) * self.shape_um
            window = self._window(y, x, 45.0)
            if self.inside[window].min() < 90:
                continue
            if not (self.vessels[window].any() or self.others[window].any()):
                paint(float(y), float(x))
                return

    def _vessel(self, y: float, x: float) -> None:
        """A ring, or a bent tube with a lumen; its wall is grainy and partly lies over nuclei."""
        lumen = float(np.clip(self.rng.lognormal(1.6, 0.5), 1.5, 16.0))
        wall = float(self.rng.uniform(2.2, 3.6))
        half, turn = (
            float(self.rng.choice([0.0, self.rng.uniform(6, 22)])),
            self.rng.uniform(0, 3.2),
        )
        window = self._window(y, x, half + lumen + wall + _MARGIN_UM)
        dy, dx = self.y[window] - y, self.x[window] - x
        along, across = (
            math.cos(turn) * dx + math.sin(turn) * dy,
            math.cos(turn) * dy - math.sin(turn) * dx,
        )
        across = across + 0.012 * along**2
        away = np.hypot(np.maximum(np.abs(along) - half, 0), across)
        ring = (away <= lumen + wall) & (away >= lumen)
        grain = ndimage.gaussian_filter(self.rng.normal(size=ring.shape), 2.0 / self.spacing)
        amount = self.rng.uniform(1.0, 2.0) * np.exp(0.35 * grain / grain.std())
        self.h[window][away < lumen] = 0.01
        self.d[window][away < lumen] = 0.01
        self.d[window][ring] = amount[ring]
        self.h[window][ring] *= 0.6
        if self.rng.random() < 0.4:
            self._red_cells(window, (away < lumen - 0.5), 0.9)
        self.vessels[window][away <= lumen + wall] = self.vessels.max() + 1

    def _red_cells(self, window: tuple[slice, slice], where: NDArray[np.bool_], od: float) -> None:
        cells = np.hypot((self.y[window] % 6.5) - 3.2, (self.x[window] % 6.5) - 3.2) < 2.9
        colour = np.asarray(_COLOURS["red cells"]) * od
        self.extra[window][where & cells] = colour

    def _clump(self, kind: str, y: float, x: float) -> None:
        """A grainy clump of pigment, a group of red cells, or a drop of ink."""
        radius = float(self.rng.uniform(5.0, 16.0))
        window = self._window(y, x, radius + _MARGIN_UM)
        away = np.hypot(self.y[window] - y, self.x[window] - x)
        wave = ndimage.gaussian_filter(self.rng.normal(size=away.shape), 2.5 / self.spacing)
        body = away + 2.0 * wave / wave.std() < radius
        if kind == "red cells":
            self._red_cells(window, body, float(self.rng.uniform(1.0, 1.6)))
        else:
            dark = {"golden": 1.5, "black": 2.8, "ink": 1.8}[kind] * self.rng.uniform(0.8, 1.2)
            grain = np.exp((0.05 if kind == "ink" else 0.3) * wave / wave.std())
            colour = np.asarray(_COLOURS[kind])
            self.extra[window][body] = (dark * grain)[body][:, None] * colour
        self._plant(kind, np.zeros(self.shape, bool))
        self.others[window][body] = len(self.kinds)
