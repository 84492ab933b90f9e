"""Makes the sample cohort: each case is drawn in a scratch folder and moved when complete.

Files of a case: slides, PET, case file, recipe, annotations and ground truth.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_folder
from napari_mosaik.core.catalogue import REFERENCE, STAINS
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Transform
from napari_mosaik.core.params import digest
from napari_mosaik.core.raster import Raster
from napari_mosaik.phantom.anatomy import Anatomy, build_anatomy
from napari_mosaik.phantom.given import GIVEN_BY, write_given_results
from napari_mosaik.phantom.in_vivo import SERIES_FOLDER, write_in_vivo
from napari_mosaik.phantom.objects import Nuclei, VesselTubes, draw_nuclei, draw_vessels
from napari_mosaik.phantom.pet_files import write_specimen_pet
from napari_mosaik.phantom.physics import (
    ScannerLaw,
    UptakeLaw,
    patient_activity,
    pet_pose,
    simulate_scan,
    true_uptake,
)
from napari_mosaik.phantom.presets import (
    CASES,
    GENERATOR,
    PLANS,
    SIZES,
    CasePlan,
    CohortSize,
    random_generator,
)
from napari_mosaik.phantom.render import render, write_pyramid
from napari_mosaik.phantom.section import mount_section
from napari_mosaik.phantom.truth import (
    class_map,
    grouped_classes,
    nucleus_table,
    simulate_annotations,
    tile_table,
    vessel_map,
    vessel_table,
    write_annotations,
    write_table,
)

__all__ = ["Specimen", "build_cohort", "draw_specimen"]

STAMP = "phantom.json"
FINE_ENOUGH_UM = 0.75
"""Slides with larger pixels lack the detail that a network for 0.5 µm needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """The ground truth of one case, independent of the pixels of any slide."""

    plan: CasePlan
    size: CohortSize
    seed: int
    anatomy: Anatomy
    vessels: VesselTubes
    uptake: Raster

    def nuclei(self, stain: str) -> Nuclei:
        """The nuclei that the section of one stain cuts."""
        rng = random_generator(self.seed, self.plan.name, 3, STAINS.index(stain))
        return draw_nuclei(self.anatomy, self.vessels, rng)


def draw_specimen(case: str, size: str, seed: int) -> Specimen:
    """Draw the truth of one case."""
    plan, chosen = PLANS[case], SIZES[size]
    anatomy = build_anatomy(plan, chosen, seed)
    vessels = draw_vessels(anatomy, random_generator(seed, case, 2))
    uptake = true_uptake(anatomy, vessels, plan.patient)
    return Specimen(plan, chosen, seed, anatomy, vessels, uptake)


def build_cohort(
    folder: Path, size: str, seed: int, cases: Sequence[str] | None
) -> Generator[Progress, None, tuple[Path, ...]]:
    """See `napari_mosaik.phantom.sample`."""
    if size not in SIZES:
        raise InputError(f"the sample cohort has no size '{size}'; use one of: {', '.join(SIZES)}")
    names = tuple(cases) if cases is not None else SIZES[size].cases
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise InputError(
            f"the sample cohort has no case '{unknown[0]}'; use one of: {', '.join(CASES)}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be created: {error.strerror}") from error
    stamp = _stamp(SIZES[size], seed)
    for number, name in enumerate(names):
        if not _exists(folder / name, stamp):
            for share in _build_case(folder / name, name, size, seed, stamp):
                yield Progress(number + share, len(names), f"sample case {name}")
        yield Progress(number + 1, len(names), f"sample case {name}")
    return tuple(folder / name for name in names)


def _stamp(size: CohortSize, seed: int) -> dict[str, Any]:
    """What a sample case says about how it was made."""
    stamp = {"generator": GENERATOR, "seed": seed, "size": size.name}
    if size.group > 1:
        stamp["group"] = size.group  # such slides were drawn tile by tile once
    if not size.rendered:
        stamp["given"] = 1  # such cases had no case.toml once
    return stamp


