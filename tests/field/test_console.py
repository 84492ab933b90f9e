"""The command line on consoles, disks and displays that refuse something."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.cli.interrupt import END_S
from napari_mosaik.core.errors import MosaikError
from napari_mosaik.io.files import saving
from napari_mosaik.segment.model_files import save_weights

COMMAND = [sys.executable, "-m", "napari_mosaik"]


def ended(*arguments, **environment):
    """What a command does in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
    )


def call(capsys, *arguments):
    """Exit code and standard error of a command in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0, capsys.readouterr().err


@pytest.fixture(autouse=True)
def interruptible():
    """A suite that runs in the background of a shell ignores Ctrl-C; these tests need it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("encoding", ["cp932", "cp1252", "ascii", "cp437", "utf-8"])
def test_a_console_that_lacks_letters_shows_similar_ones(encoding):
    end = ended("profiles", "--help", PYTHONIOENCODING=encoding)
    assert end.returncode == 0, end.stderr
    end = ended("kinetics", "--times-h", "24", PYTHONIOENCODING=encoding)
    assert end.returncode == 0, end.stderr
    assert b"?" not in end.stdout


def test_similar_letters_are_those_that_a_reader_expects():
    from napari_mosaik.cli.app import _similar_letters

    text = "µm · 2 × 3 – é² → ✓ ⚠ 李"
    shown = ""
    for letter in text:
        try:
            shown += letter.encode("ascii").decode()
        except UnicodeEncodeError as error:
            shown += _similar_letters(error)[0]
    assert shown == "um - 2 x 3 - e2 -> ok ! ?"


