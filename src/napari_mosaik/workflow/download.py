"""Fetches published weights: with consent, progress and a checksum; nothing half-fetched stays."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_file
from napari_mosaik.core.errors import CorruptArtifact, InputError, MosaikError
from napari_mosaik.io.files import saving

__all__ = ["WEIGHTS_VARIABLE", "PublishedWeights", "fetch_file", "sha256_of", "weights_folder"]

WEIGHTS_VARIABLE = "NAPARI_MOSAIK_WEIGHTS"
_CHUNK_BYTES = 1 << 18
_LARGEST_BYTES = 200_000_000
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """Where weights are published, and the SHA-256 of the file or how it begins.

    ``otherwise`` says how to use a file that was fetched elsewhere.
    """

    name: str
    url: str
    sha256: str
    terms: str = ""
    otherwise: str = "give it with --file"


def weights_folder() -> Path:
    """The folder of all weights; it need not exist."""
    named = os.environ.get(WEIGHTS_VARIABLE, "")
    return Path(named) if named else Path.home() / ".napari-mosaik" / "weights"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_file(
    published: PublishedWeights, path: Path, *, consent: bool
) -> Generator[Progress, None, None]:
    """Fetch a file to *path*, whole and with the right checksum; yields the bytes that have come.

    Raises
    ------
    InputError
        Without consent; the message says what would be fetched from where.
    CorruptArtifact
        What came has another checksum; nothing is kept.
    MosaikError
        The place cannot be reached.
    """
    if not consent:
        raise InputError(
            f"the weights {published.name} would be fetched from {published.url}. "
            f"{published.terms}. Nothing was fetched; agree with --yes, or fetch the file "
            f"elsewhere and {published.otherwise}"
        )
    with saving("the weights", path.parent), atomic_file(path) as scratch:
        found = yield from _download(published, scratch)
        if not found.startswith(published.sha256):
            raise CorruptArtifact(
                f"what came from {published.url} is not what was published (its SHA-256 is "
                f"{found}, expected is {published.sha256}); nothing was installed. Try again "
                "later, or take the weights from a file"
            )


def _download(published: PublishedWeights, path: Path) -> Generator[Progress, None, str]:
    """Write what is at the address to a file; the SHA-256 of it."""
    text = f"fetching {published.name}"
    try:
        with urllib.request.urlopen(published.url, timeout=_TIMEOUT_S) as answer:
            total = float(answer.headers.get("Content-Length") or 0)
            yield Progress(0, total, text)
            with path.open("wb") as file:
                return (yield from _copied(answer, file, total, text))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise MosaikError(
            f"the weights could not be fetched from {published.url} ({error}); check the network, "
            f"or fetch the file elsewhere and {published.otherwise}"
        ) from error


def _copied(
    answer: BinaryIO, file: BinaryIO, total: float, text: str
) -> Generator[Progress, None, str]:
    seen, check = 0, hashlib.sha256()
    while chunk := answer.read(_CHUNK_BYTES):
        seen += len(chunk)
        if seen > _LARGEST_BYTES:
            raise MosaikError(f"more than {_LARGEST_BYTES} bytes came; that is no such network")
        check.update(chunk)
        file.write(chunk)
        yield Progress(seen, total, text)
    return check.hexdigest()