def _exists(path: Path, stamp: dict[str, Any]) -> bool:
    """Whether the same case exists, completed if it is an older one; others raise `InputError`."""
    if not path.exists():
        return False
    file = path / STAMP
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if known == stamp:
        if not (path / SERIES_FOLDER).exists():  # such cases had no series in vivo once
            write_in_vivo(path, PLANS[path.name], int(stamp["seed"]))
        return True
    kind = "not a sample case" if known is None else f"another sample ({known})"
    raise InputError(f"{path} exists and is {kind}; choose another folder or remove it")


def _build_case(
    path: Path, name: str, size: str, seed: int, stamp: dict[str, Any]
) -> Generator[float, None, None]:
    for interrupted in path.parent.glob(f".{path.name}.*.part"):
        shutil.rmtree(interrupted, ignore_errors=True)
    with atomic_folder(path) as scratch:
        specimen = draw_specimen(name, size, seed)
        yield 0.05
        _write_files(scratch, specimen)
        write_in_vivo(scratch, specimen.plan, seed)
        yield 0.10
        write = _write_slides if specimen.size.rendered else _write_results
        for share in write(scratch, specimen):
            yield 0.10 + 0.90 * share
        _write_record(scratch / STAMP, stamp)


def _write_slides(folder: Path, specimen: Specimen) -> Generator[float, None, None]:
    """Draw the three slides, one after the other, each by blocks on all cores."""
    plan, size, seed = specimen.plan, specimen.size, specimen.seed
    shape = tuple(round(e / size.spacing_um) for e in size.extent_um)
    (folder / "slides").mkdir()
    for index, stain in enumerate(STAINS):
        section = mount_section(
            specimen.anatomy,
            specimen.vessels,
            specimen.nuclei(stain),
            plan.transform(stain, size.extent_um),
            random_generator(seed, plan.name, 4, index),
            fold=plan.fold == stain,
            pen=plan.pen == stain,
        )

        def draw(
            origin: tuple[int, int], block: tuple[int, int], section: Any = section
        ) -> np.ndarray[Any, np.dtype[np.uint8]]:
            return render(section, origin, block, size.spacing_um)

        about = f"napari-mosaik synthetic {stain} section of case {plan.name}"
        path = folder / "slides" / f"{stain}.tif"
        for share in write_pyramid(
            path, draw, (shape[0], shape[1]), size.spacing_um, about, size.group
        ):
            yield (index + share) / len(STAINS)


def _write_results(folder: Path, specimen: Specimen) -> Iterator[float]:
    """Store what the steps would find on slides."""
    nuclei = {stain: specimen.nuclei(stain) for stain in ("he", "caix")}
    content = digest([GENERATOR, specimen.seed, specimen.size.name, specimen.plan.name])
    yield from write_given_results(folder, specimen.anatomy, specimen.vessels, nuclei, content)


def _write_files(folder: Path, specimen: Specimen) -> None:
    """Write everything of a case except its slides."""
    plan, size, seed, anatomy = specimen.plan, specimen.size, specimen.seed, specimen.anatomy
    scanner = ScannerLaw()
    lattice, pet_to_cd34 = pet_pose(plan, anatomy, scanner)
    pet, noise = simulate_scan(specimen.uptake, lattice, pet_to_cd34, plan, seed, scanner)
    write_specimen_pet(folder / "pet" / "slice.dcm", pet, plan, seed, scanner)
    _write_case_file(folder / "case.toml", plan, size, pet_to_cd34)
    if size.rendered:
        _write_recipe_file(folder / "recipe.toml", size)
    vessels = vessel_map(anatomy, specimen.vessels)
    classes = class_map(anatomy, vessels)
    truth = folder / "truth"
    _write_npz(
        truth / "masks.npz",
        classes=classes.values,
        vessels=np.round(255 * vessels.values).astype(np.uint8),
        spacing_um=np.asarray(classes.lattice.spacing_um),
    )
    _write_npz(
        truth / "fields.npz",
        uptake_g_ml=specimen.uptake.values.astype(np.float32),
        uptake_spacing_um=np.asarray(specimen.uptake.lattice.spacing_um),
        pet_noise_bq_ml=noise.astype(np.float32),
        necrosis=anatomy.necrosis[::2, ::2].astype(np.float16),
        caix_fraction=anatomy.caix_fraction[::4, ::4].astype(np.float16),
        caix_level=anatomy.caix_level[::4, ::4].astype(np.float16),
    )
    _write_tables(truth, specimen, classes, pet, pet_to_cd34)
    frames = [plan.transform(stain, size.extent_um) for stain in STAINS]
    planted = [
        {"kind": p.kind, "centre_um": list(p.centre_um), "radius_um": p.radius_um}
        for p in anatomy.planted
    ]
    record = {
        "case": plan.name,
        "transforms": {t.source: _transform_record(t) for t in (*frames, pet_to_cd34)},
        "planted": planted,
        "law": UptakeLaw().as_dict(),
        "scanner": scanner.as_dict(),
        "bq_ml_per_g_ml": patient_activity(plan),
        "fold": plan.fold,
        "pen": plan.pen,
        "mask_codes": {"1": "background", "2": "neoplastic", "3": "non-neoplastic"},
        "frame": REFERENCE,
    }
    _write_record(truth / "truth.json", record)
    if plan.annotated or size.group > 1:
        to_slide = plan.transform("he", size.extent_um).inverse()
        if size.group > 1:
            classes = grouped_classes(classes, to_slide, size.spacing_um, size.group)
            to_slide = Transform.identity("he", "he")
        shapes = simulate_annotations(classes, to_slide, random_generator(seed, plan.name, 5))
        write_annotations(folder / "annotations" / "he.geojson", shapes, size.spacing_um)


