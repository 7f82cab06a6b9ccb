"""Training steps and frames through CUDA graphs, or on the CPU recorded operations, give the numbers of plain ones."""

import dataclasses
import gc

import pytest
import torch

from ernerf_ti.portrait.model.calls import call_plainly
from ernerf_ti.portrait.render.static_shapes import kernels_can_be_captured, static_shapes_on_cpu
from ernerf_ti.process.graphed_optimizer import GraphedOptimizer
from ernerf_ti.process.graphs import STEADY_AFTER, Graphs
from ernerf_ti.train.config import STAGES
from ernerf_ti.train.trainer import Trainer
from tests.process.recorded_graphs import CountingBackend

pytestmark = pytest.mark.usefixtures("deterministic_on_cuda")

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture(autouse=True)
def static_shapes():
    with static_shapes_on_cpu():
        yield


@pytest.fixture
def backend(device):
    return CountingBackend(device)


@pytest.fixture
def make(capture, config, tmp_path, device):
    """Makes trainers with the same random numbers, and calls their networks as asked."""

    def make(call, precision="float32", **settings):
        stages = {
            stage: dataclasses.replace(getattr(config, stage), iterations=2 * STEADY_AFTER + 5, **settings)
            for stage in STAGES
        }
        options = dataclasses.replace(config, precision=precision, random_background_fraction=0.25, **stages)
        trainer = Trainer(capture, options, tmp_path, device, cuda_graphs="off")
        for stage in trainer.stages.values():
            stage.call = call
        return trainer

    return make


def assert_same_step(got, expected):
    """Take a step of two trainers; losses and gradients are the same."""
    reports = got.train_step(), expected.train_step()
    on_cuda, precision = expected.device.type == "cuda", expected.portrait.precision
    # Atomic sums have no fixed order on CUDA. Seen there: 2e-4 of the largest gradient.
    tolerance = 1e-4 if not on_cuda else 1e-3 if precision == torch.float32 else 1e-2
    rtol, atol = (tolerance, 1e-5) if on_cuda else (None, None)
    torch.testing.assert_close(reports[0].terms, reports[1].terms, rtol=rtol, atol=atol)
    parameters = expected.stages[expected.stage].parameters()
    for name, parameter in got.stages[got.stage].parameters().items():
        gradient, other = parameter.grad, parameters[name].grad
        assert (gradient is None) == (other is None), name
        if gradient is not None:
            error, largest = (gradient - other).abs().max(), other.abs().max()
            assert error <= tolerance * largest, f"{name}: error {error:.2g}, largest value {largest:.2g}"


@pytest.mark.parametrize(
    ("stage", "precision", "n_graphs"),
    [("head", "float32", 3), ("head", "bf16", 3), ("finetune", "float32", 4), ("torso", "float32", 2)],
)
def test_steps_equal_plain_ones(make, backend, stage, precision, n_graphs):
    graphed, plain = make(Graphs(backend, pytest.fail, DTYPES[precision]), precision), make(call_plainly, precision)
    graphed.start_stage(stage)
    plain.start_stage(stage)
    for _ in range(2 * STEADY_AFTER + 5):
        assert_same_step(graphed, plain)
    assert backend.n_captures == 2 * n_graphs  # forward and backward pass


@pytest.mark.parametrize("stage", STAGES)
def test_the_optimizer_steps_as_a_graph(make, backend, stage):
    graphed, plain = make(call_plainly), make(call_plainly)
    for trainer in (graphed, plain):
        trainer.start_stage(stage)
        for group in trainer.optimizer.param_groups:  # as on CUDA
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=trainer.device)
    graphed._steps._graphed_optimizer = GraphedOptimizer(graphed.optimizer, backend, pytest.fail)
    for _ in range(2 * STEADY_AFTER + 5):
        assert_same_step(graphed, plain)
    assert backend.n_captures == 1
    states = (trainer.optimizer.state_dict() for trainer in (graphed, plain))
    torch.testing.assert_close(*states, rtol=1e-2 if graphed.device.type == "cuda" else 1e-4, atol=1e-6)


