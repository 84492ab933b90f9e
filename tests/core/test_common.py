"""The small helpers of core: windows, angles, progress, recent values, atomic files."""

import threading

import numpy as np
import pytest
import shapely

from napari_mosaik.core import progress
from napari_mosaik.core.angles import angle_difference_deg
from napari_mosaik.core.atomic import atomic_file, atomic_folder
from napari_mosaik.core.corrections import Correction, describe_correction
from napari_mosaik.core.errors import Cancelled
from napari_mosaik.core.progress import (
    TimeLeft,
    cancellable,
    checkpoint,
    map_progress,
    of_this_item,
    part_of_item,
    reach_of_item,
    repeated,
    run_to_end,
    side_by_side,
    subprogress,
)
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.core.window import overlap_slices, paste


@pytest.mark.parametrize("at", [(-3, -2), (0, 0), (2, 3), (4, 4), (9, 0), (-9, -9)])
def test_paste_copies_what_overlaps_and_nothing_else(at):
    whole = np.zeros((30, 30), int)
    patch = np.arange(1, 26).reshape(5, 5)
    whole[10 + at[0] : 15 + at[0], 10 + at[1] : 15 + at[1]] = patch
    target = np.zeros((6, 7), int)
    paste(target, (10, 10), patch, (10 + at[0], 10 + at[1]))
    assert np.array_equal(target, whole[10:16, 10:17])


def test_windows_that_only_touch_do_not_overlap():
    assert overlap_slices((0, 0, 4, 4), (4, 0, 8, 4)) is None
    assert overlap_slices((0, 0, 4, 4), (3, 2, 8, 4)) == (
        (slice(3, 4), slice(2, 4)),
        (slice(0, 1), slice(0, 2)),
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(10, 350, 20), (350, 10, -20), (180, 0, -180), (5, 5, 0)]
)
def test_the_difference_of_two_angles_is_wrapped(first, second, expected):
    assert angle_difference_deg(first, second) == expected


def test_a_part_reports_its_share_and_is_closed_with_the_whole():
    closed = []

    def part():
        try:
            yield 0.0
            yield 1.0
        finally:
            closed.append(True)
        return "part"

    def whole():
        return (yield from subprogress(part(), 0.5, 0.75))

    seen = []
    assert run_to_end(whole(), seen.append) == "part"
    assert seen == [0.5, 0.75]
    assert list(subprogress(part(), 0.064, 0.864)) == [0.064, 0.864]  # to the last digit
    closed.clear()

    def stop(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run_to_end(map_progress(part(), str), stop)
    assert closed == [True]


def test_the_least_recently_used_values_go_first():
    recent = RecentValues(10, len)
    recent.put("a", "xxxx")
    recent.put("b", "xxxx")
    assert recent.get("a") == "xxxx"
    recent.put("c", "xxxx")
    assert recent.known("b") == []
    assert recent.size == 8
    recent.put("d", "x" * 50)
    assert recent.values() == ["x" * 50]
    assert recent.get_or_make("d", str) == "x" * 50
    recent.drop(lambda key: key == "d")
    assert recent.size == 0


def _file_then_fail(target):
    with atomic_file(target) as scratch:
        scratch.write_text("half")
        raise ZeroDivisionError


def _folder_then_fail(target):
    with atomic_folder(target) as scratch:
        (scratch / "file").write_text("half")
        raise ZeroDivisionError


def test_a_file_or_folder_is_whole_or_absent(tmp_path):
    target, folder = tmp_path / "deep" / "file", tmp_path / "folder"
    with pytest.raises(ZeroDivisionError):
        _file_then_fail(target)
    assert list(target.parent.iterdir()) == []
    with atomic_file(target) as scratch:
        scratch.write_text("whole")
    assert target.read_text() == "whole"
    with pytest.raises(ZeroDivisionError):
        _folder_then_fail(folder)
    with atomic_folder(folder) as scratch:
        (scratch / "file").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "folder"]


