"""Weights that the paper's network may begin with: an encoder taught on everyday photographs."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.errors import CorruptArtifact
from napari_mosaik.workflow.download import (
    PublishedWeights,
    fetch_file,
    sha256_of,
    weights_folder,
)

__all__ = ["DENSENET169", "encoder_weights"]

DENSENET169 = PublishedWeights(
    "densenet169",
    "https://download.pytorch.org/models/densenet169-b2777c0a.pth",
    "b2777c0a",
    "torchvision's DenseNet169, taught on ImageNet, whose pictures are licensed for research",
    "give it with --encoder FILE",
)
"""What MONAI names for ``DenseNet169(pretrained=True)``; the name holds how the checksum begins."""


def encoder_weights(
    published: PublishedWeights = DENSENET169, *, consent: bool, folder: Path | None = None
) -> Generator[Progress, None, Path]:
    """The file of a published encoder; it is fetched with consent if it is not there yet.

    Raises
    ------
    InputError
        It is not there, and there is no consent.
    CorruptArtifact
        The file that came or that is there has another checksum.
    """
    path = (folder or weights_folder()) / "encoders" / f"{published.name}.pth"
    if not path.is_file():
        yield from fetch_file(published, path, consent=consent)
    elif not sha256_of(path).startswith(published.sha256):
        raise CorruptArtifact(
            f"{path} is not what was published as {published.name}; remove it and fetch it again"
        )
    return path
