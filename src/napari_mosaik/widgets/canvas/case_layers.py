"""The slides and results of the open case as layers on the canvas, kept up to date."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import ALIGNMENT, REFERENCE, SLIDES, STAIN_TITLES
from napari_mosaik.core.palette import UPTAKE_COLORMAP
from napari_mosaik.view.case_results import CaseResults, transform_to_reference
from napari_mosaik.view.display_settings import StainVectors
from napari_mosaik.view.layers import slide_layer
from napari_mosaik.view.presentation import (
    SECTIONS,
    choices_of,
    display_stains,
    layers_by_hand,
    section_of,
    shows_classes,
    shows_measured,
    shows_pet,
    specs_for,
    specs_of,
    step_view,
)
from napari_mosaik.view.spec import LayerSpec, Legend
from napari_mosaik.view.tile_loader import PieceReaders
from napari_mosaik.view.worth import change_layers
from napari_mosaik.widgets.base.case_controller import CaseController
from napari_mosaik.widgets.base.gc_tuning import (
    Turns,
    add_hidden,
    collect_new,
    fast_removal,
    freeze_window,
    in_one_update,
    prepare_letters,
    quicken,
    warm_up,
    without_drawing,
)
from napari_mosaik.widgets.base.worker import Problem
from napari_mosaik.widgets.canvas.lazy_labels import LazyObjects, attend_labels, dress_codes
from napari_mosaik.widgets.canvas.lazy_slide import LazyPieces, LazySlide, attend, is_closing
from napari_mosaik.widgets.canvas.list_rows import (
    any_dismissed,
    dismiss,
    make_room,
    remove_dismissed,
    unlisted,
)
from napari_mosaik.workflow.parallel import give_back_memory
from napari_mosaik.workflow.steps import STEPS

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

    from napari_mosaik.core import Transform
    from napari_mosaik.io.case import Case

__all__ = ["CaseLayers"]

STAIN_ORDER = (REFERENCE, *(stain for stain in reversed(STAIN_TITLES) if stain != REFERENCE))
"""Slides from bottom to top; H&E is visible at first."""

_CALM_MS = 400
"""The window prepares what it needs soon when nothing was read for so long."""

_GIVE_BACK_MS = 1000
"""What making a layer has left goes back so soon after the first one: 8 to 40 MiB each."""
_WAITS = 100
"""So many turns of the event loop, some ms each, a new case waits for reads of the one before."""
_FIRST = 3
"""So often the window is frozen at most until the first case."""


class CaseLayers(QObject):
    """The layers of the open case, by name.

    ``changed`` is emitted after layers were added, replaced or removed, ``scaled`` after the
    reader changed a colour scale.
    """

    changed = Signal()
    scaled = Signal()

    def __init__(self, viewer: napari.Viewer, controller: CaseController) -> None:
        super().__init__(controller)
        freeze_window(viewer)
        quicken(viewer)
        self.viewer = viewer
        self.controller = controller
        self.specs: dict[str, LayerSpec] = {}
        self.spaces: dict[str, str] = {}
        self.choices: dict[str, tuple[str, ...]] = {}
        self._limits: dict[str, tuple[float, float]] = {}
        self._scales: dict[str, tuple[float, float]] = {}
        self._chosen: dict[str, tuple[str, set[str]]] = {}
        self._by_hand: set[str] = set()
        self._by_hand_asked = 0
        self._coming: dict[str, bool] = {}  # layers that are being made, and whether to show them
        self._changes: set[str] = set()
        self._hidden: dict[str, LayerSpec] = {}  # what shows the measured uptake, while blind
        self._hidden_shown: set[str] = set()
        self.slides: dict[str, LazySlide] = {}
        self._objects: dict[str, LazyObjects] = {}  # by layer
        self._readers = PieceReaders()
        self._layers: dict[str, Layer] = {}
        self._slide_names = frozenset(STAIN_TITLES.values())
        self._slide_specs: dict[str, LayerSpec] = {}
        self._holding, self._held = False, list[tuple[str, LazySlide]]()
        self._turns = Turns(self)
        self._fitted: tuple[float, ...] = ()
        self._left_one = False
        self._waits = 0
        self._changed_soon = QTimer(self)
        self._changed_soon.setSingleShot(True)
        self._changed_soon.timeout.connect(self.changed)
        self._look_soon = QTimer(self)
        self._look_soon.setSingleShot(True)
        self._look_soon.timeout.connect(self._tell_measured)
        viewer.layers.events.removed.connect(self._layer_removed)
        viewer.canvas.events.size.connect(self._fit_again)
        self._case: Case | None = None
        self._prepare_soon = QTimer(self)
        self._prepare_soon.setSingleShot(True)
        self._prepare_soon.timeout.connect(self._prepare)
        self._prepare_soon.start(_CALM_MS)
        self._give_back_soon = QTimer(self)
        self._give_back_soon.setSingleShot(True)
        self._give_back_soon.timeout.connect(_give_back)
        controller.workspace.events.case.connect(self._case_changed)
        controller.workspace.events.reader.connect(self.show_by_hand)
        controller.workspace.events.blind.connect(self._blinded)
        controller.workspace.events.withheld.connect(self._blinded)
        controller.committed.connect(self.bring)
        controller.page_done.connect(self.show_steps)
        controller.updated.connect(self.offer_changes)
        controller.leaving = self._is_leaving
        controller.case_left.connect(self._between_cases)

    def _prepare(self) -> None:
        """Load and compile what the window needs soon, once nothing is read any more.

        A case that is being opened comes first: both at once take twice as long.
        """
        if self.controller.is_reading:
            self._prepare_soon.start(_CALM_MS)
            return
        warm_up()
        prepare_letters(self.viewer, self)

    # --- asking ---------------------------------------------------------------------------------
    def layer(self, name: str) -> Layer | None:
        """The layer of that name, None without one or if the user deleted it."""
        found = self._layers.get(name)
        return found if found is not None and found in self.viewer.layers else None

    def slide_layer(self, stain: str) -> Layer | None:
        """The layer of a slide ("he", "cd34", "caix"), None when it is not shown."""
        return self.layer(STAIN_TITLES[stain])

    def overlays(self) -> dict[str, Layer]:
        """All layers except the slides, by name."""
        return {n: layer for n, layer in self.present().items() if n not in self._slide_names}

    def present(self) -> dict[str, Layer]:
        """All layers of the case that are on the canvas."""
        return {name: layer for name, layer in self._layers.items() if layer in self.viewer.layers}

    def names(self) -> dict[str, list[str]]:
        """Everything that can be shown, by section: the slide first, then its overlays."""
        names: dict[str, list[str]] = {title: [] for title in SECTIONS}
        for title in self._slide_specs:
            names[title].append(title)
        for name, spec in self.specs.items():
            if name not in self._slide_names:
                names[section_of(spec)].append(name)
        return {title: found for title, found in names.items() if found}

    def legend(self, name: str) -> Legend | None:
        """The meaning of the colours of a layer."""
        return self.specs[name].legend if name in self.specs else None

    def limits(self, spec: LayerSpec) -> tuple[float, float] | None:
        """The limits of the colour scale of a map: the reader's, else those of its values."""
        scale = _scale_of(spec)
        return self._limits.get(scale) or self._scales.get(scale)

    @property
    def uptake_limits(self) -> tuple[float, float] | None:
        """The limits of all maps of the uptake; None before there is any."""
        return self._limits.get(UPTAKE_COLORMAP) or self._scales.get(UPTAKE_COLORMAP)

    def is_rescaled(self, name: str) -> bool:
        """Whether the reader changed the colour scale of a map."""
        return _scale_of(self.specs[name]) in self._limits

    def set_limits(self, name: str, limits: tuple[float, float] | None) -> None:
        """Change the colour scale of a map; None restores it.

        All maps of the uptake share one, on every layout.
        """
        scale = _scale_of(self.specs[name])
        if limits is None:
            self._limits.pop(scale, None)
        else:
            self._limits[scale] = limits
        self._rescale()

    def stale_reason(self, name: str) -> str:
        """Why a layer shows an old result; empty if it is up to date."""
        spec, states = self.specs.get(name), self.controller.workspace.states
        result = spec.result if spec is not None else ""
        makers = [s for s in STEPS if any(one.name == result for one in s.writes)]
        found = [states[s.name] for s in makers if s.name in states]
        return next((state.reason for state in found if state.word == "stale"), "")

    def set_shown(self, name: str, shown: bool) -> None:
        """Show or hide a layer; one that was never shown is made in turns of the event loop."""
        layer = self.layer(name)
        if name in self._coming:
            self._coming[name] = shown
        elif layer is not None:
            layer.visible = shown
        elif shown and name in self.specs:
            self._coming[name] = True
            self._turns.add(self._comes(name))
            self._turns.soon(self.changed.emit)
        elif shown and name in self._slide_specs:
            self._put_slide(name).visible = True
            self._realign()
            self.changed.emit()

    def _comes(self, name: str) -> Iterator[None]:
        """Make a layer, add it, and show it unless it is wanted no longer."""
        try:
            spec = self.specs[name]
            layer = self._make(spec)
            yield
            if self.specs.get(name) is spec and self.layer(name) is None:
                self._insert(layer, spec)
            elif name in self.specs:  # a step has run meanwhile
                self.put(self.specs[name])
            yield
            known = self.layer(name)
            if name in self.specs and known is not None:
                with in_one_update(self.viewer):
                    known.visible = self._coming[name]
                self.viewer.layers.selection.active = known
        finally:
            self._coming.pop(name, None)

    def _layer_removed(self, event: Any) -> None:
        """A layer that the user deletes keeps its row in *Overlays*, which brings it back."""
        if any(event.value is layer for layer in self._layers.values()):
            self._changed_soon.start()

    # --- case -----------------------------------------------------------------------------------
    def _case_changed(self, case: Case | None, *_: Any) -> None:
        if case is self._case:
            self._add_missing_slides()
            return
        self._leave()
        self._case = case
        if case is None:
            return
        self._add_missing_slides()
        everything = [step.name for step in STEPS]
        self.controller.read_for(case, "Layers", partial(_found, case, everything, {}), self._first)

    def _is_leaving(self) -> bool:
        """Whether layers of a case that was left are still being removed, or its slides read.

        A read that takes long is not waited for.
        """
        if self._turns.is_busy and any_dismissed(self.viewer):
            return True
        self._waits -= 1
        return self._waits > 0 and is_closing()

    def _between_cases(self) -> None:
        """Collect what is left of a case, and keep the many objects of the window out of that."""
        if self._left_one:
            collect_new()
        else:
            freeze_window(self.viewer, _FIRST)
        self._left_one = True

    def _add_missing_slides(self) -> None:
        case = self._case
        if case is None:
            return
        for stain in STAIN_ORDER:
            if stain not in self.slides and not case.missing_reason(SLIDES[stain]):
                work = partial(_prepare, case, stain)
                self.controller.read(
                    f"{STAIN_TITLES[stain]} slide", work, partial(self._add_slide, case, stain)
                )

    def _add_slide(self, case: Case, stain: str, answer: _Prepared) -> None:
        slide, transform, stains = answer
        if case is not self._case or stain in self.slides:
            slide.close()
            return
        lazy = LazySlide(slide, self._readers, stains)
        self.slides[stain] = lazy
        spec = slide_layer(
            STAIN_TITLES[stain],
            lazy.levels(),
            lazy.lattices[0],
            transform,
            visible=stain == "he" or "he" not in case.file.slides,
        )
        self._slide_specs[STAIN_TITLES[stain]] = spec
        self._turns.add(self._slide_comes(stain, lazy))

    def _slide_comes(self, stain: str, lazy: LazySlide) -> Iterator[None]:
        """Show a slide, in turns of the event loop."""
        layer: Layer | None = None
        if self.slides.get(stain) is lazy and not self._holding:
            layer = self._make(self._slide_specs[STAIN_TITLES[stain]])
            yield
        if self.slides.get(stain) is not lazy:
            return
        if self._holding:
            self._held.append((stain, lazy))
            return
        self._put_slide(STAIN_TITLES[stain], layer)
        yield
        attend(lazy, self.viewer, closing=False)
        self._tell_damage(lazy, f"{STAIN_TITLES[stain]} slide", "the canvas stays blurred there")
        if sum(self.slide_layer(one) is not None for one in self.slides) == 1:
            self._fit()
        elif layer is not None and layer.visible:
            self._fit_again()
        yield
        self.changed.emit()

    def _fit(self) -> None:
        """Fit all layers into the view."""
        self.viewer.reset_view()
        self._fitted = self._seen_from()

    def _fit_again(self, *_: object) -> None:
        """Fit them once more after a change, unless somebody moved the view since the last time."""
        if self._fitted and self._fitted == self._seen_from():
            self._fit()
        else:
            self._fitted = ()

    def _seen_from(self) -> tuple[float, ...]:
        camera = self.viewer.scene.camera
        return (float(camera.zoom), *map(float, camera.center))

    def hold_slides(self, hold: bool) -> None:
        """Let slides that come wait while maps are side by side: they would cover the first one."""
        self._holding = hold
        if not hold:
            held, self._held = self._held, []
            for stain, lazy in held:
                self._turns.add(self._slide_comes(stain, lazy))

    def _put_slide(self, title: str, layer: Layer | None = None) -> Layer:
        """Add the layer of a slide below all overlays, at its place among the slides."""
        spec = self._slide_specs[title]
        order = [STAIN_TITLES[stain] for stain in STAIN_ORDER]
        below = sum(self.layer(one) is not None for one in order[: order.index(title)])
        return self._add(spec, layer, below)

    def _tell_damage(self, lazy: LazyPieces, about: str, so: str) -> None:
        """Show once what cannot be read, and so is not shown as it is."""
        tell = weakref.WeakMethod(self._damaged)

        def damaged(sentence: str) -> None:  # Qt holds what is connected as long as the slide
            if (there := tell()) is not None:
                there(about, sentence, so)

        lazy.damaged.connect(damaged)

    def _damaged(self, about: str, sentence: str, so: str) -> None:
        self.controller.workspace.problem = Problem(about, f"{sentence}; {so}", sentence)

    def _first(self, found: _Found) -> None:
        """Offer all finished results; a layer is created when it is first shown (0.2 s each)."""
        _give_back()  # of the case before
        self.choices = found[1]
        self._offer(found[0])
        self.changed.emit()
        self.show_by_hand()
        self.offer_changes()

    def offer_changes(self) -> None:
        """Offer maps of what the last update has changed; those of the one before go."""
        case = self._case
        if case is None:
            return

        def then(specs: list[LayerSpec]) -> None:
            self._take_away(self._changes - {spec.name for spec in specs})
            self._changes = {spec.name for spec in specs}
            self._offer(specs)
            for spec in specs:
                if self.layer(spec.name) is not None:
                    self.put(spec)
            self.changed.emit()

        self.controller.read_for(case, "Layers", partial(change_layers, case), then)

    def show_by_hand(self, *_: Any) -> None:
        """Show the corrections, and the annotations of the reader, as they are now.

        What was hidden stays hidden.
        """
        case = self._case
        if case is None:
            return
        self._by_hand_asked = asked = self._by_hand_asked + 1

        def then(specs: list[LayerSpec]) -> None:
            if asked != self._by_hand_asked:
                return  # what was asked for later is newer, whichever is read first
            names = {spec.name for spec in specs}
            self._take_away(self._by_hand - names)
            known, self._by_hand = self._by_hand, self._by_hand & names
            for spec in specs:
                self.specs[spec.name] = spec
            if names or known:
                self._turns.add(self._put_by_hand(asked, specs))

        work = partial(layers_by_hand, case, self.controller.workspace.reader)
        self.controller.read_for(case, "Layers", work, then)

    def _put_by_hand(self, asked: int, specs: list[LayerSpec]) -> Iterator[None]:
        """Show what was drawn by hand, each layer in a turn, unless newer ones were asked for.

        These layers come by themselves: they take no selection.
        """
        for spec in specs:
            if asked != self._by_hand_asked:
                return
            if spec.name not in self._by_hand or self.layer(spec.name) is not None:
                selection = self.viewer.layers.selection
                chosen = selection.active
                self.put(spec)
                self._by_hand.add(spec.name)
                if chosen is not None and chosen in self.viewer.layers:
                    selection.active = chosen
                yield
        self.changed.emit()

    def _offer(self, specs: Iterable[LayerSpec]) -> None:
        """Know what can be shown; the last maps of the uptake set the scale of all."""
        before = dict(self._scales)
        for spec in self._visible(specs):
            self.specs[spec.name] = spec
            if spec.legend is not None and spec.legend.limits is not None:
                self._scales[_scale_of(spec)] = spec.legend.limits
        self._rescale(tell=self._scales != before)

    def _visible(self, specs: Iterable[LayerSpec]) -> list[LayerSpec]:
        """What may be shown; what is hidden from the reader is kept for later."""
        space = self.controller.workspace
        kept = [
            spec
            for spec in specs
            if (space.blind and shows_measured(spec)) or (space.withheld and shows_classes(spec))
        ]
        self._hidden.update({spec.name: spec for spec in kept})
        return [spec for spec in specs if spec not in kept]

    def _blinded(self, *_: Any) -> None:
        """Take all layers away that are hidden from the reader now, and bring others back."""
        hidden, self._hidden = self._hidden, {}
        self._offer(hidden.values())  # what is still hidden is kept again
        back = hidden.keys() - self._hidden.keys()
        for name in self._hidden_shown & back:
            self.put(hidden[name], visible=True)
        names = {spec.name for spec in self._visible(list(self.specs.values()))}
        gone = self.specs.keys() - names
        shown = {name for name, layer in self.present().items() if name in gone and layer.visible}
        self._hidden_shown = (self._hidden_shown - back) | shown
        self._take_away(gone)
        self.changed.emit()

    def _rescale(self, *, tell: bool = True) -> None:
        for name, layer in self.present().items():
            spec = self.specs.get(name)
            limits = self.limits(spec) if spec is not None else None
            if limits is not None and tuple(layer.contrast_limits) != tuple(limits):
                layer.contrast_limits = limits
        if tell:
            self.scaled.emit()

    def _choices(self) -> dict[str, str]:
        return {step: choice for step, (choice, _) in self._chosen.items()}

    def clear(self) -> None:
        """Remove all layers of the case, also those of the layouts, and close its slides."""
        self._leave()
        self.dismiss(unlisted(self.viewer))
        for _ in remove_dismissed(self.viewer):
            pass

    def dismiss(self, layers: Iterable[Layer]) -> None:
        """Hide layers now, and remove them in turns of the event loop."""
        dismiss(self.viewer, layers)
        self._turns.add(remove_dismissed(self.viewer))

    def _leave(self) -> None:
        """Hide the layers of the case, remove them in turns, and close its slides."""
        self._turns.stop()
        self._waits = _WAITS
        self.dismiss(self.present().values())
        self.close()
        for known in (
            self.specs, self._layers, self._limits, self._scales, self._chosen, self._hidden,
            self._coming,
        ):  # fmt: skip
            known.clear()
        self._slide_specs.clear()
        self._by_hand.clear()
        self._changes.clear()
        self.choices = {}
        self._case = None
        self.changed.emit()

    def close(self) -> None:
        """Close the slides, and the labels of objects; those that come later are not shown."""
        self._case = None
        for slide in self.slides.values():
            slide.close()
        for objects in self._objects.values():
            objects.close()
        self.slides.clear()
        self._objects.clear()

    # --- results --------------------------------------------------------------------------------
    def bring(self, step: str) -> None:
        """Update the layers of a step; new ones are offered, not shown."""
        case = self._case
        if case is None:
            return

        def then(found: _Found) -> None:
            self.choices = found[1]
            view = step_view(step)
            if view.choice_title:
                self._drop_former(step, {spec.name for spec in found[0]})
            self._offer(found[0])
            for spec in found[0]:
                if self.layer(spec.name) is not None:
                    self.put(spec)
            if view.aligns:
                self._realign()
            if view.stains is not None and view.base_slide in self.slides:
                work = partial(display_stains, case, view.base_slide)
                self.controller.read("Stains", work, self.slides[view.base_slide].set_stains)
            self.changed.emit()

        self.controller.read_for(
            case, "Layers", partial(_found, case, (step,), self._choices()), then
        )

    def show_steps(self, steps: Iterable[str], *, alone: bool = True) -> None:
        """Show the layers of some steps, on their base slide."""
        case, names = self._case, tuple(steps)
        if case is None:
            return

        def then(found: _Found) -> None:
            self.choices = found[1]
            specs = self._visible(found[0])
            if found[0] and not specs:
                why = "the measured uptake is hidden until the review queue is finished"
                if any(map(shows_classes, found[0])):
                    why = self.controller.workspace.withheld or why
                self.controller.report(InputError(why))
            self._show(specs, names, alone)

        self.controller.read_for(
            case, "Layers", partial(_found, case, names, self._choices()), then
        )

    def _show(self, specs: list[LayerSpec], steps: tuple[str, ...], alone: bool) -> None:
        views = [step_view(name) for name in steps]
        bases = [view.base_slide for view in views if view.base_slide]
        with in_one_update(self.viewer):
            if alone and specs:
                for layer in self.overlays().values():
                    layer.visible = False
            if alone and bases:
                self.show_slide(bases[-1])
        shown = [number == 0 or not _covers(spec) for number, spec in enumerate(specs)]
        self._turns.add(self._put_in_turns(specs, shown))
        if any(view.aligns for view in views):
            self._realign()

    def _put_in_turns(self, specs: list[LayerSpec], shown: list[bool]) -> Iterator[None]:
        """Show some layers, each in a turn; others are offered, and made when they are shown."""
        for spec, visible in zip(specs, shown, strict=True):
            if not self._visible([spec]):  # hidden from the reader meanwhile
                continue
            if visible and self.layer(spec.name) is None:
                self._offer([spec])
                self._coming[spec.name] = True
                yield from self._comes(spec.name)
                yield
            elif self.layer(spec.name) is not None:
                with in_one_update(self.viewer):
                    self.put(spec, visible=visible)
                yield
            else:
                self._offer([spec])
        self.changed.emit()

    def show_choice(self, step: str, choice: str, only: str = "") -> None:
        """Show the results of a step for another parameter; *only* the layer of that name."""
        case = self._case
        if case is None:
            return

        def then(specs: list[LayerSpec]) -> None:
            specs = self._visible(specs)
            names = {spec.name for spec in specs}
            self._take_away(self._former(step) - names)
            self._chosen[step] = choice, names
            shown = [
                spec.name == only if only else number == 0 or not _covers(spec)
                for number, spec in enumerate(specs)
            ]
            self._turns.add(self._put_in_turns(specs, shown))

        self.controller.read_for(case, "Layers", partial(specs_of, case, step, choice), then)

    def choose(self, step: str, choice: str) -> None:
        """Choose what is shown of a step from now on; its layers that are present follow."""
        if self._chosen.get(step, ("",))[0] == choice:
            return
        former = self._former(step)
        self._chosen[step] = choice, former
        shown = [name for name in former if (layer := self.layer(name)) and layer.visible]
        if shown:
            self.show_choice(step, choice)

    def hide_results(self, step: str) -> None:
        """Hide the layers of a step, which are no longer current; they stay in the list."""
        written = {artifact.name for artifact in step_view(step).step.writes}
        for name, layer in self.present().items():
            spec = self.specs.get(name)
            if spec is not None and spec.result in written and layer.visible:
                layer.visible = False

    def _drop_former(self, step: str, names: set[str]) -> None:
        """Remove layers of a choice that there is no longer; *names* are those that there are."""
        self._take_away(self._former(step) - names)
        if step in self._chosen:
            self._chosen[step] = self._chosen[step][0], names

    def _former(self, step: str) -> set[str]:
        """Names of the layers that another choice of a step replaces."""
        if step in self._chosen:
            return self._chosen[step][1]
        written = {artifact.name for artifact in step_view(step).step.writes}
        return {name for name, spec in self.specs.items() if spec.result in written}

    def take_away(self, name: str) -> None:
        """Remove a layer that was put here for a time, and forget it."""
        if name in self.specs:
            self._take_away([name])
            self.changed.emit()

    def _take_away(self, names: Iterable[str]) -> None:
        """Remove what another choice replaces."""
        with fast_removal(self.viewer):
            for name in names:
                layer = self.layer(name)
                if layer is not None:
                    self.viewer.layers.remove(layer)
                self.specs.pop(name, None)
                self._layers.pop(name, None)
        self._look_again()

    def _look_again(self, *_: Any) -> None:
        self._look_soon.start(0)

    def _tell_measured(self) -> None:
        """Tell the window which measured uptake is on the canvas: it may steer corrections."""
        shown = [
            spec
            for name, layer in self.present().items()
            if layer.visible and (spec := self.specs.get(name)) is not None and shows_measured(spec)
        ]
        self.controller.show_beside(any(shows_pet(spec) for spec in shown))
        for spec in shown:
            if not shows_pet(spec):
                self.controller.saw_measured(f"the map '{spec.name}'")

    def show_slide(self, stain: str) -> None:
        """Show one slide and hide the others."""
        for other, title in STAIN_TITLES.items():
            layer = self.layer(title)
            if layer is not None:
                layer.visible = other == stain

    def put(self, spec: LayerSpec, *, visible: bool | None = None) -> Layer:
        """Add a layer, or replace the data of the one of that name and keep its appearance."""
        layer = self.layer(spec.name)
        if layer is None:
            layer = self._add(spec if visible is None else replace(spec, visible=visible))
        else:
            _refill(layer, self._with_pieces(spec))
        self._offer([spec])
        if visible is not None and layer.visible != visible:
            layer.visible = visible
        return layer

    def _add(self, spec: LayerSpec, layer: Layer | None = None, place: int | None = None) -> Layer:
        """Add a layer; napari looks at its data for the first time when all is set."""
        layer = self._make(spec) if layer is None else layer
        with in_one_update(self.viewer) if spec.visible else nullcontext():
            self._insert(layer, spec, place)
            if spec.visible:
                layer.visible = True
                self.viewer.layers.selection.active = layer
        return layer

    def _make(self, spec: LayerSpec) -> Layer:
        """Make a layer, hidden, that is not on the canvas yet."""
        from napari.layers import Layer as Base

        layer = Base.create(*replace(self._with_pieces(spec), visible=False).as_layer_data())
        self._dress(layer, spec)
        return layer

    def _insert(self, layer: Layer, spec: LayerSpec, place: int | None = None) -> None:
        """Add a layer that was made, hidden, at a place of the list or above all others."""
        if shows_measured(spec):
            layer.events.visible.connect(self._look_again)
        make_room(self.viewer, layer.name)
        add_hidden(self.viewer, layer, len(self.viewer.layers) if place is None else place)
        self._layers[spec.name] = layer
        self.spaces[spec.name] = spec.space
        if not self._give_back_soon.isActive():
            self._give_back_soon.start(_GIVE_BACK_MS)

    def _with_pieces(self, spec: LayerSpec) -> LayerSpec:
        """The same layer, its labels read piece by piece where there may be millions."""
        former = self._objects.pop(spec.name, None)
        if former is not None:
            former.close()
        if spec.objects is None:
            return spec
        lazy = self._objects[spec.name] = LazyObjects(spec.objects, self._readers)
        attend_labels(lazy, self.viewer)
        self._tell_damage(lazy, spec.name, "its layer is incomplete there; run its step again")
        return replace(spec, data=lazy.levels())

    def _dress(self, layer: Layer, spec: LayerSpec) -> None:
        if spec.coded:  # first: to set "contour" may draw the layer
            dress_codes(layer)
        for name, value in spec.attributes.items():
            setattr(layer, name, value)
        if spec.kind == "labels":
            layer.editable = False
            without_drawing(layer)

    def _realign(self) -> None:
        """Move slides and results onto the reference section after a registration."""
        case = self._case
        if case is None:
            return

        def then(matrices: dict[str, Any]) -> None:
            for name, layer in self.present().items():
                space = self.spaces.get(name, "")
                if space in matrices:
                    layer.affine = matrices[space]

        self.controller.read_for(case, "Registration", partial(_matrices, case), then)


