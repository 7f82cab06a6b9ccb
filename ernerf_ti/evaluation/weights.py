"""Files of weights that metrics need: which, and where they go."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.train.perceptual import ALEXNET_FILE


@dataclass(frozen=True)
class WeightFile:
    """A file that others published."""

    names: tuple[str, ...]
    """Under which it is spread; the first is the usual one."""
    what: str


ALEXNET = WeightFile((ALEXNET_FILE,), "AlexNet of PyTorch's model zoo")
VGG16 = WeightFile(("vgg16-397923af.pth",), "VGG16 of PyTorch's model zoo")
INCEPTION = WeightFile(
    ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    "the Inception of FID, as torch-fidelity or pytorch-fid publish it",
)
SYNCNET = WeightFile(("syncnet_v2.model",), "SyncNet, as its authors publish it with their code")


def weights_folder() -> Path:
    """Where all weights are looked for: torch's own folder, as training does; TORCH_HOME moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(file: WeightFile, folder: Path) -> Path | NotComputed:
    """The file, or what is missing."""
    for name in file.names:
        if (folder / name).is_file():
            return folder / name
    return NotComputed(f"needs the weights of {file.what}", file.names[0], str(folder))


def what_is_missing(weights: Path | NotComputed, load: Callable[[], object], packages: str = "") -> NotComputed | None:
    """What keeps a network from being loaded, or None.

    Args:
        weights: what :func:`find_weights` found.
        load: loads it.
        packages: that loading needs besides torch, as a message names them.
    """
    if isinstance(weights, NotComputed):
        return weights
    try:
        load()
    except (ImportError, RuntimeError) as error:  # torchvision raises the latter beside another build of torch
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
    """A state dict; nothing in the file is executed.

    Raises ValueError for a file that is not one.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise ValueError(
            f"{path}: expected a file of weights, got one that torch can't read ({type(error).__name__}); "
            "see whether it was copied whole"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: expected a table of tensors, got another content; pass the published file")
    return content


def load_exactly(module: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load weights into a module.

    Raises ValueError if names or shapes differ, naming the first ones.
    """
    expected = module.state_dict()
    # Files of older versions of torch lack the counters of batch normalisation, which nothing reads.
    weights = {**{k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}, **weights}
    wrong = sorted(set(expected) ^ set(weights))
    wrong += [name for name in expected if name in weights and expected[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"{path}: expected {len(expected)} tensors of the published network, got others "
            f"({', '.join(wrong[:3])}); pass the published file"
        )
    module.load_state_dict(weights)
