"""Typed names of results and sources, and the origin of a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from napari_mosaik.core.params import digest

__all__ = [
    "Artifact",
    "Origin",
    "Progress",
    "Source",
    "Store",
    "defined_artifacts",
    "defined_sources",
]

T = TypeVar("T")


_ARTIFACTS: Final[dict[str, Artifact[Any]]] = {}
_SOURCES: Final[dict[str, Source]] = {}


@dataclass(frozen=True, slots=True)
class Artifact(Generic[T]):
    """The typed name of a result that a step can make; its value lives in a case's store.

    An artifact is registered when it is defined; see `defined_artifacts`.
    """

    name: str
    kind: type[T]
    about: str

    def __post_init__(self) -> None:
        _register(_ARTIFACTS, self)


@dataclass(frozen=True, slots=True)
class Source:
    """The name of something that the user adds to a case: a slide, the PET, annotations.

    The part of the name before a colon is the kind ("slide"), the part after it says which one
    ("he").  How a source of a kind is looked up in a case says `napari_mosaik.io.case`.  A
    source is registered when it is defined; see `defined_sources`.
    """

    name: str
    about: str

    def __post_init__(self) -> None:
        _register(_SOURCES, self)

    @property
    def kind(self) -> str:
        """The kind: "slide", "pet", "corrections"..."""
        return self.name.partition(":")[0]

    @property
    def key(self) -> str:
        """Which one of its kind ("he"); empty where there is only one."""
        return self.name.partition(":")[2]


def defined_artifacts() -> tuple[Artifact[Any], ...]:
    """All artifacts in the order of their definition."""
    return tuple(_ARTIFACTS.values())


def defined_sources() -> tuple[Source, ...]:
    """All sources in the order of their definition."""
    return tuple(_SOURCES.values())


def _register(known: dict[str, Any], entry: Any) -> None:
    if known.setdefault(entry.name, entry) != entry:
        raise ValueError(f"{type(entry).__name__} '{entry.name}' is defined twice")


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a result: step, settings and inputs; equal origins give equal results.

    ``revision`` rises only when the numbers of a step change.  The version of the program is
    recorded beside the origin and never compared: a new version alone makes nothing stale.
    """

    step: str
    revision: int
    params: str
    inputs: tuple[tuple[str, str], ...]

    def digest(self) -> str:
        """Digest of the origin; it represents the content of the result in later origins."""
        return digest([self.step, self.revision, self.params, self.inputs])

    @classmethod
    def given(cls, step: str, by: str, content: str) -> Origin:
        """The origin of a result that was not computed but given, *by* whom; *content* a digest."""
        return cls(step, 0, "", ((f"given by {by}", content),))

    @property
    def is_given(self) -> str:
        """By whom the result was given ("given by the sample"); empty where it was computed."""
        return self.inputs[0][0] if (self.revision, self.params) == (0, "") else ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "step": self.step,
            "revision": self.revision,
            "params": self.params,
            "inputs": [list(pair) for pair in self.inputs],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Origin:
        """The inverse of `as_dict`."""
        inputs = tuple((str(name), str(value)) for name, value in values["inputs"])
        return cls(str(values["step"]), int(values["revision"]), str(values["params"]), inputs)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a computation: *done* of *total* units, with a text.

    ``losses`` are those of a training so far: of the training and, or None, of the validation.
    ``found`` marks a report in which much was found finished by an earlier run.
    """

    done: float
    total: float
    text: str = ""
    losses: tuple[tuple[float, float | None], ...] = ()
    found: bool = False

    @property
    def fraction(self) -> float:
        """Fraction of the work that is done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


class Store(Protocol):
    """Stored results, each complete or absent."""

    def origin(self, artifact: Artifact[Any]) -> Origin | None:
        """Origin of the stored result; None when there is none."""

    def read(self, artifact: Artifact[T]) -> T:
        """The stored result."""

    def commit(self, origin: Origin, values: Mapping[Artifact[Any], object]) -> None:
        """Store the results of one step together, all or none."""
