"""Fixtures that choose the variants of kernels."""

import sys

import pytest
import torch

import taichi_kernels  # noqa: F401  so that all its modules are there
from taichi_kernels import parallel_loops


@pytest.fixture
def variant_for_cuda(monkeypatch, request):
    """The variants of the kernels for CUDA, also where the tests run on the CPU: there with so few threads that each
    takes many strides, and a number that divides no size."""
    if request.config.getoption("--device") == "cuda":
        return
    monkeypatch.setattr(parallel_loops, "N_THREADS", 7)
    for name, module in list(sys.modules.items()):
        if name.startswith("taichi_kernels.") and name != "taichi_kernels.runtime" and hasattr(module, "is_cuda"):
            monkeypatch.setattr(module, "is_cuda", lambda: True)
    spherical_harmonics = sys.modules["taichi_kernels.spherical_harmonics"]
    monkeypatch.setattr(spherical_harmonics, "_is_channel_major", lambda tensor: True)


@pytest.fixture(params=["variant for the CPU", "variant for CUDA"])
def each_variant(request):
    """Runs a test with either variant of the kernels; on a GPU with its own."""
    if request.param == "variant for CUDA":
        request.getfixturevalue("variant_for_cuda")
    elif request.config.getoption("--device") == "cuda":
        pytest.skip("the variant for the CPU does not run on a GPU")


@pytest.fixture
def deterministic_variant(variant_for_cuda):
    """The variant for CUDA under torch.use_deterministic_algorithms."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
