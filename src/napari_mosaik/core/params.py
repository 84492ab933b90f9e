"""The settings of one step: form in the window, file on disk and record, in one class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.text import nearest

__all__ = ["Params", "digest", "setting"]


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


class Params(BaseModel):
    """Frozen, validated settings of one step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
        """What the lowest value of a setting stands for, by name, where it is no plain number."""
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
            given = repr(first.get("input"))[:80]
            raise InputError(f"{where}: {name} = {given} is not valid: {first['msg']}") from error
