"""Argument checks of the public functions, in one message format: name, expected, got, remedy."""

import operator
from typing import NoReturn

import torch
from torch.compiler import is_compiling

FLOATS = (torch.float32, torch.float64)
_HALF = (torch.bfloat16, torch.float16)


class ArgumentCheck:
    """Checks the tensor arguments of one call against each other.

    The first tensor sets the device, and each named size is set where it first appears.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, str]] = {}
        self.device: torch.device | None = None
        self._device_name = ""

    def tensor(
        self,
        name: str,
        value: torch.Tensor,
        shape: tuple[int | str, ...],
        dtypes: torch.dtype | tuple[torch.dtype, ...],
        differentiable: bool = True,
    ) -> None:
        """Check one argument.

        Args:
            name: what the caller calls it.
            value: the argument.
            shape: sizes; a string names a size that must agree between arguments.
            dtypes: the dtypes allowed.
            differentiable: False if no gradient is computed for this argument: asking for one is
                then an error, so that it can't be mistaken for a zero gradient.

        Raises:
            TypeError: not a tensor.
            ValueError: wrong shape, dtype, device, memory layout, or a gradient is asked for in vain.
        """
        if not isinstance(value, torch.Tensor):
            refuse_non_tensor(name, value)
        self._check_shape(name, value, shape)
        dtypes = dtypes if isinstance(dtypes, tuple) else (dtypes,)
        if value.dtype not in dtypes:
            allowed = " or ".join(_dtype_name(d) for d in dtypes)
            raise ValueError(
                f"{name}: expected dtype {allowed}, got {_dtype_name(value.dtype)}; "
                f"convert it with .to(torch.{_dtype_name(dtypes[0])})"
            )
        if self.device is None:
            self.device, self._device_name = value.device, name
        elif value.device != self.device:
            raise ValueError(
                f"{name}: expected device {self.device} (as {self._device_name}), got {value.device}; "
                f"move it with .to('{self.device}')"
            )
        if not value.is_contiguous():
            raise ValueError(
                f"{name}: expected a contiguous tensor, got strides {tuple(value.stride())} "
                f"for shape {_shape_text(value.shape)}; call .contiguous()"
            )
        if not is_compiling() and value.is_neg():  # Dynamo can't trace is_neg; operators take any layout
            raise ValueError(
                f"{name}: expected a tensor that holds its own values, got a lazily negated view; call .resolve_neg()"
            )
        if not differentiable and value.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name}: expected a tensor that requires no gradient, because none is computed for it, "
                f"got requires_grad=True; pass it with .detach()"
            )

    def _check_shape(self, name: str, value: torch.Tensor, shape: tuple[int | str, ...]) -> None:
        fits = value.dim() == len(shape)
        if fits:
            for size, expected in zip(value.shape, shape, strict=True):
                if isinstance(expected, str):
                    known = self._sizes.setdefault(expected, (size, name))
                    expected = known[0]
                if size != expected:
                    fits = False
        if fits:
            return
        others = {s: self._sizes[s] for s in shape if isinstance(s, str) and self._sizes.get(s, (0, name))[1] != name}
        where = ", ".join(f"{s} = {size} (from {origin})" for s, (size, origin) in others.items())
        raise ValueError(
            f"{name}: expected shape {_shape_text(shape)}{' with ' + where if where else ''}, "
            f"got {_shape_text(value.shape)}; reshape it or pass the matching tensor"
        )


def refuse_non_tensor(name: str, value: object) -> NoReturn:
    """Raise the TypeError for an argument that should have been a tensor."""
    raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}; use torch.as_tensor")


def expect(condition: bool, name: str, expected: str, got: object, remedy: str) -> None:
    """Raise ValueError in the package's message format unless `condition` holds."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got}; {remedy}")


def expect_integer(name: str, value: int, low: int, high: int | None, remedy: str) -> int:
    """`value` as an int if it is one from `low` to `high` (None: no limit), else TypeError or ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}; {remedy}") from None
    in_range = number >= low and (high is None or number <= high)
    expect(in_range, name, f"at least {low}" if high is None else f"{low} to {high}", number, remedy)
    return number


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor laid out as kernels take it: autograd may pass gradients as expanded or lazily negated views."""
    if is_compiling() or tensor.is_neg():  # the check is cheaper than a call that does nothing
        tensor = tensor.resolve_neg()
    return tensor.contiguous()


def cast_under_autocast(tensor: torch.Tensor, half_allowed: bool = False) -> torch.Tensor:
    """A float16 or bfloat16 tensor as float32 under `torch.autocast`; any other argument as it is.

    Positions and distances need float32, whatever the precision of the networks. Outside of autocast half
    precision is left to the checks, which refuse it.

    Args:
        tensor: the argument.
        half_allowed: leave float16 as it is.
    """
    if (
        isinstance(tensor, torch.Tensor)
        and tensor.dtype in _HALF
        and not (half_allowed and tensor.dtype == torch.float16)
        and tensor.device.type in ("cpu", "cuda")
        and torch.is_autocast_enabled(tensor.device.type)
    ):
        return tensor.float()
    return tensor


def _shape_text(shape) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
