"""The floating-point format of the values in networks, chosen for a device."""

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bf16", "fp16"]
"""Type of the option `--precision`."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def resolve_precision(name: str, device: "torch.device | str") -> "torch.dtype":
    """The format of a name.

    Args:
        name: "float32", "bf16", "fp16", or "auto": float32 on the CPU; on CUDA bf16 if the GPU computes in it (compute
            capability 8.0 and higher), else fp16.
        device: where the networks are evaluated.

    Raises ValueError, in one line, for another name, or for bf16 on a GPU that would only emulate it.
    """
    if name not in PRECISIONS:  # before the import of torch, which takes seconds
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {name!r}; pass one of these")
    import torch

    is_cuda = torch.device(device).type == "cuda"
    has_bf16 = not is_cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        name = "float32" if not is_cuda else "bf16" if has_bf16 else "fp16"
    if name == "bf16" and not has_bf16:
        card = torch.cuda.get_device_name()
        raise ValueError(
            f"precision: expected a GPU of compute capability 8.0 or higher for bf16, got {card}; "
            "pass auto, fp16 or float32"
        )
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