def _give_back() -> None:
    threading.Thread(target=give_back_memory, daemon=True).start()


_Found = tuple[list[LayerSpec], dict[str, tuple[str, ...]]]
"""Layers, and the parameters that can be chosen by step."""


def _found(case: Case, steps: Iterable[str], choices: Mapping[str, str]) -> _Found:
    return specs_for(case, steps, choices), choices_of(case)


def _matrices(case: Case) -> dict[str, Any]:
    """Homogeneous matrices to the reference (3, 3), µm, by aligned section or PET."""
    results = CaseResults(case)
    transforms = {space: results.transform(space) for space in ALIGNMENT}
    return {space: np.array(t.matrix) for space, t in transforms.items() if t is not None}


def _refill(layer: Layer, spec: LayerSpec) -> None:
    """Replace the data and the position of a layer."""
    layer.data = spec.data if not spec.multiscale else list(spec.data)
    for name in ("scale", "translate", "affine"):
        setattr(layer, name, spec.place[name])
    if "edge_color" in spec.style:
        layer.edge_color = spec.style["edge_color"]
    layer.refresh()


def _scale_of(spec: LayerSpec) -> str:
    """The colour scale of a map: one for all of the uptake, else its own."""
    scale = spec.legend.colormap if spec.legend is not None else ""
    return scale if scale == UPTAKE_COLORMAP else spec.name


def _covers(spec: LayerSpec) -> bool:
    """Whether a layer hides those below it."""
    return spec.kind == "image"


_Prepared = tuple[Any, "Transform | None", StainVectors]
"""An open slide, its transform to the reference, and its stain vectors."""


def _prepare(case: Case, stain: str) -> _Prepared:
    return case.slide(stain), transform_to_reference(case, stain), display_stains(case, stain)
