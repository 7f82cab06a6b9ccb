"""Measures of work on a device, on the CPU and on a made-up one."""

import warnings

import pytest
import torch

from ernerf_ti.experiments import device_measures as measures

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(5, 6), (1, 3)], 3),
        ([(1, 4), (2, 3), (3, 6)], 5),  # nested and overlapping
        ([(1, 2), (2, 3), (2, 2)], 2),
    ],
)
def test_covered_time(spans, length):
    assert measures.covered(spans) == length


def test_functions_take_turns_and_the_median_counts(monkeypatch):
    calls, now = [], [0.0]
    durations = iter([9.0, 0.001, 0.003, 0.5, 0.5, 0.004, 0.006])  # seconds: before the turns, then three
    monkeypatch.setattr(measures, "perf_counter", lambda: now[0])

    def first():
        calls.append("a")
        now[0] += next(durations)

    def second():
        calls.append("b")
        now[0] += 0.02

    assert measures.in_turns(first, second, calls=2, turns=3, device=CPU) == pytest.approx((5, 20))
    assert "".join(calls) == "ab" + "aabb" * 3


def test_operations_of_the_backward_pass_count():
    x = torch.ones(3, requires_grad=True)
    forward = measures.count_operations(lambda: (x * 2).sum(), 5)
    assert forward == 2  # mul, sum
    assert measures.count_operations(lambda: (x * 2).sum().backward(), 5) > forward + 1
    with torch.no_grad():
        assert measures.count_operations(lambda: None, 5) == 0


def test_waits_are_those_that_torch_warns_of(monkeypatch):
    modes = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work():
        assert modes[-1] == "warn"
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)

    assert measures.count_waits(work, 4, CUDA) == 3
    assert modes == [0, "warn", 0]
    called = []
    assert measures.count_waits(lambda: called.append(1), 4, CPU) == 0 and len(called) == 4


def test_profile_of_the_cpu():
    x = torch.rand(200, 200)
    trace = measures.trace(lambda: x @ x, 20, CPU)
    assert 0 < trace.busy < 100 and trace.launches == 0


def test_summary_of_a_trace_of_cuda():
    def event(category, begin, duration, name="kernel"):
        return {"cat": category, "ts": begin, "dur": duration, "name": name}

    events = [
        {"ph": "M", "name": "process_name"},
        event("cpu_op", 0, 5000),
        event("cuda_runtime", 10, 5, "cudaLaunchKernel"),
        event("cuda_driver", 20, 5, "cuLaunchKernel"),
        event("cuda_runtime", 30, 5, "cudaMemcpyAsync"),
        event("cuda_runtime", 40, 5, "cudaGraphLaunch"),
        event("cuda_runtime", 50, 5, "cudaStreamSynchronize"),
        event("kernel", 1000, 600),
        event("kernel", 1400, 400),  # on another stream
        event("gpu_memcpy", 3000, 100),
        event("gpu_memset", 3100, 100),
        event("gpu_user_annotation", 0, 9000),
    ]
    assert measures._summary(events, 2, on_cuda=True) == measures.Trace(busy=0.5, launches=2)
    with pytest.raises(RuntimeError, match="expected events of the device, got none; on CUDA this needs CUPTI"):
        measures._summary(events[:7], 2, on_cuda=True)


def test_peak_memory():
    with measures.PeakMemory(CPU) as memory:
        torch.ones(1000)
    assert 0.05 < memory.torch == memory.device < 100  # of the process


def test_peak_memory_of_cuda(monkeypatch):
    called = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: called.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: called.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70 * 2**30, 80 * 2**30))
    with measures.PeakMemory(CUDA) as memory:
        assert called == ["wait", "reset"]
    assert (memory.torch, memory.device) == (3, 10)
