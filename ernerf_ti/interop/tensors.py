"""The tensors of a checkpoint of the public ER-NeRF code, under its names and in its order, as views of ours."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ernerf_ti.portrait.model.position_encoders import TriplaneHash
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.train.config import PRESETS
from taichi_kernels import GridConfig

RELEASED = PRESETS["released"].portrait
"""Shape of the portraits that the public code builds: 12 levels, where the paper has 14."""
EMBEDDINGS = ("individual_codes", "individual_codes_torso")
"""The appearance embeddings of head and torso."""
N_EMBEDDINGS = 10_000
"""Rows of appearance embeddings in the public code, for any number of frames."""
DENSITY_GRID = "density_grid"
"""Contained in epoch files but not in ngp.pth."""

_TABLES = "head.position_encoder.encoding.tables"
_PLANES = ("encoder_xy", "encoder_yz", "encoder_xz")
# Prefixes of our parameter names and of theirs, in the order of their modules.
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
    """Rename tensors from the parameter names of :class:`Portrait` to those of the public code.

    The result is in the order of its `model.parameters()`. The tables of the three planes are views of ours. Names
    that belong to no parameter are left out.
    """
    found: dict[str, Tensor] = {}
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
        portrait: the portrait; the result holds detached views of its tensors.
        has_torso: whether to include the torso.
        with_density_grid: whether to include the densities of the head's occupancy grid.

    Returns:
        Tensors in the order of that state dict. Those that we have no counterpart of (bounding boxes, level offsets,
        counters) are made here.
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
    encoder = portrait.head.position_encoder
    assert isinstance(encoder, TriplaneHash)  # that of RELEASED
    offsets = {f"{plane}.offsets": _offsets(encoder.encoding.config) for plane in _PLANES}
    offsets["torso_encoder.offsets"] = _offsets(portrait.torso.encoding.config)

    # A module's own parameters come first, then its own buffers, then its submodules.
    state = {name: parameters.pop(name) for name in tuple(parameters) if "." not in name} | buffers
    for name, tensor in parameters.items():
        state[name] = tensor
        owner, _, last = name.rpartition(".")
        if last == "embeddings":
            state[f"{owner}.offsets"] = offsets[f"{owner}.offsets"]
    return state


def follows_from_settings(name: str) -> bool:
    """Whether a tensor is determined by the settings of the public code."""
    return name.startswith("aabb_") or name.endswith(".offsets")


def is_parameter(name: str) -> bool:
    """Whether a tensor is a trained parameter."""
    return not (follows_from_settings(name) or name.startswith("density_") or name == "step_counter")


def _offsets(config: GridConfig) -> Tensor:
    return torch.tensor(config.level_offsets, dtype=torch.int32)
