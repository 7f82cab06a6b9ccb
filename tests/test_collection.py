"""What collecting the tests does, and which of them `--device cuda` keeps."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import LAUNCHED

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = """
import pytest

@pytest.fixture
def indirect(device):
    return device

def test_direct(device): ...
def test_indirect(indirect): ...
def test_on_the_cpu(): ...
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_names_devices(device): ...
"""


def collected(path: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    return subprocess.run([*command, *options, str(path)], cwd=ROOT, capture_output=True, text=True)


def test_collecting_launches_no_kernel(pytestconfig):
    assert not pytestconfig.stash[LAUNCHED]


def test_only_tests_that_take_a_device_run_on_cuda(tmp_path):
    path = tmp_path / "test_example.py"
    path.write_text(EXAMPLE)
    on_cuda = collected(path, "--collect-only", "--device", "cuda")
    assert on_cuda.returncode == 0, on_cuda.stdout
    assert "test_direct" in on_cuda.stdout and "test_indirect" in on_cuda.stdout
    assert "test_on_the_cpu" not in on_cuda.stdout and "test_names_devices" not in on_cuda.stdout
    assert "--device cuda: only the 2 tests that take a device" in on_cuda.stdout
    assert "2/5 tests collected (3 deselected)" in on_cuda.stdout
    everywhere = collected(path, "--collect-only")
    assert "test_on_the_cpu" in everywhere.stdout and "deselected" not in everywhere.stdout
