"""Training steps on a device that is not the CPU: none mixes devices, or brings anything from or to the host.

Meta tensors, which have no values, stand for those of a GPU.
"""

import contextlib
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ernerf_ti.experiments.operations import recorded_operations
from ernerf_ti.train.config import STAGES
from ernerf_ti.train.frame_store import FrameStore
from ernerf_ti.train.trainer import Trainer
from ernerf_ti.train.training_frames import TrainingFrames

DEVICE = torch.device("meta")
STEPS = (4, 5)  # the grids are updated in step 4; fine-tuning takes the lips, then patches


class Stream:
    """A stream that only pretends."""

    def __init__(self, device=None):
        self.device = device

    def record_event(self):
        return "event"

    def wait_event(self, event):
        pass


class Generator:
    """A generator on the device."""

    device = DEVICE

    def manual_seed(self, seed):
        return self


def without_generator(draw):
    """Random numbers without values need none."""

    def drawn(*arguments, generator=None, **options):
        if isinstance(generator, Generator):
            assert options["device"] == DEVICE  # else torch refuses the generator
            generator = None
        return draw(*arguments, generator=generator, **options)

    return drawn


class _OneDevice(TorchDispatchMode):
    """Refuses what torch refuses on a GPU, and indices of the CPU, which are copied: tensors of several devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
        name = func.overloadpacket.__name__
        assert len({x.device for x in tensors}) < 2 or name in ("copy_", "_to_copy"), f"{name} mixes devices"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def device_modes(monkeypatch):
    make, init = torch.Generator, FrameStore.__init__

    def with_stream(store, *args, **options):
        init(store, *args, **options)
        store._copy_stream = Stream()

    monkeypatch.setattr(
        torch, "Generator", lambda device="cpu": make() if torch.device(device).type == "cpu" else Generator()
    )
    for name in ("rand", "randint"):
        monkeypatch.setattr(torch, name, without_generator(getattr(torch, name)))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type=None: False)  # unknown of this device
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda parameter: None)
    monkeypatch.setattr("ernerf_ti.portrait.render.static_shapes._device_types", {"meta"})
    monkeypatch.setattr(FrameStore, "__init__", with_stream)
    monkeypatch.setattr(FrameStore, "_buffer", lambda store: None)  # pinning needs a GPU
    with _OneDevice():
        yield


@pytest.fixture
def trainer(capture, config, tmp_path, request) -> Trainer:
    """A trainer of the CPU, moved to the device."""
    trainer = Trainer(capture, config, tmp_path)
    grid = trainer.portrait.head_grid
    seen = grid._seen_cells()
    request.getfixturevalue("device_modes")
    for module in (*trainer.portrait.modules(), *trainer.cameras.modules()):
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(parameter.detach().to(DEVICE))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(DEVICE)
    grid._seen = [(cells.to(DEVICE), centers.to(DEVICE)) for cells, centers in seen]
    trainer.frames = TrainingFrames(capture, capture.train, DEVICE, 2**30, with_regions=True)
    trainer.stages = {
        name: type(stage)(trainer.config, trainer.portrait, trainer.cameras, trainer.frames, trainer.held_out)
        for name, stage in trainer.stages.items()
    }
    yield trainer
    trainer.frames.close()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_steps_stay_on_the_device(trainer, stage, precision):
    trainer.portrait.set_precision(precision)
    trainer.start_stage(stage)
    for trainer.step in STEPS:
        trainer.train_step()  # makes the tables
    for step in STEPS:
        trainer.step = step
        coming = trainer._draws.frame(step)
        trainer.frames._store.get(coming)
        trainer.frames.announce = lambda frames: None  # they come from the host, but ahead
        with recorded_operations() as counted:
            report = trainer.train_step()
        assert not counted.waits and not counted.from_host
        assert all(value.device == DEVICE for value in (report.loss, *report.terms.values()))
    gradients = [p.grad for p in trainer.stages[stage].parameters().values() if p.grad is not None]
    assert gradients and all(gradient.device == DEVICE for gradient in gradients)
