"""Files of a training run: all that rendering and resuming need, in one."""

from pathlib import Path
from typing import Any

import torch

from ernerf_ti.files import replacing

FORMAT_VERSION = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values; the file appears when it is complete."""
    with replacing(path) as temporary:
        torch.save({"format_version": FORMAT_VERSION, **content}, temporary)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or another format version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, got no such file; train the portrait first")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise ValueError(
            f"{path}: expected a checkpoint of ernerf-ti, got a file that torch can't read ({type(error).__name__}); "
            "see whether it was copied whole"
        ) from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected a checkpoint of ernerf-ti of format_version {FORMAT_VERSION}, got "
            f"{'another file' if version is None else version}; use the version of ernerf-ti that wrote it"
        )
    return content
