"""The precision of networks by name."""

import subprocess
import sys

import pytest
import torch

from ernerf_ti.process.precision import PRECISIONS, resolve_precision


@pytest.fixture
def gpu(monkeypatch):
    def make(has_bf16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old GPU")

    return make


@pytest.mark.parametrize(
    ("device", "has_bf16", "expected"),
    [
        ("cpu", False, torch.float32),
        (torch.device("cuda", 0), True, torch.bfloat16),
        ("cuda:0", False, torch.float16),
    ],
)
def test_the_device_decides(gpu, device, has_bf16, expected):
    gpu(has_bf16)
    assert resolve_precision("auto", device) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_name_decides(gpu, device):
    gpu(True)
    found = [resolve_precision(name, device) for name in PRECISIONS[1:]]
    assert found == [torch.float32, torch.bfloat16, torch.float16]


def test_bf16_is_not_emulated(gpu):
    gpu(False)
    assert resolve_precision("fp16", "cuda") == torch.float16
    with pytest.raises(ValueError, match=r"expected a GPU of compute capability 8.0 .*, got an old GPU; pass auto, "):
        resolve_precision("bf16", "cuda")


def test_an_unknown_name_is_reported_without_importing_torch():
    code = (
        "import sys; from ernerf_ti.process.precision import resolve_precision\ntry: resolve_precision('half', 'cpu')"
    )
    code += "\nexcept ValueError as e: print(e); assert 'torch' not in sys.modules\nelse: raise SystemExit(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "precision: expected one of auto, float32, bf16, fp16, got 'half'; pass one of these\n"
