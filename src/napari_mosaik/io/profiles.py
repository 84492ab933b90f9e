"""Scanner profiles: named pixel sizes in an editable file."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.spacing import MAX_SPACING_UM, MIN_SPACING_UM
from napari_mosaik.core.text import validation_words
from napari_mosaik.io.files import write_bytes

__all__ = [
    "CONFIG_VARIABLE",
    "ScannerProfile",
    "add_profile",
    "config_folder",
    "profile_named",
    "profiles_file",
    "read_profiles",
    "remove_profile",
]

CONFIG_VARIABLE = "NAPARI_MOSAIK_CONFIG"
"""Environment variable that sets another folder for the user settings."""
_HEAD = """# Scanner profiles of napari-mosaik: pixel sizes by name of a scanner and its objective.
# spacing_um = [row, column] in micrometres per pixel, measured (a stage micrometer) or from the
# scanner's data sheet; never from the magnification.  This file may be edited.

"""


class ScannerProfile(BaseModel):
    """Pixel size (row, column) in µm of one scanner at one setting, and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_um: tuple[float, float]
    note: str = ""

    @field_validator("spacing_um")
    @classmethod
    def _possible(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(math.isfinite(s) and MIN_SPACING_UM <= s <= MAX_SPACING_UM for s in value):
            raise ValueError(f"must lie between {MIN_SPACING_UM:g} and {MAX_SPACING_UM:g} µm")
        return value


def config_folder() -> Path:
    """The folder of the user settings on this operating system."""
    given = os.environ.get(CONFIG_VARIABLE)
    if given:
        return Path(given)
    return platformdirs.user_config_path("napari-mosaik", appauthor=False, roaming=True)


def profiles_file() -> Path:
    """The file that holds the profiles; it need not exist."""
    return config_folder() / "scanners.toml"


def read_profiles(file: Path | None = None) -> dict[str, ScannerProfile]:
    """All profiles by name; none if there is no file.

    Raises `InputError` that names the invalid entry of the file.
    """
    file = file or profiles_file()
    try:
        stated = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"the scanner profiles {file} cannot be read: {error}") from error
    return {name: _profile(file, name, value) for name, value in stated.items()}


def profile_named(name: str, file: Path | None = None) -> ScannerProfile:
    """One profile; an unknown name raises `InputError` that lists the known ones."""
    known = read_profiles(file)
    if name not in known:
        listed = ", ".join(f"'{other}'" for other in sorted(known)) or "none yet"
        raise InputError(
            f"there is no scanner profile '{name}' (known: {listed}); add it with 'napari-mosaik "
            f"profiles --add NAME --spacing UM' or in {file or profiles_file()}"
        )
    return known[name]


def add_profile(
    name: str, spacing_um: tuple[float, float], note: str = "", file: Path | None = None
) -> ScannerProfile:
    """Add or replace a profile; the others are kept."""
    file = file or profiles_file()
    if not name.strip():
        raise InputError("a scanner profile needs a name")
    added = _profile(file, name, {"spacing_um": list(spacing_um), "note": note})
    _write(file, {**read_profiles(file), name.strip(): added})
    return added


def remove_profile(name: str, file: Path | None = None) -> None:
    """Remove a profile; an unknown name raises `InputError`."""
    file = file or profiles_file()
    profile_named(name, file)
    _write(file, {key: value for key, value in read_profiles(file).items() if key != name})


def _profile(file: Path, name: str, value: Any) -> ScannerProfile:
    if isinstance(value, Mapping) and isinstance(value.get("spacing_um"), int | float):
        value = {**value, "spacing_um": [value["spacing_um"]] * 2}
    try:
        return ScannerProfile.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"scanner profile '{name}' ({file.name}): {where} = {first.get('input')!r}: "
            f"{validation_words(first)}"
        ) from error


def _write(file: Path, profiles: Mapping[str, ScannerProfile]) -> None:
    values = {
        name: {
            "spacing_um": list(profile.spacing_um),
            **({"note": profile.note} if profile.note else {}),
        }
        for name, profile in sorted(profiles.items())
    }
    write_bytes(file, (_HEAD + tomli_w.dumps(values)).encode())