def _write_tables(
    truth: Path, specimen: Specimen, classes: Raster, pet: Raster, pet_to_cd34: Any
) -> None:
    plan, size = specimen.plan, specimen.size
    tiles = tile_table(
        specimen.anatomy,
        specimen.vessels,
        specimen.nuclei("caix"),
        classes,
        specimen.uptake,
        pet,
        pet_to_cd34,
    )
    write_table(truth / "tiles.parquet", tiles)
    back = plan.transform(REFERENCE, size.extent_um).inverse()
    write_table(truth / "vessels.parquet", vessel_table(specimen.vessels, back))
    if size.rendered:
        for stain in ("he", "caix"):
            to_slide = plan.transform(stain, size.extent_um).inverse()
            table = nucleus_table(specimen.nuclei(stain), to_slide)
            write_table(truth / f"nuclei_{stain}.parquet", table)


# --- files --------------------------------------------------------------------------------------
def _write_record(path: Path, values: Any) -> None:
    """Write a JSON record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays of any shape and unit by name, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _transform_record(transform: Transform) -> dict[str, Any]:
    """JSON-able form of a transform of (row, column, 1) in µm from source to target."""
    return {
        "source": transform.source,
        "target": transform.target,
        "matrix": [[float(v) for v in row] for row in transform.matrix],
        "angle_deg": transform.angle_deg,
        "scale": transform.scale,
    }


def _write_recipe_file(path: Path, size: CohortSize) -> None:
    """Write recipe.toml where a setting other than the default suits the slides better."""
    if size.spacing_um > FINE_ENOUGH_UM:
        lines = (
            f"# The slides have pixels of {size.spacing_um:g} µm. The network reads 0.5 µm, needs "
            "much longer",
            "# for them and finds the same nuclei.",
            "[nuclei]",
            'method = "classical"',
        )
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _write_case_file(path: Path, plan: CasePlan, size: CohortSize, pet_to_cd34: Transform) -> None:
    """Write case.toml: slides, PET and injection record; without slides the place of the PET."""
    patient = plan.patient
    slide = {"spacing_um": [size.spacing_um, size.spacing_um], "spacing_source": "header"}
    slides = {stain: {"path": f"slides/{stain}.tif", **slide} for stain in ("he", "cd34", "caix")}
    place = {
        "matrix_um": [[float(v) for v in row] for row in pet_to_cd34.matrix],
        "source": "file",
        "note": f"given by {GIVEN_BY}",
    }
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
        **({"slides": slides} if size.rendered else {"given_alignments": {"pet": place}}),
        "pet": {"paths": ["pet/slice.dcm"], "fwhm_mm": ScannerLaw().fwhm_um / 1000.0},
        "injection": injection,
    }
    path.write_bytes(tomli_w.dumps(record).encode())