@pytest.mark.parametrize(
    ("rows", "size"),
    [(7.5, "225 µm²"), (33.32, "1000 µm²"), (41.13, "1230 µm²"), (400, "0.012 mm²")],
)
def test_the_size_of_a_corrected_area_has_no_exponent(rows, size):
    words = describe_correction(Correction("add", area_wkt=shapely.box(0, 0, 30, rows).wkt))
    assert words.startswith(f"added, {size} at ")


def test_the_time_left_follows_the_pace_since_what_was_found_finished(monkeypatch):
    now = [50.0]
    monkeypatch.setattr("napari_mosaik.core.progress.time.monotonic", lambda: now[0])
    left = TimeLeft()
    now[0] += 10.0
    assert left.seconds() is None  # nothing is done yet
    left.reach(0.2)
    assert left.seconds() == pytest.approx(40.0)
    left.reach(0.6, found=True)
    assert left.seconds() is None
    now[0] += 10.0
    left.reach(0.7)
    assert left.seconds() == pytest.approx(30.0)
    left.reach(0.7 - 1e-15)  # a sum of shares that was rounded is no new beginning
    assert left.seconds() == pytest.approx(30.0)
    left.reach(0.1)  # another part begins
    assert left.seconds() is None
    left.reach(1.0)
    assert left.seconds() is None


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([(0.05, 0.01), (0.89, 0.92), (0.06, 0.07)], id="nuclei of a large slide"),
        pytest.param([(0.05, 0.06), (0.89, 0.90), (0.06, 0.04)], id="nuclei of a tenth of it"),
        pytest.param([(0.06, 0.05), (0.31, 0.28), (0.50, 0.55), (0.13, 0.12)], id="tissue"),
        pytest.param([(0.08, 0.09), (0.04, 0.04), (0.53, 0.53), (0.35, 0.34)], id="vessels"),
        pytest.param([(0.02, 0.05), (0.93, 0.90), (0.05, 0.05)], id="a slow start"),
        pytest.param([(0.20, 0.04), (0.60, 0.81), (0.20, 0.15)], id="a start of a large share"),
    ],
)
def test_the_time_left_is_known_to_a_third_where_shares_are_not_those_of_the_time(
    monkeypatch, parts
):
    """Parts with their share, and with the share of 200 s that they take."""
    now = [0.0]
    monkeypatch.setattr("napari_mosaik.core.progress.time.monotonic", lambda: now[0])
    left, off, share, begun = TimeLeft(), {}, 0.0, 0.0
    for number, (gains, takes) in enumerate(parts):
        for tick in range(round(200 * takes)):
            now[0] = 200 * begun + tick
            # Sums of the shares differ in their last digits from where the part before ended.
            left.reach(share + gains * tick / (200 * takes) - 1e-15, part=f"part {number}")
            seconds = left.seconds()
            if seconds is not None:
                off[round(now[0])] = seconds / (200 - now[0]) - 1
        share, begun = share + gains, begun + takes
    assert [abs(off[at]) <= 0.3 for at in (20, 50, 100)] == [True] * 3, off


@pytest.mark.parametrize("factor", [2.0, 0.5, 4.0])
@pytest.mark.parametrize("at", [0.2, 0.5])
def test_the_time_left_follows_a_machine_that_becomes_slower_or_faster(monkeypatch, factor, at):
    """One part of 200 s, of which the rest takes *factor* times as long from a moment on."""
    now = [0.0]
    monkeypatch.setattr("napari_mosaik.core.progress.time.monotonic", lambda: now[0])
    left, off = TimeLeft(), {}
    for share in np.arange(0.0, 1.0, 0.005):
        now[0] = 200 * (min(share, at) + factor * max(0.0, share - at))
        left.reach(float(share), part="finding")
        seconds = left.seconds()
        if seconds is not None:
            rest = 200 * (factor * (1 - max(share, at)) + max(0.0, at - share))
            off[round(float(share), 3)] = seconds / rest - 1
    late = {share: one for share, one in off.items() if at + 0.2 <= share}
    assert max(map(abs, late.values())) <= 0.3, late


