"""Weights of networks on this computer: downloaded with consent, or installed from a file.

They lie in the folder that the environment variable ``NAPARI_MOSAIK_WEIGHTS`` names, or in
``.napari-mosaik/weights`` in the home folder; those of StarDist each under the digest of its
content.  A computer without network gets them by copying that folder, or with `install_weights`.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_file, atomic_folder
from napari_mosaik.core.errors import CorruptArtifact, InputError, MosaikError
from napari_mosaik.io.files import remove_tree, saving

if TYPE_CHECKING:
    from napari_mosaik.segment.stardist import StarDistWeights

__all__ = [
    "DENSENET169",
    "VERSATILE_HE",
    "WEIGHTS_VARIABLE",
    "PublishedWeights",
    "encoder_weights",
    "fetch_weights",
    "find_weights",
    "install_weights",
    "installed_weights",
    "weights_folder",
]

WEIGHTS_VARIABLE = "NAPARI_MOSAIK_WEIGHTS"
_CHUNK_BYTES = 1 << 18
_MAX_BYTES = 200_000_000
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """Where weights are published.

    Parameters
    ----------
    name, url
        Name of the weights and address of the file.
    sha256
        SHA-256 of the file, or its first digits.
    terms
        Terms of use, as a sentence.
    alternative
        How to use a file that was downloaded elsewhere.
    """

    name: str
    url: str
    sha256: str
    terms: str = ""
    alternative: str = "give it with --file"


VERSATILE_HE = PublishedWeights(
    "2D_versatile_he",
    "https://github.com/stardist/stardist-models/releases/download/v0.1/python_2D_versatile_he.zip",
    "f1696ef0631bd7e1c0e5c0d3017e2b4c6a95e284c6aab9c22fc2f08317817b28",
    "StarDist's network for nuclei on H&E. It was trained on published images of which some may "
    "be used for research only (MoNuSeg: CC BY-NC-SA)",
)
"""What stardist uses for ``StarDist2D.from_pretrained("2D_versatile_he")``."""

DENSENET169 = PublishedWeights(
    "densenet169",
    "https://download.pytorch.org/models/densenet169-b2777c0a.pth",
    "b2777c0a",
    "torchvision's DenseNet169, trained on ImageNet, whose images are licensed for research",
    "give it with --encoder FILE",
)
"""What MONAI uses for ``DenseNet169(pretrained=True)``; the file name has the first digits of the
checksum."""


def weights_folder() -> Path:
    """The folder of all weights; it may not exist yet."""
    named = os.environ.get(WEIGHTS_VARIABLE, "")
    return Path(named) if named else Path.home() / ".napari-mosaik" / "weights"


def installed_weights(folder: Path | None = None) -> tuple[str, ...]:
    """Digests of the installed weights."""
    place = folder or weights_folder()
    if not place.is_dir():
        return ()
    names = (path.parent.name for path in place.glob("*/card.json"))
    return tuple(sorted(name for name in names if not name.startswith(".")))


def find_weights(digest: str, folder: Path | None = None) -> StarDistWeights:
    """Weights by their digest, or by its first characters if these are unique.

    An empty digest means the network in the package.

    Raises
    ------
    InputError
        None or several match; the message says how to install weights.
    CorruptArtifact
        They are damaged.
    """
    from napari_mosaik.segment.stardist import embedded_weights, load_stardist

    embedded = embedded_weights()
    if embedded.hash.startswith(digest):
        return embedded
    place = folder or weights_folder()
    installed = installed_weights(place)
    matching = [name for name in installed if name.startswith(digest)]
    if not installed:
        raise InputError(
            f"there are no weights '{digest}', and {place} holds none. Download StarDist's with "
            "'napari-mosaik weights --fetch', install some from a file with 'napari-mosaik weights "
            "--file FILE', or leave the weights empty for the network in the package"
        )
    if len(matching) != 1:
        word = "several weights begin with" if matching else "there are no weights"
        raise InputError(
            f"{word} '{digest}' in {place}. Set the weights of the nuclei to one of: "
            f"{', '.join(installed)}; or leave them empty for the network in the package"
        )
    weights = load_stardist(place / matching[0])
    if weights.hash != matching[0]:
        raise CorruptArtifact(
            f"the weights in {place / matching[0]} do not match the name of the folder; "
            "remove that folder and install them again"
        )
    return weights


def install_weights(source: Path, folder: Path | None = None) -> StarDistWeights:
    """Install weights from a file or folder (`load_stardist`)."""
    from napari_mosaik.segment.stardist import load_stardist, save_stardist

    weights = load_stardist(source)
    place = (folder or weights_folder()) / weights.hash
    if not (place / "card.json").is_file():
        with saving("the weights", place.parent), atomic_folder(place) as scratch:
            save_stardist(weights, scratch)
            remove_tree(place)
    return weights


def fetch_weights(
    published: PublishedWeights = VERSATILE_HE,
    *,
    consent: bool,
    folder: Path | None = None,
) -> Generator[Progress, None, StarDistWeights]:
    """Download published weights, check and install them; yields the bytes received.

    Raises
    ------
    InputError
        Without consent; the message names file, address and terms.
    CorruptArtifact
        The file has another checksum; nothing is installed.
    MosaikError
        The address cannot be reached.
    """
    place = folder or weights_folder()
    archive = place / f".{published.name}.{os.getpid()}.zip"
    yield from _fetch_file(published, archive, consent=consent)
    try:
        return install_weights(archive, place)
    finally:
        archive.unlink(missing_ok=True)


def encoder_weights(
    published: PublishedWeights = DENSENET169, *, consent: bool, folder: Path | None = None
) -> Generator[Progress, None, Path]:
    """The file of a published encoder; downloaded with consent if it is not there yet.

    Raises
    ------
    InputError
        The file is missing, and there is no consent.
    CorruptArtifact
        The file has another checksum.
    """
    path = (folder or weights_folder()) / "encoders" / f"{published.name}.pth"
    if not path.is_file():
        yield from _fetch_file(published, path, consent=consent)
    elif not _sha256(path).startswith(published.sha256):
        raise CorruptArtifact(
            f"{path} is not the published {published.name}; remove it and download it again"
        )
    return path


# --- download -----------------------------------------------------------------------------------
def _fetch_file(
    published: PublishedWeights, path: Path, *, consent: bool
) -> Generator[Progress, None, None]:
    """Download a file to *path*, complete and with the right checksum; yields the bytes received.

    Raises
    ------
    InputError
        Without consent; the message names file, address and terms.
    CorruptArtifact
        The file has another checksum; it is not kept.
    MosaikError
        The address cannot be reached.
    """
    if not consent:
        raise InputError(
            f"the weights {published.name} would be downloaded from {published.url}. "
            f"{published.terms}. Nothing was downloaded; agree with --yes, or download the file "
            f"elsewhere and {published.alternative}"
        )
    with saving("the weights", path.parent), atomic_file(path) as scratch:
        checksum = yield from _download(published, scratch)
        if not checksum.startswith(published.sha256):
            raise CorruptArtifact(
                f"the file from {published.url} is not the published one (SHA-256 {checksum}, "
                f"expected {published.sha256}); nothing was installed. Try again later, or "
                "install the weights from a file"
            )


def _download(published: PublishedWeights, path: Path) -> Generator[Progress, None, str]:
    """Write the file at the address to *path*; returns its SHA-256."""
    text = f"downloading {published.name}"
    try:
        with urllib.request.urlopen(published.url, timeout=_TIMEOUT_S) as answer:
            total = float(answer.headers.get("Content-Length") or 0)
            yield Progress(0, total, text)
            with path.open("wb") as file:
                return (yield from _copied(answer, file, total, text))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise MosaikError(
            f"the weights could not be downloaded from {published.url} ({error}); check the "
            f"network, or download the file elsewhere and {published.alternative}"
        ) from error


def _copied(
    answer: BinaryIO, file: BinaryIO, total: float, text: str
) -> Generator[Progress, None, str]:
    received, checksum = 0, hashlib.sha256()
    while chunk := answer.read(_CHUNK_BYTES):
        received += len(chunk)
        if received > _MAX_BYTES:
            raise MosaikError(
                f"the file is larger than {_MAX_BYTES} bytes; it cannot hold these weights"
            )
        checksum.update(chunk)
        file.write(chunk)
        yield Progress(received, total, text)
    return checksum.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
