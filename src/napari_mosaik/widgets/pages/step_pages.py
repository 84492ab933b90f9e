"""Pages with a panel besides the settings: registration, SUV terms, correlations, clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mosaik.view.presentation import step_view
from napari_mosaik.view.step_view import PanelKind
from napari_mosaik.widgets.pages.pages import StepPage
from napari_mosaik.workflow.step import Step

if TYPE_CHECKING:
    from napari_mosaik.widgets.align.panel import AlignPanel
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["DetailPage", "make_page"]


class DetailPage(StepPage):
    """A page of steps with its own panel."""

    def __init__(
        self, title: str, steps: Sequence[Step[Any]], make_panel: Callable[[], QWidget]
    ) -> None:
        super().__init__(title, steps)
        self._make_panel = make_panel
        self.panel: QWidget | None = None

    def make_body(self) -> QWidget:
        """Build the usual body with the panel below it."""
        body = super().make_body()
        self.panel = self._make_panel()
        layout = body.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.insertWidget(layout.indexOf(self.how), self.panel)
        return body


class ManualPage(DetailPage):
    """A page whose panel comes first and replaces the settings while it is in use."""

    def make_body(self) -> QWidget:
        """Build the buttons, the panel and the settings."""
        body = super().make_body()
        layout = body.layout()
        assert isinstance(layout, QVBoxLayout)
        assert self.panel is not None
        first = next(iter(self.sections.values()))
        layout.insertWidget(layout.indexOf(first), self.panel)
        cast("AlignPanel", self.panel).used.connect(self._hide_settings)
        return body

    def _hide_settings(self, used: bool) -> None:
        for section in (*self.sections.values(), self.how):
            section.setVisible(not used)


def make_page(
    title: str, steps: Sequence[Step[Any]], controller: CaseController, canvas: CanvasLink
) -> StepPage:
    """The page of the given steps, with its panel if it has one."""
    panel = next((kind for step in steps if (kind := step_view(step.name).panel)), None)
    if panel is None:
        return StepPage(title, steps)
    if panel is PanelKind.MANUAL_ALIGNMENT:
        return ManualPage(title, steps, lambda: _align(canvas))
    return DetailPage(title, steps, lambda: _PANELS[panel](controller))


def _align(canvas: CanvasLink) -> QWidget:
    from napari_mosaik.widgets.align.panel import AlignPanel

    return AlignPanel(canvas)


def _suv(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.suv_terms import SuvTermsPanel

    return SuvTermsPanel(controller)


def _parameters(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.parameter_panel import ParameterPanel

    return ParameterPanel(controller)


def _clusters(controller: CaseController) -> QWidget:
    from napari_mosaik.widgets.pages.cluster_panel import ClusterPanel

    return ClusterPanel(controller)


_PANELS: dict[PanelKind, Callable[[CaseController], QWidget]] = {
    PanelKind.SUV_TERMS: _suv,
    PanelKind.CORRELATIONS: _parameters,
    PanelKind.CLUSTERS: _clusters,
}
