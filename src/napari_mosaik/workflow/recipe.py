"""A recipe: the settings of every step of a case, complete and reproducible, as TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.params import Params
from napari_mosaik.core.text import read_toml
from napari_mosaik.io.files import write_bytes
from napari_mosaik.workflow.steps import STEPS, step_named

__all__ = ["Recipe", "read_recipe", "write_recipe"]

RECIPE_FILE = "recipe.toml"
Recipe = dict[str, Params]
"""Settings by step name; every step has an entry."""


def read_recipe(root: Path) -> Recipe:
    """The recipe of a case; steps and settings that it does not name take their defaults."""
    path = root / RECIPE_FILE
    return recipe_from(read_toml(path) if os.path.lexists(path) else {}, str(path))


def recipe_from(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A complete recipe from nested values; unknown steps or settings are an error."""
    for name, settings in values.items():
        try:
            step_named(name)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if not isinstance(settings, Mapping):
            raise InputError(
                f"{where}: {name} = {str(settings)[:80]} is not valid: the settings of a step "
                f"belong below the heading [{name}]"
            )
    return {
        step.name: step.params.parse(values.get(step.name, {}), f"{where}, step {step.name}")
        for step in STEPS
    }


def write_recipe(root: Path, recipe: Recipe) -> None:
    """Write the complete recipe of a case."""
    values = {name: params.model_dump(mode="json") for name, params in recipe.items()}
    write_bytes(root / RECIPE_FILE, tomli_w.dumps(_without_none(values)).encode())


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def changed(recipe: Recipe, step: str, **values: Any) -> Recipe:
    """A copy of the recipe with settings of one step replaced (and validated)."""
    before = recipe[step_named(step).name]
    merged = {**before.model_dump(), **values}
    return {**recipe, step: type(before).parse(merged, f"step {step}")}


def parse_setting(text: str) -> tuple[str, str, Any]:
    """Read ``step.setting=value`` (a TOML value, or plain text) from the command line."""
    name, separator, value = text.partition("=")
    step, dot, setting = name.strip().partition(".")
    if not separator or not dot or not setting:
        raise InputError(f"--set {text!r} is not of the form step.setting=value")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return step, setting, parsed
