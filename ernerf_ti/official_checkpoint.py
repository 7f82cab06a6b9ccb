"""Read a checkpoint of the public ER-NeRF code into our modules."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ernerf_ti.model.head_field import HeadField, HeadFieldConfig
from ernerf_ti.model.position_encoders import TriplaneHashConfig
from ernerf_ti.model.torso_field import TorsoField, TorsoFieldConfig
from ernerf_ti.render.occupancy_grid import OccupancyGrid, OccupancyGridConfig
from ernerf_ti.render.torso_grid import TorsoGrid, TorsoGridConfig

RELEASED_HEAD = HeadFieldConfig(position_encoder=TriplaneHashConfig(n_levels=12))
"""The head that the public code builds: 12 levels, where the paper has 14."""

# Prefix of ours: prefix of theirs.
_HEAD_PREFIXES = {
    "audio_encoder.convolutions.": "audio_net.encoder_conv.",
    "audio_encoder.projection.": "audio_net.encoder_fc1.",
    "audio_encoder.attention.convolutions.": "audio_att_net.attentionConvNet.",
    "audio_encoder.attention.scores.": "audio_att_net.attentionNet.0.",
    "conditioning.audio_attention.layers.": "aud_ch_att_net.net.",
    "conditioning.eye_attention.layers.": "eye_att_net.net.",
    "density_net.layers.": "sigma_net.net.",
    "colour_net.layers.": "color_net.net.",
    "uncertainty_net.layers.": "unc_net.net.",
    "identity_codes.codes": "individual_codes",
}
_TORSO_PREFIXES = {
    "deformation_net.layers.": "torso_deform_net.net.",
    "colour_net.layers.": "torso_net.net.",
    "encoding.table": "torso_encoder.embeddings",
    "anchors": "anchor_points",
    "identity_codes.codes": "individual_codes_torso",
}
_PLANES = tuple(f"encoder_{plane}.embeddings" for plane in ("xy", "yz", "xz"))


class OfficialModel(NamedTuple):
    """What a checkpoint holds."""

    head: HeadField
    head_grid: OccupancyGrid
    torso: TorsoField | None
    """None in the checkpoint of a head."""
    torso_grid: TorsoGrid | None


def read_official_checkpoint(path: Path) -> OfficialModel:
    """Read a .pth file of the public code, made with its default options.

    Args:
        path: a file with a `model` entry, or a bare state dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, a missing tensor, or one of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, got no such file; pass the path of an ngp.pth")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises one of many for a file that is not its own
        raise ValueError(f"{path}: expected a file of torch.save with tensors only, got {error}") from error
    tensors = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or "audio_net.encoder_conv.0.weight" not in tensors:
        raise ValueError(
            f"{path}: expected a state dict of ER-NeRF with audio_net.encoder_conv.0.weight, got none; "
            "pass a file that ER-NeRF wrote, with its `model` entry or bare"
        )
    source = _Source(path, tensors)
    head = HeadField(
        RELEASED_HEAD, source.size("audio_net.encoder_conv.0.weight", 1), source.size("individual_codes", 0)
    )
    tables = head.position_encoder.encoding.tables
    planes = [source.of_shape(name, tables[i]) for i, name in enumerate(_PLANES)]
    source.fill(head, _HEAD_PREFIXES)
    with torch.no_grad():
        tables.copy_(torch.stack(planes))
    head_grid = OccupancyGrid(OccupancyGridConfig())
    head_grid.set_bitfield(source.of_shape("density_bitfield", head_grid.bitfield))
    if "density_grid" in tensors:
        head_grid.density_grid.copy_(source.of_shape("density_grid", head_grid.density_grid))
    head_grid.mean_density.fill_(float(content.get("mean_density", 0.0)))
    if "anchor_points" not in tensors:
        return OfficialModel(head, head_grid, None, None)
    torso = TorsoField(TorsoFieldConfig(), source.size("individual_codes_torso", 0))
    source.fill(torso, _TORSO_PREFIXES)
    torso_grid = TorsoGrid(TorsoGridConfig())
    alpha_grid = source.of_shape("density_grid_torso", torso_grid.alpha_grid.flatten())
    torso_grid.alpha_grid.copy_(alpha_grid.view_as(torso_grid.alpha_grid))
    # A bare state dict lacks the mean that the public code kept beside it.
    torso_grid.mean_alpha.fill_(float(content.get("mean_density_torso", alpha_grid.mean())))
    return OfficialModel(head, head_grid, torso, torso_grid)


class _Source:
    """The tensors of a file, with errors that name it."""

    def __init__(self, path: Path, tensors: dict[str, Tensor]):
        self.path, self.tensors = path, tensors

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ValueError(
                f"{self.path}: expected a tensor {name}, got none; "
                "pass a checkpoint made with the default options of ER-NeRF (-O)"
            )
        return self.tensors[name]

    def size(self, name: str, dim: int) -> int:
        tensor = self[name]
        if tensor.dim() <= dim:
            raise ValueError(
                f"{self.path}: {name}: expected at least {dim + 1} dimensions, got {list(tensor.shape)}; "
                "pass a checkpoint of ER-NeRF"
            )
        return tensor.shape[dim]

    def of_shape(self, name: str, target: Tensor) -> Tensor:
        tensor = self[name]
        if tensor.shape != target.shape:
            raise ValueError(
                f"{self.path}: {name}: expected shape {list(target.shape)}, got {list(tensor.shape)}; "
                "pass a checkpoint made with the default options of ER-NeRF (-O)"
            )
        return tensor

    def fill(self, module: nn.Module, prefixes: dict[str, str]) -> None:
        """Copy the tensors of all parameters whose names begin with a prefix."""
        with torch.no_grad():
            for ours, parameter in module.named_parameters():
                for prefix, theirs in prefixes.items():
                    if ours.startswith(prefix):
                        parameter.copy_(self.of_shape(theirs + ours[len(prefix) :], parameter))
