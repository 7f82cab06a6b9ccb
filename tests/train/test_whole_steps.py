"""Whole training steps as CUDA graphs, or on the CPU as recorded operations, give the numbers of plain ones."""

import dataclasses
import gc
from types import SimpleNamespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from ernerf_ti.portrait.model.calls import call_plainly
from ernerf_ti.portrait.render import frame_renderer
from ernerf_ti.portrait.render.static_shapes import kernels_can_be_captured, static_shapes_on_cpu
from ernerf_ti.process.graphs import STEADY_AFTER, Graphs
from ernerf_ti.train import stage_steps
from ernerf_ti.train.config import STAGES
from ernerf_ti.train.stage_steps import StageSteps
from ernerf_ti.train.trainer import Trainer
from taichi_kernels import runtime
from tests.process.recorded_graphs import CountingBackend

pytestmark = pytest.mark.usefixtures("deterministic_on_cuda")

N_STEPS = 2 * STEADY_AFTER + 5


@pytest.fixture(autouse=True)
def static_shapes():
    with static_shapes_on_cpu():
        yield


@pytest.fixture(autouse=True)
def kernels_are_recorded(monkeypatch):
    monkeypatch.setattr(stage_steps, "kernels_can_be_captured", lambda device: True)


@pytest.fixture
def recordable(device):
    if device.type == "cuda" and not runtime.can_capture(device):
        pytest.skip("Taichi's launches can't be recorded; unset TAICHI_KERNELS_CUDA_LAUNCHER")


@pytest.fixture
def backend(recordable, device):
    return CountingBackend(device, records_kernels=True)


@pytest.fixture
def make(capture, config, tmp_path, device):
    """Makes trainers with the same random numbers; with a backend they record their steps."""

    def make(backend=None, tell=pytest.fail, stage="head", precision="float32", eyes_every=0, **settings):
        stages = {
            name: dataclasses.replace(getattr(config, name), iterations=2 * N_STEPS, **settings) for name in STAGES
        }
        stages["finetune"] = dataclasses.replace(stages["finetune"], eyes_every=eyes_every)
        options = dataclasses.replace(config, precision=precision, random_background_fraction=0.25, **stages)
        trainer = Trainer(capture, options, tmp_path, device, cuda_graphs="off")
        if backend is not None:
            use_graphs(trainer, Graphs(backend, tell, trainer.portrait.precision))
        start(trainer, stage)
        return trainer

    return make


def use_graphs(trainer, graphs):
    trainer._graphs = graphs
    for stage in trainer.stages.values():
        stage.call = graphs


def start(trainer, stage):
    trainer.start_stage(stage)
    for group in trainer.optimizer.param_groups:  # as on CUDA
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=trainer.device)


def assert_close(got, expected, rtol, atol):
    """On CUDA, where atomic sums have no fixed order and Adam makes whole steps of the noise in a gradient that is
    nearly 0, tensors are compared by the norm of their difference."""
    got, expected = ([x for x in tree_leaves(values) if isinstance(x, torch.Tensor)] for values in (got, expected))
    for a, b in zip(got, expected, strict=True):
        if b.is_cuda and b.is_floating_point():
            error, size = (a - b).double().norm(), b.double().norm()
            assert error <= max(rtol, 1e-2) * size + 1e-6, f"differs by {error:.2g} from {size:.2g}"
        elif not b.is_cuda:
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def assert_same(got, expected):
    """Weights and moments of two trainers are the same."""
    assert_close(got.portrait.state_dict(), expected.portrait.state_dict(), rtol=1e-4, atol=1e-5)
    assert_close(got.cameras.state_dict(), expected.cameras.state_dict(), rtol=1e-4, atol=1e-6)
    states = (trainer.optimizer.state_dict()["state"] for trainer in (got, expected))
    assert_close(*states, rtol=1e-4, atol=1e-6)


