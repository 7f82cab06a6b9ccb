"""A capture to convert checkpoints with, and tensors that several tests read."""

import pytest

from tests.interop.making import random_tensors, write_capture


@pytest.fixture(scope="session")
def capture_folder(tmp_path_factory):
    return write_capture(tmp_path_factory.mktemp("official") / "capture")


@pytest.fixture(scope="session")
def tensors():
    """Tensors of head and torso."""
    return random_tensors(5)


@pytest.fixture(scope="session")
def head_tensors():
    return random_tensors(6, torso=False)
