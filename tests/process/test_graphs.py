"""CUDA graphs of functions: real ones with --device cuda, recorded operations on the CPU."""

import gc
import itertools
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn

import taichi_kernels as tk
from ernerf_ti.process.graph_capture import CudaBackend
from ernerf_ti.process.graphs import STEADY_AFTER, Graphs, cuda_graphs
from taichi_kernels.runtime import can_capture
from tests.process.recorded_graphs import CountingBackend, RecordingBackend


class Outputs(NamedTuple):
    value: torch.Tensor
    norm: torch.Tensor
    extra: torch.Tensor | None


class Network(nn.Module):
    """Two layers, an optional bias, and a parameter that no method uses."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3, bias=False)
        self.unused = nn.Parameter(torch.ones(2))

    def evaluate(self, x, bias=None, with_extra=True):
        h = torch.relu_(self.first(x))
        h = h if bias is None else h + bias
        y = self.second(h)
        return Outputs(y, y.norm(dim=1), y.detach().square() if with_extra else None)

    def cast(self, x):
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            return {"value": self.evaluate(x).value.float()}

    def waits(self, x):
        return self.second(self.first(x)) * self.first(x).sum().item()

    def launches(self, x):
        return tk.frequency_encode(self.first(x), 2)


@pytest.fixture
def backend(device):
    return CountingBackend(device)


@pytest.fixture
def notes():
    return []


@pytest.fixture
def graphs(backend, notes):
    return Graphs(backend, notes.append)


@pytest.fixture
def network(device):
    return Network().to(device)


def inputs(device, n=6):
    return torch.randn(n, 5, device=device, requires_grad=True), torch.randn(7, device=device, requires_grad=True)


def gradients(outputs, sources):
    loss = (outputs.value.sin() * 3).sum() + outputs.norm.square().sum()
    return torch.autograd.grad(loss, sources, allow_unused=True)


def results(outputs, sources):
    """Values and gradients. The outputs are dropped: alive, their graph would tie the parameters to its stream."""
    values = [None if output is None else output.detach() for output in outputs]
    return values, gradients(outputs, sources)


def record(graphs, function, *tensors, **flags):
    for _ in range(STEADY_AFTER):
        graphs(function, *tensors, **flags)


def test_graph_equals_the_plain_call(graphs, backend, network, device, notes):
    sources = list(network.parameters())
    for i in range(STEADY_AFTER + 4):
        x, bias = inputs(device)
        expected = results(network.evaluate(x, bias), [x, bias, *sources])
        outputs = graphs(network.evaluate, x, bias)
        assert isinstance(outputs, Outputs)
        assert not outputs.extra.requires_grad
        torch.testing.assert_close(results(outputs, [x, bias, *sources]), expected)
        del outputs
        assert backend.n_captures == (2 if i + 1 >= STEADY_AFTER else 0)
    assert notes == []


def test_flags_and_missing_arguments_have_graphs_of_their_own(graphs, backend, network, device):
    x, bias = inputs(device)
    calls = [((x, None), False), ((x, None), True), ((x, bias), True)]
    for count, (tensors, with_extra) in enumerate(calls, 1):
        record(graphs, network.evaluate, *tensors, with_extra=with_extra)
        outputs = graphs(network.evaluate, *tensors, with_extra=with_extra)
        torch.testing.assert_close(outputs, network.evaluate(*tensors, with_extra=with_extra))
        del outputs
        assert backend.n_captures == 2 * count


@torch.no_grad()
def test_results_without_gradients_outlive_the_next_call(graphs, backend, network, device):
    kept = []
    for _ in range(STEADY_AFTER + 3):
        x, bias = inputs(device)
        kept.append((graphs(network.evaluate, x, bias), network.evaluate(x, bias)))
        kept.append((graphs(network.first.forward, x), network.first(x)))
    assert backend.n_captures == 2
    for outputs, expected in kept:
        torch.testing.assert_close(outputs, expected)


def test_results_with_gradients_outlive_the_next_step(graphs, network, device):
    kept = []
    for _ in range(STEADY_AFTER + 3):
        x, bias = inputs(device)
        outputs = graphs(network.evaluate, x, bias)
        gradients(outputs, [x])
        kept.append((outputs.value.detach(), network.evaluate(x, bias).value))
    for value, expected in kept:
        torch.testing.assert_close(value, expected)


@torch.no_grad()
def test_new_shapes_are_recorded_and_old_ones_dropped(graphs, backend, network, device):
    for count, n in enumerate((6, 9, 12, 6), 1):
        x, bias = inputs(device, n)
        record(graphs, network.evaluate, x, bias)
        assert backend.n_captures == count
        torch.testing.assert_close(graphs(network.evaluate, x, bias), network.evaluate(x, bias))
        gc.collect()
        assert backend.n_alive == 1


def test_memory_can_be_freed(graphs, backend, network, device):
    x, bias = inputs(device)
    for count in (2, 4):
        record(graphs, network.evaluate, x, bias)
        assert backend.n_captures == count
        graphs.clear()
        gc.collect()
        assert backend.n_alive == 0
        torch.testing.assert_close(graphs(network.evaluate, x, bias), network.evaluate(x, bias))


@torch.no_grad()
def test_shapes_that_come_once_are_not_recorded(graphs, backend, network, device):
    for n in range(1, 200):
        graphs(network.evaluate, *inputs(device, n))
    assert backend.n_captures == 0


@torch.no_grad()
def test_two_shapes_in_turn_are_recorded_and_a_third_is_not(graphs, backend, network, device):
    for i in range(6 * STEADY_AFTER):
        x, bias = inputs(device, 4 + i % 3)
        torch.testing.assert_close(graphs(network.evaluate, x, bias), network.evaluate(x, bias))
    assert backend.n_captures == 2


def test_gradients_accumulate(graphs, network, device):
    reference = Network().to(device)
    reference.load_state_dict(network.state_dict())
    for _ in range(STEADY_AFTER):
        gradients(graphs(network.evaluate, *inputs(device)), list(network.parameters()))
    for _ in range(3):
        x, bias = inputs(device)
        graphs(network.evaluate, x, bias).value.square().sum().backward()
        reference.evaluate(x, bias).value.square().sum().backward()
    for parameter, expected in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)
    assert network.unused.grad is None


def test_gradient_of_a_leaf_is_not_written_over(graphs, network, device):
    record(graphs, network.evaluate, *inputs(device))
    x, bias = inputs(device)
    graphs(network.evaluate, x, bias).value.sum().backward()
    before = x.grad.clone()
    graphs(network.evaluate, *inputs(device)).value.square().sum().backward()
    assert torch.equal(x.grad, before)


def test_second_forward_pass_before_the_backward_pass_is_plain(graphs, network, device):
    sources = list(network.parameters())
    record(graphs, network.evaluate, *inputs(device))
    pairs = []
    for _ in range(2):
        x, bias = inputs(device)
        pairs.append((graphs(network.evaluate, x, bias), network.evaluate(x, bias)))
    for outputs, expected in pairs:
        torch.testing.assert_close(gradients(outputs, sources), gradients(expected, sources))


def test_forward_pass_that_was_dropped_does_not_block_the_graph(graphs, network, device):
    x, bias = inputs(device)
    record(graphs, network.evaluate, x, bias)
    outputs = graphs(network.evaluate, x, bias)
    assert type(outputs.value.grad_fn).__name__ == "_ReplayBackward"


def test_second_backward_pass_is_refused(graphs, network, device):
    x, bias = inputs(device)
    record(graphs, network.evaluate, x, bias)
    value = graphs(network.evaluate, x, bias).value
    value.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        value.sum().backward()


def test_parameters_in_other_memory_are_recorded_again(graphs, backend, network, device):
    x, bias = inputs(device)
    record(graphs, network.evaluate, x, bias)
    for parameter in network.parameters():
        parameter.data = parameter.data * 2
    record(graphs, network.evaluate, x, bias)
    assert backend.n_captures == 4
    torch.testing.assert_close(graphs(network.evaluate, x, bias), network.evaluate(x, bias))


def test_updated_parameters_are_seen(graphs, network, device):
    x, bias = inputs(device)
    record(graphs, network.evaluate, x, bias)
    with torch.no_grad():
        network.second.weight.mul_(-3)
    torch.testing.assert_close(graphs(network.evaluate, x, bias), network.evaluate(x, bias))


@pytest.mark.parametrize("method", ["waits", "launches"])
def test_function_that_cannot_be_recorded_stays_plain(graphs, backend, network, device, method, notes):
    if method == "launches" and can_capture(device):
        pytest.skip("the kernels' own launcher can be recorded")
    function = getattr(network, method)
    for _ in range(2 * STEADY_AFTER):
        x, _ = inputs(device)
        torch.testing.assert_close(graphs(function, x), function(x))
    assert backend.n_captures == 1
    (note,) = notes
    assert f"Network.{method}" in note
    assert "captur" in note or "CUDA graph" in note
    assert "\n" not in note


def test_kernels_are_recorded_where_their_launcher_is_on(network, device, notes):
    if device.type == "cuda" and not can_capture(device):
        pytest.skip("Taichi's launches can't be recorded")
    backend = CountingBackend(device, records_kernels=True)
    graphs, x = Graphs(backend, notes.append), inputs(device)[0]
    record(graphs, network.launches, x)
    torch.testing.assert_close(graphs(network.launches, x), network.launches(x))
    assert notes == [] and backend.n_captures == 2


def test_graph_with_other_results_is_not_used(graphs, network, device, notes):
    numbers = itertools.count(1)

    def scaled(x):
        return x.sin() * next(numbers)

    x, _ = inputs(device)
    record(graphs, scaled, x)
    (note,) = notes
    assert "deviation" in note
    assert "scaled" in note
    assert type(graphs(scaled, x).grad_fn).__name__ == "MulBackward0"


def test_nothing_is_recorded_under_autocast(graphs, backend, network, device):
    x, bias = inputs(device)
    with torch.autocast(device.type, torch.bfloat16):
        record(graphs, network.evaluate, x, bias)
    assert backend.n_captures == 0


def test_function_may_cast_by_itself(backend, network, device, notes):
    graphs, x = Graphs(backend, notes.append, torch.bfloat16), inputs(device)[0]
    record(graphs, network.cast, x)
    torch.testing.assert_close(graphs(network.cast, x), network.cast(x))
    assert notes == []
    assert backend.n_captures == 2


def test_numbers_may_change(graphs, backend, network, device):
    def blend(x, fraction):
        return x.sin() * fraction + (1 - fraction)

    for i in range(STEADY_AFTER + 3):
        x = inputs(device)[0]
        torch.testing.assert_close(graphs(blend, x, i / 10), blend(x, i / 10))
    assert backend.n_captures == 2


def test_module_is_a_function_too(graphs, backend, network, device):
    record(graphs, network.first, inputs(device)[0])
    x = inputs(device)[0]
    torch.testing.assert_close(graphs(network.first, x), network.first(x))
    assert backend.n_captures == 2


def test_parameters_of_another_module_are_refused(graphs, network, device, notes):
    def evaluate(x):
        return network.first(x)

    record(graphs, evaluate, inputs(device)[0])
    (note,) = notes
    assert "got others; pass them in" in note
    graphs(evaluate, inputs(device)[0]).sum().backward()
    assert network.first.weight.grad is not None


@pytest.mark.parametrize(("setting", "kind"), [("auto", "cpu"), ("off", "cpu"), ("off", "cuda")])
def test_functions_are_called_plainly(setting, kind):
    graphs, network = cuda_graphs(setting, kind, pytest.fail), Network()
    x, bias = inputs("cpu")
    for _ in range(STEADY_AFTER + 1):
        assert type(graphs(network.evaluate, x, bias).value.grad_fn).__name__ == "MmBackward0"


def test_unknown_setting_is_refused():
    with pytest.raises(ValueError, match="cuda_graphs: expected auto, parts or off, got 'on'"):
        cuda_graphs("on", "cpu", pytest.fail)


def test_failed_recording_on_cuda_leaves_the_stream_and_names_the_first_error(monkeypatch, network):
    current = ["default"]

    @contextmanager
    def recording(graph, pool, stream, capture_error_mode):
        current[0] = stream
        try:
            yield
        finally:  # as torch does when the recording has become invalid
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.__setitem__(0, stream))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "graph", recording)
    ended = []
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *of: ended.append(of), raising=False)
    generator = SimpleNamespace(clone_state=lambda: "copy", graphsafe_set_state=lambda state: ended.append(state))
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    backend, notes = CudaBackend(torch.device("cuda")), []
    monkeypatch.setattr(backend, "side_stream", nullcontext)

    def evaluate(x):
        if current[0] == "side":
            raise ValueError("this can't be recorded")
        return x.sin()

    record(Graphs(backend, notes.append), evaluate, torch.ones(3))
    assert current == ["default"]
    assert ended == [(0, "pool"), "copy"]  # memory, and the state of the default generator
    (note,) = notes
    assert "(ValueError: this can't be recorded)" in note


class TestRecording:
    """The recorder itself: what a graph on CUDA would do."""

    def test_results_have_no_value_before_the_replay(self):
        x = torch.ones(3)
        graph, y = RecordingBackend().capture(lambda: x * 2, [])
        assert y.isnan().all()
        graph.replay()
        assert y.tolist() == [2, 2, 2]

    def test_replay_reads_and_writes_the_same_memory(self):
        x, factor = torch.ones(3), [2.0]
        graph, (y, view) = RecordingBackend().capture(lambda: ((z := x * factor[0]).add_(1), z[1:]), [])
        graph.replay()
        first, address = y.clone(), y.data_ptr()
        x.fill_(5)
        factor[0] = 7.0
        graph.replay()
        assert first.tolist() == [3, 3, 3]
        assert y.tolist() == [11, 11, 11]
        assert view.tolist() == [11, 11]
        assert y.data_ptr() == address

    def test_replay_spoils_what_was_recorded_later_in_the_pool(self):
        backend, pool, x = RecordingBackend(), [], torch.ones(3)
        first, y = backend.capture(lambda: x + 1, pool)
        second, z = backend.capture(lambda: y + 1, pool)
        first.replay()
        second.replay()
        assert z.tolist() == [3, 3, 3]
        first.replay()
        assert z.isnan().all()

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x.sum().item(),
            lambda x: x.nonzero(),
            lambda x: x[x > 0],
            lambda x: x * x.new_tensor(3.0),
            lambda x: tk.frequency_encode(x, 2),
        ],
    )
    def test_what_cannot_be_recorded(self, function):
        with pytest.raises(RuntimeError, match="captur"):
            RecordingBackend().capture(lambda: function(torch.ones(2, 3)), [])
