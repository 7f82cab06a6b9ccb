"""Checkpoint files: everything that rendering and resuming need, in one.

Entries of a checkpoint, format version 4:

- `portrait_config`, `portrait`: configuration and state dict of the portrait.
- `capture`: `extractor`, `feature_dimension`, `width`, `height`, `n_train` of the capture it was trained on.
- `scene`: `intrinsics` [4] in pixels, `poses` [n, 4, 4] pose_world_from_camera, `eye_closures` [n],
  `background` [H, W, 3] uint8; with Whisper features `speech`, the state of their projection.
- `train_config`, `stage`, `step`, `stage_finished`, `stage_seconds`, `cameras`, `optimizer`, `average`: the state of
  the training.
- `silence`: windows of silence that the run trains on, [P, L, steps, C]; none in runs without them.
- `ernerf_ti_version`: of the program that wrote it; none before 0.2.
- `consent`: the record of the person's consent, if the capture has one; see :mod:`ernerf_ti.media.provenance.consent`.
- `baked`, `baked_from`: of a baked portrait, which lacks what only training needs: the stored part of the head, see
  :class:`ernerf_ti.bake.baked_head.BakedHead`, and name and SHA-256 of the run's checkpoint.
- `official`: additional content of a converted checkpoint of the public code; removed by any training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ernerf_ti
from ernerf_ti.audio.extractors import WHISPER, current_name
from ernerf_ti.audio.speech_projection import SpeechProjection
from ernerf_ti.media.whole_files import replacing
from ernerf_ti.run.tensor_files import not_finite, read_tensor_file, tensors_of

FORMAT_VERSION = 4

_DAMAGED = "the file is damaged, take another copy"

_ENTRIES: dict[str, type] = {"portrait_config": dict, "portrait": dict, "capture": dict, "scene": dict}
_CAPTURE: dict[str, type] = {"extractor": str, "feature_dimension": int, "width": int, "height": int, "n_train": int}
_SCENE = {
    "intrinsics": ((4,), torch.float64),
    "poses": ((-1, 4, 4), torch.float32),
    "eye_closures": ((-1,), torch.float32),
    "background": ((-1, -1, 3), torch.uint8),
}
_LARGEST = 1 << 14  # pixels, of a capture's side
_FARTHEST = 1e4  # scene units, of a camera from the head


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values; the previous checkpoint stays until the new one is complete.

    Equal content gives equal bytes.
    """
    n_bytes = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors_of(content))
    # Given a path, torch writes its name, here a random one, into the file.
    with replacing(path, n_bytes) as temporary, open(temporary, "wb") as file:
        versions = {"format_version": FORMAT_VERSION, "ernerf_ti_version": ernerf_ti.__version__}
        torch.save(versions | content, file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this or an earlier format version; nothing in the file is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, a damaged one, or one of a newer format version.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a checkpoint, got no such file; train the portrait first")
    content = read_tensor_file(path, device, "a checkpoint of ernerf-ti", "take another copy, or train the portrait")
    version = content.get("format_version") if isinstance(content, dict) else None
    if version not in range(1, FORMAT_VERSION + 1):
        raise ValueError(
            f"{path}: expected a checkpoint of ernerf-ti of format_version 1 to {FORMAT_VERSION}, got "
            f"{'another file' if version is None else version}; use the version of ernerf-ti that wrote it"
        )
    if version == 1:
        content = _from_version_1(content, path)
    if version != FORMAT_VERSION:
        content = _with_codes(content)
    for name, kind in _ENTRIES.items():
        state_entry(content, name, kind, path)
    for name, kind in _CAPTURE.items():
        value = state_entry(content["capture"], name, kind, path)
        if kind is int and value < 1:
            raise ValueError(f"{path}: expected {name} of the capture to be at least 1, got {value}; {_DAMAGED}")
    _check_scene(content, path)
    broken = not_finite({name: content.get(name) for name in ("portrait", "cameras", "average")})
    if broken is not None:
        raise ValueError(f"{path}: expected finite numbers, got NaN or infinity in {broken}; {_DAMAGED}")
    content["capture"]["extractor"] = current_name(content["capture"]["extractor"])
    if content["capture"]["extractor"] == WHISPER:
        SpeechProjection.from_state(state_entry(content["scene"], "speech", dict, path), path)
    return content


def _check_scene(content: dict[str, Any], path: Path) -> None:
    """Bounded by what the values can mean."""
    capture, scene = content["capture"], content["scene"]
    for name, (shape, dtype) in _SCENE.items():
        tensor = state_entry(scene, name, Tensor, path)
        if len(tensor.shape) != len(shape) or any(n not in (-1, m) for n, m in zip(shape, tensor.shape, strict=True)):
            raise ValueError(f"{path}: expected {name} of shape {list(shape)}, got {list(tensor.shape)}; {_DAMAGED}")
        if (tensor.dtype == torch.uint8) != (dtype == torch.uint8) or tensor.is_complex():
            raise ValueError(f"{path}: expected {name} as {dtype}, got {tensor.dtype}; {_DAMAGED}")
    width, height = capture["width"], capture["height"]
    poses, intrinsics = scene["poses"].double(), scene["intrinsics"].double()
    fx, fy, cx, cy = intrinsics.tolist()
    side = max(width, height)
    closures, rotations = scene["eye_closures"], poses[:, :3, :3]
    differences = (rotations @ rotations.mT - torch.eye(3, dtype=poses.dtype, device=poses.device)).abs()
    last_row = poses.new_tensor([0, 0, 0, 1])
    for fits, what in (
        (side <= _LARGEST, f"a size of at most {_LARGEST} pixels"),
        (scene["background"].shape[:2] == (height, width), f"a background of {width}x{height} pixels"),
        (0.01 * side < min(fx, fy) and max(fx, fy) < 1000 * side, "a focal length of about the size of the picture"),
        (abs(cx) < 10 * side and abs(cy) < 10 * side, "a principal point near the picture"),
        (len(poses) > 0 and len(closures) == len(poses), "as many poses as eye closures, at least one"),
        (bool(((closures >= 0) & (closures <= 1)).all()), "eye closures from 0 to 1"),
        (bool((differences < 1e-2).all() and (poses[:, 3] == last_row).all()), "poses that are rotations"),
        (bool((poses[:, :3, 3].abs() < _FARTHEST).all()), f"poses at most {_FARTHEST:g} units from the head"),
    ):
        if not fits:
            raise ValueError(f"{path}: expected {what} in the entry scene, got something else; {_DAMAGED}")


def state_entry(content: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    """An entry of a checkpoint.

    Args:
        content: entries by name.
        name: of the entry.
        kind: its expected type.
        path: of the file, for messages.

    Raises ValueError if it is missing or of another type.
    """
    if name not in content:
        raise ValueError(f"{path}: expected the entry {name}, got none; pass a checkpoint that holds it")
    value = content[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(
            f"{path}: expected the entry {name} as {kind.__name__}, got {type(value).__name__}; {_DAMAGED}"
        )
    return value


def load_state(target: Any, state: Mapping[str, Any], path: Path, name: str) -> None:
    """Load a state dict into a module, an optimizer or another object that has `load_state_dict`.

    Args:
        target: the object.
        state: its state dict.
        path, name: file and entry, for messages.

    Raises ValueError if the state does not fit.
    """
    if isinstance(target, torch.nn.Module):
        check_state(target.state_dict(), state, path, name)
    try:
        target.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a state of {name} that fits the configuration, got "
            f"{' '.join(str(error).split())[:200]} ({type(error).__name__}); {_DAMAGED}"
        ) from error


def check_state(expected: Mapping[str, Tensor], state: Mapping[str, Any], path: Path, name: str) -> None:
    """Raise ValueError, naming the first difference, unless a state dict has the names and shapes that are expected."""
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(map(str, state.keys() - expected.keys()))
    difference = ""
    if missing or unknown:
        difference = "; ".join(
            f"{what} {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
            for what, names in (("no tensor", missing), ("an unknown tensor", unknown))
            if names
        )
    else:
        for key, tensor in expected.items():
            shape = list(state[key].shape) if isinstance(state[key], Tensor) else type(state[key]).__name__
            if shape != list(tensor.shape):
                difference = f"{shape} instead of {list(tensor.shape)} for {key}"
                break
    if difference:
        raise ValueError(f"{path}: expected tensors of {name} that fit the configuration, got {difference}; {_DAMAGED}")


def _from_version_1(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Version 1 had the portrait's configuration within that of the training, and other names."""
    config = state_entry(content, "train_config", dict, path)
    content = {
        **content,
        "portrait_config": state_entry(config, "portrait", dict, path),
    }
    renamed = {
        "identity_codes.codes": "appearance.embeddings",
        "colour_net.": "color_net.",
        "head.conditioning.": "head.region_attention.",
    }
    for name in ("portrait", "average"):
        if isinstance(content.get(name), dict):
            for old, new in renamed.items():
                content[name] = {key.replace(old, new): value for key, value in content[name].items()}
    for old, new in {"optimiser": "optimizer", "ended": "stage_finished"}.items():
        if old in content:
            content[new] = content.pop(old)
    if content.get("stage") == "fine":
        content["stage"] = "finetune"
    scene = dict(state_entry(content, "scene", dict, path))
    if "eye_areas" in scene:
        scene["eye_closures"] = scene.pop("eye_areas")
    return {**content, "scene": scene}


def _with_codes(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 had no mean audio code, and version 3 no codes of training frames."""
    content = {**content, "format_version": FORMAT_VERSION}
    encoder = "head.audio_encoder."
    portrait = content.get("portrait")
    if isinstance(portrait, dict) and isinstance(bias := portrait.get(f"{encoder}projection.2.bias"), Tensor):
        missing = {
            f"{encoder}code_mean": torch.zeros_like(bias),
            f"{encoder}training_codes": bias.new_zeros(0, len(bias)),
        }
        content["portrait"] = missing | portrait
    return content
