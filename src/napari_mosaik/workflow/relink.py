"""Find the slides, the PET and the landmark files of a case again after they were moved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from napari_mosaik.core.artifact import Source
from napari_mosaik.core.catalogue import LANDMARKS, PET, SLIDES, STAIN_TITLES
from napari_mosaik.core.errors import InputError
from napari_mosaik.io.case import Case, stored_path
from napari_mosaik.io.unread import path_slip

__all__ = ["LANDMARKS_OF", "file_title", "lost_files", "relink"]

LANDMARKS_OF: Final = "landmarks-"
"""What precedes the section in the key of a landmark file: "landmarks-he"."""


def file_title(key: str) -> str:
    """A slide ("he"), the "pet" or a landmark file ("landmarks-he") in words."""
    stain = key.removeprefix(LANDMARKS_OF)
    if stain != key:
        return f"landmark file of {STAIN_TITLES.get(stain, stain)}"
    return "PET" if key == "pet" else f"{STAIN_TITLES[key]} slide"


def lost_files(case: Case) -> dict[str, Path]:
    """The files that are not where ``case.toml`` says: "he", "pet", "landmarks-he"..."""
    paths = {key: case.file.paths(key) for key in (*case.file.slides, "pet")}
    paths |= {f"{LANDMARKS_OF}{key}": (path,) for key, path in case.file.landmarks.items()}
    lost = {}
    for key, stored in paths.items():
        gone = [path for path in map(case.path, stored) if not os.path.exists(path)]
        if gone:
            lost[key] = gone[0]
    return lost


def relink(case: Case, key: str, paths: Sequence[Path]) -> list[str]:
    """Let a slide ("he"), the PET ("pet") or a landmark file be found at another place.

    Parameters
    ----------
    case, key
        The case, and what was moved.
    paths
        Where it is now.  For a PET of several files, the folder that they are in is enough.

    Returns
    -------
    list of str
        Warnings: nothing is known by which the slide or PET could be recognised.

    Raises
    ------
    InputError
        What lies there is another slide or PET; the message says what differs.
    """
    if key.startswith(LANDMARKS_OF):
        return _relink_landmarks(case, key.removeprefix(LANDMARKS_OF), paths)
    source = PET if key == "pet" else SLIDES.get(key)
    given = () if source is None else case.file.paths(key)
    if source is None or not given:
        raise InputError(f"case {case.name} has no '{key}' to relink; it has: {_held(case)}")
    found = [_chosen(path, given) for path in paths]
    flat = [stored_path(case.root, path) for several in found for path in several]
    trial = Case(case.root)
    if key != "pet" and len(flat) != 1:
        raise InputError(f"give one file for the {source.about}, not {len(flat)}")
    changes: dict[str, Any] = {"slides": dict(trial.file.slides)}
    entry = trial.file.slide(key)
    if entry is not None:
        changes["slides"][key] = entry.model_copy(update={"path": flat[0]})
    if key == "pet" and trial.file.pet is not None:
        changes["pet"] = trial.file.pet.model_copy(update={"paths": tuple(flat)})
    trial.file = trial.file.model_copy(update=changes)
    warnings = _check(case, trial, key, source)
    case.update(**changes)
    case.log("relink", source=key, paths=flat)
    return warnings


def _held(case: Case) -> str:
    keys = [*case.file.slides, *(["pet"] if case.file.pet else [])]
    return ", ".join([*keys, *(f"{LANDMARKS_OF}{key}" for key in case.file.landmarks)]) or "nothing"


def _relink_landmarks(case: Case, key: str, paths: Sequence[Path]) -> list[str]:
    """As `relink`; other landmarks are allowed, and make what was registered by them stale."""
    from napari_mosaik.register import read_landmarks

    if key not in case.file.landmarks:
        raise InputError(
            f"case {case.name} has no '{LANDMARKS_OF}{key}' to relink; it has: {_held(case)}"
        )
    if len(paths) != 1:
        raise InputError(f"give one landmark file, not {len(paths)}")
    if not paths[0].is_file():
        raise InputError(f"there is no file at {paths[0]}")
    read_landmarks(paths[0], (1.0, 1.0))
    before = set(case.store.inputs(LANDMARKS.name))
    case.update(landmarks={**case.file.landmarks, key: stored_path(case.root, paths[0])})
    case.log("relink", source=f"{LANDMARKS_OF}{key}", paths=[case.file.landmarks[key]])
    if lost_files(case) or not before or case.digest(LANDMARKS) in before:
        return []
    return [f"{paths[0]} holds other landmarks than those used before: the registration is stale"]


def _chosen(path: Path, given: Sequence[str]) -> list[Path]:
    """The path itself, or the files of the given names in it."""
    if not os.path.exists(path):
        raise InputError(f"there is no file at {path}{path_slip(path)}")
    names = [Path(text.replace("\\", "/")).name for text in given]
    inside = [path / name for name in names]
    return inside if all(one.exists() for one in inside) else [path]


def _check(case: Case, trial: Case, key: str, source: Source) -> list[str]:
    """Raise `InputError` unless the files of *trial* are those that the case was made with."""
    now, known = trial.identity(key), case.file.identity.get(key)
    measured = set(case.store.inputs(source.name))
    if (known is not None and now.content == known.content) or trial.digest(source) in measured:
        return []
    if known is None and not measured:
        return [
            f"the {source.about} of case {case.name} has no recorded content and no results yet, "
            "so the new file could not be compared with it"
        ]
    place = ", ".join(str(trial.path(path)) for path in trial.file.paths(key))
    before = f"that of the case: {known}" if known else "its results were measured on another"
    raise InputError(
        f"{place} is another {source.about} than that of case {case.name}. This one: {now}; "
        f"{before}. To use another one, make a new case"
    )
