"""Cases that hold the same slide or PET, whatever their names, and what a model knows of a case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from napari_mosaik.core.artifact import Source
from napari_mosaik.core.catalogue import PET, SLIDES
from napari_mosaik.core.errors import InputError, MosaikError
from napari_mosaik.io.case import Case

__all__ = [
    "case_labels",
    "development_warning",
    "known_to_model",
    "labels_of",
    "refuse_shared_sources",
    "seen_file",
    "source_contents",
]

_SOURCES: Final = (*SLIDES.values(), PET)


def case_labels(cases: Sequence[Case]) -> list[str]:
    """A label for each case that no other has: its name, with the folder where names are equal."""
    names = Counter(case.name for case in cases)
    return [labels_of(case)[names[case.name] > 1] for case in cases]


def labels_of(case: Case) -> tuple[str, str]:
    """The label of a case where its name is its own, and where others have the same name."""
    return case.name, f"{case.name} ({case.root})"


def refuse_shared_sources(cases: Sequence[Case], why: str, sources: Sequence[Source] = ()) -> None:
    """Raise `InputError` if two cases hold the same slide or PET, which makes them one case.

    Parameters
    ----------
    cases
        The cases, of any names and patients.
    why
        What this would spoil, for the message.
    sources
        The slides, or the PET, that are compared; all of them if empty.
    """
    seen: dict[str, Case] = {}
    for source in sources or _SOURCES:
        for case in cases:
            content = _content(case, source)
            other = seen.setdefault(content, case) if content else case
            if other is not case:
                raise InputError(
                    f"the cases {other.name} ({other.root}) and {case.name} ({case.root}) hold the "
                    f"same {source.about}: {why}. Remove one of the two folders from the command"
                )


def source_contents(case: Case, *sources: Source) -> dict[str, str]:
    """Digest of what each slide and the PET of a case (or some *sources*) shows, by its name."""
    found = {source.name: _content(case, source) for source in sources or _SOURCES}
    return {name: content for name, content in found.items() if content}


def seen_file(own: Mapping[str, str], training: Mapping[str, Mapping[str, str]]) -> str:
    """The file of a case that a model was trained with, in words; empty where there is none.

    Parameters
    ----------
    own
        `source_contents` of the case.
    training
        By training case, those of that case.
    """
    about = {source.name: source.about for source in _SOURCES}
    for case, files in training.items():
        for name, content in files.items():
            if content in own.values():
                return f"the {about.get(name, name)} of case {case}"
    return ""


def known_to_model(seen: str, block: Mapping[str, Any]) -> list[str]:
    """What a model knows of a case: the file of `seen_file`, or the rest around a test block."""
    if block:
        return [
            f"only the {block['n_test']} tiles of the test block count, {block['guard']} tiles or "
            f"more from the {block['n_train']} that trained; {block['n_between']} in between do not"
        ]
    return [f"the predictor was trained with {seen}, which this case holds"] if seen else []


def development_warning(case: str) -> str:
    """What it means for the error that the measured uptake ranked or preceded corrections."""
    return (
        f"case {case} is a development case: its measured uptake ranked the review queue or was "
        "shown before a correction, so its prediction error is optimistic"
    )


def _content(case: Case, source: Source) -> str:
    """Digest of what a slide or the PET shows; of what was measured on it where it is gone."""
    if not case.missing_reason(source):
        try:
            return case.content(source)
        except MosaikError:
            return ""  # the step that reads it reports what is wrong with it
    return next((digest for digest in case.store.inputs(source.name)), "")
