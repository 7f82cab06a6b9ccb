"""Steps of an optimizer through a CUDA graph, or on the CPU through recorded operations, equal plain ones."""

import copy
import gc

import pytest
import torch
from torch import nn

from ernerf_ti.process.graphed_optimizer import GraphedOptimizer
from ernerf_ti.process.graphs import STEADY_AFTER
from tests.process.recorded_graphs import CountingBackend, RecordingBackend


@pytest.fixture
def model(device):
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2), nn.Linear(2, 2)).to(device)


def optimizer_of(model) -> torch.optim.AdamW:
    """Two groups, with learning rates in tensors."""
    groups = [{"params": model[0].parameters(), "weight_decay": 0.1}, {"params": model[1:].parameters()}]
    optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.99), fused=True)
    for group in optimizer.param_groups:
        group["lr"] = torch.full((), 0.1, device=group["params"][0].device)
    return optimizer


def take_steps(model, optimizer, step, n, begin=0, layers=2):
    """n steps with new gradients in new memory and a falling rate; the layers after `layers` have no gradient."""
    generator = torch.Generator().manual_seed(begin)
    for i in range(begin, begin + n):
        for group in optimizer.param_groups:
            group["lr"].fill_(0.1 * 0.9**i)
        optimizer.zero_grad(set_to_none=True)
        for parameter in model[:layers].parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        given = [p.grad for p in model.parameters()]
        step()
        assert all(p.grad is gradient for p, gradient in zip(model.parameters(), given, strict=True))


def assert_same(model, optimizer, other_model, other_optimizer):
    state, other_state = ({"model": m.state_dict(), **o.state_dict()} for m, o in zip(
        (model, other_model), (optimizer, other_optimizer), strict=True
    ))  # fmt: skip
    torch.testing.assert_close(state, other_state, rtol=1e-6, atol=1e-7)


def test_equals_plain_steps(model, device):
    plain = copy.deepcopy(model)
    optimizer, expected, backend = optimizer_of(model), optimizer_of(plain), CountingBackend(device)
    graphed = GraphedOptimizer(optimizer, backend, pytest.fail)
    n = STEADY_AFTER + 6
    for begin, layers in ((0, 2), (n, 3), (2 * n, 2)):
        take_steps(model, optimizer, graphed.step, n, begin, layers)
        take_steps(plain, expected, expected.step, n, begin, layers)
        assert_same(model, optimizer, plain, expected)
    assert backend.n_captures == 3  # other parameters have gradients
    gc.collect()
    assert backend.n_alive == 1
    graphed.clear()
    gc.collect()
    assert backend.n_alive == 0


def test_a_loaded_state_is_recorded_again(model, device):
    optimizer, backend = optimizer_of(model), CountingBackend(device)
    graphed = GraphedOptimizer(optimizer, backend, pytest.fail)
    take_steps(model, optimizer, graphed.step, STEADY_AFTER + 3)
    plain = copy.deepcopy(model)
    expected = optimizer_of(plain)
    expected.load_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(model, optimizer, graphed.step, STEADY_AFTER + 3, 50)
    take_steps(plain, expected, expected.step, STEADY_AFTER + 3, 50)
    assert_same(model, optimizer, plain, expected)
    assert backend.n_captures == 2


class Failing(RecordingBackend):
    """Fails after the function has run."""

    def capture(self, function, pool, generators=()):
        super().capture(function, pool)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class Idle(RecordingBackend):
    """Graphs that do nothing."""

    def capture(self, function, pool, generators=()):
        graph, result = super().capture(function, pool)
        graph._calls.clear()
        return graph, result


@pytest.mark.parametrize(
    ("backend", "reason"),
    [(Failing(), "RuntimeError: operation not permitted when stream is capturing"), (Idle(), "got a deviation of ")],
)
def test_a_graph_that_fails_leaves_plain_steps(backend, reason):
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2), nn.Linear(2, 2))
    plain, lines = copy.deepcopy(model), []
    optimizer, expected = optimizer_of(model), optimizer_of(plain)
    graphed = GraphedOptimizer(optimizer, backend, lines.append)
    take_steps(model, optimizer, graphed.step, STEADY_AFTER + 6)
    take_steps(plain, expected, expected.step, STEADY_AFTER + 6)
    assert_same(model, optimizer, plain, expected)
    assert len(lines) == 1 and lines[0].startswith("CUDA graph of the optimizer: ")
    assert reason in lines[0] and lines[0].endswith("; it runs without a graph")


def test_without_a_backend(model):
    optimizer = optimizer_of(model)
    graphed = GraphedOptimizer(optimizer, None, pytest.fail)
    take_steps(model, optimizer, graphed.step, STEADY_AFTER + 3)
    assert next(iter(optimizer.state.values()))["step"] == STEADY_AFTER + 3