def take_same_steps(got, expected, n):
    for _ in range(n):
        reports = got.train_step(), expected.train_step()
        assert_close(reports[0].terms, reports[1].terms, rtol=1e-4, atol=1e-6)
        assert_close(reports[0].loss, reports[1].loss, rtol=1e-4, atol=1e-6)
        assert_close(*(r.statistics.mse for r in reports), rtol=1e-4, atol=1e-7)
        n_samples = [float(r.statistics.n_samples) for r in reports]
        assert n_samples[0] == pytest.approx(n_samples[1], rel=0.01 if got.device.type == "cuda" else 0)
        assert reports[0].statistics.n_rays == reports[1].statistics.n_rays
    assert_same(got, expected)


@pytest.mark.parametrize(
    ("stage", "precision", "n_captures"),
    [("head", "float32", 1), ("head", "bf16", 1), ("finetune", "float32", 2), ("torso", "float32", 1)],
)
def test_steps_equal_plain_ones(make, backend, stage, precision, n_captures):
    graphed, plain = make(backend, stage=stage, precision=precision), make(stage=stage, precision=precision)
    take_same_steps(graphed, plain, N_STEPS)
    assert backend.n_captures == n_captures


def test_steps_on_the_eyes_equal_plain_ones(make, backend):
    graphed, plain = (make(one, stage="finetune", eyes_every=1) for one in (backend, None))
    take_same_steps(graphed, plain, N_STEPS)
    assert backend.n_captures == 2  # lips and eyes


@pytest.mark.parametrize("stage", STAGES)
def test_no_gradient_node_is_alive_when_a_step_is_recorded(make, backend, stage):
    # It would belong to the stream of the plain run, and CUDA would refuse to record a backward pass on another one.
    trainer, alive, side_stream = make(backend, stage=stage), [], backend.side_stream
    parameters, loss = trainer.stages[stage].parameters(), trainer.stages[stage].loss

    def notes(name):
        return torch.autograd.graph.get_gradient_edge(parameters[name]).node.metadata

    def marking_loss(*args):
        result = loss(*args)
        for name in parameters:
            notes(name)["met"] = True
        return result

    def checking_side_stream():
        alive.append([name for name in parameters if notes(name)])
        return side_stream()

    trainer.stages[stage].loss, backend.side_stream = marking_loss, checking_side_stream
    while not alive and trainer.step < N_STEPS:
        trainer.train_step()
    assert alive == [[]]


def test_silent_steps(make, backend):
    graphed, plain = make(backend), make()
    for trainer in (graphed, plain):
        windows = trainer.frames.windows
        trainer.frames.add_silence(torch.zeros(2, 12, *windows.shape[1:]))
        with_config(trainer, silence_fraction=0.5)
    take_same_steps(graphed, plain, N_STEPS)
    assert backend.n_captures == 1
    silent = [graphed._draws.context(step) is not None for step in range(STEADY_AFTER + 1, N_STEPS)]
    assert True in silent and False in silent


def with_config(trainer, **changes):
    """A trainer whose stages have other settings."""
    trainer.config = dataclasses.replace(trainer.config, **changes)
    for stage in trainer.stages.values():
        stage.config = trainer.config
    start(trainer, trainer.stage)
    return trainer


def test_refined_cameras(make, backend):
    graphed, plain = (with_config(make(b), refine_cameras=True) for b in (backend, None))
    take_same_steps(graphed, plain, 2 * STEADY_AFTER)
    assert backend.n_captures == 1
    assert graphed.cameras.rotations.abs().max() > 0


def test_kinds_of_steps_share_memory_and_take_turns(make, backend):
    graphed, plain = (with_config(make(b), grid_update_every=2) for b in (backend, None))
    take_same_steps(graphed, plain, N_STEPS)
    assert backend.n_captures == 2 + 1  # with the smoothness term, without, and the audio encoder in grid updates
    whole = graphed._steps._whole
    assert len(whole) == 2 and len({id(step.pool) for step in whole.values()}) == 1


def test_another_capacity_is_recorded_again(make, backend):
    graphed, plain = make(backend, n_rays=1024), make(n_rays=1024)
    for size, n_captures in ((100, 1), (20_000, 3)):
        for trainer in (graphed, plain):
            trainer.stages["head"]._capacities["pixels"].fit(size)
        take_same_steps(graphed, plain, 2 * STEADY_AFTER)
        assert backend.n_captures == n_captures  # in the end also the audio encoder in grid updates
        gc.collect()
        assert backend.n_alive == (n_captures + 1) // 2
        found = [int(trainer.stages["head"]._capacities["pixels"]._largest) for trainer in (graphed, plain)]
        assert found[0] == pytest.approx(found[1], rel=0.01 if graphed.device.type == "cuda" else 0)
        assert found[1] > 100


