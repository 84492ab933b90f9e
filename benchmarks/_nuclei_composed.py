"""Pictures composed of real parts: nuclei cut from real slides on ground without nuclei.

Where each nucleus lies is known exactly, as in the phantom, but chromatin, edges and ground are
real.  Only pictures whose licence allows it are cut (CMU-1: CC0; InstanSeg's example: Apache-2.0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from _nuclei_scenes import smooth
from scipy import ndimage
from scipy.ndimage import affine_transform, binary_dilation, gaussian_filter, map_coordinates
from skimage.measure import label, regionprops
from stardist_training import Scene

MARGIN_PX = 16
BLUE = np.array([0.65, 0.70, 0.29], np.float32)
PINK = np.array([0.09, 0.95, 0.28], np.float32)
LUMA = np.array([0.5, 0.35, 0.15], np.float32)
KINDS = (0.6, 0.23, 0.17)
LEAST_CONTRAST, SURE_CONTRAST = 0.03, 0.10


def density(rgb):
    """Optical density of a picture."""
    return np.maximum(-np.log((rgb.astype(np.float32) + 1) / 256), 0)


def ink(od):
    """Green marking ink: much more red than green light is absorbed."""
    green = (od[..., 0] > 1.6 * od[..., 1]) & (od[..., 0] > 0.2)
    return binary_dilation(ndimage.binary_opening(green), iterations=2)


@dataclass(frozen=True)
class Cut:
    """A nucleus with a rim of what surrounds it."""

    od: np.ndarray
    mask: np.ndarray
    area: int


def cut_nuclei(rgb, labels, rim=4):
    """The nuclei of a picture that are of usual size and shape and darker than their rim."""
    od, cuts = density(rgb), []
    for part in regionprops(labels):
        rows, cols = (slice(s.start - rim, s.stop + rim) for s in part.slice)
        inside = rows.start >= 0 and cols.start >= 0
        if not inside or rows.stop > labels.shape[0] or cols.stop > labels.shape[1]:
            continue
        if not 24 <= part.area <= 900 or part.solidity < 0.85:
            continue
        mask = labels[rows, cols] == part.label
        ring = binary_dilation(mask, iterations=3) & ~binary_dilation(mask)
        here = od[rows, cols]
        inner, outer = here[mask].mean(0), here[ring].mean(0)
        if inner[0] - outer[0] >= 0.08 and inner[0] <= 1.5 * inner[1]:
            cuts.append(Cut(here.copy(), mask, int(part.area)))
    return cuts


def emptied(od, nuclear, rng, tries=60):
    """Optical densities with nuclei replaced by pieces from near by; what is left of them."""
    out, left = od.copy(), nuclear.copy()
    for number in range(tries):
        if not left.any():
            break
        shift = tuple(int(v) for v in rng.integers(-60, 61, 2))
        source, free = np.roll(od, shift, (0, 1)), left & ~np.roll(nuclear, shift, (0, 1))
        parts, n = ndimage.label(left)
        size = np.bincount(parts.ravel(), minlength=n + 1)
        share = np.bincount(parts.ravel(), free.ravel(), minlength=n + 1) / np.maximum(size, 1)
        taken = share >= (0.97 if number < 40 else 0.3)
        taken[0] = False
        pasted = taken[parts] & free
        out[pasted] = source[pasted]
        left &= ~pasted
    seam = binary_dilation(nuclear) & (gaussian_filter(nuclear.astype(np.float32), 0.8) <= 0.85)
    out[seam] = gaussian_filter(out, (1.0, 1.0, 0))[seam]
    return out, left


class Ground:
    """Places of a picture from which the nuclei were taken away."""

    def __init__(self, rgb, nuclear, rng, variants=2):
        od = density(rgb)
        self.stained = od.mean(-1) > 0.12
        self.ink = ink(od)
        self.nuclear = binary_dilation(nuclear, iterations=2) | self.ink
        self.variants = [emptied(od, self.nuclear, rng) for _ in range(variants)]

    def draw(self, side, rng):
        """A square of ground, and where a nucleus may be left in it."""
        od, left = self.variants[rng.integers(len(self.variants))]
        for _ in range(200):
            zoom = float(rng.choice([1, 1, 1, 0.75, 1.4]))
            span = math.ceil(side / zoom)
            row, col = (int(rng.integers(size - span)) for size in left.shape)
            window = (slice(row, row + span), slice(col, col + span))
            tissue = 0.55 if rng.random() < 0.85 else 0.1
            if self.ink[window].mean() > 0.03 or self.nuclear[window].mean() > 0.45:
                continue
            if self.stained[window].mean() > tissue:
                break
        at = (np.arange(side) + 0.5) * span / side - 0.5
        grid = np.stack(np.meshgrid(at, at, indexing="ij"))
        piece = [
            map_coordinates(od[window][..., k], grid, order=1, mode="nearest") for k in (0, 1, 2)
        ]
        near = np.clip(np.rint(at), 0, span - 1).astype(int)
        turns = int(rng.integers(4))
        return np.rot90(np.stack(piece, -1), turns).copy(), np.rot90(
            left[window][np.ix_(near, near)], turns
        ).copy()


def changed_ground(od, rng):
    """Ground as other tissues have it: another tone, grain, fibres, vacuoles and cracks."""
    shape = od.shape[:2]
    if rng.random() < 0.2:
        tone = od[od.mean(-1) > 0.1]
        od = od + ((tone.mean(0) if len(tone) else PINK / 3) - od) * rng.uniform(0.3, 1)
    if rng.random() < 0.6:
        grain = sum(0.2 * rng.random() * smooth(rng, shape, s) * 0.5 for s in (0.7, 1.5, 4, 12))
        tint = rng.random()
        od = od + grain[..., None] * (tint * BLUE + (1 - tint) * PINK) * rng.uniform(0.5, 1.5) * 2
    if rng.random() < 0.4:
        fibres = _fibres(shape, rng)[..., None]
        od = od + np.maximum(fibres, 0) * PINK * rng.uniform(0.05, 0.25)
        od = od + np.minimum(fibres, 0) * od.mean((0, 1)) * rng.uniform(0, 0.5)
    if rng.random() < 0.35:
        field = smooth(rng, shape, rng.uniform(1.5, 7))
        gaps = 1 / (1 + np.exp(-(field - rng.uniform(0.8, 2)) * rng.uniform(4, 10)))
        od = od * (1 - gaps)[..., None]
    return np.maximum(od, 0)


def _fibres(shape, rng):
    angle, side = rng.uniform(0, math.pi), 2 * shape[0]
    field = gaussian_filter(
        rng.standard_normal((side, side)).astype(np.float32),
        (rng.uniform(0.6, 1.5), rng.uniform(5, 25)),
    )
    turn = _rotation(angle)
    middle = np.array([side / 2, side / 2])
    offset = middle - turn @ (np.array(shape) / 2)
    return affine_transform(field / field.std(), turn, offset, shape, order=1, mode="wrap")


def _rotation(angle):
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


class Composer:
    """Draws scenes from grounds and cut nuclei.

    Parameters
    ----------
    sources
        A ground and its cut nuclei for each picture.
    """

    def __init__(self, sources, seed):
        self.sources, self.rng = sources, np.random.default_rng(seed)
        self.chances = []
        for _, cuts in sources:
            wanted = np.array([min(cut.area, 250) ** 0.7 for cut in cuts])
            self.chances.append(wanted / wanted.sum())

    def draw(self, side=256):
        """A scene."""
        rng, full = self.rng, side + 2 * MARGIN_PX
        which = int(rng.integers(len(self.sources)))
        od, hidden = self.sources[which][0].draw(full, rng)
        od = changed_ground(od, rng)
        kind = which if rng.random() < 0.6 else int(rng.integers(len(self.sources)))
        scene = _Placed(od, hidden, rng)
        style = _Style(rng)
        for _ in range(600):
            if scene.area >= style.cover * full**2:
                break
            self._lay(scene, style, kind)
        od, labels, hidden = scene.finished(style)
        od, labels, hidden = _bent(od, labels, hidden, rng, 2.0 if style.kind == "stroma" else 1.0)
        inner = slice(MARGIN_PX, MARGIN_PX + side)
        rgb = np.clip(np.rint(256 * np.exp(-od) - 1), 0, 255).astype(np.uint8)
        return Scene(
            rgb[inner, inner],
            whole(labels[inner, inner]),
            np.ascontiguousarray(hidden[inner, inner]),
        )

    def _lay(self, scene, style, kind):
        rng = self.rng
        long = rng.random() < style.spindles
        stretch = math.exp(rng.uniform(0.3, style.longest) if long else abs(rng.normal(0, 0.18)))
        scale = style.size * math.exp(style.spread * rng.standard_normal())
        place = scene.place(style, scale)
        if place is None:
            return
        cuts = self.sources[kind][1]
        cut = cuts[rng.choice(len(cuts), p=self.chances[kind])]
        heading = style.heading + 0.5 * style.coherence * rng.standard_normal()
        od, mask = turned(cut, scale, stretch, heading if long else None, rng)
        scene.lay(od, mask, place, style)


def turned(cut, scale, stretch, heading, rng):
    """Densities and soft mask of a nucleus, scaled, stretched and turned."""
    rows, cols = np.nonzero(cut.mask)
    axis = rng.uniform(0, 2 * math.pi)
    if heading is not None:
        _, vectors = np.linalg.eigh(np.cov(np.stack([rows, cols])))
        axis = math.atan2(vectors[1, 1], vectors[0, 1])
    along = _rotation(-axis)
    turn = _rotation(rng.uniform(0, 2 * math.pi) if heading is None else heading)
    forward = turn @ np.diag([scale * stretch**0.5, scale / stretch**0.5]) @ along
    if rng.random() < 0.5:
        forward = forward @ np.diag([1, -1])
    centre = np.array([rows.mean(), cols.mean()])
    height, width = cut.mask.shape
    corners = np.array([[0, 0], [0, width], [height, 0], [height, width]], float) - centre
    half = min(60, math.ceil(np.abs(corners @ forward.T).max()) + 2)
    backward = np.linalg.inv(forward)
    offset, shape = centre - backward @ np.array([half, half]), (2 * half + 1, 2 * half + 1)
    mask = affine_transform(cut.mask.astype(np.float32), backward, offset, shape, order=1)
    channels = [
        affine_transform(cut.od[..., k], backward, offset, shape, order=1, mode="nearest")
        for k in range(3)
    ]
    return np.stack(channels, -1), mask


class _Style:
    """What the nuclei of one scene have in common."""

    def __init__(self, rng):
        self.cover = [rng.uniform(0.02, 0.12), rng.uniform(0.08, 0.25), rng.uniform(0.2, 0.5)][
            rng.choice(3, p=[0.35, 0.4, 0.25])
        ]
        self.size = rng.choice([0.85, 1.0, 1.25, 1.6]) * rng.uniform(0.9, 1.12)
        self.spread, self.strength = rng.uniform(0.08, 0.3), rng.uniform(0.7, 1.15)
        self.faint = rng.uniform(0, 0.45)
        self.spindles = rng.choice([0, 0.1, 0.4, 0.85], p=[0.35, 0.3, 0.2, 0.15])
        self.heading, self.coherence = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 1.2)
        self.vesicular, self.halo = rng.random() < 0.45, rng.random() < 0.15
        self.kind = rng.choice(["usual", "large", "stroma"], p=KINDS)
        self.longest = 1.8 if self.kind == "stroma" else 1.35
        self.touching = rng.uniform(0, 0.5)
        if self.kind == "large":  # vesicular, with clumps of chromatin and nucleoli
            self.size, self.spread = rng.uniform(1.5, 2.4), rng.uniform(0.2, 0.45)
            self.cover, self.spindles = rng.uniform(0.08, 0.35), rng.choice([0, 0.1])
            self.vesicular = True
        elif self.kind == "stroma":  # long, in one direction, bent
            self.size, self.spindles = rng.uniform(0.9, 1.5), rng.uniform(0.6, 1)
            self.coherence = rng.uniform(0.1, 0.7)
        self.cytoplasm = rng.uniform(0, 0.5) if rng.random() < 0.4 else 0.0


class _Placed:
    """A scene while nuclei are registered to it."""

    def __init__(self, od, hidden, rng):
        self.od, self.hidden, self.rng = od, hidden, rng
        self.labels = np.zeros(hidden.shape, np.int32)
        self.centres, self.area, self.n = [], 0, 0

    def place(self, style, scale):
        """A free place, beside another nucleus as often as the style wants; None if taken."""
        rng = self.rng
        if self.centres and rng.random() < style.touching:
            row, col, radius = self.centres[rng.integers(len(self.centres))]
            away, angle = (
                (radius + 6 * scale) * rng.uniform(0.85, 1.15),
                rng.uniform(0, 2 * math.pi),
            )
            place = int(row + away * math.sin(angle)), int(col + away * math.cos(angle))
        else:
            place = tuple(int(rng.integers(-3, size + 3)) for size in self.labels.shape)
        inside = all(0 <= p < s for p, s in zip(place, self.labels.shape, strict=True))
        return None if inside and self.labels[place] > 0 else place

    def lay(self, od, mask, place, style):
        """Lay a nucleus, unless it would cover others or could not be seen."""
        rng, half = self.rng, mask.shape[0] // 2
        begin = [max(0, p - half) for p in place]
        end = [min(s, p + half + 1) for p, s in zip(place, self.labels.shape, strict=True)]
        if min(e - b for b, e in zip(begin, end, strict=True)) < 3:
            return
        here = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
        part = tuple(
            slice(b - p + half, e - p + half) for b, e, p in zip(begin, end, place, strict=True)
        )
        mask, hard, under = mask[part], mask[part] > 0.5, self.labels[here] > 0
        if hard.sum() < 12 or under[hard].sum() > 0.1 * hard.sum():
            return
        faint = rng.random() < style.faint
        seen = self._seen(od[part], hard, here, style, faint)
        edge = rng.uniform(0.6, 1.6) if faint else rng.uniform(0.3, 1.0)
        cover = np.clip(gaussian_filter(mask, edge), 0, 1)[..., None]
        before = self.od[here]
        after = before * (1 - cover) + seen * cover
        if rng.random() < 0.5:
            after = np.where(under[..., None], np.maximum(before, after), after)
        if style.halo and rng.random() < 0.7:
            wide = gaussian_filter(binary_dilation(hard, iterations=2).astype(np.float32), 1.0)
            ring = np.clip(wide - cover[..., 0], 0, 1) * ~under
            after = after * (1 - ring[..., None] * rng.uniform(0.3, 0.95))
        self._keep(after, hard, under, here, place)

    def _seen(self, od, hard, here, style, faint):
        """Densities of the nucleus as it is placed: paler or darker, with chromatin."""
        rng, shape = self.rng, hard.shape
        strength = style.strength * math.exp(0.15 * rng.standard_normal())
        if style.vesicular and rng.random() < 0.8:
            depth = gaussian_filter(hard.astype(np.float32), max(1.0, 0.28 * math.sqrt(hard.sum())))
            depth = (depth - depth[hard].min()) / (np.ptp(depth[hard]) + 1e-6)
            grain = smooth(rng, shape, rng.uniform(0.7, 1.6)) * rng.uniform(0.05, 0.3)
            pale = 1 - rng.uniform(0.1, 0.6) * np.clip(depth, 0, 1)
            od = od * (pale * (1 + grain))[..., None]
            if style.kind == "large":
                od = self._with_nucleoli(od, hard, depth)
        elif rng.random() < 0.5:
            od = od * (1 + smooth(rng, shape, rng.uniform(0.7, 2)) * rng.uniform(0, 0.2))[..., None]
        if not faint:
            return od * strength
        strength *= rng.uniform(0.35, 0.8)
        ground = self.od[here]
        if rng.random() < 0.5:
            return ground * (1 - strength) + od * strength
        return ground * 0.85 + od * strength * 0.6

    def _with_nucleoli(self, od, hard, depth):
        """Clumps of chromatin, and one to three nucleoli."""
        rng, shape = self.rng, hard.shape
        if rng.random() < 0.6:
            clumps = smooth(rng, shape, rng.uniform(0.8, 1.8)) - rng.uniform(0.3, 1.2)
            od = od * (1 + (np.maximum(clumps, 0) * hard)[..., None] * rng.uniform(0.2, 0.9))
        inner = np.argwhere(depth * hard > 0.35)
        if len(inner) == 0 or rng.random() > 0.75:
            return od
        rows, cols = np.mgrid[: shape[0], : shape[1]]
        for _ in range(int(rng.integers(1, 4))):
            row, col = inner[rng.integers(len(inner))]
            away = np.hypot(rows - row, cols - col) - rng.uniform(0.9, 2.6)
            dye = BLUE if rng.random() < 0.5 else (BLUE + PINK) / 1.4
            od = od + (rng.uniform(0.3, 1.0) / (1 + np.exp(2.5 * away)))[..., None] * dye
        return od

    def _keep(self, after, hard, under, here, place):
        ring = binary_dilation(hard, iterations=3) & ~binary_dilation(hard) & ~under
        luma = after @ LUMA
        contrast = luma[hard].mean() - luma[ring].mean() if ring.any() else 1.0
        if contrast < LEAST_CONTRAST:
            return
        self.od[here] = after
        if contrast < SURE_CONTRAST:
            self.hidden[here] |= binary_dilation(hard)
            return
        free = hard & ~under
        self.n += 1
        self.labels[here][free] = self.n
        self.area += int(free.sum())
        self.centres.append((*place, math.sqrt(hard.sum() / math.pi)))

    def finished(self, style):
        """Densities with cytoplasm and red cells, labels, and what is not known."""
        rng, od = self.rng, self.od
        if style.cytoplasm:
            near = gaussian_filter((self.labels > 0).astype(np.float32), rng.uniform(2, 6))
            od = od + (near * (self.labels == 0))[..., None] * BLUE * style.cytoplasm
        if rng.random() < 0.25:
            for _ in range(rng.integers(1, 8)):
                self._red_cell(od)
        return od, self.labels, self.hidden & (self.labels == 0)

    def _red_cell(self, od):
        rng = self.rng
        row, col = rng.integers(8, od.shape[0] - 9, 2)
        here = (slice(row - 8, row + 9), slice(col - 8, col + 9))
        dy, dx = np.mgrid[-8:9, -8:9]
        away = np.hypot(dy, dx * rng.uniform(0.8, 1.3)) - rng.uniform(3, 7)
        cover = ((self.labels[here] == 0) / (1 + np.exp(2 * away)))[..., None]
        red = np.array([rng.uniform(0.05, 0.3), rng.uniform(0.9, 1.8), rng.uniform(0.8, 1.6)])
        od[here] = od[here] * (1 - cover) + red * cover


def _bent(od, labels, hidden, rng, much):
    """Everything bent together, so that shapes are not copies of those that were cut."""
    where = np.mgrid[: labels.shape[0], : labels.shape[1]].astype(np.float32)
    for sigma, amount in ((4, 0.8), (10, 1.8), (30, 5)):
        moved = np.stack([smooth(rng, labels.shape, sigma) for _ in range(2)])
        where += much * amount * rng.random() * moved
    bent = [map_coordinates(od[..., k], where, order=1, mode="reflect") for k in range(3)]
    labels = map_coordinates(labels, where, order=0, mode="reflect")
    hidden = map_coordinates(hidden.astype(np.uint8), where, order=0, mode="reflect") > 0
    return np.maximum(np.stack(bent, -1), 0), labels, hidden & (labels == 0)


def whole(labels, least_px=10):
    """Pieces of a nucleus that lie apart get labels of their own; specks go."""
    parts = label(labels, connectivity=1)
    small = np.bincount(parts.ravel()) < least_px
    small[0] = False
    parts[small[parts]] = 0
    return np.ascontiguousarray(parts, np.int32)
