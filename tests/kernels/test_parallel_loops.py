import pytest

from taichi_kernels.parallel_loops import N_THREADS, parallel_kernel
from taichi_kernels.runtime import MAX_ELEMENTS


def test_indices_past_the_end_fit_32_bits():
    assert MAX_ELEMENTS + N_THREADS < 2**31


def test_a_loop_with_continue_is_refused():
    def kernel(n):
        for i in range(n):
            if i == 0:
                continue

    with pytest.raises(SyntaxError, match="without `continue`"):
        parallel_kernel(on_cuda=True)(kernel)
