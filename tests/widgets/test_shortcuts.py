"""The table of shortcuts: no clash with napari or within the program, bound, shown as help."""

from collections import defaultdict

import pytest

pytestmark = pytest.mark.gui

NAVIGATION = {"Left", "Right", "Up", "Down"}


def rows_by_key(scope):
    from napari_mosaik.widgets.canvas.keys import SHORTCUTS

    rows = defaultdict(list)
    for row in SHORTCUTS:
        if row.scope == scope:
            rows[row.key].append(row)
    return rows


def keys_of_napari():
    """Actions of napari by key, in the spelling of the table's comparison."""
    from napari.utils.shortcuts import default_shortcuts

    actions = defaultdict(set)
    for action, keys in default_shortcuts.items():
        for key in keys:
            actions[normalised(key)].add(action)
    return actions


def normalised(key):
    from napari.utils.key_bindings import coerce_keybinding

    return str(coerce_keybinding(key))


LAYER_ACTIONS = (
    "labels", "points", "shapes", "image", "vectors", "tracks", "surface", "label", "brush",
    "polygon", "slice", "select_all", "add_", "vertex", "direct", "select_mode", "shape",
    "contrast", "plane",
)  # fmt: skip


def test_no_key_has_two_meanings():
    from napari_mosaik.widgets.canvas.keys import CANVAS, SCOPES, SHORTCUTS

    assert {row.scope for row in SHORTCUTS} == set(SCOPES)
    for scope in SCOPES:
        for key, rows in rows_by_key(scope).items():
            assert len(rows) == 1, f"{scope}: {key} is {[row.action for row in rows]}"
    everywhere = rows_by_key(CANVAS)
    for scope in SCOPES.keys() - {CANVAS, "qa", "inspector"}:
        for key, (row,) in rows_by_key(scope).items():
            shadowed = f"{CANVAS}.{everywhere[key][0].action}" if key in everywhere else ""
            assert shadowed in ("", row.shadows), f"{scope}.{row.action} hides {shadowed}"
            assert not rows_by_key("tool").get(key) or scope == "tool", f"{key} is for panning"


def test_no_key_of_napari_is_taken_unawares():
    from napari_mosaik.widgets.canvas.keys import CANVAS, SHORTCUTS

    napari = keys_of_napari()
    for row in SHORTCUTS:
        if row.scope in ("qa", "inspector"):
            continue  # keys of a panel, not of the canvas
        known = napari.get(normalised(row.key), set())
        of_viewer = {a for a in known if not any(word in a for word in LAYER_ACTIONS)}
        if row.scope == CANVAS:  # bound at any time: also while a layer is selected
            assert not known or row.on_layers, f"{row.key} is napari's {known}"
        assert not of_viewer or row.shadows in of_viewer, f"{row.key} is napari's {of_viewer}"
        if row.shadows.startswith("napari:"):
            assert row.shadows in known, f"{row.key} hides nothing: {row.shadows}"


def test_keys_are_hidden_by_a_tool_and_come_back(dock):
    from napari_mosaik.widgets.canvas.keys import CANVAS

    keys, pressed = dock.canvas.keys, []
    press = dock.viewer.window._qt_viewer.canvas._key_map_handler.press_key
    keys.release(CANVAS, {"quad view": None})
    keys.bind(CANVAS, {"quad view": lambda: pressed.append("canvas")})
    keys.bind("annotation", {"class 4": lambda: pressed.append("class")})
    press("4")
    keys.release("annotation")
    press("4")
    assert pressed == ["class", "canvas"]
    with pytest.raises(KeyError, match="not in the table"):
        keys.bind(CANVAS, {"no such action": print})


def test_a_dock_that_goes_gives_the_mouse_back_to_napari(dock):
    viewer = dock.viewer
    drags, clicks = list(viewer.mouse_drag_callbacks), list(viewer.mouse_double_click_callbacks)
    dock.view_tools.ruler.take("length")
    assert viewer.mouse_double_click_callbacks != clicks
    dock.close()
    assert dock.canvas.active_tool is None
    assert viewer.scene.camera.mouse_pan
    dock.close()
    assert not set(map(id, viewer.mouse_drag_callbacks)) - set(map(id, drags))
    assert viewer.mouse_double_click_callbacks == clicks


def test_help_shows_every_key(dock, qtbot):
    from napari_mosaik.widgets.canvas.keys import SHORTCUTS, show_shortcuts

    texts = [action.text() for action in dock.viewer.window.help_menu.actions()]
    assert "Keyboard shortcuts (MOSAIK)…" in texts
    dialog = show_shortcuts(dock)
    shown = []
    for i in range(dialog.tree.topLevelItemCount()):
        group = dialog.tree.topLevelItem(i)
        shown += [group.child(j).text(1) for j in range(group.childCount())]
    assert shown == [row.text for row in sorted(SHORTCUTS, key=lambda r: order(r.scope))]
    dialog.close()


def order(scope):
    from napari_mosaik.widgets.canvas.keys import SCOPES

    return list(SCOPES).index(scope)