def test_json_has_no_numbers_that_json_does_not_know(capsys):
    from napari_mosaik.cli.show import print_json

    print_json({"a": float("nan"), "b": [float("inf"), -float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, None, 1.5]}


def test_without_a_terminal_long_work_tells_its_share_and_the_time_left(capfd, monkeypatch):
    from napari_mosaik.cli import show
    from napari_mosaik.core.artifact import Progress

    now = [1000.0]
    monkeypatch.setattr(show.time, "monotonic", lambda: now[0])
    with show.Bar() as bar:
        for second in range(100):
            now[0] = 1000.0 + second
            bar.show("B11 · Nuclei", Progress(second / 400, 1, "finding nuclei"))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "B11 · Nuclei"
    assert lines[1] == "  finding nuclei: 2%, about 6 min left"
    assert lines[9] == "  finding nuclei: 22%, about 5 min left"
    assert len(lines) == 10
    monkeypatch.setattr(show.Bar, "EVERY_S", 0.0)
    with show.Bar() as bar:
        bar.show("B11 · Nuclei", Progress(0, 1, "B11 · Nuclei"))
        for fraction in (0.0, 0.5, 0.001, 1.0):
            now[0] += 60.0
            bar.show("B11 · Nuclei", Progress(fraction, 1, ""))
        now[0] += 60.0
        bar.show("B11 · Nuclei", Progress(0.8, 1, "", found=True))
        now[0] += 60.0
        bar.show("B11 · Nuclei", Progress(0.9, 1, ""))
    rest = [line.strip() for line in capfd.readouterr().err.splitlines()[2:]]
    assert rest == ["0%", "50%, about 60 s left", "0%", "80%", "90%, about 60 s left"]


def test_work_that_tells_nothing_is_told_as_well(monkeypatch):
    from napari_mosaik.cli import interrupt, show
    from napari_mosaik.core.artifact import Progress

    told, lines = threading.Event(), []

    def written(text, **_):
        lines.append(text)
        if len(lines) == 3:
            told.set()

    monkeypatch.setattr(interrupt, "_TICK_S", 0.01)
    monkeypatch.setattr(show.Bar, "EVERY_S", 0.0)
    monkeypatch.setattr(show.Bar, "DELAY_S", 0.0)
    with show.Bar() as bar:
        monkeypatch.setattr(bar._console, "print", written)
        bar.show("B11 · Nuclei", Progress(0.25, 1, "finding nuclei"))
        assert told.wait(30)
    assert lines[0] == "B11 · Nuclei"
    assert set(lines[1:]) == {"  finding nuclei: 25%"}


IN_COMPILED_CODE = """
import hashlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from napari_mosaik.cli import app, main
from napari_mosaik.cli.show import Bar

def run_command(arguments):
    with Bar():
        print("computing", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes, without an eye on signals

app.run_command = run_command
main([])
"""


def test_an_interrupt_of_compiled_code_is_told_at_once_and_ends_it():
    process = subprocess.Popen(
        [sys.executable, "-c", IN_COMPILED_CODE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "computing\n"
        process.send_signal(signal.SIGINT)
        line = process.stderr.readline()
        assert process.poll() is None  # told before the end
        assert (process.wait(30), process.stderr.read()) == (130, "")
    finally:
        process.kill()
        process.communicate()
    assert line.startswith("napari-mosaik: interrupted; nothing unfinished was stored")
    # The other half of the second is for a busy machine, which takes a large process apart slowly.
    assert END_S <= 0.5


def test_an_interrupt_while_work_is_shown_is_one_line(capsys, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("napari_mosaik.cli.show.Bar.show", interrupt)
    code, error = call(capsys, "sample", tmp_path / "cohort", "--size", "tiny", "--case", "A2")
    assert (code, error.count("\n")) == (130, 1)


def test_json_is_lossless_on_every_console(tmp_path):
    arguments = ("kinetics", "--times-h", "24", "--json")
    plain = ended(*arguments, PYTHONIOENCODING="utf-8").stdout.decode("utf-8")
    for encoding in ("cp932", "cp1252"):
        other = ended(*arguments, PYTHONIOENCODING=encoding).stdout.decode(encoding)
        assert json.loads(other) == json.loads(plain)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the disk is read-only"),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, monkeypatch, tmp_path, number, words):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), str(tmp_path / "file.tif"))

    monkeypatch.setattr("napari_mosaik.phantom.sample", refuse)
    code, error = call(capsys, "sample", tmp_path / "cohort")
    assert (code, error.count("\n")) == (2, 1)
    assert words in error
    monkeypatch.setattr("napari_mosaik.cli.slide._described", refuse)
    code, error = call(capsys, "slide", tmp_path / "file.tif")
    assert (code, error.count("\n")) == (2, 1)
    assert words in error
    assert "file.tif" in error


def test_weights_on_a_full_disk_are_one_line(tmp_path, monkeypatch):
    def refuse(path, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(MosaikError, match="the disk is full"), saving("the model", tmp_path):
        save_weights(tmp_path / "model", {"a": np.zeros(4)}, {}, {})


def test_too_little_memory_is_one_line(capsys, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise MemoryError("Unable to allocate 36.0 GiB")

    monkeypatch.setattr("napari_mosaik.cli.slide._described", refuse)
    code, error = call(capsys, "slide", tmp_path / "file.tif")
    assert (code, error.count("\n")) == (2, 1)
    assert "Unable to allocate 36.0 GiB" in error


def test_a_library_without_room_in_memory_is_one_line(capsys, monkeypatch, tmp_path):
    def refuse(*_, **__):
        try:
            raise OSError("libllvmlite.so: failed to map segment from shared object")
        except OSError:
            raise OSError("Could not find/load shared object file") from None

    monkeypatch.setattr("napari_mosaik.cli.slide._described", refuse)
    code, error = call(capsys, "slide", tmp_path / "file.tif")
    assert (code, error.count("\n")) == (2, 1)
    assert "the memory of this computer is not enough" in error

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr("napari_mosaik.cli.slide._described", broken)
    with pytest.raises(RuntimeError, match="broken"):
        main(["slide", str(tmp_path / "file.tif")])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("slides",), "No such command 'slides'. Did you mean 'slide'?; see: napari-mosaik --help"),
        (("slide",), "Missing argument 'file'; see: napari-mosaik slide --help"),
        (("slide", "x", "--no"), "No such option: --no"),
        (("sample", "x", "--size", "big"), "Invalid value for '--size': 'big' is not one of"),
        (("sample", "x", "--seed", "a"), "Invalid value for '--seed'"),
    ],
)
def test_a_slip_of_the_command_line_is_one_line(capsys, arguments, words):
    code, error = call(capsys, *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith(f"napari-mosaik: {words}")


def test_an_interrupt_during_the_imports_is_one_line(tmp_path):
    """An interpreter that interrupts itself when the command line imports typer."""
    (tmp_path / "typer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\n")
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from napari_mosaik.cli import main; main(['status', '.'])"
    )
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert end.returncode == 130
    assert end.stderr.startswith("napari-mosaik: interrupted; nothing unfinished was stored")
    assert end.stderr.count("\n") == 1


def test_an_interrupt_of_a_command_is_one_line(capsys, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("napari_mosaik.cli.slide._described", interrupt)
    code, error = call(capsys, "slide", tmp_path / "file.tif")
    assert (code, error.count("\n")) == (130, 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays of Linux")
@pytest.mark.parametrize(("display", "words"), [("", "no display"), (":977", "display :977")])
def test_the_window_needs_a_display(tmp_path, display, words):
    pytest.importorskip("napari")
    (tmp_path / "case.toml").write_text('name = "A"\npatient = "p"\n')
    end = ended("view", tmp_path, DISPLAY=display, WAYLAND_DISPLAY="", QT_QPA_PLATFORM="")
    assert end.returncode == 2, end.stderr
    assert words in end.stderr.decode()
    assert end.stderr.count(b"\n") == 1


def test_the_end_of_a_pipe_is_no_error(tmp_path):
    """`napari-mosaik weights | head -0`: the reader is gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        end = subprocess.run([*COMMAND, "weights"], stdout=pipe, stderr=subprocess.PIPE)
    assert (end.returncode, end.stderr) == (0, b"")
