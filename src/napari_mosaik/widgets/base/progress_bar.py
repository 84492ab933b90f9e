"""Progress bar at the bottom of the dock: running step, progress, time left and Cancel."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtWidgets import QProgressBar, QSizePolicy, QWidget

from napari_mosaik.view.formatting import duration
from napari_mosaik.widgets.base.case_controller import CaseController
from napari_mosaik.widgets.base.controls import button, column, row, wrapped_label
from napari_mosaik.widgets.base.worker import Job, Report

__all__ = ["JobBar"]

_STEPS = 1000


class JobBar(QWidget):
    """Shows the running job; hidden while nothing is running."""

    def __init__(self, controller: CaseController, titles: Mapping[str, str]) -> None:
        super().__init__()
        self._controller = controller
        self._titles = titles
        self.text = wrapped_label(small=True)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self.bar.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.cancel = button(
            "Cancel", controller.cancel, "Stop the job; unfinished steps store nothing"
        )
        self.setLayout(column(self.text, row(self.bar, self.cancel), margin=4, spacing=2))
        controller.workspace.events.job.connect(self._job_changed)
        self._job_changed(controller.workspace.job)

    def _job_changed(self, job: Job | None, *_: object) -> None:
        self.setVisible(job is not None)
        if job is None:
            return
        self.cancel.setText("Cancel")
        self.cancel.setEnabled(True)
        self.text.setText(job.title)
        self.bar.setValue(0)
        job.progressed.connect(self._show)
        job.cancelling.connect(self._acknowledge)

    def _show(self, report: Report) -> None:
        self.bar.setValue(round(_STEPS * report.fraction))
        parts = [self._titles.get(report.part, report.part)]
        if report.text and report.text != parts[0]:
            parts.append(report.text)
        parts.append(f"{100 * report.fraction:.0f} %")
        if report.left_s is not None:
            parts.append(f"{duration(report.left_s)} left")
        job = self._controller.workspace.job
        stopping = job is not None and job.stopping
        self.text.setText("Cancelling…" if stopping else " · ".join(parts))

    def _acknowledge(self) -> None:
        self.cancel.setText("Cancelling…")
        self.cancel.setEnabled(False)
        self.text.setText("Cancelling…")
