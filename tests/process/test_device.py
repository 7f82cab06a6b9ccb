"""Devices by name."""

import os
import subprocess
import sys

import pytest
import torch

from ernerf_ti.process.device import resolve_device


@pytest.fixture
def cuda(monkeypatch):
    def make(available: bool, version: str | None = "13.0") -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        monkeypatch.setattr(torch.version, "cuda", version)

    return make


def test_with_cuda(cuda):
    cuda(True)
    for name in ("auto", "cuda", "cuda:0"):
        assert resolve_device(name) == torch.device("cuda", 0)
    assert resolve_device("cpu") == torch.device("cpu")


def test_without_cuda(cuda):
    cuda(False)
    assert resolve_device("auto") == resolve_device() == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"device: expected CUDA, got no usable GPU; check nvidia-smi .*, or pass cpu"):
        resolve_device("cuda")
    cuda(False, None)
    with pytest.raises(ValueError, match=r"device: expected CUDA, got torch .*, which was built without it; install"):
        resolve_device("cuda:0")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:", "cuda:x", "CPU", "cpu:0"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=f"device: expected auto, cpu or cuda, got '{name}'; pass one of these"):
        resolve_device(name)


def test_only_the_first_visible_gpu(cuda):
    cuda(True)
    with pytest.raises(ValueError, match=r"got cuda:2; set CUDA_VISIBLE_DEVICES=2 and pass cuda"):
        resolve_device("cuda:2")


def test_a_wrong_name_is_reported_without_importing_torch():
    code = "import sys; from ernerf_ti.process.device import resolve_device\ntry: resolve_device('tpu')\n"
    code += "except ValueError: assert 'torch' not in sys.modules\nelse: raise SystemExit(1)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(("given", "expected"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_deterministic_algorithms(given, expected):
    code = (
        "import os; from ernerf_ti.process.device import use_deterministic_algorithms; use_deterministic_algorithms()\n"
        "import torch; print(os.environ['CUBLAS_WORKSPACE_CONFIG'], torch.are_deterministic_algorithms_enabled(),\n"
        "    torch.is_deterministic_algorithms_warn_only_enabled())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    environment |= {} if given is None else {"CUBLAS_WORKSPACE_CONFIG": given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "True", "False"]
