"""The optimizer of a stage: its groups, its steps, and states saved by other kinds of steps."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from ernerf_ti.run.checkpoint import load_state
from ernerf_ti.train.config import FinetuneStageConfig, OptimizerConfig, StageConfig
from ernerf_ti.train.optimizer import set_learning_rates, stage_optimizer

CONFIG = OptimizerConfig(beta1=0.9)
SETTINGS = {  # by parameter: learning rate and weight decay
    "head.position_encoder.encoding.tables": (CONFIG.grid_lr, CONFIG.grid_weight_decay),
    "head.audio_encoder.attention.scores.weight": (5 * CONFIG.net_lr, CONFIG.attention_weight_decay),
    "head.audio_encoder.projection.0.weight": (CONFIG.net_lr, 0.0),
    "cameras.rotations": (CONFIG.camera_lr, 0.0),
    "head.color_net.layers.0.weight": (CONFIG.net_lr, 0.0),
}


def parameters(device="cpu") -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(6, 3, generator=generator).to(device)) for name in SETTINGS}


def take_steps(optimizer, values, first: int, n: int) -> None:
    for step in range(first, first + n):
        for i, p in enumerate(values.values()):
            p.grad = torch.sin(p.detach() * (i + 1) + step)
        optimizer.step()


def plain_optimizer(values, stage: StageConfig) -> torch.optim.AdamW:
    """AdamW as earlier versions had it: the plain loop over parameters."""
    start = getattr(stage, "lr_scale", 1.0)
    return torch.optim.AdamW(
        [
            {"params": [values[name]], "lr": start * rate, "full_rate": start * rate, "weight_decay": decay}
            for name, (rate, decay) in SETTINGS.items()
        ],
        betas=(CONFIG.beta1, CONFIG.beta2),
        eps=CONFIG.eps,
        foreach=False,
    )


@pytest.mark.parametrize("stage", [StageConfig(100), FinetuneStageConfig(100)], ids=["head", "finetune"])
def test_steps_are_those_of_adamw(stage, device):
    ours, theirs = parameters(device), parameters(device)
    optimizer, plain = stage_optimizer(ours.items(), CONFIG, stage), plain_optimizer(theirs, stage)
    for progress in (0.0, 0.5):
        set_learning_rates(optimizer, stage, progress)
        for group in plain.param_groups:
            group["lr"] = group["full_rate"] * stage.lr_decay**progress
        take_steps(optimizer, ours, 0, 5)
        take_steps(plain, theirs, 0, 5)
    before = parameters(device)
    for name, value in ours.items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(value, theirs[name], msg=lambda m, n=name: f"{n}: {m}")


def test_a_state_of_the_plain_loop_continues(device):
    stage = StageConfig(100)
    theirs = parameters(device)
    plain = plain_optimizer(theirs, stage)
    take_steps(plain, theirs, 0, 4)
    ours = {name: nn.Parameter(p.detach().clone()) for name, p in theirs.items()}
    state = copy.deepcopy(plain.state_dict())  # which holds the moments themselves
    state["param_groups"][0] |= {"lr": 9.0, "weight_decay": 9.0}  # settings are those of the configuration
    optimizer = stage_optimizer(ours.items(), CONFIG, stage)
    load_state(optimizer, state, Path("file"), "optimizer")
    assert all(group["fused"] for group in optimizer.param_groups)
    take_steps(optimizer, ours, 4, 4)
    take_steps(plain, theirs, 4, 4)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], msg=lambda m, n=name: f"{n}: {m}")


def test_a_state_of_other_parameters_is_refused():
    stage, values = StageConfig(100), parameters()
    optimizer = stage_optimizer(values.items(), CONFIG, stage)
    fewer = stage_optimizer(list(values.items())[:2], CONFIG, stage).state_dict()
    with pytest.raises(ValueError, match="expected a state of optimizer that fits the configuration, got loaded state"):
        load_state(optimizer, fewer, Path("file"), "optimizer")


def test_learning_rates_in_tensors_are_filled_in_place():
    """As on CUDA, where a captured step reads them from their place."""
    stage = StageConfig(100, lr_decay=0.25)
    optimizer = stage_optimizer(parameters().items(), CONFIG, stage)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    before = [group["lr"] for group in optimizer.param_groups]
    set_learning_rates(optimizer, stage, 0.5)
    for group, tensor, (rate, _) in zip(optimizer.param_groups, before, SETTINGS.values(), strict=True):
        assert group["lr"] is tensor and float(tensor) == pytest.approx(rate / 2)


def test_all_parameters_have_a_group():
    rates = dataclasses.replace(CONFIG, audio_lr_scale=0.5)
    optimizer = stage_optimizer(parameters().items(), rates, StageConfig(100))
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    expected = [(rate / 2 if "projection" in name else rate, decay) for name, (rate, decay) in SETTINGS.items()]
    assert found == expected
