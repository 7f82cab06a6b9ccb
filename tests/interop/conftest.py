"""A capture to convert checkpoints with, and tensors that several tests read."""

import numpy as np
import pytest

from ernerf_ti.audio.ready_made import save_windows
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from tests.interop.making import random_tensors


@pytest.fixture(scope="session")
def capture_folder(tmp_path_factory):
    """Twelve frames of a synthetic person, with DeepSpeech features as well."""
    folder = tmp_path_factory.mktemp("official") / "capture"
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder)
    save_windows(folder, "deepspeech", np.random.default_rng(0).standard_normal((12, 16, 29)))
    return folder


@pytest.fixture(scope="session")
def tensors():
    """Tensors of head and torso."""
    return random_tensors(5)


@pytest.fixture(scope="session")
def head_tensors():
    return random_tensors(6, torso=False)
