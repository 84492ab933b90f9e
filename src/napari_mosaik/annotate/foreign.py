"""Classes of other programs, and the class of the pipeline that each stands for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from napari_mosaik.annotate.state import DEFAULT_CLASSES
from napari_mosaik.core.text import same_words

__all__ = ["BUILT_IN", "is_foreign", "proposed_class"]

BUILT_IN: Final = tuple(known.name for known in DEFAULT_CLASSES)
"""Names of the pipeline's own classes."""
_QUPATH: Final = {
    "tumor": "neoplastic",
    "tumour": "neoplastic",
    "stroma": "non-neoplastic",
    "immune cells": "non-neoplastic",
    "necrosis": "",
    "other": "",
    "positive": "",
    "negative": "",
    "region": "",
    "ignore": "",
}
"""QuPath's own classes: what they stand for, or nothing where a person has to say."""

_STAINED: Final = {"positive", "negative"}
_NO_TISSUE: Final = {
    "normal", "benign", "healthy", "artefact", "artifact", "background", "blood", "fat", "immune",
    "lymphocytes",
}  # fmt: skip
"""Parts of a derived class that contradict its base, whatever that is."""


def proposed_class(label: str, known: Iterable[str]) -> str:
    """The class that a label of another program stands for; empty where nobody can tell.

    Parameters
    ----------
    label
        The label: "Tumor", "tumor: Positive", "NEOPLASTIC ", "Region*".
    known
        The classes of the case; they stand for themselves, whatever their capitals and blanks.
    """
    names = tuple(known)
    if label in names:
        return label
    whole, base = _words(label), _words(label.partition(":")[0])
    if label.rstrip().endswith("*"):  # QuPath measures nothing of such classes
        return ""
    spelled = {_words(name): name for name in names}
    if whole in spelled:
        return spelled[whole]
    found = spelled.get(base) or _QUPATH.get(base, "")
    for part in map(_words, label.split(":")[1:]):  # "Tumor: Necrosis" is not a tumour
        other = spelled.get(part) or _QUPATH.get(part, found)
        if part in _NO_TISSUE or (part not in _STAINED and other != found):
            return ""
    return found


def is_foreign(label: str) -> bool:
    """Whether a label is a class of QuPath, or another spelling of one of the pipeline's."""
    if label in BUILT_IN:
        return False
    base = _words(label.partition(":")[0].rstrip(" *"))
    quoted = label[:1].isupper() or _QUPATH.get(base, "") != "" or ":" in label or "*" in label
    return bool(proposed_class(label, BUILT_IN)) or (quoted and base in _QUPATH)


def _words(text: str) -> str:
    return same_words(text.replace("-", " ").replace("_", " "))