def test_too_little_room_is_told_from_the_graph(make, backend):
    trainer = make(backend, n_rays=1024)
    capacity = trainer.stages["head"]._capacities["pixels"]
    capacity.fit(100)
    for _ in range(2 * STEADY_AFTER):
        trainer.train_step()
    capacity._largest.fill_(-1)  # as after a log line
    trainer.train_step()
    (note,) = trainer.stages["head"].adjust()
    assert "some rays were rendered without samples" in note
    assert trainer.stages["head"].adjust() == []


@pytest.mark.parametrize("stage", ["head", "torso"])
def test_a_run_is_the_plain_one_also_when_it_is_resumed(make, backend, stage, capture, tmp_path):
    plain = make(stage=stage)
    plain.folder = tmp_path / "plain"
    plain.run((stage,))
    graphed = make(backend, stage=stage)
    graphed.folder = tmp_path / "graphed"
    assert not graphed.run((stage,), should_stop=lambda: graphed.step == 2 * STEADY_AFTER)
    resumed = Trainer.resume(capture, tmp_path / "graphed", graphed.device, cuda_graphs="off")
    use_graphs(resumed, Graphs(backend, pytest.fail))
    resumed._steps = StageSteps(resumed._current, resumed.optimizer, resumed.scaler, resumed._graphs)
    for group in resumed.optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=resumed.device)
    resumed.run((stage,))
    assert backend.n_captures >= 2
    assert_close(resumed.portrait.state_dict(), plain.portrait.state_dict(), rtol=1e-2, atol=1e-3)
    assert_close(resumed.average.state_dict(), plain.average.state_dict(), rtol=1e-2, atol=1e-3)


def test_several_trainers_take_turns(make, device, recordable):
    backends = [CountingBackend(device, records_kernels=True) for _ in range(2)]
    first, second, plain = make(backends[0]), make(backends[1]), make()
    for _ in range(2 * STEADY_AFTER):
        first.train_step()
        take_same_steps(second, plain, 1)
    assert_same(first, plain)
    assert [backend.n_captures for backend in backends] == [1, 1]


def fail_first(backend):
    """Let the first recording fail at its end."""
    capture = backend.capture

    def capture_next(function, *args):
        def failing():
            function()
            raise RuntimeError("this can't be recorded")

        return capture(function if backend.n_captures else failing, *args)

    backend.capture = capture_next


@pytest.mark.parametrize("fails", ["whole", "all"])
def test_graphs_between_the_kernels_replace_one_that_fails(make, device, fails):
    backend, notes = CountingBackend(device, records_kernels=True), []
    if fails == "whole":
        fail_first(backend)
    else:

        def capture(function, pool, generators=()):
            raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

        backend.capture = capture
    graphed, plain = make(backend, notes.append), make()
    take_same_steps(graphed, plain, 3 * STEADY_AFTER)
    assert notes[0].startswith("CUDA graph of a whole step (pixels): it can't be recorded (RuntimeError: ")
    assert notes[0].endswith("; graphs between the kernels replace it")
    assert len(notes) == (1 if fails == "whole" else 5)
    assert backend.n_captures == (1 + 6 + 1 if fails == "whole" else 0)


def test_a_graph_that_does_something_else_is_not_used(make, backend):
    notes, capture = [], backend.capture

    def idle(function, pool, generators=()):
        graph, result = capture(function, pool, generators)
        return SimpleNamespace(replay=lambda: None, graph=graph) if generators else graph, result

    backend.capture = idle
    graphed, plain = make(backend, notes.append), make()
    take_same_steps(graphed, plain, 2 * STEADY_AFTER)
    (note,) = notes
    assert "expected the numbers of the plain run within " in note


def test_next_stage_frees_the_memory(make, backend):
    trainer = make(backend)
    for _ in range(2 * STEADY_AFTER):
        trainer.train_step()
    assert backend.n_alive == 1
    trainer.start_stage("torso")
    gc.collect()
    assert backend.n_alive == 0


