"""What is said about correlations with the uptake."""

from __future__ import annotations

import numpy as np

from napari_mosaik.core import Table
from napari_mosaik.view.formatting import number, percent, title_of
from napari_mosaik.workflow.correlations import CohortCorrelations

__all__ = ["relation_sentences", "relation_words"]

_FEW = 10.0
"""Below this many effective tiles the p-values are rough."""


def relation_words(table: Table | None, name: str) -> str:
    """One parameter's correlation in two lines; empty where there is none."""
    if table is None:
        return ""
    rows = np.flatnonzero(np.asarray(table["parameter"]) == name)
    if not len(rows):
        return ""
    i = int(rows[0])
    r, rho = float(table["pearson"][i]), float(table["spearman"][i])
    return (
        f"r {number(r)}, ρ {number(rho)}\nn {int(table['n'][i])}, "
        f"ESS {number(float(table['ess_pearson'][i]))}, "
        f"p {number(float(table['p_msr_pearson'][i]))} (MSR)"
    )


def relation_sentences(found: CohortCorrelations | None, own: Table | None) -> list[str]:
    """What the correlations rest on, which proxies they choose and how firmly, and warnings."""
    if found is None:
        return ["Run this page, with a measured uptake, to see how the parameters go with it."]
    lines = []
    if own is not None:
        sizes = np.asarray(own["ess_pearson"], float)
        few = int((sizes < _FEW).sum())
        if few:
            lines.append(
                f"⚠ {few} of {sizes.size} correlations rest on fewer than {_FEW:g} effective "
                "tiles: their p-values are rough."
            )
        n = np.asarray(own["n"])
        lines.append(f"{n.min()} to {n.max()} tiles of this case have parameter and uptake.")
    if found.stability is not None:
        lines += _proxy_lines(found)
    return lines + [f"⚠ {_in_words(text, found.parameters)}" for text in found.warnings]


def _in_words(text: str, parameters: tuple[str, ...]) -> str:
    """The sentence with the titles of parameters in place of their names."""
    for name in sorted(parameters, key=len, reverse=True):
        text = text.replace(name, title_of(name))
    return text


def _proxy_lines(found: CohortCorrelations) -> list[str]:
    table = found.stability
    assert table is not None
    lines = [f"Proxies that these {len(found.tables)} cases choose (training leaves the test out):"]
    for group, proxy in found.proxies.items():
        of = (np.asarray(table["group"]) == group) & (np.asarray(table["parameter"]) == proxy)
        share = float(np.asarray(table["frequency"])[of][0])
        lines.append(f"• {group}: {title_of(proxy)}, in {percent(share)} of the draws of tiles")
    return lines
