"""Facts about a run besides its images: model size, machine, versions."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from ernerf_ti.portrait.portrait import Portrait

_PACKAGES = (
    *("ernerf-ti", "taichi", "torch", "numpy", "opencv-python", "mediapipe"),
    *("lpips", "torchvision", "torch-fidelity"),
)


def model_size(portrait: Portrait, checkpoint: Path) -> dict:
    """Number of parameters, their size as 32-bit floats in MB (1e6 bytes), and the size of the checkpoint file.

    The file also holds the occupancy grids, the optimizer state and the capture's data that rendering needs.
    """
    counts = {"head": 0, "torso": 0, "appearance embeddings": 0}
    for name, parameter in portrait.named_parameters():
        part = "appearance embeddings" if "appearance" in name else name.split(".")[0]
        counts[part] += parameter.numel()
    total = sum(counts.values())
    return {
        "parameters": {**counts, "all": total},
        "megabytes": 4e-6 * total,
        "checkpoint_megabytes": 1e-6 * checkpoint.stat().st_size,
    }


def machine(device: torch.device | str) -> dict[str, str | int]:
    """Name of the device, number of CPU threads, and operating system."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = _processor() or platform.processor() or platform.machine()
    return {"device": name, "threads": torch.get_num_threads(), "system": platform.system()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Git commit of the sources, followed by + if they have uncommitted changes; None outside a git repository."""
    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    found = git("rev-parse", "HEAD")
    if found is None or git("ls-files", "--error-unmatch", "__init__.py") is None:  # another project's repository
        return None
    return found + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def _processor() -> str | None:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return None
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if line.startswith("model name"))
    return next((line[1].strip() for line in lines), None)
