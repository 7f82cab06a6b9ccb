"""Checkpoint files: all that rendering and resuming need, in one.

Entries of a checkpoint, format version 2:

- `portrait_config`, `portrait`: configuration and state dict of the portrait.
- `capture`: `extractor`, `feature_dimension`, `width`, `height`, `n_train` of the capture it was trained on.
- `scene`: `intrinsics` [4] in pixels, `poses` [n, 4, 4] pose_world_from_camera, `eye_closures` [n],
  `background` [H, W, 3] uint8.
- `train_config`, `stage`, `step`, `ended`, `cameras`, `optimizer`, `average`: the state of the training.
- `official`: what a converted checkpoint of the public code holds beyond that; absent after any training.
"""

from pathlib import Path
from typing import Any

import torch

from ernerf_ti.media.files import replacing

FORMAT_VERSION = 2


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values; the file appears once it is complete."""
    with replacing(path) as temporary:
        torch.save({"format_version": FORMAT_VERSION, **content}, temporary)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this or an earlier format version; nothing in the file is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or one of a newer format version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, got no such file; train the portrait first")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise ValueError(
            f"{path}: expected a checkpoint of ernerf-ti, got a file that torch can't read ({type(error).__name__}); "
            "check that it was copied completely"
        ) from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version == 1:
        return _from_version_1(content)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected a checkpoint of ernerf-ti of format_version 1 to {FORMAT_VERSION}, got "
            f"{'another file' if version is None else version}; use the version of ernerf-ti that wrote it"
        )
    return content


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no configuration of the portrait by itself, and other names."""
    content = {**content, "format_version": FORMAT_VERSION, "portrait_config": content["train_config"]["portrait"]}
    for name in ("portrait", "average"):
        if name in content:
            content[name] = {
                key.replace("identity_codes.", "appearance.").replace("colour_net.", "color_net."): value
                for key, value in content[name].items()
            }
    if "optimiser" in content:
        content["optimizer"] = content.pop("optimiser")
    if content.get("stage") == "fine":
        content["stage"] = "finetune"
    scene = dict(content["scene"])
    scene["eye_closures"] = scene.pop("eye_areas")
    return {**content, "scene": scene}
