"""Predicted against measured antibody uptake of one tumour, in napari and on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

# OpenMP threads that wait for work must not take the processor from other programs: beside one
# they made a training several times slower.  It is read when torch or scikit-learn is loaded, in
# small letters: in a Turkish locale "PASSIVE" is another word, and the library complains.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
__all__ = ["__version__", "open_case", "phantom", "run"]

open_case: Callable[..., Any]
"""Open a case folder, see `napari_mosaik.io.Case`; loaded on first use."""
run: Callable[..., Any]
"""Run one step of a case, see `napari_mosaik.workflow.run.run`; loaded on first use."""
phantom: ModuleType
"""The sample cohort with known truth; loaded on first use."""

_LAZY = {"open_case": ("io.case", "Case"), "run": ("workflow.run", "run")}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, member = _LAZY[name]
        return getattr(import_module(f"{__name__}.{module}"), member)
    if name == "phantom":
        return import_module(f"{__name__}.phantom")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
