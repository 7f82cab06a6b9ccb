"""Checkpoint files of the public ER-NeRF code: read strictly, and written like its ngp.pth."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ernerf_ti.interop.tensors import (
    DENSITY_GRID,
    EMBEDDINGS,
    RELEASED,
    follows_from_settings,
    is_parameter,
    official_state,
)
from ernerf_ti.media.whole_files import replacing
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.run.tensor_files import not_finite, read_tensor_file

_NUMBERS = "epoch", "global_step", "mean_count", "mean_density", "mean_density_torso"
_FIRST_LAYER = "audio_net.encoder_conv.0.weight"


@dataclass(frozen=True)
class OfficialFile:
    """A checkpoint whose tensors have the expected names and shapes."""

    path: Path
    tensors: dict[str, Tensor]
    """Its `model` entry, in the order of the public code's state dict."""
    entries: dict[str, Any]
    """All other entries; none in a bare state dict."""

    @property
    def feature_dimension(self) -> int:
        return self.tensors[_FIRST_LAYER].shape[1]

    @property
    def has_torso(self) -> bool:
        return "anchor_points" in self.tensors

    @property
    def n_embeddings(self) -> int:
        """Number of appearance embeddings, by default 10,000."""
        return len(self.tensors[EMBEDDINGS[0]])

    def portrait(self, device: torch.device | str = "cpu") -> Portrait:
        """The portrait in the file, with all of its appearance embeddings, and an untrained torso if it has none."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for the torso, if the file has none
            portrait = Portrait(RELEASED, self.feature_dimension, self.n_embeddings)
        portrait.to(device)  # before it is filled, because that launches kernels, and a process has one device
        self.fill(portrait)
        return portrait

    @torch.no_grad()
    def fill(self, portrait: Portrait) -> None:
        """Copy everything into a portrait of the shape RELEASED, with as many appearance embeddings as it has.

        Raises ValueError if the file has fewer embeddings.
        """
        copy_tensors(self.path, self.tensors, official_state(portrait, self.has_torso, DENSITY_GRID in self.tensors))
        portrait.head_grid.set_bitfield(self.tensors["density_bitfield"])
        portrait.head_grid.mean_density.fill_(float(self.entries.get("mean_density", 0.0)))
        if self.has_torso:
            # The public code keeps the mean beside the state dict, so that a bare one lacks it.
            mean = self.entries.get("mean_density_torso", portrait.torso_grid.alpha_grid.mean())
            portrait.torso_grid.mean_alpha.fill_(float(mean))

    def averaged(self) -> "OfficialFile":
        """The same file with its moving average of the parameters, the entry `ema`, in place of the parameters.

        Raises ValueError if there is no average, or one of other parameters.
        """
        return replace(self, tensors=self.tensors | self.average())

    def average(self) -> dict[str, Tensor]:
        """The moving average of the parameters by their names; raises as :meth:`averaged`."""
        content = self.entries.get("ema")
        shadows = content.get("shadow_params") if isinstance(content, dict) else None
        if not isinstance(shadows, list):
            raise ValueError(
                f"{self.path}: expected an entry ema with shadow_params, got none; pass an epoch file "
                "(ngp_epXXXX.pth): ngp.pth holds the last weights only"
            )
        expected = {name: tensor for name, tensor in self.tensors.items() if is_parameter(name)}
        if len(shadows) != len(expected):
            raise ValueError(
                f"{self.path}: ema: expected {len(expected)} tensors, one per parameter, got {len(shadows)}; "
                "pass a complete epoch file"
            )
        found = dict(zip(expected, shadows, strict=True))
        _require(self.path, "ema: expected the shapes of the model's parameters", _differences(found, expected))
        return found


def read_official_file(path: Path) -> OfficialFile:
    """Read a .pth file that the public code wrote with its default options, and check every tensor.

    Args:
        path: ngp.pth or an epoch file, of a head or of head and torso, or a bare state dict of one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; or tensors that are missing, unexpected or of another shape, which are listed;
            or a number that is none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a checkpoint, got no such file; pass the path of an ngp.pth")
    content = read_tensor_file(path, "cpu", "a file written by torch.save with tensors only", "pass a complete ngp.pth")
    content = content if isinstance(content, dict) else {}
    tensors = content.get("model", content)
    shape = _shape(tensors.get(_FIRST_LAYER)) if isinstance(tensors, dict) else None
    if shape is None or len(shape) != 3:
        raise ValueError(
            f"{path}: expected a state dict of ER-NeRF with {_FIRST_LAYER}, got none; "
            "pass a file that ER-NeRF wrote, whole or its `model` entry alone"
        )
    embeddings = _shape(tensors.get(EMBEDDINGS[0]))
    has_torso = any(name.startswith(("torso_", "anchor_points")) for name in tensors)
    empty = Portrait(RELEASED, shape[1], embeddings[0] if embeddings else 1)
    expected = official_state(empty, has_torso, DENSITY_GRID in tensors)
    kind = "head and torso" if has_torso else "a head"
    _require(
        path,
        f"expected the tensors of {kind} with {shape[1]} audio features, as made with ER-NeRF's default options (-O)",
        _differences(tensors, expected),
    )
    broken = not_finite(content)
    if broken is not None:
        raise ValueError(f"{path}: expected finite numbers, got NaN or infinity in {broken}; pass another checkpoint")
    entries = {name: value for name, value in content.items() if name != "model"} if "model" in content else {}
    for name in _NUMBERS:
        if not _is_number(entries.get(name, 0)):
            raise ValueError(
                f"{path}: {name}: expected a number from 0 on, got {str(entries[name])[:60]!r}; pass a file as ER-NeRF "
                "wrote it"
            )
    return OfficialFile(path, {name: tensors[name] for name in expected}, entries)


