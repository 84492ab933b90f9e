"""Differences of angles."""

from __future__ import annotations

from typing import Final

__all__ = ["DISTINCT_DEG", "angle_difference_deg"]

DISTINCT_DEG: Final = 20.0
"""Two rotations that differ by more than this are different candidates, degrees."""


def angle_difference_deg(first: float, second: float) -> float:
    """Signed difference *first* - *second* of two angles, degrees, wrapped to [-180, 180)."""
    return (first - second + 180.0) % 360.0 - 180.0
