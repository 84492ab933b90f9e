"""The stored results of a case: each complete or absent, those of one step together.

A commit writes into a staging folder, last of all a marker.  With the marker the results are valid,
and the next process that opens the case for writing completes the renames.  Without the marker the
staging folder is incomplete and is removed.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from napari_mosaik.core.artifact import Artifact, Origin
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.io.artifact_io import read_value, write_value
from napari_mosaik.io.files import file_digest, read_json, remove_tree, saving, write_json

__all__ = ["CaseStore"]

T = TypeVar("T")
_MARKER = "COMMIT.json"
_STAGING = ".staging-"
CHECKED_BYTES = 128 * 2**20


class CaseStore:
    """The artifacts folder of one case.

    Parameters
    ----------
    root
        The folder; created at the first commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, artifact: Artifact[Any]) -> Path:
        """Folder of the artifact; it need not exist."""
        return self.root / artifact.name

    def origin(self, artifact: Artifact[Any]) -> Origin | None:
        """Origin of the stored artifact; None when there is none or its record is damaged."""
        path = self.folder(artifact) / "origin.json"
        if not path.is_file():
            return None
        try:
            return Origin.from_dict(read_json(path)["origin"])
        except (InputError, KeyError, TypeError, ValueError):
            return None

    def record(self, artifact: Artifact[Any]) -> dict[str, Any]:
        """How the artifact was computed: program version, time, duration, settings."""
        path = self.folder(artifact) / "record.json"
        return dict(read_json(path)) if path.is_file() else {}

    def read(self, artifact: Artifact[T]) -> T:
        """The stored value; an absent one raises `InputError`, a damaged one `CorruptArtifact`."""
        folder = self.folder(artifact)
        if not (folder / "origin.json").is_file():
            raise InputError(f"there is no result '{artifact.name}' yet; run its step first")
        self._verify(artifact)
        value: T = read_value(artifact, folder)
        return value

    def _verify(self, artifact: Artifact[Any]) -> None:
        folder = self.folder(artifact)
        wrong = damaged_files(folder)
        if wrong:
            raise CorruptArtifact(
                f"the stored result '{artifact.name}' is damaged: {wrong[0]} is missing or was "
                f"changed ({len(wrong)} file(s) in {folder}); run its step again with --force"
            )

    def commit(
        self,
        origin: Origin,
        values: Mapping[Artifact[Any], object],
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the results of one step together; the caller holds the case's write lock."""
        staging = self.root / f"{_STAGING}{uuid.uuid4().hex[:12]}"
        with saving(f"the result of '{origin.step}'", self.root):
            try:
                for artifact, value in values.items():
                    folder = staging / artifact.name
                    folder.mkdir(parents=True)
                    write_value(artifact, folder, value)
                    write_json(folder / "record.json", dict(record or {}))
                    origin_file = {"origin": origin.as_dict(), "files": _manifest(folder)}
                    write_json(folder / "origin.json", origin_file)
                write_json(staging / _MARKER, {"step": origin.step})
            except BaseException:
                with contextlib.suppress(Exception):
                    remove_tree(staging)
                raise
            self._roll_forward(staging)

    def recover(self) -> None:
        """Complete commits that were interrupted after their marker, and remove the others.

        The caller holds the case's write lock.
        """
        if not self.root.is_dir():
            return
        for staging in sorted(self.root.glob(f"{_STAGING}*")):
            if (staging / _MARKER).is_file():
                self._roll_forward(staging)
            else:
                remove_tree(staging)

    def _roll_forward(self, staging: Path) -> None:
        for folder in sorted(path for path in staging.iterdir() if path.is_dir()):
            target = self.root / folder.name
            if target.exists():
                aside = self.root / f"{_STAGING}old-{uuid.uuid4().hex[:12]}"
                target.rename(aside)
                folder.rename(target)
                remove_tree(aside)
            else:
                folder.rename(target)
        remove_tree(staging)

    def discard(self, artifact: Artifact[Any]) -> None:
        """Remove a stored artifact; the caller holds the case's write lock."""
        remove_tree(self.folder(artifact))


def _manifest(folder: Path) -> dict[str, list[Any]]:
    """Size and digest of every file of a result."""
    files: dict[str, list[Any]] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            key = path.relative_to(folder).as_posix()
            if key not in ("record.json", "origin.json"):
                files[key] = [path.stat().st_size, file_digest(path)]
    return dict(sorted(files.items()))


def damaged_files(folder: Path) -> list[str]:
    """Names of the files of a stored artifact that are missing or differ from its manifest.

    The content of image chunks of very large results is verified by their own checksums.
    """
    try:
        manifest = read_json(folder / "origin.json")["files"]
    except (InputError, KeyError, TypeError):
        return ["origin.json"]
    small = sum(size for size, _ in manifest.values()) <= CHECKED_BYTES
    wrong = []
    for key, (size, content) in manifest.items():
        path = folder / key
        same_size = path.is_file() and path.stat().st_size == size
        look_inside = small or "/c/" not in f"/{key}"
        if not same_size or (look_inside and file_digest(path) != content):
            wrong.append(key)
    return wrong
