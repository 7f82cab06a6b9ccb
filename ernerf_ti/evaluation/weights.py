"""Weight files of the learned metrics: which they are, and where they are expected."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.train.perceptual import ALEXNET_FILE


@dataclass(frozen=True)
class WeightFile:
    """A published weight file."""

    names: tuple[str, ...]
    """File names under which it is published; the first is the usual one."""
    description: str


ALEXNET = WeightFile((ALEXNET_FILE,), "AlexNet from PyTorch's model zoo")
VGG16 = WeightFile(("vgg16-397923af.pth",), "VGG16 from PyTorch's model zoo")
INCEPTION = WeightFile(
    ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    "the Inception network of FID, as published by torch-fidelity or pytorch-fid",
)
ARCFACE = WeightFile(
    ("arcface_backbone.pth", "backbone.pth"),
    "an IResNet trained with ArcFace (backbone.pth of insightface's arcface_torch)",
)
SYNCNET = WeightFile(("syncnet_v2.model",), "SyncNet, as published by its authors")


def weights_folder() -> Path:
    """Default folder of all weights: where torch keeps downloaded ones; the variable TORCH_HOME moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(file: WeightFile, folder: Path) -> Path | NotComputed:
    """Path of a weight file, or which one is missing."""
    for name in file.names:
        if (folder / name).is_file():
            return folder / name
    return NotComputed(f"needs the weights of {file.description}", file.names[0], str(folder))


def loading_problem(weights: Path | NotComputed, load: Callable[[], object], packages: str = "") -> NotComputed | None:
    """Why a network can't be loaded; None if it can.

    Args:
        weights: result of :func:`find_weights`.
        load: loads the network.
        packages: name of the packages that loading needs besides torch, for the message.
    """
    if isinstance(weights, NotComputed):
        return weights
    try:
        load()
    except (ImportError, RuntimeError) as error:  # torchvision raises RuntimeError beside a different build of torch
        if not packages:
            raise
        return NotComputed(
            f"needs the packages {packages} and torchvision ({error}): pip install 'ernerf-ti[evaluate]', with "
            "torchvision of the same build as torch"
        )
    except ValueError as error:
        return NotComputed(str(error))
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without executing anything in the file.

    Raises ValueError for any other content.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise ValueError(
            f"{path}: expected a weight file, got one that torch can't read ({type(error).__name__}); "
            "check that it was copied completely"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: expected a state dict of tensors, got other content; use the published file")
    return content


def load_exactly(module: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load weights into a module.

    Raises ValueError if names or shapes differ, naming the first ones.
    """
    expected = module.state_dict()
    # Files written by old versions of torch lack the counters of batch normalization, which inference does not use.
    weights = {**{k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}, **weights}
    wrong = sorted(set(expected) ^ set(weights))
    wrong += [name for name in expected if name in weights and expected[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"{path}: expected the {len(expected)} tensors of the published network, got others "
            f"({', '.join(wrong[:3])}); use the published file"
        )
    module.load_state_dict(weights)
