"""An encoder's weights come with consent and the right checksum, and are kept for later."""

import hashlib
import os
from dataclasses import replace

import pytest
from monai.networks.nets import densenet

from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.workflow.model_weights import DENSENET169, PublishedWeights, encoder_weights


@pytest.fixture
def published(tmp_path):
    file = tmp_path / "there" / "encoder.pth"
    file.parent.mkdir()
    file.write_bytes(os.urandom(900_000))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return PublishedWeights("test", file.as_uri(), digest[:8], "terms", "give it with --encoder")


def test_monai_names_this_place():
    source = densenet.__file__
    with open(source, encoding="utf-8") as file:
        assert f'"{DENSENET169.url}"' in file.read()
    assert DENSENET169.url.endswith(f"-{DENSENET169.sha256}.pth")


def test_a_file_is_fetched_once_and_checked_again(published, tmp_path):
    folder = tmp_path / "weights"
    with pytest.raises(InputError, match=r"Nothing was downloaded; agree with --yes.*--encoder"):
        run_to_end(encoder_weights(published, consent=False, folder=folder))
    assert not folder.exists()
    path = run_to_end(encoder_weights(published, consent=True, folder=folder))
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(published.sha256)
    assert run_to_end(encoder_weights(published, consent=False, folder=folder)) == path
    path.write_bytes(b"other")
    with pytest.raises(CorruptArtifact, match="not the published"):
        run_to_end(encoder_weights(published, consent=True, folder=folder))


def test_another_file_is_not_kept(published, tmp_path):
    wrong = replace(published, sha256="0" * 8)
    with pytest.raises(CorruptArtifact, match="nothing was installed"):
        run_to_end(encoder_weights(wrong, consent=True, folder=tmp_path / "weights"))
    assert list((tmp_path / "weights" / "encoders").iterdir()) == []
