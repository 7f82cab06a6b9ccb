"""Fixtures that choose the variants of kernels."""

import pytest
import torch

from taichi_kernels import grid_encoding


@pytest.fixture
def variant_for_cuda(monkeypatch):
    """The variant of the grid kernels for CUDA, also where the tests run on the CPU."""
    monkeypatch.setattr(grid_encoding, "is_cuda", lambda: True)


@pytest.fixture
def deterministic_variant(variant_for_cuda):
    """The variant for CUDA under torch.use_deterministic_algorithms."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
