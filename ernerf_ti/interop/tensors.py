"""The tensors of a checkpoint of the public ER-NeRF code, by their names and in their order, as views of ours."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.train.config import PRESETS
from taichi_kernels import GridConfig

RELEASED = PRESETS["released"].portrait
"""The portrait that the public code builds: 12 levels, where the paper has 14."""
IDENTITY_CODES = ("individual_codes", "individual_codes_torso")
N_CODES = 10_000
"""Rows that the public code allots to identity codes, however many frames there are."""
DENSITY_GRID = "density_grid"
"""In its epoch files, and left out of ngp.pth."""

_TABLES = "head.position_encoder.encoding.tables"
_PLANES = ("encoder_xy", "encoder_yz", "encoder_xz")
# Where names of ours begin, and theirs, in the order of their modules.
_PREFIXES = (
    ("head.appearance.embeddings", "individual_codes"),
    ("torso.appearance.embeddings", "individual_codes_torso"),
    ("torso.anchors", "anchor_points"),
    ("head.audio_encoder.convolutions.", "audio_net.encoder_conv."),
    ("head.audio_encoder.projection.", "audio_net.encoder_fc1."),
    ("head.audio_encoder.attention.convolutions.", "audio_att_net.attentionConvNet."),
    ("head.audio_encoder.attention.scores.", "audio_att_net.attentionNet.0."),
    (_TABLES, ""),
    ("head.region_attention.eye_attention.layers.", "eye_att_net.net."),
    ("head.density_net.layers.", "sigma_net.net."),
    ("head.color_net.layers.", "color_net.net."),
    ("head.uncertainty_net.layers.", "unc_net.net."),
    ("head.region_attention.audio_attention.layers.", "aud_ch_att_net.net."),
    ("torso.deformation_net.layers.", "torso_deform_net.net."),
    ("torso.encoding.table", "torso_encoder.embeddings"),
    ("torso.color_net.layers.", "torso_net.net."),
)


def by_official_name(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the name of a parameter of :class:`Portrait` -> the same by the names of the public code.

    Their order is that of its `model.parameters()`. The tables of the three planes are views of ours. Names that
    are of no parameter are left out.
    """
    found = {}
    for ours, theirs in _PREFIXES:
        for name, tensor in named.items():
            if name == ours == _TABLES:
                found |= {f"{plane}.embeddings": table for plane, table in zip(_PLANES, tensor, strict=True)}
            elif name.startswith(ours):
                found[theirs + name[len(ours) :]] = tensor
    return found


def official_state(portrait: Portrait, has_torso: bool, with_density_grid: bool = False) -> dict[str, Tensor]:
    """The state dict of the public code for a portrait of the shape RELEASED.

    Args:
        portrait: whose tensors; the result holds views of them, detached.
        has_torso: with those of the torso.
        with_density_grid: with the densities of the head's cells.

    Returns:
        Tensors in the natural order of the keys. What is no tensor of ours (box, offsets of levels, counters) is
        made.
    """
    parts = ("head.", "torso.") if has_torso else ("head.",)
    parameters = by_official_name(
        {name: p.detach() for name, p in portrait.named_parameters() if name.startswith(parts)}
    )
    box = torch.tensor(portrait.head_grid.aabb)
    buffers = {"aabb_train": box, "aabb_infer": box.clone()}
    if with_density_grid:
        buffers[DENSITY_GRID] = portrait.head_grid.density_grid
    buffers["density_bitfield"] = portrait.head_grid.bitfield
    if has_torso:
        buffers["density_grid_torso"] = portrait.torso_grid.alpha_grid.view(-1)
    buffers["step_counter"] = torch.zeros(16, 2, dtype=torch.int32)
    offsets = {f"{plane}.offsets": _offsets(portrait.head.position_encoder.encoding.config) for plane in _PLANES}
    offsets["torso_encoder.offsets"] = _offsets(portrait.torso.encoding.config)

    # A module's own parameters come first, then its own buffers, then its parts.
    state = {name: parameters.pop(name) for name in tuple(parameters) if "." not in name} | buffers
    for name, tensor in parameters.items():
        state[name] = tensor
        owner, _, last = name.rpartition(".")
        if last == "embeddings":
            state[f"{owner}.offsets"] = offsets[f"{owner}.offsets"]
    return state


def follows_from_settings(name: str) -> bool:
    """Whether another value of a tensor means other settings of the public code."""
    return name.startswith("aabb_") or name.endswith(".offsets")


def is_parameter(name: str) -> bool:
    """Whether a tensor is trained by gradients."""
    return not (follows_from_settings(name) or name.startswith("density_") or name == "step_counter")


def _offsets(config: GridConfig) -> Tensor:
    return torch.tensor(config.level_offsets, dtype=torch.int32)
