"""Fixtures of all tests: the device and a fixed seed.

`--device cuda` runs the tests that take the fixture `device`, on the first GPU. The others compute on the CPU, where
Taichi can't start in the same process any more, and are left out.
"""

import os
import signal
import sys

# Tests that compare bits need a fixed number of torch's threads (see ernerf_ti.process.threads), which also spin while
# they wait, and would take the cores from other workers. Taichi's sleep, and stay several, so that races show.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic algorithms need, see below

import tempfile
import types
from importlib import metadata
from pathlib import Path

import pytest
import torch

from ernerf_ti.process.device import use_deterministic_algorithms

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where the kernels run")
    parser.addoption("--fuzz", type=int, default=1, help="how many times as many damaged files are read")


_LONG_FILES = ("test_cuda_codegen.py", "test_notebooks.py", "test_stages.py", "test_demo.py", "test_package.py")


def pytest_configure(config):
    # xdist would begin with the files that have most tests. The long ones have few; one worker would end with them.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.name not in _LONG_FILES)
    if config.getoption("--device") == "cpu":
        return
    taking, others = [], []
    for item in items:
        (taking if _takes_device(item) else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = taking


def _takes_device(item) -> bool:
    """Whether a test uses the fixture, directly or through others; a parameter of that name is not the fixture."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return "device" in getattr(item, "fixturenames", ()) and "device" not in parameters


def pytest_report_collectionfinish(config, items):
    device = config.getoption("--device")
    return None if device == "cpu" else f"--device {device}: only the {len(items)} tests that take a device"


@pytest.fixture
def no_packaged_files(monkeypatch):
    """No package with weights is installed."""

    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    stand_in = types.SimpleNamespace(distribution=distribution, PackageNotFoundError=metadata.PackageNotFoundError)
    monkeypatch.setattr("ernerf_ti.media.packaged.metadata", stand_in)


LAUNCHED = pytest.StashKey[bool]()
"""Whether something imported Taichi while the tests were collected, as the first launch of a kernel does."""


def pytest_collection_finish(session):
    session.config.stash[LAUNCHED] = "taichi" in sys.modules


@pytest.fixture(scope="session")
def device(request) -> torch.device:
    # Taichi runs on one device per process, so that this is an option rather than a parameter.
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        pytest.exit("--device cuda: expected a GPU that torch can use, got none; run the tests without it", 4)
    return torch.device("cuda", 0)


@pytest.fixture
def deterministic_on_cuda(device):
    """Without it the order of atomic sums is not fixed on CUDA. Adam makes whole steps of the noise in a gradient that
    is nearly 0, so that no two trainings stay close to each other."""
    if device.type == "cuda":
        use_deterministic_algorithms()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def screen_to_itself():
    """One window at a time: workers share the display, and the mouse goes to the window that is on top."""
    if fcntl is None:
        yield
        return
    with (Path(tempfile.gettempdir()) / "ernerf-ti-tests-screen.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True, scope="session")
def own_configuration(tmp_path_factory):
    """Whatever is signed makes its key in a folder of the tests, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for name in ("ERNERF_TI_SIGN_KEY", "ERNERF_TI_SIGN_CERTIFICATE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(20230717)


@pytest.fixture(autouse=True, scope="session")
def full_precision():
    """Torch on CUDA rounds the inputs of convolutions to 10 bits by default; the twins must not."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture
def ctrl_c_raises():
    """Python's own handler of SIGINT, which a process in the background of a shell does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
