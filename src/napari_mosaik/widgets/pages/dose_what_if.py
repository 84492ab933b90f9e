"""Page Dose what-if: the plans of the case, each typed, checked while it is typed, and kept.

Every change of the stored plans can be undone: what the folder held before is kept until the
window closes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QMenu, QMessageBox, QWidget

from napari_mosaik.core import InputError
from napari_mosaik.widgets.base.controls import (
    button,
    calm_wheel,
    column,
    row,
    shrinkable,
    wrapped_label,
)
from napari_mosaik.widgets.pages.dose_results import DoseResultsView
from napari_mosaik.widgets.pages.plan_editor import (
    PlanEditor,
    PlanText,
    text_of,
    unsaved,
)
from napari_mosaik.workflow.dose import NOT_A_PLAN
from napari_mosaik.workflow.plan_presets import PRESETS
from napari_mosaik.workflow.plan_record import Plan
from napari_mosaik.workflow.plans import (
    PLANS_KEPT,
    free_plan_name,
    plan_files,
    read_plan,
    read_plans,
    remove_plan,
    rename_plan,
    restore_plans,
    write_plan,
)

if TYPE_CHECKING:
    from napari_mosaik.widgets.base.worker import Problem
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["DosePanel"]

_TITLE = "Plans of the case"
_NEW = "Plan 1"


@dataclass(slots=True, eq=False)
class _Draft:
    """A plan as it is stored, if it is, and as it is typed."""

    stored: Plan | None
    text: PlanText

    @property
    def name(self) -> str:
        return self.text.name if self.stored is None else self.stored.name

    @property
    def is_unsaved(self) -> bool:
        return unsaved(self.text, self.stored)


@dataclass(slots=True, eq=False)
class _Undo:
    """What was done, in words, and what there was before: files of the plans, or a draft."""

    words: str
    files: Mapping[str, bytes] | None = None
    draft: _Draft | None = None


@dataclass(slots=True, eq=False)
class _Kept:
    """What the window keeps of the plans of one case."""

    drafts: list[_Draft]
    undo: list[_Undo]
    at: int = 0


class DosePanel(QWidget):
    """Chooses, edits and keeps up to four plans.

    ``changed`` is emitted whenever the answer of `why_not` may be another one.
    """

    changed = Signal()

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._link, self._controller = link, link.board.controller
        controller = self._controller
        self._cases: dict[Path, _Kept] = {}
        self._root: Path | None = None
        self._busy = False
        self._failure = ""
        self.limits = wrapped_label(NOT_A_PLAN, small=True)
        self.choice = shrinkable(QComboBox())
        self.choice.setToolTip(f"Up to {PLANS_KEPT} plans are kept and compared; •: not saved")
        self.new = button("New", lambda: None)
        self.new.setMenu(self._menu())
        self.copy = button("Copy", self._copy, "A new plan with the same rows and settings")
        self.remove = button("Delete", self._remove)
        self.undo = button("Undo", self._take_back)
        self.empty = wrapped_label(
            "No plan yet: choose New for an empty one or a published regimen."
        )
        self.editor = PlanEditor()
        self.save = button("Save plan", self.save_plan)
        self.discard = button("Discard changes", self._discard, "Back to the plan as it is stored")
        self.message = wrapped_label()
        self.results = DoseResultsView(link)
        self.setLayout(
            column(
                self.limits,
                row(self.choice),
                row(self.new, self.copy, self.remove, self.undo, 1),
                self.empty,
                self.editor,
                row(self.save, self.discard, 1),
                self.message,
                self.results,
                spacing=5,
            )
        )
        calm_wheel(self)
        self.choice.activated.connect(self._choose)
        self.editor.changed.connect(self._edited)
        events = controller.workspace.events
        events.case.connect(self._case_changed)
        events.job.connect(self._show)
        self.results.changed.connect(self._remark_variation)
        self._case_changed()

    def _menu(self) -> QMenu:
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.addAction("Empty plan").triggered.connect(lambda _=False: self.add(PlanText(_NEW)))
        for preset in PRESETS.values():
            action = menu.addAction(preset.title)
            action.setToolTip(preset.about)
            action.triggered.connect(lambda _=False, plan=preset.plan: self.add(text_of(plan)))
        return menu

    # --- the plans of the case ------------------------------------------------------------------
    @property
    def _kept(self) -> _Kept:
        root = self._root or Path()
        return self._cases.setdefault(root, _Kept([], []))

    @property
    def draft(self) -> _Draft | None:
        """The chosen plan; None without one."""
        kept = self._kept
        return kept.drafts[kept.at] if 0 <= kept.at < len(kept.drafts) else None

    @property
    def plans(self) -> dict[str, Plan]:
        """The stored plans by name."""
        stored = (one.stored for one in self._kept.drafts)
        return {one.name: one for one in stored if one is not None}

    def _case_changed(self, *_: object) -> None:
        case = self._controller.workspace.case
        root = None if case is None else case.root
        if root != self._root:
            self._root, self._busy, self._failure = root, False, ""
            self.message.setText("")
            self._show_draft()
        self.read()

    def read(self) -> None:
        """Read the stored plans: another program may have changed them."""
        if self._root is not None and not self._busy:
            self._work(partial(_read, self._root), self._arrived)

    def read_again(self) -> None:
        """Read the stored plans, and the status of the case if another program changed them."""
        if self._root is not None and not self._busy:
            self._work(partial(_read, self._root), self._compare)

    def _compare(self, plans: Mapping[str, Plan]) -> None:
        changed = dict(plans) != self.plans
        self._arrived(plans)
        if changed:
            self._controller.refresh()

    def _work(self, work: Callable[[], object], then: Callable[..., None]) -> None:
        """Work on files in the background; editing waits meanwhile."""
        case = self._controller.workspace.case
        assert case is not None
        self._busy = True
        self._show()
        root = self._root

        def done(found: object) -> None:
            if root == self._root:
                self._busy, self._failure = False, ""
                then(found)

        def failed(problem: Problem) -> None:
            if root == self._root:
                self._busy, self._failure = False, problem.sentence
                self._show()

        task = self._controller.read_for(case, _TITLE, work, done)
        task.failed.connect(failed)

    def _arrived(self, plans: Mapping[str, Plan], select: str = "", saved: object = None) -> None:
        """Take over the stored plans; what is typed and not saved stays."""
        kept, before = self._kept, self.draft
        known = {one.stored.name: one for one in kept.drafts if one.stored and one is not saved}
        drafts = []
        for name, plan in plans.items():
            one = known.get(name)
            typed = one is not None and one.is_unsaved
            drafts.append(_Draft(plan, one.text if typed and one is not None else text_of(plan)))
        new = [one for one in kept.drafts if one.stored is None and one is not saved]
        kept.drafts = [*drafts, *new]
        wanted = select or ("" if before is None else before.name)
        names = [one.name for one in kept.drafts]
        kept.at = names.index(wanted) if wanted in names else max(0, min(kept.at, len(names) - 1))
        self._show_draft()

    # --- choosing and editing -------------------------------------------------------------------
    def _choose(self, place: int) -> None:
        self._kept.at = place
        self.message.setText("")
        self._show_draft()

    def _edited(self) -> None:
        draft = self.draft
        if draft is not None:
            draft.text = self.editor.text()
        self._show()

    def add(self, text: PlanText) -> None:
        """Begin a new plan, not stored yet, under a name that is free."""
        kept = self._kept
        if self._root is None or len(kept.drafts) >= PLANS_KEPT:
            return
        name = free_plan_name(text.name, [one.name for one in kept.drafts])
        kept.drafts.append(_Draft(None, PlanText(name, text.rows, text.values)))
        self._choose(len(kept.drafts) - 1)

    def _copy(self) -> None:
        draft = self.draft
        if draft is not None:
            text = draft.text
            self.add(PlanText(f"{text.name} copy", text.rows, text.values))

    def _discard(self) -> None:
        draft = self.draft
        if draft is not None and draft.stored is not None:
            before = _Draft(draft.stored, draft.text)
            self._kept.undo.append(_Undo(f"changes of '{draft.name}' discarded", draft=before))
            draft.text = text_of(draft.stored)
            self._show_draft()
            self.read()

    # --- keeping --------------------------------------------------------------------------------
    def save_plan(
        self,
        saved: Callable[[], object] = lambda: None,
        same: Callable[[], object] = lambda: None,
    ) -> None:
        """Store what is typed, also under another name, and call *saved* before the status of the
        steps is read again; *same* at once where nothing was changed.
        """
        draft, plan, root = self.draft, self.editor.plan, self._root
        if draft is None or plan is None or root is None or self._busy:
            return
        if not draft.is_unsaved:
            same()
            return

        def stored(found: tuple[Mapping[str, bytes], Mapping[str, Plan]]) -> None:
            words = f"'{plan.name}' saved"
            if draft.stored is not None and draft.stored.name != plan.name:
                words = f"'{draft.stored.name}' saved as '{plan.name}'"
            saved()
            self._changed(words, found, plan.name, draft)

        self._work(partial(_save, root, draft.stored, plan), stored)

    def _changed(
        self,
        words: str,
        found: tuple[Mapping[str, bytes], Mapping[str, Plan]],
        select: str = "",
        saved: object = None,
    ) -> None:
        self._kept.undo.append(_Undo(words, files=found[0]))
        self.message.setText(f"{words}. Undo takes it back.")
        self._arrived(found[1], select, saved)
        self._controller.refresh()

    def confirm_removal(self, name: str) -> bool:
        """Ask before a plan is deleted."""
        answer = QMessageBox.question(
            self,
            "Delete plan",
            f"Delete the plan '{name}' of this case? Its results are no longer shown. "
            "Undo brings the plan back until the window closes.",
            QMessageBox.StandardButton.Ok | QMessageBox.StandardButton.Cancel,
            QMessageBox.StandardButton.Cancel,
        )
        return bool(answer == QMessageBox.StandardButton.Ok)

    def _remove(self) -> None:
        draft, root = self.draft, self._root
        if draft is None or root is None or self._busy or not self.confirm_removal(draft.name):
            return
        words = f"'{draft.name}' deleted"
        if draft.stored is None:
            self._kept.drafts.remove(draft)
            self._kept.undo.append(_Undo(words, draft=draft))
            self._choose(max(0, self._kept.at - 1))
            self.message.setText(f"{words}. Undo takes it back.")
            return
        self._work(
            partial(_changed_by, root, partial(remove_plan, root, draft.stored.name)),
            lambda found: self._changed(words, found, saved=draft),
        )

    def _take_back(self) -> None:
        """Undo what was done last."""
        kept, root = self._kept, self._root
        if not kept.undo or root is None or self._busy:
            return
        last = kept.undo.pop()
        if last.draft is not None:
            self._put_back(last.draft)
            self.message.setText(f"Undone: {last.words}.")
            return

        def restored(plans: Mapping[str, Plan]) -> None:
            self.message.setText(f"Undone: {last.words}.")
            before = set(self.plans)
            self._arrived(plans, next((name for name in plans if name not in before), ""))
            self._controller.refresh()

        assert last.files is not None
        self._work(partial(_restore, root, last.files), restored)

    def _put_back(self, before: _Draft) -> None:
        kept = self._kept
        stored = before.stored
        same = [o for o in kept.drafts if stored and o.stored and o.stored.name == stored.name]
        if same:
            same[0].text = before.text
        elif stored is None and len(kept.drafts) < PLANS_KEPT:
            kept.drafts.append(before)
        kept.at = kept.drafts.index(same[0]) if same else len(kept.drafts) - 1
        self._show_draft()

    # --- showing --------------------------------------------------------------------------------
    def why_not(self) -> str:
        """Why the plans cannot be computed now; empty if they can."""
        draft = self.draft
        if draft is None:
            return "There is no plan yet"
        if self._busy:
            return "The plans are being read"
        if self.editor.plan is None:
            return self.editor.sentence
        names = [one.name for one in self._kept.drafts if one is not draft and one.is_unsaved]
        return f"Save or discard the changes of '{names[0]}' first" if names else ""

    def _show_draft(self) -> None:
        draft = self.draft
        if draft is not None:
            self.editor.show_text(draft.text, draft.stored)
        self._show()

    def _show(self, *_: object) -> None:
        kept, draft, opened = self._kept, self.draft, self._root is not None
        idle = opened and not self._busy and self._controller.workspace.job is None
        with QSignalBlocker(self.choice):
            self.choice.clear()
            for one in kept.drafts:
                self.choice.addItem(f"{one.name} •" if one.is_unsaved else one.name)
            self.choice.setCurrentIndex(kept.at if draft is not None else -1)
        full = len(kept.drafts) >= PLANS_KEPT
        why = f"At most {PLANS_KEPT} plans are kept; delete one first" if full else ""
        for push, tip in ((self.new, ""), (self.copy, "The same rows and settings again")):
            push.setEnabled(idle and not full and (push is self.new or draft is not None))
            push.setToolTip(why or tip)
        self.remove.setEnabled(idle and draft is not None)
        self.undo.setEnabled(idle and bool(kept.undo))
        self.undo.setToolTip(f"Undo: {kept.undo[-1].words}" if kept.undo else "Nothing to undo")
        self.choice.setVisible(bool(kept.drafts))
        self.empty.setVisible(opened and not kept.drafts and not self._busy and not self._failure)
        self.editor.setVisible(draft is not None)
        self.editor.setEnabled(not self._busy)
        changed = draft is not None and draft.is_unsaved
        self.save.setVisible(draft is not None)
        self.discard.setVisible(draft is not None)
        self.save.setEnabled(idle and changed and self.editor.plan is not None)
        self.save.setToolTip(self.editor.sentence or "Store it in the case; Undo takes it back")
        self.discard.setEnabled(idle and changed and draft is not None and draft.stored is not None)
        if self._failure:
            self.message.setText(f"⚠ {self._failure}")
        self.message.setVisible(bool(self.message.text()))
        stored = "" if draft is None or draft.stored is None else draft.stored.name
        self.results.show_plan(stored or ("" if draft is None else draft.name), unsaved=changed)
        self._remark_variation()
        self.changed.emit()

    def _remark_variation(self) -> None:
        """Say below the slider what a variation within the tiles does to EUD and TCP."""
        draft, found = self.draft, self.results.plan_dose
        words = "More cells survive a non-uniform dose: EUD and TCP fall. "
        field = self.editor.fields["within_cv"]
        if draft is None or draft.stored is None or found is None:
            field.remark(f"{words}Run to see by how much.")
            return
        typed = draft.text.values.get("within_cv", 0.0)
        same = {**draft.text.values, "within_cv": draft.stored.within_cv}
        if unsaved(PlanText(draft.text.name, draft.text.rows, same), draft.stored):
            field.remark(f"{words}Save and run to see by how much after your changes.")
        else:
            field.remark(found.unseen_line(typed) or words)


Changed = tuple[Mapping[str, bytes], Mapping[str, Plan]]


def _read(root: Path) -> Mapping[str, Plan]:
    return read_plans(root)


def _changed_by(root: Path, act: Callable[[], object]) -> Changed:
    """The files before something was done, and the plans after it."""
    before = plan_files(root)
    act()
    return before, read_plans(root)


def _save(root: Path, stored: Plan | None, plan: Plan) -> Changed:
    """Write a plan; one that another program changed since it was read is not replaced."""
    before = plan_files(root)
    if stored is not None and read_plans(root).get(stored.name) != stored:
        raise InputError(
            f"the plan '{stored.name}' was changed by another program meanwhile; copy your "
            "changes, then choose Discard changes to see it"
        )
    try:
        if stored is not None and stored.name != plan.name:
            rename_plan(root, stored.name, plan.name)
            moved = read_plan(root, plan.name)
            same = [n for n, file in plan.files.items() if stored.files.get(n) == file]
            plan = plan.model_copy(update={name: moved.files[name] for name in same})
        write_plan(root, plan, replace=stored is not None)
    except InputError:
        restore_plans(root, before)
        raise
    return before, read_plans(root)


def _restore(root: Path, files: Mapping[str, bytes]) -> Mapping[str, Plan]:
    restore_plans(root, files)
    return read_plans(root)