def test_the_time_left_runs_on_between_shares_that_come_in_large_steps(monkeypatch):
    """A tenth every 20 s; a work that falls silent is not expected to end by itself."""
    now = [0.0]
    monkeypatch.setattr("napari_mosaik.core.progress.time.monotonic", lambda: now[0])
    left = TimeLeft()
    for step in range(1, 8):
        for tick in range(20):
            now[0] = 20.0 * (step - 1) + tick
            seconds = left.seconds()
            if step > 2:
                assert seconds == pytest.approx(200 - now[0], rel=0.01)
        now[0] = 20.0 * step
        left.reach(step / 10)
    now[0] += 2000.0
    seconds = left.seconds()
    assert seconds is not None
    assert seconds > 200


def test_a_report_is_repeated_while_a_computation_is_silent():
    goes_on, ended = threading.Event(), []

    def work():
        try:
            yield 0.1
            assert goes_on.wait(60)
            yield 0.7
        finally:
            ended.append(threading.current_thread().name)
        return "result"

    seen = []

    def report(share):
        seen.append(share)
        if len(seen) == 3:
            goes_on.set()

    assert run_to_end(repeated(work(), every_s=0.0), report) == "result"
    assert seen[:3] == [0.1, 0.1, 0.1]
    assert seen[-1] == 0.7
    assert ended[0].startswith("mosaik-step")


def test_a_repeated_computation_fails_and_closes_as_it_would_itself():
    def failing():
        yield 0.5
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_to_end(repeated(failing()))
    silent, ends = threading.Event(), []

    def endless():
        try:
            yield 0.5
            silent.set()
            while True:
                checkpoint()
        except Cancelled:
            ends.append("checkpoint")
            raise

    work = repeated(endless(), every_s=0.0)
    assert [next(work), next(work)] == [0.5, 0.5]
    assert silent.wait(60)
    work.close()
    assert ends == ["checkpoint"]
    waiting = endless()
    work = repeated(waiting)
    next(work)
    work.close()  # between two reports: closed as it is
    assert waiting.gi_frame is None
    assert ends == ["checkpoint"]


def test_pieces_side_by_side_give_their_results_in_order(monkeypatch):
    monkeypatch.setattr(progress, "_n_cores", lambda: 2)
    first_waits = threading.Event()

    def work(number):
        if number == 0:
            assert first_waits.wait(60)
        else:
            first_waits.set()
        return number * number

    told = []
    assert run_to_end(side_by_side(work, range(7)), told.append) == [0, 1, 4, 9, 16, 25, 36]
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert run_to_end(side_by_side(work, [])) == []


def test_pieces_side_by_side_tell_that_they_still_run():
    ended = threading.Event()
    work = side_by_side(lambda _: ended.wait(60), [0], tell_s=0.0)
    assert next(work) == 0.0
    ended.set()
    assert run_to_end(work) == [True]


@pytest.mark.parametrize("how", ["closed", "cancelled", "failed"])
def test_pieces_side_by_side_stop_at_their_next_checkpoint(how):
    started, stop, ends = threading.Event(), threading.Event(), []

    def work(number):
        started.set()
        if how == "failed" and number == 1:
            raise ZeroDivisionError
        try:
            while True:
                checkpoint()
        except Cancelled:
            ends.append(number)
            raise

    generator = side_by_side(work, [1, 0] if how == "failed" else [0, 1, 2], tell_s=0.0)
    with cancellable(stop.is_set):
        if how == "closed":
            next(generator)
            assert started.wait(60)
            generator.close()
        else:
            error = ZeroDivisionError if how == "failed" else Cancelled
            with pytest.raises(error):
                run_to_end(generator, lambda _: how == "cancelled" and stop.set())
    assert set(ends) <= {0, 1, 2}
    assert not [one for one in threading.enumerate() if one.name.startswith("mosaik-part")]


def test_a_part_of_an_item_tells_its_share_of_the_item():
    told = []
    with of_this_item(told.append):
        with part_of_item(0.2, 0.6):
            reach_of_item(0.5)
            with part_of_item(0.5, 1.0):
                reach_of_item(0.5)
        reach_of_item(0.7)
    assert told == pytest.approx([0.4, 0.5, 0.7])
    with part_of_item(0.2, 0.6):  # nobody listens
        reach_of_item(1.0)
    assert len(told) == 3
