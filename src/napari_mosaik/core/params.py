"""The settings of one step: form in the window, file on disk and record, in one class."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import nearest, typed_number, validation_words

__all__ = ["Params", "PowerOf2", "digest", "setting"]


def setting(
    default: Any,
    about: str,
    *,
    unit: str = "",
    label: str = "",
    advanced: bool = False,
    choices: Mapping[str, str] | None = None,
    only_with: Mapping[str, Any] | None = None,
    model: bool = False,
    **limits: Any,
) -> Any:
    """One field of a `Params` class: default, tooltip, unit, limits (``ge=``, ``le=``...).

    Parameters
    ----------
    default
        The default value; it is part of the documented method.
    about
        One sentence for the tooltip and the documentation.
    unit
        Unit shown beside the field (``"µm"``); empty for numbers without one.
    label
        The label of the field; derived from its name when empty.
    advanced
        Shown only under "More…".
    choices
        For enumerations: the label of each value.
    only_with
        Other settings and the value of each with which this one has an effect.
    model
        Whether it is the hash of a trained model.
    """
    extra: dict[str, Any] = {
        "unit": unit,
        "label": label,
        "advanced": advanced,
        "choices": dict(choices or {}),
        "only_with": dict(only_with or {}),
        "model": model,
    }
    return Field(default, description=about, json_schema_extra=extra, **limits)


def digest(value: Any) -> str:
    """Return a short hexadecimal digest of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _power_of_2(n: int) -> int:
    if n & (n - 1):
        raise ValueError("give a power of 2, for example 1024")
    return n


PowerOf2 = Annotated[int, AfterValidator(_power_of_2)]


class Params(BaseModel):
    """Frozen, validated settings of one step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _typed_lists(cls, values: Any) -> Any:
        """A setting with several values may be typed as one text, ``8,16,16``; empty: no value.

        A number may have a decimal comma; one of several numbers that are offered is that number.
        """
        if not isinstance(values, Mapping):
            return values
        return {name: cls._typed(name, value) for name, value in values.items()}

    @classmethod
    def _typed(cls, name: str, value: Any) -> Any:
        if cls._n_values(name):
            return _as_list(value)
        if cls._is_number(name):
            return _as_number(value)
        info = cls.model_fields.get(name)
        if info is None or get_origin(info.annotation) is not Literal or not isinstance(value, str):
            return value
        offered = {str(one): one for one in get_args(info.annotation) if isinstance(one, int)}
        return offered.get(value.strip(), value)

    @classmethod
    def _is_number(cls, name: str) -> bool:
        info = cls.model_fields.get(name)
        return info is not None and float in (info.annotation, *get_args(info.annotation))

    @classmethod
    def _n_values(cls, name: str) -> str:
        """How many values a setting has, in words; empty for one that is not a list."""
        info = cls.model_fields.get(name)
        if info is None or get_origin(info.annotation) is not tuple:
            return ""
        kinds = get_args(info.annotation)
        return "any number of values" if kinds[-1] is Ellipsis else f"{len(kinds)} values"

    def without_effect(self) -> frozenset[str]:
        """Names of the settings that have no effect, given the others."""
        idle = set()
        for name, info in type(self).model_fields.items():
            extra = info.json_schema_extra
            needed: Any = extra.get("only_with") if isinstance(extra, dict) else None
            if any(getattr(self, other) != value for other, value in (needed or {}).items()):
                idle.add(name)
        return frozenset(idle)

    def lowest_in_words(self) -> Mapping[str, str]:
        """What the lowest value of a setting stands for, by name, where that is not a number."""
        return {}

    def digest(self) -> str:
        """Digest of all values; equal values give equal digests."""
        return digest(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "parameters") -> Self:
        """Validate *values*; an invalid one raises `InputError` naming the field and the value."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "value"
            if first["type"] == "extra_forbidden":
                raise InputError(
                    f"{where}: there is no setting '{name}'; {nearest(name, cls.model_fields)}"
                ) from error
            if n_values := cls._n_values(str(first["loc"][0]) if first["loc"] else ""):
                name = str(first["loc"][0])
                raise InputError(
                    f"{where}: {name} = {values[name]!r:.80} is not valid: {_list_problem(first)}; "
                    f"give {n_values}, separated by commas"
                ) from error
            given, why = repr(first.get("input"))[:80], validation_words(first)
            raise InputError(f"{where}: {name} = {given} is not valid: {why}") from error


def _as_list(value: Any) -> Any:
    """The values of a text with commas, or of a single number."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",")) if value.strip() else ()
    return (value,) if isinstance(value, int | float) else value


def _as_number(value: Any) -> Any:
    """The number of a text with a decimal comma; anything else as it is."""
    if isinstance(value, str) and "," in value:
        with contextlib.suppress(InputError):  # it is refused with its name
            return typed_number(value)
    return value


def _list_problem(error: Any) -> str:
    """What is wrong with a setting that has several values."""
    if len(error["loc"]) < 2 or error["type"] == "missing":
        counts = error["type"] in ("missing", "too_long")
        return "the number of values is another" if counts else validation_words(error)
    return f"{error['input']!r}: {validation_words(error)}"
