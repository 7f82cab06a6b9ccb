"""The optimizer of a stage, with a learning rate per kind of parameter, and the moving average of the weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ernerf_ti.train.config import OptimizerConfig, StageConfig


def stage_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, stage: StageConfig
) -> torch.optim.AdamW:
    """AdamW with parameter groups by name: hash tables, temporal attention, audio encoder, cameras, networks.

    Hash tables have weight decay, as in ER-NeRF, which uses AdamW's default.

    A step is one kernel per group. On CUDA the learning rates are tensors there, so that a CUDA graph could read them.
    `capturable` is left off: the fused step does not depend on it, and torch warns of it in a step that is not
    captured. A loaded state does not change the settings, which older versions saved for another kind of step.
    """
    groups: dict[str, list[nn.Parameter]] = {"tables": [], "attention": [], "audio": [], "cameras": [], "networks": []}
    for name, parameter in parameters:
        if name.endswith((".table", ".tables")):
            groups["tables"].append(parameter)
        elif ".audio_encoder.attention." in f".{name}":
            groups["attention"].append(parameter)
        elif ".audio_encoder." in f".{name}":
            groups["audio"].append(parameter)
        elif name.startswith("cameras."):
            groups["cameras"].append(parameter)
        else:
            groups["networks"].append(parameter)
    settings = {
        "tables": (config.grid_lr, config.grid_weight_decay),
        "attention": (config.attention_lr_scale * config.net_lr, config.attention_weight_decay),
        "audio": (config.audio_lr_scale * config.net_lr, 0.0),
        "cameras": (config.camera_lr, 0.0),
        "networks": (config.net_lr, 0.0),
    }
    start = getattr(stage, "lr_scale", 1.0)
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[name], "lr": start * rate, "full_rate": start * rate, "weight_decay": decay}
            for name, (rate, decay) in settings.items()
            if groups[name]
        ],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if device.type == "cuda":
            group["lr"] = torch.full((), group["lr"], device=device)
    optimizer.register_load_state_dict_pre_hook(_with_own_settings)
    return optimizer


def _with_own_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A state dict to be loaded, with the optimizer's own settings in place of those saved."""
    groups = state["param_groups"]
    if len(groups) == len(optimizer.param_groups):  # else loading it fails
        groups = [{**own, "params": saved["params"]} for own, saved in zip(optimizer.param_groups, groups, strict=True)]
    return {**state, "param_groups": groups}


def set_learning_rates(optimizer: torch.optim.Optimizer, stage: StageConfig, progress: float) -> None:
    """Set learning rates to full_rate * lr_decay^progress, progress being the fraction of the stage that is done."""
    for group in optimizer.param_groups:
        rate = group["full_rate"] * stage.lr_decay**progress
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class WeightAverage:
    """Exponential moving average of parameters. Its decay rises to `decay` over the first updates."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float):
        self._parameters, self._decay, self._n = parameters, decay, 0
        self._average = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        self._n += 1
        decay = min(self._decay, self._n / (9 + self._n))
        torch._foreach_lerp_(list(self._average.values()), [p.detach() for p in self._parameters.values()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average with the parameters."""
        for name, parameter in self._parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name] = held

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"n": self._n, **{f"average.{name}": value for name, value in self._average.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._n = state["n"]
        for name, value in self._average.items():
            value.copy_(state[f"average.{name}"])
