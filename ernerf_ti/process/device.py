"""The device of a process, checked before anything else is done."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resolve_device(name: str = "auto") -> "torch.device":
    """The torch device of a name.

    Args:
        name: "auto" (CUDA if it is usable, else the CPU), "cpu", "cuda" or "cuda:0".

    Raises ValueError, in one line, if there is no such device, or it can't be used.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", name)
    if match is None:  # before the import of torch, which takes seconds
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}; pass one of these")
    index = int(match[1] or 0)
    if index != 0:
        raise ValueError(
            f"device: expected cuda:0, the first visible GPU, which is the only one that Taichi uses, got {name}; "
            f"set CUDA_VISIBLE_DEVICES={index} and pass cuda"
        )
    import torch

    if name == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if name == "auto":
        return torch.device("cpu")
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__}, which was built without it; install a CUDA build of torch"
    else:
        reason = "no usable GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    raise ValueError(f"device: expected CUDA, got {reason}, or pass cpu")