def test_float16_takes_steps_between_the_kernels(make, backend):
    graphed, plain = make(backend, precision="fp16"), make(precision="fp16")
    for _ in range(2 * STEADY_AFTER):
        graphed.train_step()
        plain.train_step()
    assert not graphed._steps._whole and backend.n_captures == 6


@pytest.mark.parametrize("trained", [True, False])
def test_a_frame_by_its_index_on_the_device(make, trained):
    frames = make().frames
    for i in (0, 7, len(frames) - 1):
        own = frames.frame(3).in_own_memory()
        own.load(frames.frame(i))
        got, expected = frames.inputs(own.index, trained, own.context), frames.inputs(i, trained)
        assert torch.equal(got.audio_window, expected.audio_window) and torch.equal(got.head_pose, expected.head_pose)
        assert torch.equal(got.eye_closure, expected.eye_closure)
        assert (got.appearance_index is None) is (not trained)
        pixels = torch.arange(100, device=frames.device)
        rays, others = frames.rays(own, pixels), frames.rays(frames.frame(i), pixels)
        assert all(torch.equal(a, b) for a, b in zip(vars(rays).values(), vars(others).values(), strict=True))


@pytest.mark.parametrize("with_torso", [True, False])
def test_whole_frames_equal_plain_ones(make, backend, with_torso, monkeypatch):
    monkeypatch.setattr(frame_renderer, "kernels_can_be_captured", lambda device: True)
    trainer = make()
    for _ in range(3):
        trainer.train_step()
    frames, portrait = trainer.frames, trainer.portrait
    renderer = portrait.renderer(tuple(frames.capture.intrinsics), (frames.width, frames.height))
    graphs, background = Graphs(backend, pytest.fail), torch.rand(frames.height, frames.width, 3, device=frames.device)
    capacity = portrait.sample_capacity(frames.n_pixels)
    pending, expected = [], []
    for i in range(2 * STEADY_AFTER + 4):
        if i == STEADY_AFTER + 3:
            capacity._size = 2 * capacity._size  # another graph
        inputs = frames.inputs(i % 18, trained=i % 2 == 0)
        if i % 2:
            inputs.torso_appearance = portrait.torso.appearance(i % 18)
        portrait.call = call_plainly
        expected.append(renderer.submit(inputs, background, with_torso).result())
        portrait.call = graphs
        pending.append(renderer.submit(inputs, background, with_torso))
    for frame, output in zip(pending, expected, strict=True):
        assert_close(vars(frame.result()), vars(output), rtol=1e-5, atol=1e-5)
    assert backend.n_captures > 0


def test_a_frame_that_is_not_recorded_goes_through_graphs_between_the_kernels(make, device, monkeypatch):
    monkeypatch.setattr(frame_renderer, "kernels_can_be_captured", lambda device: True)
    backend, notes = CountingBackend(device, records_kernels=True), []
    fail_first(backend)
    trainer = make()
    frames, portrait = trainer.frames, trainer.portrait
    portrait.call = Graphs(backend, notes.append)
    for _ in range(2 * STEADY_AFTER + 2):
        output = portrait.render(frames.inputs(1), tuple(frames.capture.intrinsics), (frames.width, frames.height))
    (note,) = notes
    assert note.startswith("CUDA graph of Portrait.image: it can't be recorded (RuntimeError: ")
    assert backend.n_captures == 1 + 4  # audio encoder, networks of the head, two parts of the torso
    portrait.call = call_plainly
    expected = portrait.render(frames.inputs(1), tuple(frames.capture.intrinsics), (frames.width, frames.height))
    torch.testing.assert_close(output.rgb, expected.rgb)


def test_kernels_are_recorded_only_where_their_launcher_is_on(monkeypatch):
    asked = []
    monkeypatch.setattr(runtime, "can_capture", lambda device: asked.append(device.type) or device.type == "cuda")
    assert kernels_can_be_captured(torch.device("cuda")) and not kernels_can_be_captured(torch.device("cpu"))
    assert asked == ["cuda", "cpu"]
