"""Weights of StarDist networks on this computer: fetched with consent, or taken from a file.

They lie in one folder, each under the digest of its content: the one that the environment variable
``NAPARI_MOSAIK_WEIGHTS`` names, or ``.napari-mosaik/weights`` in the home folder.  A computer
without network gets them by copying that folder, or with `install_weights`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_folder
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.io.files import remove_tree, saving
from napari_mosaik.workflow.download import (
    WEIGHTS_VARIABLE,
    PublishedWeights,
    fetch_file,
    weights_folder,
)

if TYPE_CHECKING:
    from napari_mosaik.segment.stardist import StarDistWeights

__all__ = [
    "VERSATILE_HE",
    "WEIGHTS_VARIABLE",
    "PublishedWeights",
    "fetch_weights",
    "find_weights",
    "install_weights",
    "installed_weights",
    "weights_folder",
]

VERSATILE_HE = PublishedWeights(
    "2D_versatile_he",
    "https://github.com/stardist/stardist-models/releases/download/v0.1/python_2D_versatile_he.zip",
    "f1696ef0631bd7e1c0e5c0d3017e2b4c6a95e284c6aab9c22fc2f08317817b28",
    "StarDist's network for nuclei on H&E. It was trained on published pictures of which some may "
    "be used for research only (MoNuSeg: CC BY-NC-SA)",
)
"""What the stardist package names for ``StarDist2D.from_pretrained("2D_versatile_he")``."""


def installed_weights(folder: Path | None = None) -> tuple[str, ...]:
    """Digests of the weights that are there."""
    place = folder or weights_folder()
    if not place.is_dir():
        return ()
    names = (path.parent.name for path in place.glob("*/card.json"))
    return tuple(sorted(name for name in names if not name.startswith(".")))


def find_weights(digest: str, folder: Path | None = None) -> StarDistWeights:
    """Weights by their digest, or by its first characters if no other begins so.

    No digest means the network that comes with the program; a result says which weights it is of.

    Raises
    ------
    InputError
        None or several fit; the message says how to get weights.
    CorruptArtifact
        They are damaged.
    """
    from napari_mosaik.segment.stardist import embedded_weights, load_stardist

    embedded = embedded_weights()
    if embedded.hash.startswith(digest):
        return embedded
    place = folder or weights_folder()
    there = installed_weights(place)
    fitting = [name for name in there if name.startswith(digest)]
    if not there:
        raise InputError(
            f"there are no weights '{digest}', and {place} holds none. Fetch StarDist's with "
            "'napari-mosaik weights --fetch', take some from a file with 'napari-mosaik weights "
            "--file FILE', or leave the weights empty for the network that comes with the program"
        )
    if len(fitting) != 1:
        word = "several weights begin with" if fitting else "there are no weights"
        raise InputError(
            f"{word} '{digest}' in {place}. Set the weights of the nuclei to one of: "
            f"{', '.join(there)}; or leave them empty for the network that comes with the program"
        )
    weights = load_stardist(place / fitting[0])
    if weights.hash != fitting[0]:
        raise CorruptArtifact(
            f"the weights in {place / fitting[0]} are others than the folder's name says; "
            "remove that folder and install them again"
        )
    return weights


def install_weights(source: Path, folder: Path | None = None) -> StarDistWeights:
    """Put weights from a file or folder (`load_stardist`) among the installed ones."""
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
    """Fetch published weights, check them and install them; yields the bytes that have come.

    Raises
    ------
    InputError
        Without consent; the message says what would be fetched from where.
    CorruptArtifact
        What came has another checksum; nothing is installed.
    MosaikError
        The place cannot be reached.
    """
    place = folder or weights_folder()
    archive = place / f".{published.name}.{os.getpid()}.zip"
    yield from fetch_file(published, archive, consent=consent)
    try:
        return install_weights(archive, place)
    finally:
        archive.unlink(missing_ok=True)