def write_official_file(path: Path, tensors: Mapping[str, Tensor], entries: Mapping[str, Any]) -> None:
    """Write tensors and other entries; the file appears once it is complete."""
    model = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    # Given a path, torch writes its name, here a random one, into the file.
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save({**entries, "model": model}, file)


@torch.no_grad()
def copy_tensors(path: Path, tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Copy tensors of a file into others by name; of appearance embeddings the first rows.

    Raises ValueError if the file has fewer embeddings than the target.
    """
    for name, target in targets.items():
        tensor = tensors[name]
        if name in EMBEDDINGS:
            if len(tensor) < len(target):
                raise ValueError(
                    f"{path}: {name}: expected at least {len(target)} rows, one per training frame, got {len(tensor)}; "
                    "pass the capture that the checkpoint was trained on"
                )
            tensor = tensor[: len(target)]
        target.copy_(tensor)


def _differences(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    found = [f"{name}: missing" for name in expected if name not in tensors]
    found += [
        f"{name}: unexpected, {_shape(value) or value!r}" for name, value in tensors.items() if name not in expected
    ]
    for name, target in expected.items():
        if name not in tensors:
            continue
        value, shape = tensors[name], list(target.shape)
        if _shape(value) != shape or value.is_floating_point() != target.is_floating_point():
            found.append(f"{name}: expected {shape} {target.dtype}, got {_shape(value)} {getattr(value, 'dtype', '')}")
        elif follows_from_settings(name) and not torch.equal(value.to(target.dtype), target):
            found.append(f"{name}: expected {target.tolist()}, got {value.tolist()}")
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    return isinstance(value, int | float) and 0 <= value < math.inf  # NaN fails too


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if isinstance(value, Tensor) and value.numel() else None


def _require(path: Path, expected: str, differences: list[str]) -> None:
    if differences:
        raise ValueError(
            f"{path}: {expected}, got {len(differences)} differences; pass such a checkpoint\n- "
            + "\n- ".join(differences)
        )
