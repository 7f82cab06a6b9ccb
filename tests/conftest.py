"""Fixtures of all tests: the device (--device cuda runs everything there) and a fixed seed."""

import os

# Tests that compare bits need a fixed number of torch's threads (see ernerf_ti.process.threads), which also spin while
# they wait, and would take the cores from other workers. Taichi's sleep, and stay several, so that races show.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from pathlib import Path

import pytest
import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where the kernels run")


@pytest.fixture(scope="session")
def device(request) -> torch.device:
    # Taichi runs on one device per process, so that this is an option rather than a parameter.
    device = torch.device(request.config.getoption("--device"))
    return torch.device("cuda", 0) if device.type == "cuda" else device


@pytest.fixture
def screen_to_itself():
    """One window at a time: workers share the display, and the mouse goes to the window that is on top."""
    if fcntl is None:
        yield
        return
    with (Path(tempfile.gettempdir()) / "ernerf-ti-tests-screen.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(20230717)


@pytest.fixture(autouse=True, scope="session")
def full_precision():
    """Torch on CUDA rounds the inputs of convolutions to 10 bits by default; the twins must not."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
