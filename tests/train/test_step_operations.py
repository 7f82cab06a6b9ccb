"""What a training step costs a host that only launches: its operations, and those that wait for the device.

The CPU dispatches what a GPU would be given, so that both can be counted without one. The bounds are a little above
what was counted; lower them when a step gets shorter.
"""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch

from ernerf_ti.experiments.operations import recorded_operations
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.portrait.render.static_shapes import static_shapes_on_cpu
from ernerf_ti.train import head_stages, torso_stage
from ernerf_ti.train.trainer import Trainer

FORMS = {"as on the CPU": nullcontext, "in fixed shapes": static_shapes_on_cpu}
"""How shapes are chosen."""
PASSES = {"index": 6, "repeat_interleave": 1, "bincount": 1}  # of the head over its samples
BOUNDS = {
    # (form, stage, step): operations that launch work, and waits by operation. Grids are updated in step 4.
    ("as on the CPU", "head", 3): (700, PASSES),
    ("as on the CPU", "finetune", 2): (765, PASSES),
    ("as on the CPU", "finetune", 3): (700, PASSES),
    ("as on the CPU", "torso", 3): (190, {"nonzero": 1}),
    ("in fixed shapes", "head", 3): (405, {}),
    ("in fixed shapes", "head", 4): (620, {}),
    ("in fixed shapes", "finetune", 2): (500, {}),
    ("in fixed shapes", "finetune", 3): (410, {}),
    ("in fixed shapes", "torso", 3): (175, {}),
    ("in fixed shapes", "torso", 4): (240, {}),
}


@pytest.fixture
def trainer(capture, config, tmp_path) -> Trainer:
    return Trainer(capture, config, tmp_path)


@pytest.mark.parametrize(("form", "stage", "step"), BOUNDS)
def test_operations_of_a_step(trainer, form, stage, step):
    trainer.start_stage(stage)
    with FORMS[form]():
        for trainer.step in (0, step):  # the grid is updated, the frame is read
            trainer.train_step()
        trainer.step = step
        with recorded_operations() as counted:
            trainer.train_step()
    launches, waits = BOUNDS[form, stage, step]
    found = Counter(counted.waits)
    assert found <= Counter(waits)
    assert counted.launches <= launches


def rendered(n: int, parameters: list[torch.Tensor]) -> RenderOutput:
    """What a renderer of fixed shapes would give: values at N rays that depend on the parameters."""
    ray = sum(parameter.sum() for parameter in parameters) * torch.linspace(0, 1, n)
    return RenderOutput(ray[:, None].expand(n, 3), ray, ray, ray, ray, ray, torch.ones(n, dtype=torch.int32))


@pytest.mark.parametrize("stage", ["head", "finetune", "torso"])
@pytest.mark.parametrize("step", [0, 1])
def test_only_rendering_and_grids_may_wait(trainer, monkeypatch, stage, step):
    """Draws, frames, inputs, losses and the smoothness term."""

    def render_head(field, grid, rays_o, *_):
        return rendered(len(rays_o), [field.audio_code, field.appearance, field.eye_closure])

    def render_torso(field, grid, coords, background):
        rgb = background * field.keywords["head_pose"].sum() * trainer.portrait.torso.anchors.sum()
        return rgb, rgb[:, 0]

    monkeypatch.setattr(head_stages, "render_head", render_head)
    monkeypatch.setattr(torso_stage, "render_torso", render_torso)
    trainer.start_stage(stage)
    frame, generator = trainer.frames.frame(trainer._draws.frame(step)), trainer._draws.generators(step).device
    arguments = frame, trainer.stages[stage].kind(step), 0.5, generator
    trainer.stages[stage].loss(*arguments)  # makes the tables
    with recorded_operations() as counted:
        trainer.stages[stage].loss(*arguments).total.backward()
    assert not counted.waits
    assert counted.launches > 20


def test_refined_cameras_wait_for_nothing(trainer):
    rays = torch.rand(4, 3), torch.rand(4, 3)
    with recorded_operations() as counted:
        torch.stack(trainer.cameras(*rays, 3)).sum().backward()
    assert not counted.waits


@pytest.mark.parametrize(
    ("wait", "launch"),
    [
        (lambda x: x.sum().item(), lambda x: x.sum()),
        (lambda x: x[x > 0.5], lambda x: x[torch.arange(2)]),
        (lambda x: torch.tensor([1.0, 2.0]) + x, lambda x: torch.zeros(2) + x),
        (lambda x: bool((x > 2).any()), lambda x: (x > 2).any()),
        (lambda x: (x > 0.5).nonzero(), lambda x: torch.where(x > 0.5, x, 0)),
    ],
)
def test_waits_are_seen(wait, launch):
    x = torch.rand(2)
    with recorded_operations() as counted:
        wait(x)
    assert counted.waits
    with recorded_operations() as counted:
        launch(x)
    assert not counted.waits
