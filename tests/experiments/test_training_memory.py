"""Bytes of training on a GPU, counted on the CPU."""

import dataclasses
import json

import pytest
import torch

from ernerf_ti.cli.main import main
from ernerf_ti.experiments import training_memory
from ernerf_ti.experiments.training_memory import CountedGraphs, LiveBytes, released, run


def test_live_bytes_are_those_of_the_tensors_that_are_left():
    with LiveBytes() as live:
        x = torch.zeros(1000)
        y = x.view(10, 100)[1:]  # no memory of its own
        assert live.now == live.peak == 4000
        z = (x * 2) + 1  # the product is dropped
        assert (live.now, live.peak) == (8000, 12_000)
        del x
        assert live.now == 8000
        del y, z
        assert live.now == 0
        live.reset_peak()
        assert live.peak == 0


def test_live_bytes_include_what_autograd_keeps():
    with LiveBytes() as live:
        x = torch.zeros(1000, requires_grad=True)
        y = x.exp().sum()
        assert live.now == 8000 + 4  # x and its exponential
        y.backward()
        del y
        assert live.now == 8000  # x and its gradient
        assert live.peak >= 12_000


def test_graphs_hold_the_memory_of_their_peak():
    with LiveBytes() as live:
        backend = CountedGraphs(live)
        pool = backend.pool()
        graph, total = backend.capture(lambda: (torch.zeros(1000) + 1).sum(), pool)
        assert live.now == backend.n_bytes == 8000
        graph_2, z = backend.capture(lambda: torch.zeros(1500) + 1, pool)  # in the memory that is free
        assert live.now == backend.n_bytes == 4 + 12_000
        del graph, graph_2, pool, total, z
        assert live.now == 0


@pytest.fixture
def config():
    config = released(512)
    grid = dataclasses.replace(config.portrait.head_grid, resolution=32)
    return dataclasses.replace(config, portrait=dataclasses.replace(config.portrait, head_grid=grid))


def test_stages_in_two_precisions(config):
    float32, bf16 = (dict(run(config, 32, precision)) for precision in ("float32", "bf16"))
    for stage in ("head", "finetune", "torso"):
        weights = f"{stage}, weights, moments, averages and tables"
        assert float32[weights] == pytest.approx(bf16[weights], rel=0.01)
        assert float32[f"{stage}, memory of the graphs"] > 1.05 * bf16[f"{stage}, memory of the graphs"]
        steps = float32[f"{stage}, later steps"]
        assert float32[weights] < steps < float32[f"{stage}, steps with CUDA graphs"]
        assert steps <= float32[f"{stage}, first steps, all cells occupied"]


def test_command_writes_the_figures(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(training_memory, "run", lambda *of: calls.append(of) or iter([("head, later steps", 1.25)]))
    path = tmp_path / "memory.json"
    assert main(["bench", "memory", "--image", "32", "--rays", "64", "--precision", "bf16", "-o", str(path)]) == 0
    assert calls == [(released(64), 32, "bf16")]
    assert json.loads(path.read_text()) == {"head, later steps": 1.25}
    assert "head, later steps" in capsys.readouterr().out
    assert main(["bench", "memory", "--rays", "0"]) == 2
