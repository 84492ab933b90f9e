"""Weights come from where the stardist package says, are checked, and never without consent."""

import ast
import errno
import functools
import hashlib
import importlib.util
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from napari_mosaik.core.errors import CorruptArtifact, InputError, MosaikError
from napari_mosaik.segment.stardist import embedded_weights
from napari_mosaik.workflow.model_weights import (
    VERSATILE_HE,
    WEIGHTS_VARIABLE,
    PublishedWeights,
    fetch_weights,
    find_weights,
    install_weights,
    installed_weights,
    weights_folder,
)
from tests.segment.test_stardist import write_keras


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that gives up early, as some tests do, is not an error of the server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    path = folder / "python_2D_versatile_he.zip"
    write_keras(folder / "weights_best.h5", "keras-2")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(folder / "weights_best.h5", "2D_versatile_he/weights_best.h5")
        file.writestr("2D_versatile_he/thresholds.json", '{"prob": 0.692478, "nms": 0.3}')
    return path


@pytest.fixture
def published(archive):
    handler = functools.partial(Quiet, directory=str(archive.parent))
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        yield PublishedWeights("test", url, hashlib.sha256(archive.read_bytes()).hexdigest())
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    return tmp_path / "weights"


def run(generator):
    steps = []
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as end:
            return steps, end.value


def test_the_stardist_package_names_this_place_and_checksum():
    found = importlib.util.find_spec("stardist")
    if found is None:
        pytest.skip("the package 'stardist' is not installed")
    package = Path(found.origin).parent
    calls = [
        [ast.literal_eval(argument) for argument in node.args[1:]]
        for node in ast.walk(ast.parse((package / "models" / "__init__.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register_model"
    ]
    assert [VERSATILE_HE.name, VERSATILE_HE.url, VERSATILE_HE.sha256] in calls


def test_weights_are_fetched_with_progress_and_found_by_their_digest(published, home, archive):
    steps, weights = run(fetch_weights(published, consent=True))
    assert steps[0].fraction == 0
    assert steps[-1].done == steps[-1].total == archive.stat().st_size
    assert len(steps) > 3
    assert installed_weights() == (weights.hash,)
    assert find_weights(weights.hash).hash == find_weights(weights.hash[:7]).hash == weights.hash
    assert find_weights(weights.hash).prob_threshold == 0.692478
    with pytest.raises(InputError, match=f"no weights 'x'.*one of: {weights.hash}"):
        find_weights("x")
    assert sorted(path.name for path in home.iterdir()) == [weights.hash]
    run(fetch_weights(published, consent=True))
    assert installed_weights() == (weights.hash,)


def test_nothing_is_fetched_without_consent(home):
    with pytest.raises(InputError, match=r"github.*research only.*--yes"):
        run(fetch_weights(consent=False))
    assert not home.exists()


@pytest.mark.parametrize("change", ["checksum", "address", "server"])
def test_a_wrong_file_and_a_missing_one_leave_nothing(published, home, change):
    wrong = {
        "checksum": replace(published, sha256="0" * 64),
        "address": replace(published, url=published.url + ".gone"),
        "server": replace(published, url="http://127.0.0.1:9/nothing.zip"),
    }[change]
    words = "not the published" if change == "checksum" else "could not be downloaded"
    with pytest.raises(CorruptArtifact if change == "checksum" else MosaikError, match=words):
        run(fetch_weights(wrong, consent=True))
    assert list(home.iterdir()) == []


def test_stopping_leaves_nothing(published, home):
    generator = fetch_weights(published, consent=True)
    next(generator)
    next(generator)
    generator.close()
    assert list(home.iterdir()) == []


def test_weights_from_a_file_without_network(archive, home):
    weights = install_weights(archive)
    assert install_weights(archive.parent / "weights_best.h5").hash != weights.hash
    assert len(installed_weights()) == 2
    with pytest.raises(InputError, match="no weights 'zz'"):
        find_weights("zz")
    place = home / weights.hash
    file = place / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorruptArtifact, match="is damaged"):
        find_weights(weights.hash)


def test_too_little_memory_is_no_damage_of_the_weights(archive, home, monkeypatch):
    weights = install_weights(archive)

    def refuse(_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("safetensors.numpy.load_file", refuse)
    with pytest.raises(MemoryError, match="Cannot allocate memory"):
        find_weights(weights.hash)


def test_without_weights_the_message_says_how_to_get_them(home, monkeypatch):
    with pytest.raises(InputError, match=r"weights --fetch.*weights --file"):
        find_weights("x")
    assert find_weights("") is find_weights(embedded_weights().hash[:9]) is embedded_weights()
    assert weights_folder() == home
    monkeypatch.delenv(WEIGHTS_VARIABLE)
    assert weights_folder() == Path.home() / ".napari-mosaik" / "weights"
