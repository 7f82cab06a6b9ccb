"""The device of a process, checked before anything else is done."""

import os
import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


CudaGraphs = Literal["auto", "parts", "off"]
"""Type of the option `--cuda-graphs`; see :func:`ernerf_ti.process.graphs.cuda_graphs`."""


def resolve_device(name: str = "auto") -> "torch.device":
    """The torch device of a name.

    Args:
        name: "auto" (CUDA if it is usable, else the CPU), "cpu", "cuda" or "cuda:0".

    Raises ValueError, in one line, if there is no such device, or it can't be used.
    """
    check_device_name(name)  # before the import of torch, which takes seconds
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


def check_device_name(name: str) -> None:
    """Raise ValueError for a name that :func:`resolve_device` takes on no machine."""
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}; pass one of these")
    index = int(match[1] or 0)
    if index != 0:
        raise ValueError(
            f"device: expected cuda:0, the first visible GPU, which is the only one that Taichi uses, got {name}; "
            f"set CUDA_VISIBLE_DEVICES={index} and pass cuda"
        )


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that torchrun has started."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def use_own_device() -> None:
    """Leave each process that torchrun has started one GPU to see, and only the first one progress to show.

    Call it before the first use of CUDA, and before tqdm is imported.
    """
    if not started_by_torchrun():
        return
    if not is_first_process():
        os.environ["TQDM_DISABLE"] = "1"
    index, visible = int(os.environ.get("LOCAL_RANK", 0)), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index)] if visible is None else visible.split(",")[index : index + 1]
    if not names:
        raise ValueError(
            f"torchrun: expected a GPU for each process, got process {index} and CUDA_VISIBLE_DEVICES={visible}; start "
            "fewer processes (--nproc-per-node), or pass --device cpu"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = names[0]


def use_deterministic_algorithms() -> None:
    """Let torch and our kernels use only algorithms that give the same bits every time, at some cost in speed.

    Call it before the first use of CUDA: cuBLAS reads its setting when it starts. An operation that has no such
    algorithm then raises a RuntimeError that names it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(True)
    # Our kernels write all of their results; filling new tensors first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
