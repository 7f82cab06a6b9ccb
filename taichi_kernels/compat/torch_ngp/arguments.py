"""Arguments as the family passes them, made fit for the kernels."""

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, refuse_non_tensor

FLOATING = (*FLOATS, torch.float16, torch.bfloat16)


def kernel_dtype(x: Tensor) -> torch.dtype:
    """float32 under autocast and for half precision, as in the family; else the dtype of `x`."""
    autocast = torch.is_autocast_enabled(x.device.type)
    return torch.float64 if x.dtype == torch.float64 and not autocast else torch.float32


class Arguments(ArgumentCheck):
    """The tensors of one call, in one floating-point dtype, contiguous, on one device.

    The first one that is taken sets dtype and device. Gradients flow back through the conversions.
    """

    dtype: torch.dtype | None = None

    def floats(self, name: str, value: Tensor, shape: tuple[int | str, ...]) -> Tensor:
        """`value` in the shape [n, k] or [n], after a check.

        More leading axes than one are flattened; one number a row may also come as [n, 1].

        Raises TypeError or ValueError as :meth:`ArgumentCheck.tensor`.
        """
        if not isinstance(value, Tensor):
            refuse_non_tensor(name, value)
        if value.dtype in FLOATING:
            self.dtype = self.dtype or kernel_dtype(value)
            value = value.to(self.dtype)
        if len(shape) == 2 and value.dim() > 1 and value.shape[-1] == shape[1]:
            value = value.reshape(-1, shape[1])
        elif len(shape) == 1 and value.dim() == 2 and value.shape[1] == 1:
            value = value[:, 0]
        value = value.resolve_neg().contiguous()
        self.tensor(name, value, shape, FLOATS)
        return value

    def integers(self, name: str, value: Tensor, shape: tuple[int | str, ...]) -> Tensor:
        """`value` as contiguous int32, after a check."""
        if isinstance(value, Tensor) and not value.is_floating_point():
            value = value.int().contiguous()
        self.tensor(name, value, shape, torch.int32)
        return value