def test_another_capacity_is_recorded_again(make, backend):
    graphed, plain = make(Graphs(backend, pytest.fail), n_rays=1024), make(call_plainly, n_rays=1024)
    for size, n_captures in ((100, 6), (20_000, 8)):
        for trainer in (graphed, plain):
            trainer.stages["head"]._capacities["pixels"].fit(size)
        for _ in range(STEADY_AFTER + 2):
            assert_same_step(graphed, plain)
        assert backend.n_captures == n_captures  # the networks alone depend on the number of samples


def test_room_for_samples_is_measured_before_graphs_are_recorded(make, backend):
    trainer = make(Graphs(backend, pytest.fail))
    n_captures = []

    def adjust():
        n_captures.append((trainer.step, backend.n_captures))
        return []

    trainer.config = dataclasses.replace(trainer.config, log_every=10)
    trainer.stages["head"].adjust = adjust
    trainer.run(("head",), should_stop=lambda: trainer.step == 10)
    assert n_captures == [(2, 0), (10, 6)]


def test_step_goes_on_plainly_where_nothing_can_be_recorded(make, backend):
    def fail(function, pool):
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    backend.capture, notes = fail, []
    graphed, plain = make(Graphs(backend, notes.append)), make(call_plainly)
    for _ in range(STEADY_AFTER + 3):
        assert_same_step(graphed, plain)
    assert sorted(note.split(":")[0] for note in notes) == [
        "CUDA graph of AudioEncoder",
        "CUDA graph of HeadField.networks",
        "CUDA graph of head_terms",
    ]
    assert all("(RuntimeError: CUDA error: out of memory); it runs without a graph" in note for note in notes)


def test_recomputed_values_are_not_taken_from_graphs(make, backend):
    def recomputing(trainer):
        march = dataclasses.replace(trainer.config.portrait.march, recompute=True, samples_per_chunk=1000)
        portrait = dataclasses.replace(trainer.config.portrait, march=march)
        trainer.stages["head"].config = dataclasses.replace(trainer.config, portrait=portrait)
        return trainer

    graphed, plain = recomputing(make(Graphs(backend, pytest.fail))), recomputing(make(call_plainly))
    for _ in range(STEADY_AFTER + 3):
        assert_same_step(graphed, plain)


def test_next_stage_frees_the_memory_of_graphs(make, backend):
    graphs = Graphs(backend, pytest.fail)
    trainer = make(graphs)
    trainer._graphs = graphs
    for _ in range(STEADY_AFTER + 1):
        trainer.train_step()
    assert backend.n_alive == 6
    trainer.start_stage("torso")
    gc.collect()
    assert backend.n_alive == 0


@pytest.mark.parametrize("stage", STAGES)
def test_no_gradient_node_of_a_parameter_outlives_its_step(make, stage):
    # It would belong to the stream of that step, and CUDA would refuse to record a backward pass on another one.
    def has_been_met(parameter, step):
        notes = torch.autograd.graph.get_gradient_edge(parameter).node.metadata
        return notes.setdefault("step", step) != step

    trainer, reports = make(call_plainly), []
    trainer.start_stage(stage)
    for step in range(3):
        reports.append(trainer.train_step())
        parameters = trainer.stages[stage].parameters()
        assert [name for name, parameter in parameters.items() if has_been_met(parameter, step)] == []


def test_unknown_setting_is_refused(capture, config, tmp_path, device):
    with pytest.raises(ValueError, match="cuda_graphs: expected auto, parts or off, got 'on'"):
        Trainer(capture, config, tmp_path, device, cuda_graphs="on")


def test_frames_equal_plain_ones(make, backend):
    trainer = make(call_plainly)
    frames, portrait = trainer.frames, trainer.portrait
    for _ in range(3):
        trainer.train_step()
    graphs = Graphs(backend, pytest.fail)
    pending, expected = [], []
    renderer = portrait.renderer(tuple(frames.capture.intrinsics), (frames.width, frames.height))
    for i in range(STEADY_AFTER + 4):
        portrait.call = call_plainly
        expected.append(renderer.submit(frames.inputs(i)).result().rgb)
        portrait.call = graphs
        pending.append(renderer.submit(frames.inputs(i)))
    for frame, rgb in zip(pending, expected, strict=True):
        torch.testing.assert_close(frame.result().rgb, rgb)
    # Of the whole frame, or of the audio encoder, the networks of the head, and two parts of the torso.
    assert backend.n_captures == (1 if kernels_can_be_captured(trainer.device) else 4)
